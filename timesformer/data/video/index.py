"""Table of the frames of a video stream, from the container's index if it is complete, otherwise from all packets."""

from array import array
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream

from timesformer.data.video.fields import SecondFields, has_second_fields
from timesformer.data.video.mp4 import read_track
from timesformer.data.video.whole import is_cut_off

NO_FRAMES = ("the video stream holds no frames", "no-frames")
_KEY, _DISCARD = 1, 2  # flags of an entry of FFmpeg's index
_NONE, _MOST = np.iinfo(np.int64).min, np.iinfo(np.int64).max  # a missing stamp, and one after all others
_ENTRY = np.dtype([("timestamp", "i8"), ("pos", "i8"), ("size", "i8"), ("flags", "i8")])
_DECODING_ORDER = ("avi", "asf")
"""Formats whose stamps may follow the decoding order alone; then decoded frames have them in another order."""
_INVENTED = ("mpegvideo",)
"""Formats without stamps, for which FFmpeg makes up some that are not those of the pictures."""
_NUMBERED = ("dirac",)
"""Formats whose stamps are numbers of frames, not times."""
_MARKED_WRONGLY = ("apng",)
"""Formats in which pictures are marked as key frames that are drawn over the ones before."""
_FURTHEST = 64
"""Most places between decoding and display order; in a file joined from several, stamps may begin anew."""


class IndexFault(Exception):
    """Error for a stream that is truncated or has no frames, with a reason and a kind in one word."""

    def __init__(self, reason: str, kind: str = "truncated") -> None:
        super().__init__(reason)
        self.kind = kind


@dataclass(frozen=True)
class FrameTable:
    """Table of the frames of a stream, in display order.

    stamps: presentation time stamps in ascending order, in units of the stream's time base, by which decoded frames are
        told apart; None if the container has none (or not one per frame), so that frames are counted from the start
    times: time stamps from which the times of the frames are derived, or None
    last: duration of the last frame in the same units, 0 if unknown
    key_frames: indices of the frames at which decoding can start; targets: time stamp to seek to for each of them, None
        for the start of the file
    source: "index", or "packets" if the whole file had to be read
    doubts: True if the packets do not tell which pictures are shown (see `timesformer.data.video.beginning`)
    positions: offset of each frame's packet in the file, where time stamps alone do not verify a seek; otherwise None
    paired: True if a picture may take two packets, one for each of its fields
    """

    num_frames: int
    stamps: np.ndarray | None
    times: np.ndarray | None
    last: int
    key_frames: list[int]
    targets: list[int | None]
    source: str
    doubts: bool = False
    positions: np.ndarray | None = None
    paired: bool = False

    def start(self, index: int) -> int:
        """Return the position in `key_frames` at which decoding of a frame must start."""
        return max(bisect_right(self.key_frames, index) - 1, 0)

    def number(self, stamp: int | None) -> int:
        """Return the index of the frame with this time stamp; -1 for none."""
        if stamp is None or self.stamps is None:
            return -1
        place = int(np.searchsorted(self.stamps, stamp))
        return place if place < self.num_frames and self.stamps[place] == stamp else -1


def read_table(path: Path, container: av.container.InputContainer, stream: VideoStream) -> FrameTable:
    """Read the table of a stream that was just opened.  The position in the container is undefined afterwards.

    Raises IndexFault for a stream that is truncated or has no frames, FFmpegError for one that cannot be read.
    """
    return _from_index(path, container, stream) or _from_packets(path, container, stream)


