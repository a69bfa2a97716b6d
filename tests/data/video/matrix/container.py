"""Files whose container is odd: edit lists, key frames, other streams, names, damage."""

import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition

from tests.data.video.made import encode, numbered, patch, remux
from tests.data.video.matrix.case import Case, made, odd


def _shifted(frames: int) -> Callable[[Path], Path]:
    """Begin before time zero: the edit list cuts frames off."""

    def change(number: int, packet: av.Packet) -> None:
        assert packet.pts is not None
        assert packet.dts is not None
        packet.pts, packet.dts = packet.pts - frames * 512, packet.dts - frames * 512

    return lambda folder: remux(encode(folder / "a.mp4", options={"g": "8"}), folder / "edit.mp4", change=change)


def _edited(frames: int) -> Callable[[Path], Path]:
    """Let the edit list skip frames, as trimming on a telephone does."""

    def change(content: bytearray) -> None:
        place = content.find(b"elst") + 12
        duration, start = struct.unpack(">Ii", content[place : place + 8])
        content[place : place + 8] = struct.pack(">Ii", duration * (20 - frames) // 20, start + frames * 512)

    return lambda folder: patch(encode(folder / "a.mp4", options={"g": "4"}), folder / "edit.mp4", change)


def _stss(change: Callable[[list[int]], list[int]]) -> Callable[[Path], Path]:
    """Change the table of key frames."""

    def apply(content: bytearray) -> None:
        place = content.find(b"stss") + 8
        (count,) = struct.unpack(">I", content[place : place + 4])
        found = list(struct.unpack(f">{count}I", content[place + 4 : place + 4 + 4 * count]))
        told = change(found)
        content[place : place + 4 + 4 * len(told)] = struct.pack(f">{len(told) + 1}I", len(told), *told)

    return lambda folder: patch(encode(folder / "a.mp4", options={"g": "6"}), folder / "b.mp4", apply)


def _remuxed(*suffixes: str, codec: str = "libx264", mux: dict[str, str] | None = None) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = encode(folder / "a.mkv", codec, options={"g": "8"})
        for number, suffix in enumerate(suffixes):
            path = remux(path, folder / f"copy{number}.{suffix}", mux=mux)
        return path

    return make


def _begun_late(suffix: str) -> Callable[[Path], Path]:
    """Leave out the first key frame: the stream begins inside a group of pictures."""
    return lambda folder: remux(
        encode(folder / f"a.{suffix}", options={"g": "8", "bf": "0"}),
        folder / f"late.{suffix}",
        change=lambda number, packet: number >= 3,
    )


CONTAINED = [
    made("fragments", "fragments.mp4", mux={"movflags": "frag_keyframe+empty_moov"}, options={"g": "8"}),
    made("index in front", "front.mp4", mux={"movflags": "faststart"}),
    odd("edit list inside a group of pictures", "edit3.mp4", _shifted(3), numbers=range(3, 20)),
    odd("edit list beyond a group of pictures", "edit6.mp4", _edited(6), numbers=None),
    odd("edit list beyond a group of pictures", "edit11.mp4", _edited(11), numbers=None),
    odd("empty table of key frames", "stss_empty.mp4", _stss(lambda keys: [])),
    odd("wrong table of key frames", "stss_late.mp4", _stss(lambda keys: [key + 2 for key in keys])),
    odd("copied from Matroska", "copied.mp4", _remuxed("mp4")),
    odd("copied from Matroska", "copied265.mp4", _remuxed("mp4", codec="libx265")),
    odd("copied from Matroska", "copied.flv", _remuxed("flv")),
    odd("live, without index and duration", "live.mkv", _remuxed("mkv", mux={"live": "1"})),
    odd("begins inside a group of pictures", "inside.ts", _begun_late("ts"), numbers=None),
    odd("begins inside a group of pictures", "inside.mkv", _begun_late("mkv"), numbers=None),
    odd(
        "something in front",
        "junk.ts",
        lambda folder: patch(
            encode(folder / "a.ts"), folder / "b.ts", lambda content: content.__setitem__(slice(0, 0), bytes(100))
        ),
    ),
    odd(
        "something behind",
        "behind.mp4",
        lambda folder: patch(encode(folder / "a.mp4"), folder / "b.mp4", lambda content: content.extend(b"\1" * 999)),
    ),
    made("suffix of another container", "matroska.mp4", form="matroska"),
    made("suffix of another container", "transport.avi", form="mpegts"),
]


def _streams(suffix: str, first: str, disposition: Disposition | None = None) -> Callable[[Path], Path]:
    """Put a stream of one frame, or of sound, before the video."""

    def make(folder: Path) -> Path:
        path = folder / f"streams.{suffix}"
        with av.open(str(path), "w") as out:
            if first == "sound":
                before: Any = out.add_stream("aac", rate=16000)
            else:
                before = out.add_stream("mjpeg", rate=25)
                before.height, before.width, before.pix_fmt = 32, 32, "yuvj420p"
            if disposition is not None:
                before.disposition = disposition
            stream = out.add_stream("libx264", rate=25, options={"qp": "20", "preset": "veryfast"})
            stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
            if first == "sound":
                silence = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
                silence.rate = 16000
                out.mux(before.encode(silence))
            else:
                out.mux(before.encode(av.VideoFrame.from_ndarray(numbered(1, (32, 32))[0], format="rgb24")))
            out.mux(before.encode(None))
            for pixels in numbered(20):
                out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            out.mux(stream.encode(None))
        return path

    return make


STREAMS = [
    odd("thumbnail in front", "thumbnail.mkv", _streams("mkv", "picture"), stream=1),
    odd("thumbnail in front", "thumbnail.mp4", _streams("mp4", "picture"), stream=1),
    odd("thumbnail in front", "thumbnail.avi", _streams("avi", "picture"), stream=1),
    odd("cover in front", "cover.mp4", _streams("mp4", "picture", Disposition.attached_pic), stream=0),
    odd("cover in front", "cover.mkv", _streams("mkv", "picture", Disposition.attached_pic), stream=1),
    *(odd("sound in front", f"sound.{suffix}", _streams(suffix, "sound")) for suffix in ("mp4", "mkv", "ts", "flv")),
]


def _named(name: str) -> Case:
    def make(folder: Path) -> Path:
        return encode(folder / "a.mp4").rename(folder / name)

    return odd("odd name", ascii(name).strip("'"), make)


NAMED = [
    *map(
        _named,
        (
            "12:30.mp4",
            "http:z.mp4",
            "pipe:0.mp4",
            "-x.mp4",
            "a b#c?d&e.mp4",
            "a%03d.mp4",
            "no_suffix",
            "n\udcffo.mp4",
            "ü漢🎬.mp4",
        ),
    )
]


def _cut(suffix: str, codec: str, share: float, **how: Any) -> Callable[[Path], Path]:
    def change(content: bytearray) -> None:
        del content[int(share * len(content)) :]

    return lambda folder: patch(encode(folder / f"a.{suffix}", codec, **how), folder / f"cut.{suffix}", change)


def _resized(folder: Path) -> Path:
    first, second = encode(folder / "a.ts"), encode(folder / "b.ts", size=(64, 96))
    (folder / "resized.ts").write_bytes(first.read_bytes() + second.read_bytes())
    return folder / "resized.ts"


def _resized_inside(suffix: str) -> Callable[[Path], Path]:
    def change(number: int, packet: av.Packet) -> None:
        packet.time_base, packet.pts, packet.dts, packet.duration = Fraction(1, 25), number, number, 1

    def make(folder: Path) -> Path:
        parts = [encode(folder / f"{side}.h264", size=(side, 64), options={"bf": "0", "g": "5"}) for side in (48, 64)]
        (folder / "both.h264").write_bytes(b"".join(part.read_bytes() for part in parts))
        return remux(folder / "both.h264", folder / f"resized.{suffix}", change=change)

    return make


def _written(content: bytes, name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def _playlist(folder: Path) -> Path:
    encode(folder / "a.ts")
    lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:1", "#EXTINF:1,", "a.ts", "#EXT-X-ENDLIST"]
    (folder / "list.m3u8").write_text("\n".join(lines) + "\n")
    return folder / "list.m3u8"


REFUSED = [
    odd("cut off", "cut.mp4", _cut("mp4", "libx264", 0.6, mux={"movflags": "faststart"}), reported="truncated"),
    odd("cut off", "cut_index.mp4", _cut("mp4", "libx264", 0.6), reported="truncated"),
    odd("cut off", "cut.mov", _cut("mov", "mpeg4", 0.6), reported="truncated"),
    odd("cut off", "cut.mkv", _cut("mkv", "libx264", 0.5), reported="truncated"),
    odd("cut off", "cut.webm", _cut("webm", "libvpx", 0.5), reported="truncated"),
    odd("cut off", "cut.avi", _cut("avi", "mpeg4", 0.5), reported="truncated"),
    odd("size changes", "resized.ts", _resized, reported="frame size changes"),
    *(
        odd("size changes", f"resized.{suffix}", _resized_inside(suffix), reported="frame size changes")
        for suffix in ("mkv", "mp4", "flv")
    ),
    odd("list of other files", "list.m3u8", _playlist, reported="list of other files"),
    odd("empty", "empty.mp4", _written(b"", "empty.mp4"), reported="empty"),
    odd("not a video", "words.mp4", _written(b"these are words\n" * 50, "words.mp4"), reported="not a video"),
]
