"""Fields of interlaced H.264 that come in packets of their own: two of them make one picture.

Syntax: ITU-T H.264, sections 7.3.1 (NAL unit), 7.3.2.1 (sequence parameter set), 7.3.2.2 (picture parameter set) and
7.3.3 (slice header).
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

_SLICES, _SPS, _PPS = (1, 5), 7, 8
_WITH_CHROMA = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135)  # profiles that state a chroma format
_KEPT, _HEAD = 1024, 64  # bytes of a unit that hold a parameter set, and the head of a slice


class _Bits:
    """Reader of numbers in the first bytes of a NAL unit."""

    def __init__(self, unit: bytes) -> None:
        plain = unit[1:].replace(b"\0\0\3", b"\0\0")  # without emulation prevention
        self._bits, self._place = f"{int.from_bytes(plain, 'big'):0{8 * len(plain)}b}", 0

    def fixed(self, count: int) -> int:
        text = self._bits[self._place : self._place + count]
        self._place += count
        if len(text) < count:
            raise ValueError("the unit ends within its head")
        return int(text or "0", 2)

    def golomb(self) -> int:
        zeros = self._bits.find("1", self._place) - self._place
        if zeros < 0:
            raise ValueError("the unit ends within its head")
        self._place += zeros
        return self.fixed(zeros + 1) - 1


class _Sequence(NamedTuple):
    """frame_bits: length of frame_num; may_be_fields: False if every picture is a frame; planes: coded separately."""

    frame_bits: int
    may_be_fields: bool
    planes: bool


class _Field(NamedTuple):
    frame_num: int
    bottom: bool


class SecondFields:
    """Finder of the packets of a stream that hold the second field of the picture that the packet before began.

    extradata: of the stream, either as in MP4 (avcC) or units with start codes
    """

    def __init__(self, extradata: bytes) -> None:
        self._sequences: dict[int, _Sequence] = {}
        self._pictures: dict[int, int] = {}
        self._length = 0  # bytes of a unit's length; 0: start codes
        self._first: _Field | None = None
        if extradata[:1] == b"\1" and len(extradata) > 6:
            self._length = (extradata[4] & 3) + 1
            units = _configured(extradata)
        else:
            units = _after_start_codes(extradata)
        for unit in units:
            self._learn(unit)

    @property
    def possible(self) -> bool:
        """False if every picture is known to be a frame."""
        return not self._sequences or any(found.may_be_fields for found in self._sequences.values())

    def __call__(self, data: memoryview) -> bool:
        """Return True if a packet, the next one of the stream, holds a second field alone."""
        units = _after_lengths(bytes(data), self._length) if self._length else _after_start_codes(bytes(data))
        fields: list[_Field] = []
        for unit in units:
            self._learn(unit)
            if unit and unit[0] & 31 in _SLICES:
                try:
                    field = self._field(unit)
                except (ValueError, KeyError):  # damaged: left to the decoder
                    field = None
                if field is None:
                    self._first = None
                    return False
                if not fields or fields[-1] != field:
                    fields.append(field)
        if len(fields) != 1:
            self._first = None if fields else self._first
            return False
        (field,), before = fields, self._first
        second = before is not None and before.frame_num == field.frame_num and before.bottom != field.bottom
        self._first = None if second else field
        return second

    def _learn(self, unit: bytes) -> None:
        """Keep what a parameter set says of slice headers."""
        kind = unit[0] & 31 if unit else 0
        try:
            if kind == _SPS:
                number, found = _sequence(unit)
                self._sequences[number] = found
            elif kind == _PPS:
                bits = _Bits(unit)
                self._pictures[bits.golomb()] = bits.golomb()
        except ValueError:
            pass

    def _field(self, unit: bytes) -> _Field | None:
        """Return the field to which a slice belongs, None for a frame.  Raises KeyError without parameter sets."""
        bits = _Bits(unit[:_HEAD])
        bits.golomb()  # first macroblock
        bits.golomb()  # type
        sequence = self._sequences[self._pictures[bits.golomb()]]
        if not sequence.may_be_fields:
            return None
        if sequence.planes:
            bits.fixed(2)
        frame_num = bits.fixed(sequence.frame_bits)
        return _Field(frame_num, bool(bits.fixed(1))) if bits.fixed(1) else None


def has_second_fields(path: Path, tell: SecondFields, places: Iterable[int]) -> bool:
    """Return True if any of the packets at these offsets in a file holds a second field alone."""
    with open(path, "rb") as file:
        return any(tell(memoryview(os.pread(file.fileno(), _KEPT, place))) for place in places)


def _sequence(unit: bytes) -> tuple[int, _Sequence]:
    bits, planes = _Bits(unit), False
    profile = bits.fixed(8)
    bits.fixed(16)
    number = bits.golomb()
    if profile in _WITH_CHROMA:
        chroma = bits.golomb()
        planes = chroma == 3 and bool(bits.fixed(1))
        bits.golomb()
        bits.golomb()
        bits.fixed(1)
        if bits.fixed(1):
            for index in range(12 if chroma == 3 else 8):
                if bits.fixed(1):
                    _skip_scaling(bits, 16 if index < 6 else 64)
    frame_bits = bits.golomb() + 4
    order = bits.golomb()
    if order == 0:
        bits.golomb()
    elif order == 1:
        bits.fixed(1)
        bits.golomb()
        bits.golomb()
        for _ in range(bits.golomb()):
            bits.golomb()
    bits.golomb()  # reference frames
    bits.fixed(1)
    bits.golomb()  # width
    bits.golomb()  # height
    return number, _Sequence(frame_bits, not bits.fixed(1), planes)


def _skip_scaling(bits: _Bits, count: int) -> None:
    last = following = 8
    for _ in range(count):
        if following:
            code = bits.golomb()
            following = (last + (code + 1) // 2 * (1 if code % 2 else -1)) % 256
        last = following or last


def _configured(extradata: bytes) -> Iterator[bytes]:
    place = 5
    for mask in (31, 255):  # sequence, then picture parameter sets
        if place >= len(extradata):
            return
        count = extradata[place] & mask
        place += 1
        for _ in range(count):
            size = int.from_bytes(extradata[place : place + 2], "big")
            yield extradata[place + 2 : place + 2 + size]
            place += 2 + size


def _after_start_codes(data: bytes) -> Iterator[bytes]:
    """Yield the units behind start codes, each at least as far as its head."""
    place = data.find(b"\0\0\1")
    while place >= 0:
        following = data.find(b"\0\0\1", place + 3)
        yield data[place + 3 : min(place + 3 + _KEPT, following if following >= 0 else len(data))]
        place = following


def _after_lengths(data: bytes, length: int) -> Iterator[bytes]:
    place = 0
    while place + length < len(data):
        size = int.from_bytes(data[place : place + length], "big")
        yield data[place + length : place + length + min(size, _KEPT)]
        place += length + size
