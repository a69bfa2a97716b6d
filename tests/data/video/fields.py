"""Interlaced H.264 written by hand, since no encoder at hand codes the two fields of a picture one by one.

Every macroblock of a field is stored as it is (I_PCM); a second field may be predicted (all P_Skip).
Syntax: ITU-T H.264, section 7.3.
"""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

Planes = tuple[np.ndarray, ...]
TICKS = Fraction(1, 90000)


class _Bits:
    def __init__(self) -> None:
        self.text = ""

    def fixed(self, count: int, value: int) -> "_Bits":
        self.text += f"{value:0{count}b}"
        return self

    def golomb(self, *values: int) -> "_Bits":
        for value in values:
            word = f"{value + 1:b}"
            self.text += "0" * (len(word) - 1) + word
        return self

    def bits(self, text: str) -> "_Bits":
        self.text += text
        return self

    def align(self) -> "_Bits":
        self.text += "0" * (-len(self.text) % 8)
        return self

    def unit(self, kind: int, important: int = 3) -> bytes:
        """Close the unit; its start code in front, no start code inside."""
        self.bits("1").align()
        out, zeros = bytearray([important << 5 | kind]), 0
        for byte in int(self.text, 2).to_bytes(len(self.text) // 8, "big"):
            if zeros >= 2 and byte <= 3:
                out.append(3)
                zeros = 0
            out.append(byte)
            zeros = 0 if byte else zeros + 1
        return b"\0\0\0\1" + bytes(out)


def _parameters(height: int, width: int) -> bytes:
    sequence = _Bits().fixed(8, 77).fixed(8, 0).fixed(8, 30)
    sequence.golomb(0, 4, 0, 4, 2).bits("0").golomb(width // 16 - 1, height // 32 - 1)
    sequence.bits("0010").bits("1" + "0000" + "1").fixed(32, 1).fixed(32, 50).bits("1" + "0000")
    picture = _Bits().golomb(0, 0).bits("00").golomb(0, 0, 0).bits("000").golomb(0, 0, 0).bits("000")
    return sequence.unit(7) + picture.unit(8)


def _slice(planes: Planes | None, number: int, order: int, key: bool, key_number: int, bottom: bool | None) -> bytes:
    """Code a picture or a field; planes: None predicts it; bottom: None for a whole picture."""
    bits = _Bits().golomb(0, 5 if planes is None else 7, 0).fixed(8, number)
    bits.bits("0" if bottom is None else "11" if bottom else "10")
    if key:
        bits.golomb(key_number)
    bits.fixed(8, order).bits("00" * (planes is None)).bits("00" if key else "0").golomb(0)
    if planes is None:
        return bits.golomb(16).unit(1)  # macroblocks of a field that are skipped
    for row in range(planes[0].shape[0] // 16):
        for column in range(planes[0].shape[1] // 16):
            bits.golomb(25).align()
            for plane, side in zip(planes, (16, 8, 8), strict=True):
                block = plane[row * side : (row + 1) * side, column * side : (column + 1) * side]
                bits.bits("".join(f"{max(int(value), 1):08b}" for value in block.flat))
    return bits.unit(5 if key else 1)


def pictures(frames: np.ndarray, *, gop: int = 5, fields: str = "1", predicted: bool = False) -> list[list[bytes]]:
    """Code frames (t, 64, 128, 3): for each the units of its fields, or of the whole.

    fields: for each picture in turn, 1 to code it as two fields, 0 as a whole; predicted: second fields are skipped
    """
    coded = []
    for index, pixels in enumerate(frames):
        image = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p").to_ndarray()
        height, width = pixels.shape[:2]
        chroma = image[height:].reshape(2, height // 2, width // 2)
        planes: Planes = (image[:height], chroma[0], chroma[1])
        place = index % gop
        head = b"\0\0\0\1\x09\x10" + _parameters(height, width) * (place == 0)
        common = (place, 2 * place, place == 0, index // gop % 2)
        if fields[index % len(fields)] == "0":
            coded.append([head + _slice(planes, *common, None)])
            continue
        top, below = (tuple(plane[parity::2] for plane in planes) for parity in (0, 1))
        second = _slice(None if predicted else below, place, 2 * place + 1, False, 0, True)
        coded.append([head + _slice(top, *common, False), b"\0\0\0\1\x09\x10" + second])
    return coded


def write_fields(path: Path, coded: Sequence[Sequence[bytes]], together: bool = False) -> Path:
    """Write pictures at 25 per second; together: both fields in one packet of the muxer."""
    raw = path.with_name("fields.h264")
    raw.write_bytes(b"".join(map(b"".join, coded)))
    if path == raw:
        return raw
    with av.open(str(raw)) as template, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(template.streams.video[0])
        for index, fields in enumerate(coded):
            parts = [b"".join(fields)] if together else fields
            for number, part in enumerate(parts):
                packet = av.Packet(part)
                packet.stream, packet.time_base = stream, TICKS
                packet.pts = packet.dts = 3600 * index + 1800 * number
                packet.duration = 3600 // len(parts)
                packet.is_keyframe = number == 0 and b"\0\0\0\1\x67" in part
                out.mux(packet)
    return path
