"""Small video files whose frames carry their number in the picture, and what FFmpeg decodes of a file in sequence."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

BITS = 6
"""Bars in the upper half of a frame: its number in binary, white for 1, the lowest bit on the left."""
FAST = {
    "libx264": {"preset": "veryfast", "qp": "20", "threads": "1"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none:pools=none:frame-threads=1"},
    "libsvtav1": {"preset": "12", "svtav1-params": "lp=1:lookahead=0"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
}
"""Options with which an encoder is fast."""


def numbered(count: int, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    """Frames (count, H, W, 3): bars with the number above, a gradient that moves below."""
    height, width = size
    bits = np.arange(count)[:, None] >> np.arange(BITS) & 1
    bars = np.where(bits, 235, 20)[:, np.minimum(np.arange(width) * BITS // width, BITS - 1)]
    frames = np.empty((count, height, width, 3), np.uint8)
    frames[:, : height // 2] = bars[:, None, :, None]
    ramp = (3 * np.arange(width) + 5 * np.arange(count)[:, None]) % 180 + 40
    frames[:, height // 2 :] = np.stack([ramp, 255 - ramp, np.full_like(ramp, 90)], -1)[:, None]
    return frames


def number_of(frame: np.ndarray) -> int:
    """The number that a frame (H, W, 3) of `numbered` carries."""
    height, width = frame.shape[:2]
    edges = np.arange(BITS + 1) * width / BITS
    bars = [frame[height // 8 : 3 * height // 8, int(a + 2) : int(b - 1)] for a, b in pairwise(edges)]
    return sum(int(bar.mean() > 127) << bit for bit, bar in enumerate(bars))


@contextmanager
def same_scheduling() -> Iterator[None]:
    """Put the scheduling of the process back: SVT-AV1 makes it, and all that it starts, a real-time one if it may."""
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, *before)


def encode(
    path: Path,
    codec: str = "libx264",
    *,
    count: int = 20,
    size: tuple[int, int] = (48, 64),
    pix_fmt: str = "yuv420p",
    rate: int | Fraction = 25,
    times: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    options: dict[str, str] | None = None,
    mux: dict[str, str] | None = None,
    form: str | None = None,
    last: int | None = None,
    prepare: Callable[[av.VideoStream], object] = lambda stream: None,
    paint: Callable[[av.VideoFrame], object] = lambda frame: None,
) -> Path:
    """Encode `numbered` frames; times: of the frames in units of time_base; last: duration of the last packet."""
    with same_scheduling(), av.open(str(path), "w", format=form, options=mux or {}) as out:
        stream = out.add_stream(codec, rate=rate, options=FAST.get(codec, {}) | (options or {}))
        (stream.height, stream.width), stream.pix_fmt = size, pix_fmt
        if time_base is not None:
            stream.time_base = stream.codec_context.time_base = time_base
        if codec not in FAST and "b" not in (options or {}):
            stream.bit_rate = 4_000_000
        prepare(stream)
        packets = []
        for index, pixels in enumerate(numbered(count, size)):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if frame.format.name != pix_fmt:
                frame = frame.reformat(format=pix_fmt, dst_color_range=2 if pix_fmt.startswith("yuvj") else None)
            if times is not None:
                frame.pts, frame.time_base = times[index], time_base or Fraction(1, rate)
            paint(frame)
            packets += stream.encode(frame)
        packets += stream.encode(None)
        if last is not None:
            packets[-1].duration = last
        for packet in packets:
            out.mux(packet)
    return path


def remux(
    source: Path,
    out: Path,
    *,
    mux: dict[str, str] | None = None,
    form: str | None = None,
    change: Callable[[int, av.Packet], bool | None] = lambda number, packet: None,
    prepare: Callable[[av.VideoStream], object] = lambda stream: None,
) -> Path:
    """Copy the packets of a file into another container; `change` alters them, or leaves one out by returning False."""
    with av.open(str(source)) as container, av.open(str(out), "w", format=form, options=mux or {}) as copy:
        stream = copy.add_stream_from_template(container.streams.video[0])
        prepare(stream)
        packets = [packet for packet in container.demux(video=0) if packet.size]
        for number, packet in enumerate(packets):
            packet.stream = stream
            if change(number, packet) is not False:
                copy.mux(packet)
    return out


@dataclass(frozen=True)
class Decoded:
    """What FFmpeg decodes of a file in sequence: the frames as coded, (t, H, W, 3), and their time stamps."""

    frames: np.ndarray
    stamps: list[int | None]
    key_frames: int


def in_sequence(path: Path, stream: int | None = None, most: int | None = None) -> Decoded:
    """Decode a file from its first packet to its last with FFmpeg; stream: its number, by default FFmpeg's choice.

    most: number of frames after which decoding ends
    """
    convert = VideoReformatter()
    frames, stamps, keys = [], [], 0
    with av.open(f"file:{path}") as container:
        chosen = container.streams.best("video") if stream is None else container.streams.video[stream]
        chosen.thread_type = "NONE"
        for frame in islice(container.decode(chosen), most):
            frames.append(convert.reformat(frame, format="rgb24", threads=1).to_ndarray())
            stamps.append(frame.pts)
            keys += frame.key_frame
    return Decoded(np.stack(frames), stamps, keys)


def patch(source: Path, out: Path, change: Callable[[bytearray], object]) -> Path:
    """Write a changed copy of a file."""
    content = bytearray(source.read_bytes())
    change(content)
    out.write_bytes(bytes(content))
    return out


def numbers_of(frames: Iterable[np.ndarray]) -> list[int]:
    """The numbers of some frames."""
    return [number_of(frame) for frame in frames]
