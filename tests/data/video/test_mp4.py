"""The few boxes that are read of MP4 files, whole, odd and cut off."""

from pathlib import Path

import av
import numpy as np
import pytest

from tests.data.conftest import write_video
from timesformer.data.video.mp4 import Track, read_track
from timesformer.data.video.whole import is_cut_off


def box(kind: bytes, *content: bytes, large: bool = False) -> bytes:
    body = b"".join(content)
    if large:
        return (1).to_bytes(4, "big") + kind + (16 + len(body)).to_bytes(8, "big") + body
    return (8 + len(body)).to_bytes(4, "big") + kind + body


def numbers(*values: int, width: int = 4) -> bytes:
    return b"".join(value.to_bytes(width, "big", signed=value < 0) for value in values)


def movie(
    head: bytes = b"", edits: bytes = b"", table: bytes | None = numbers(0, 2, 2, 512, 1, -512), extra: bytes = b""
) -> bytes:
    samples = box(b"stbl", b"" if table is None else box(b"ctts", table))
    track = box(b"tkhd", head or numbers(0, 0, 0, 7)) + edits + box(b"mdia", box(b"minf", samples))
    return box(b"moov", box(b"mvhd"), box(b"trak", track), extra)


def read(folder: Path, content: bytes, number: int = 7) -> Track | None:
    (folder / "a.mp4").write_bytes(content)
    return read_track(folder / "a.mp4", number)


def offsets(track: Track | None) -> list[int]:
    assert track is not None
    assert track.offsets is not None
    return track.offsets.tolist()


def test_offsets_of_each_sample(tmp_path: Path) -> None:
    assert offsets(read(tmp_path, movie())) == [512, 512, -512]
    assert offsets(read(tmp_path, box(b"ftyp") + box(b"mdat", bytes(99), large=True) + movie())) == [512, 512, -512]
    assert read(tmp_path, movie(table=None)) == Track(1, None)
    assert read(tmp_path, movie(), number=8) is None
    wide = b"\1\0\0\0" + numbers(0, 0, width=8) + numbers(7)
    assert offsets(read(tmp_path, movie(head=wide))) == [512, 512, -512]


def test_edits_that_play_something_are_counted(tmp_path: Path) -> None:
    one = box(b"edts", box(b"elst", numbers(0, 2, 100, -1, 65536, 900, 1024, 65536)))  # nothing, then the rest
    two = box(b"edts", box(b"elst", b"\1\0\0\0", numbers(2), *[numbers(9, 5, width=8) + numbers(65536)] * 2))
    for edits, count in ((b"", 1), (one, 1), (two, 2)):
        track = read(tmp_path, movie(edits=edits))
        assert track is not None
        assert track.edits == count


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no box",
        box(b"ftyp"),
        box(b"moov"),
        b"\0\0\0\0mdat" + bytes(50),  # up to the end of the file
        movie()[:60],
        movie(extra=box(b"mvex")),
        movie(table=numbers(0, 9, 2, 512)),  # fewer runs than announced
        movie(table=numbers(0, 1, -2, 512)),
        box(b"moov", box(b"trak", b"\xff\xff\xff\xfftkhd")),
        box(b"moov", box(b"trak")),
    ],
)
def test_what_does_not_tell_gives_nothing(tmp_path: Path, content: bytes) -> None:
    assert read(tmp_path, content) is None


def test_missing_file_gives_nothing(tmp_path: Path) -> None:
    assert read_track(tmp_path / "none.mp4", 1) is None


def test_a_real_file(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        track = read_track(path, stream.id)
    late = np.array([(packet.pts or 0) - (packet.dts or 0) for packet in packets])
    assert (np.array(offsets(track)) == late - late[0] + offsets(track)[0]).all()
    assert len(set(late)) > 1


def test_a_box_that_reaches_beyond_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    whole = box(b"ftyp") + box(b"mdat", bytes(99), large=True) + movie()
    for content, expected in (
        (whole, False),
        (whole[:-1], True),
        (whole[:60], True),
        (box(b"ftyp") + b"\0\0\0\0mdat", False),
        (b"these are words" * 9, None),
        (b"", None),
    ):
        path.write_bytes(content)
        assert is_cut_off(path) is expected
