"""Files as camcorders, editors, broadcasts and old encoders leave them."""

import struct
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av

from tests.data.video.fields import pictures, write_fields
from tests.data.video.made import encode, numbered, remux
from tests.data.video.matrix.case import Case, made, odd


def _fields(name: str, *, together: bool = False, fields: str = "1", predicted: bool = False) -> Case:
    def make(folder: Path) -> Path:
        coded = pictures(numbered(20, (64, 128)), fields=fields, predicted=predicted)
        return write_fields(folder / name, coded, together)

    # A second field is predicted from that of the picture before, and shows its number.
    numbers = None if predicted else range(20)
    return odd("fields in packets of their own", name, make, rate=25.0, numbers=numbers)


PARTS = {
    "two": ((200, 0), (200, 10)),
    "again": ((200, 0), (200, 0)),
    "back": ((200, 10), (200, 0)),
    "three": ((120, 0), (120, 6), (160, 13)),
    "pause": ((200, 0), (400, None), (200, 5)),
}
"""Edit lists: milliseconds, and the frame at which a part begins; None for a pause."""
_NESTED = (b"moov", b"trak", b"edts")


def _boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 0
    while place + 8 <= len(content):
        (size,) = struct.unpack(">I", content[place : place + 4])
        yield content[place + 4 : place + 8], content[place + 8 : place + size]
        place += size


def _with_edits(content: bytes, edits: bytes) -> bytes:
    """Replace the edit list; the index must lie behind the data."""
    out = b""
    for kind, inner in _boxes(content):
        new = edits if kind == b"elst" else _with_edits(inner, edits) if kind in _NESTED else inner
        out += struct.pack(">I", len(new) + 8) + kind + new
    return out


def _parts(name: str, parts: Sequence[tuple[int, int | None]], b_frames: str) -> Case:
    def make(folder: Path) -> Path:
        path = encode(folder / "a.mp4", options={"g": "5", "bf": b_frames})
        first = 1024 if b_frames != "0" else 0
        entries = (struct.pack(">Iihh", span, -1 if at is None else first + 512 * at, 1, 0) for span, at in parts)
        edits = struct.pack(">xxxxI", len(parts)) + b"".join(entries)
        (folder / "parts.mp4").write_bytes(_with_edits(path.read_bytes(), edits))
        return folder / "parts.mp4"

    return odd("edit list with several parts", f"{name}{b_frames}.mp4", make, numbers=None)


_PICTURE = b"\0\0\1\xb6"


def _packed(suffix: str) -> Callable[[Path], Path]:
    """Put each B-frame into the packet of the frame before it, as DivX does, and an empty picture in its place."""

    def make(folder: Path) -> Path:
        path = encode(folder / "a.avi", "mpeg4", options={"bf": "1", "g": "10"})
        with av.open(str(path)) as container, av.open(str(folder / f"packed.{suffix}"), "w") as out:
            source = container.streams.video[0]
            stream = out.add_stream_from_template(source)
            data = [bytes(packet) for packet in container.demux(source) if packet.size]
            kinds = [each[each.find(_PICTURE) + 4] >> 6 for each in data]  # 0: I, 1: P, 2: B
            for index in range(1, len(data)):
                if kinds[index - 1 : index + 1] == [1, 2]:
                    data[index - 1 : index + 1] = data[index - 1] + data[index], _PICTURE + b"\x41\x7f"
            data[0] = (source.codec_context.extradata or b"") + b"\0\0\1\xb2DivX503b1393p" + data[0]
            for index, each in enumerate(data):
                packet = av.Packet(each)
                packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, 25), kinds[index] == 0
                packet.pts = packet.dts = index
                packet.duration = 1
                out.mux(packet)
        return folder / f"packed.{suffix}"

    return make


def _programmes(folder: Path) -> Path:
    with av.open(str(folder / "programmes.ts"), "w") as out:
        streams = []
        for height, width in ((32, 48), (48, 64)):
            stream = out.add_stream("libx264", rate=25, options={"preset": "veryfast", "g": "6", "qp": "20"})
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            streams.append((stream, numbered(20, (height, width))))
        for index in range(20):
            for stream, frames in streams:
                out.mux(stream.encode(av.VideoFrame.from_ndarray(frames[index], format="rgb24")))
        for stream, _ in streams:
            out.mux(stream.encode(None))
    return folder / "programmes.ts"


def _same_stamp(suffix: str) -> Callable[[Path], Path]:
    def change(number: int, packet: av.Packet) -> None:
        if number == 7:
            packet.pts = packet.dts = 6 * 40

    return lambda folder: remux(
        encode(folder / "a.mkv", options={"bf": "0", "g": "5"}), folder / f"same.{suffix}", change=change
    )


def _leap(number: int, packet: av.Packet) -> None:
    if number >= 10:
        assert packet.pts is not None
        packet.pts = packet.dts = packet.pts + 10_000_000


_WRAP = {"output_ts_offset": "95442.9"}  # 33 bits at 90 kHz end at 95443.7 seconds

RECORDED = [
    *(_fields(f"fields.{suffix}") for suffix in ("ts", "mp4", "mkv")),
    _fields("fields.h264"),
    _fields("predicted.ts", predicted=True),
    _fields("fields.MTS", together=True),
    _fields("fields.m2ts", fields="0110"),
    *(_parts(name, parts, b_frames) for name, parts in PARTS.items() for b_frames in ("0", "2")),
    *(odd("two pictures in a packet (DivX)", f"packed.{suffix}", _packed(suffix)) for suffix in ("avi", "mkv")),
    made("pictures drawn over others", "drawn.apng", "apng", pix_fmt="rgba", size=(96, 128)),
    odd("two programmes", "programmes.ts", _programmes),
    made("time stamps begin anew", "wrapped.ts", options={"g": "6", "bf": "2"}, mux=_WRAP),
    made("time stamps begin anew", "wrapped.mpg", "mpeg2video", options={"g": "6"}, mux=_WRAP),
    *(odd("two pictures at one time", f"same.{suffix}", _same_stamp(suffix)) for suffix in ("mkv", "flv")),
    *(
        odd(
            "hours between two pictures",
            f"leap.{suffix}",
            lambda folder, suffix=suffix: remux(  # type: ignore[misc]
                encode(folder / "a.mkv", options={"bf": "0", "g": "5"}), folder / f"leap.{suffix}", change=_leap
            ),
        )
        for suffix in ("mp4", "mkv", "ts")
    ),
]
