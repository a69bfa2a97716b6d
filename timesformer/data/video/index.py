"""Table of the frames of a video stream, from the container's index if it is complete, otherwise from all packets."""

from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream

from timesformer.data.video.mp4 import read_track

NO_FRAMES = ("the video stream holds no frames", "no-frames")
_KEY, _DISCARD = 1, 2  # flags of an entry of FFmpeg's index


class IndexFault(Exception):
    """Error for a stream that is truncated or has no frames, with a reason and a kind in one word."""

    def __init__(self, reason: str, kind: str = "truncated") -> None:
        super().__init__(reason)
        self.kind = kind


@dataclass(frozen=True)
class FrameTable:
    """Table of the frames of a stream, in display order.

    stamps: presentation time stamps in ascending order, in units of the stream's time base; None if the container has
        none (or not one per frame), so that frames can only be counted from the start
    key_frames: indices of the frames at which decoding can start; targets: time stamp to seek to for each of them
    source: "index", or "packets" if the whole file had to be read
    """

    num_frames: int
    stamps: list[int] | None
    key_frames: list[int]
    targets: list[int]
    source: str

    def start(self, index: int) -> int:
        """Return the position in `key_frames` at which decoding of a frame must start."""
        return max(bisect_right(self.key_frames, index) - 1, 0)


def read_table(path: Path, container: av.container.InputContainer, stream: VideoStream) -> FrameTable:
    """Read the table of a stream that was just opened.  The position in the container is undefined afterwards.

    Raises IndexFault for a stream that is truncated or has no frames, FFmpegError for one that cannot be read.
    """
    return _from_index(path, container, stream) or _from_packets(container, stream)


def _from_index(path: Path, container: av.container.InputContainer, stream: VideoStream) -> FrameTable | None:
    """Read the table from the index of an MP4 or QuickTime file; None if the index does not determine it.

    Other formats index only key frames (Matroska, WebM) or have no presentation times (AVI).
    """
    entries = getattr(stream, "index_entries", None)  # not in older versions of PyAV
    if "mp4" not in container.format.name.split(",") or not entries or len(entries) != stream.frames:
        return None
    track = read_track(path, stream.id)
    if track is None or track.edits != 1 or (track.offsets is not None and len(track.offsets) != len(entries)):
        return None
    count = len(entries)
    columns = zip(*((entry.timestamp, entry.pos, entry.size, entry.flags) for entry in entries), strict=True)
    decoded, position, size, flags = (np.fromiter(column, np.int64, count) for column in columns)
    key = (flags & _KEY) != 0
    if (flags & _DISCARD).any() or not key[0] or (size <= 0).any() or (np.diff(decoded) <= 0).any():
        return None
    there = int((position + size <= path.stat().st_size).sum())
    if there < count:
        raise IndexFault(f"truncated: has {there} of {count} frames")
    shown = decoded if track.offsets is None else decoded + track.offsets
    order = np.argsort(shown, kind="stable")
    places = np.flatnonzero(key[order])
    keys = order[places]  # numbers in decoding order
    if (np.diff(shown[order]) <= 0).any() or (np.diff(keys) <= 0).any():
        return None
    first = next(packet for packet in container.demux(stream))
    if first.pts is None or first.dts != decoded[0] or first.size != size[0]:
        container.seek(0)
        return None
    shown = shown + (first.pts - shown[0])
    # The demuxer seeks to the last key frame decoded at or before the target.
    following = np.append(decoded[keys[1:]], np.iinfo(np.int64).max)
    targets = np.minimum(shown[keys], following - 1)
    return FrameTable(count, shown[order].tolist(), places.tolist(), targets.tolist(), "index")


def _from_packets(container: av.container.InputContainer, stream: VideoStream) -> FrameTable:
    packets = [packet for packet in container.demux(stream) if packet.size]
    if stream.frames > len(packets):
        raise IndexFault(f"truncated: has {len(packets)} of {stream.frames} frames")
    hidden = _never_shown if stream.codec_context.name in ("vp8", "libvpx") else lambda packet: False
    # An edit list may remove a packet.
    packets = [packet for packet in packets if not packet.is_discard and not hidden(packet)]
    if not packets:
        raise IndexFault(*NO_FRAMES)
    told = [packet.pts for packet in packets if packet.pts is not None]
    # AVI stores only the decoding order, and FFmpeg's guess at the display order may merely repeat it.
    guessed = container.format.name == "avi" and stream.codec_context.has_b_frames and told == sorted(told)
    if len(set(told)) < len(packets) or guessed:
        return FrameTable(len(packets), None, [0], [0], "packets")
    packets.sort(key=lambda packet: packet.pts or 0)
    keys = sorted({0, *(number for number, packet in enumerate(packets) if packet.is_keyframe)})
    # Seeking in MPEG streams uses decoding times.
    decoding = container.format.name in ("mpegts", "mpeg")
    stamps = [packet.pts or 0 for packet in packets]
    targets = [packets[key].dts or stamps[key] if decoding else stamps[key] for key in keys]
    return FrameTable(len(packets), stamps, keys, targets, "packets")


def _never_shown(packet: av.Packet) -> bool:
    """Return True for a VP8 packet whose picture is only a reference for others (RFC 6386, section 9.1: show_frame)."""
    return not bytes(packet)[0] & 0x10