def _from_index(path: Path, container: av.container.InputContainer, stream: VideoStream) -> FrameTable | None:
    """Read the table from the index of an MP4 or QuickTime file; None if the index does not determine it.

    Other formats index only key frames (Matroska, WebM) or have no presentation times (AVI).
    """
    entries = stream.index_entries
    if "mp4" not in container.format.name.split(",") or not entries or len(entries) != stream.frames:
        return None
    track = read_track(path, stream.id)
    if track is None or track.edits != 1 or (track.offsets is not None and len(track.offsets) != len(entries)):
        return None
    count = len(entries)
    columns = ((entry.timestamp, entry.pos, entry.size, entry.flags) for entry in entries)
    found = np.fromiter(columns, _ENTRY, count)
    decoded, position, size, flags = (np.ascontiguousarray(found[name]) for name in found.dtype.names or ())
    key = (flags & _KEY) != 0
    if (flags & _DISCARD).any() or not key[0] or (size <= 0).any() or (np.diff(decoded) <= 0).any():
        return None
    if (second := _second_fields(stream)) is not None and has_second_fields(path, second, position.tolist()):
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
    following = np.append(decoded[keys[1:]], _MOST)
    targets = np.minimum(shown[keys], following - 1)
    stamps, doubts = shown[order], bool(places[0] > 0)
    return FrameTable(count, stamps, stamps, track.last, places.tolist(), targets.tolist(), "index", doubts)


def _vp8_hidden(data: memoryview) -> bool:
    """Return True for a picture that is a mere reference (RFC 6386, section 9.1: show_frame)."""
    return not data[0] & 0x10


def _dirac_hidden(data: memoryview) -> bool:
    """Return True for the end of a sequence (parse code 0x10), which is no picture."""
    return len(data) == 13 and data[4] == 0x10


_HIDDEN = {"vp8": _vp8_hidden, "libvpx": _vp8_hidden, "dirac": _dirac_hidden}
"""{decoder: whether a packet with these bytes is not shown}."""


def _second_fields(stream: VideoStream) -> SecondFields | None:
    if stream.codec_context.name != "h264":
        return None
    found = SecondFields(bytes(stream.codec_context.extradata or b""))
    return found if found.possible else None


@dataclass(frozen=True)
class _Packets:
    """Fields of the packets with data that begin a picture that is shown, in decoding order.

    total: number of all packets with data; paired: True if a picture may take two packets
    packed: True if a packet holds two pictures, and another one none, as DivX writes B-frames
    """

    pts: np.ndarray
    dts: np.ndarray
    duration: np.ndarray
    size: np.ndarray
    key: np.ndarray
    position: np.ndarray
    total: int
    paired: bool
    packed: bool


def _packets(container: av.container.InputContainer, stream: VideoStream) -> _Packets:
    """Read all packets, without keeping their data."""
    columns = [array("q") for _ in range(6)]
    second, total = _second_fields(stream), 0
    packed, may_be_packed = False, stream.codec_context.name == "mpeg4"
    hidden: Callable[[memoryview], bool] = second or _HIDDEN.get(stream.codec_context.name, lambda data: False)
    for packet in container.demux(stream):
        if not packet.size:
            continue
        total += 1
        data = memoryview(packet)
        packed = packed or (may_be_packed and bytes(data).count(_MPEG4_PICTURE) > 1)
        if hidden(data) or packet.is_discard:  # an edit list may remove a packet
            continue
        fields = (packet.pts, packet.dts, packet.duration, packet.size, packet.is_keyframe, packet.pos)
        for column, field in zip(columns, fields, strict=True):
            column.append(_NONE if field is None else int(field))
    pts, dts, duration, size, key, position = (np.frombuffer(column, np.int64) for column in columns)
    return _Packets(pts, dts, duration, size, key != 0, position, total, second is not None, packed)


