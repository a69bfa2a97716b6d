"""Check whether a file ends before its own structure says, by the sizes that its containers declare.

Sources: ISO/IEC 14496-12, section 4.2 (MP4, QuickTime) · RFC 8794, section 6 (Matroska, WebM) · the RIFF, FLV and ASF
specifications.
"""

import struct
from pathlib import Path
from typing import BinaryIO

TOP_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
"""Types of the first box of MP4 and QuickTime files."""

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
BEGINNINGS = (_EBML, b"RIFF", b"FLV", _ASF[:4])
"""First bytes of further containers that declare their size."""
_HEAD = 1 << 16  # bytes within which a header is searched for


def is_cut_off(path: Path | str) -> bool | None:
    """Return True if the file is shorter than it declares, False if not; None if it declares nothing known here."""
    end = Path(path).stat().st_size
    with open(path, "rb") as file:
        head = file.read(16)
        file.seek(0)
        if head[4:8] in TOP_BOXES:
            return _boxes(file, end)
        if head.startswith(_EBML):
            return _matroska(file.read(_HEAD), end)
        if head.startswith(b"RIFF"):
            return _riff(file, end)
        if head.startswith(b"FLV"):
            return _flash(file, end)
        if head == _ASF:
            return _asf(file, end)
    return None


def _boxes(file: BinaryIO, end: int) -> bool:
    while len(head := file.read(8)) == 8:
        size, used = int.from_bytes(head[:4], "big"), 8
        if size == 1:
            size, used = int.from_bytes(file.read(8), "big"), 16
        if size < used:  # 0: extends to the end of the file
            return False
        if file.seek(size - used, 1) > end:
            return True
    return len(head) > 0


def _matroska(head: bytes, end: int) -> bool | None:
    place = 4
    size, used = _number(head, place)
    place += used + (size or 0)
    if size is None or head[place : place + 4] != _SEGMENT:
        return None
    size, used = _number(head, place + 4)
    return None if size is None else place + 4 + used + size > end


def _number(data: bytes, place: int) -> tuple[int | None, int]:
    """Return a size of variable length and the number of its bytes; None for an unknown size."""
    first = data[place] if place < len(data) else 0
    length = 9 - first.bit_length()
    value = int.from_bytes(data[place : place + length], "big") & ((1 << 7 * length) - 1)
    unknown = length > 8 or value == (1 << 7 * length) - 1 or place + length > len(data)
    return (None if unknown else value), length


def _riff(file: BinaryIO, end: int) -> bool | None:
    place = 0
    while len(head := file.read(8)) == 8 and head[:4] == b"RIFF":
        size = int.from_bytes(head[4:], "little")
        if size in (0, 0xFFFFFFFF):  # never completed
            return None
        place += 8 + size
        if place > end:
            return True
        place += size % 2
        file.seek(place)
    return False


def _flash(file: BinaryIO, end: int) -> bool | None:
    """Compare with the size in the file's own description, or follow the chain of its tags."""
    head = file.read(_HEAD)
    place = head.find(b"\0\x08filesize\0")
    if place >= 0 and len(head) >= place + 19:
        (size,) = struct.unpack(">d", head[place + 11 : place + 19])
        if 0 < size < 1 << 62:
            return bool(size > end)
    place = int.from_bytes(head[5:9], "big") + 4
    while place + 11 <= end:
        file.seek(place + 1)
        place += 11 + int.from_bytes(file.read(3), "big") + 4
    return place > end


def _asf(file: BinaryIO, end: int) -> bool | None:
    """Compare with the end of the data object, which follows the header object."""
    head = file.read(24)
    place = int.from_bytes(head[16:24], "little")
    file.seek(min(place, end))
    data = file.read(24)
    size = int.from_bytes(data[16:24], "little")
    return None if data[:16] != _ASF_DATA or not size else place + size > end
