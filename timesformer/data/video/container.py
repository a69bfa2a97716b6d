"""Opening of a file with FFmpeg: no other file and no network is read, and one of its video streams is chosen."""

import os
from pathlib import Path

import av
from av.container import InputContainer
from av.error import ArgumentError
from av.stream import Disposition
from av.video.stream import VideoStream

from timesformer.data.video.error import VideoError

_LISTS = {"concat", "dash", "hls", "image2", "imf", "webm_dash_manifest"}
"""Formats that are lists of other files; image2 is told by a name such as `a%03d.gif`, which a video may have too."""
_ALLOWED = ",".join(sorted(av.formats_available - _LISTS))
_HEADS = (b"#EXTM3U", b"ffconcat", b"<MPD", b"<CompositionPlaylist")
_HEAD = 2048  # bytes in which these are searched for


def open_container(path: Path | str) -> InputContainer:
    """Open a local file, whatever its name: `12:30.mp4` and `http:z.mp4` are names of files, never of protocols.

    Raises FFmpegError or OSError for a file that cannot be opened, VideoError for a list of other files.
    """
    options = {"protocol_whitelist": "file", "format_whitelist": _ALLOWED}
    name = os.path.abspath(path)
    try:
        return av.open("file:" + name, options=options)
    except ArgumentError:
        with open(name, "rb") as file:
            head = file.read(_HEAD)
        if any(begin in head for begin in _HEADS):
            raise VideoError(path, "a list of other files, not a video", "not-video") from None
        return av.open(_Nameless(name), "r", options=options)


class _Nameless:
    """A file whose name FFmpeg does not see, so that it is told by its content alone."""

    def __init__(self, path: str) -> None:
        file = open(path, "rb")  # noqa: SIM115 - open as long as the container reads
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


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