def _from_packets(path: Path, container: av.container.InputContainer, stream: VideoStream) -> FrameTable:
    found = _packets(container, stream)
    count = len(found.pts)
    if not count:
        if stream.frames and is_cut_off(path):
            raise IndexFault(f"truncated: has 0 of {stream.frames} frames")
        raise IndexFault(*NO_FRAMES)
    order = np.argsort(found.pts, kind="stable")
    stamps, sorted_already = found.pts[order], bool((np.diff(found.pts) >= 0).all())
    apart = bool(stamps[0] != _NONE and (np.diff(stamps) > 0).all())
    joined = apart and bool(np.abs(order - np.arange(count)).max() > _FURTHEST)
    last = _last_duration(container, stream, found, int(order[-1]))
    _require_whole(path, container, stream, found, last)
    kind, reordering = container.format.name, bool(stream.codec_context.has_b_frames)
    invented, reordering = reordering and kind in _INVENTED, reordering and sorted_already
    if not apart or joined or invented or found.packed or (reordering and kind in _DECODING_ORDER):
        times = stamps if apart and not joined and not invented else None
        odd = not found.key[0] or _hides_pictures(stream, found)
        return FrameTable(count, None, times, last, [0], [None], "packets", bool(odd), paired=found.paired)
    marked = found.key[order] & (kind not in _MARKED_WRONGLY)
    keys = np.union1d([0], np.flatnonzero(marked))
    dts = found.dts[order]
    # Seeking in MPEG streams uses decoding times.
    decoding = kind in ("mpegts", "mpeg")
    targets = np.where(dts[keys] == _NONE, stamps[keys], dts[keys]) if decoding else stamps[keys]
    if (dts != _NONE).all():  # others may seek to the last key frame decoded at or before the target
        targets = np.minimum(targets, np.append(dts[keys[1:]] - 1, _MOST))
    doubts = reordering or not found.key[0] or (found.pts < found.pts[0]).any()
    times = None if kind in _NUMBERED else stamps
    # AVI has no time stamps: FFmpeg counts them from the index, which agrees with itself where it is wrong.
    places = found.position[order] if kind == "avi" else None
    at = keys.tolist(), targets.tolist()
    return FrameTable(count, stamps, times, last, *at, "packets", bool(doubts), places, found.paired)


_MPEG4_PICTURE = b"\0\0\1\xb6"  # start code of a picture in MPEG-4
_SMALL = 32  # bytes; a picture that is not coded takes fewer


def _hides_pictures(stream: VideoStream, found: _Packets) -> bool:
    """Return True if packets without stamps may hold no picture, or half of one."""
    fields = stream.codec_context.field_order not in (0, 1)  # neither unknown nor progressive
    return fields or (stream.codec_context.name == "mpeg4" and bool((found.size < _SMALL).any()))


def _last_duration(
    container: av.container.InputContainer, stream: VideoStream, found: _Packets, shown_last: int
) -> int:
    """Return the duration of the frame that is shown last, as its packet or the container says; 0 if unknown."""
    last, declared = max(int(found.duration[shown_last]), 0), _declared(container, stream)
    stamp = int((found.dts if container.format.name == "avi" else found.pts).max())
    if declared is None or stamp == _NONE or not stream.time_base:
        return last
    return max(last, round(declared / float(stream.time_base)) - stamp)


def _declared(container: av.container.InputContainer, stream: VideoStream) -> float | None:
    """Return the time at which the stream ends by its container's header, in seconds; None if it does not say."""
    kind = container.format.name
    if kind == "avi" and stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if kind not in ("matroska,webm", "flv") or not container.duration:
        return None
    if (told := _clock_time(stream.metadata.get("DURATION"))) is not None:
        return told
    return container.duration / 1e6 if len(container.streams) == 1 else None


def _clock_time(text: str | None) -> float | None:
    try:
        hours, minutes, seconds = (text or "").split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    except ValueError:
        return None


def _require_whole(
    path: Path, container: av.container.InputContainer, stream: VideoStream, found: _Packets, last: int
) -> None:
    """Raise IndexFault for a file that ends before its structure says, and lacks frames for that reason."""
    tick = float(stream.time_base or 0)
    usual = float(np.median(np.diff(np.sort(found.pts)))) if len(found.pts) > 1 else 0.0
    end = max(int(found.pts.max()), 0) + max(usual, float(np.median(found.duration)), 0.0)
    # Of several streams another one may last longer.
    stated = max((int(found.pts.max()) + last) * tick, 0.9 * (container.duration or 0) / 1e6 - 0.5)
    kind = container.format.name
    data = kind == "asf" or ("mp4" in kind.split(",") and not stream.frames)  # does not say how much it has
    lacking, missing = stream.frames > found.total, stated > (end + 1.5 * usual) * tick
    if not (lacking or missing or data) or not is_cut_off(path):
        return
    if lacking:
        raise IndexFault(f"truncated: has {found.total} of {stream.frames} frames")
    if missing:
        raise IndexFault(f"truncated: has {end * tick:.1f} of {stated:.1f} seconds")
    raise IndexFault("truncated within its frames")
