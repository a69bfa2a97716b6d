"""Opening of a file with FFmpeg: no other file and no network is read, and one of its video streams is chosen."""

import os
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from timesformer.data.video.error import VideoError

_LISTS = ("concat", "dash", "hls", "image2", "imf")
"""Formats that are lists of other files."""


def open_container(path: Path | str) -> InputContainer:
    """Open a local file, whatever its name: `12:30.mp4` and `http:z.mp4` are names of files, never of protocols.

    Raises FFmpegError or OSError for a file that cannot be opened, VideoError for a list of other files.
    """
    container = av.open("file:" + os.path.abspath(path), options={"protocol_whitelist": "file"})
    if container.format.name in _LISTS:
        container.close()
        raise VideoError(path, "a list of other files, not a video", "not-video")
    return container


def choose_stream(container: InputContainer) -> VideoStream | None:
    """Return the video stream that FFmpeg would play; None if there is none.

    The cover picture of an audio file is a video stream too, and is never chosen.  A stream of one frame, such as a
    thumbnail, is only chosen if there is no other.
    """
    films = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    found = [stream for stream in films if stream.frames != 1] or films
    best = container.streams.best("video")
    for stream in found:
        if stream is best:
            return stream
    return max(found, key=_preference, default=None)


def _preference(stream: VideoStream) -> tuple[int, int]:
    codec = stream.codec_context
    return int(stream.disposition & Disposition.default), codec.width * codec.height if codec is not None else 0
