"""Composition offsets of MP4 and QuickTime files (display minus decoding time), which FFmpeg does not expose.

The container's index as exposed by PyAV has only decoding times; with B-frames the display order differs.
Boxes and fields: ISO/IEC 14496-12, sections 8.3.2 (tkhd), 8.6.1.2 (stts), 8.6.1.3 (ctts) and 8.6.6 (elst).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

_LARGEST = 1 << 28  # largest index in bytes that is read into memory


@dataclass(frozen=True)
class Track:
    """Timing of a track.

    edits: number of parts that the edit list plays
    offsets: display minus decoding time of each sample; None: all zero
    last: duration of the last sample; 0 if unknown
    """

    edits: int
    offsets: np.ndarray | None
    last: int = 0


def read_track(path: Path | str, number: int) -> Track | None:
    """Read the track with this number (`stream.id`); None if the file lacks the data, for example a fragmented one."""
    try:
        with open(path, "rb") as file:
            movie = _movie(file)
        if movie is None or any(kind == b"mvex" for kind, _ in _boxes(movie)):
            return None
        for kind, track in _boxes(movie):
            if kind == b"trak" and _number(track) == number:
                return Track(_edits(track), _offsets(track), _last(track))
    except (OSError, ValueError, IndexError):  # truncated within the index: left to FFmpeg
        pass
    return None


def _movie(file: BinaryIO) -> memoryview | None:
    """Return the content of the top-level box `moov`, wherever it is."""
    while len(head := file.read(8)) == 8:
        size, kind = int.from_bytes(head[:4], "big"), head[4:]
        used = 8
        if size == 1:
            size, used = int.from_bytes(file.read(8), "big"), 16
        if kind == b"moov":
            return memoryview(file.read(size - used)) if used <= size <= _LARGEST else None
        if size < used:  # 0: extends to the end of the file
            return None
        file.seek(size - used, 1)
    return None


def _boxes(content: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    place = 0
    while place + 8 <= len(content):
        size = int.from_bytes(content[place : place + 4], "big")
        if not 8 <= size <= len(content) - place:
            raise ValueError("box out of bounds")
        yield bytes(content[place + 4 : place + 8]), content[place + 8 : place + size]
        place += size


def _find(content: memoryview, *names: bytes) -> memoryview | None:
    for name in names:
        found = next((inner for kind, inner in _boxes(content) if kind == name), None)
        if found is None:
            return None
        content = found
    return content


def _number(track: memoryview) -> int | None:
    head = _find(track, b"tkhd")
    if head is None:
        return None
    place = 20 if head[0] == 1 else 12  # after version, flags and two times of 8 or 4 bytes
    return int.from_bytes(head[place : place + 4], "big")


def _edits(track: memoryview) -> int:
    """Count the entries of the edit list that play media; 1 without a list, since then everything is played."""
    edits = _find(track, b"edts", b"elst")
    if edits is None:
        return 1
    width = 8 if edits[0] == 1 else 4
    size = 2 * width + 4
    count = min(int.from_bytes(edits[4:8], "big"), (len(edits) - 8) // size)  # a damaged count may be in the billions
    starts = (edits[8 + i * size + width : 8 + i * size + 2 * width] for i in range(count))
    return sum(int.from_bytes(start, "big", signed=True) >= 0 for start in starts)


def _offsets(track: memoryview) -> np.ndarray | None:
    table = _find(track, b"mdia", b"minf", b"stbl", b"ctts")
    if table is None:
        return None
    count = int.from_bytes(table[4:8], "big")
    runs = np.frombuffer(table, ">i4", 2 * count, 8).reshape(count, 2).astype(np.int64)
    if (runs[:, 0] < 0).any() or runs[:, 0].sum() > 1 << 26:
        raise ValueError("impossible number of samples")
    return np.repeat(runs[:, 1], runs[:, 0])


def _last(track: memoryview) -> int:
    table = _find(track, b"mdia", b"minf", b"stbl", b"stts")
    if table is None or len(table) < 16:
        return 0
    count = int.from_bytes(table[4:8], "big")
    return int.from_bytes(table[4 + 8 * count : 8 + 8 * count], "big") if 0 < count < len(table) // 8 else 0
