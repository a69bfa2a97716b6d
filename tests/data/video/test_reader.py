"""Random access equals sequential access, whatever seeks do and packets hold."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from tests.data.video.made import encode, in_sequence, numbers_of, remux
from timesformer.data import Preprocessing, Sample, Video, VideoDataset, VideoError
from timesformer.data.video.verdict import UNREADABLE, examine, worst

SEEKABLE = {"a.mp4": "libx264", "b.mkv": "libx264", "c.avi": "mpeg4", "d.ts": "mpeg2video", "e.webm": "libvpx"}
WRONG: dict[str, Callable[[list[int]], list[int]]] = {
    "late": lambda targets: [*targets[1:], targets[-1]],
    "early": lambda targets: [targets[0], *targets[:-1]],
    "first": lambda targets: [targets[0]] * len(targets),
    "beyond": lambda targets: [2**60 for _ in targets],
    "before": lambda targets: [-(2**60) for _ in targets],
}


@pytest.mark.parametrize("name", SEEKABLE)
def test_a_seek_that_ends_elsewhere_is_noticed(tmp_path: Path, name: str) -> None:
    path = encode(tmp_path / name, SEEKABLE[name], options={"g": "5"})
    right = in_sequence(path).frames
    for change in WRONG.values():
        with Video(path) as video:
            table = video.reader.table
            assert len(table.key_frames) > 3
            video.reader.table = replace(table, targets=change([target or 0 for target in table.targets]))
            for index in (17, 0, 19, 1, 6, 5, 12):
                np.testing.assert_array_equal(video.frames([index])[0], right[index])


@pytest.mark.parametrize(
    ("name", "codec"), [("a.h264", "libx264"), ("a.hevc", "libx265"), ("a.asf", "libx264"), ("a.avi", "libx264")]
)
def test_a_frame_alone_in_files_that_cannot_seek(tmp_path: Path, name: str, codec: str) -> None:
    path = encode(tmp_path / name, codec, options={"g": "6"} if codec == "libx264" else {})
    for index in (1, 0, 19):
        with Video(path) as video:
            assert numbers_of(video.frames([index])) == [index]


def not_coded(seconds: int, bits: int = 5) -> bytes:
    """An MPEG-4 picture that is not coded (ISO/IEC 14496-2, section 6.2.5: vop_coded is 0)."""
    fields = f"01{'0'}1{seconds:0{bits}b}1{'0'}" + "0"
    fields += "1" * (-len(fields) % 8)
    return b"\0\0\1\xb6" + bytes(int(fields[place : place + 8], 2) for place in range(0, len(fields), 8))


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_a_picture_that_is_not_coded_repeats_the_one_before(tmp_path: Path, suffix: str) -> None:
    source = encode(tmp_path / "a.mp4", "mpeg4", options={"g": "6", "bf": "0"})
    empty = {3, 8, 9, 14}
    with av.open(str(source)) as container, av.open(str(tmp_path / f"b.{suffix}"), "w") as out:
        stream = out.add_stream_from_template(container.streams.video[0])
        packets = [packet for packet in container.demux(video=0) if packet.size]
        for number, packet in enumerate(packets):
            new = av.Packet(not_coded(number % 25)) if number in empty else packet
            new.pts, new.dts, new.time_base, new.duration = packet.pts, packet.dts, packet.time_base, packet.duration
            new.stream = stream
            out.mux(new)
    path = tmp_path / f"b.{suffix}"
    coded = iter(in_sequence(path).frames)  # FFmpeg leaves out the others
    right: list[np.ndarray] = []
    for number in range(20):
        right.append(right[-1] if number in empty else next(coded))
    assert next(coded, None) is None
    with Video(path) as video:
        np.testing.assert_array_equal(video.all_frames(), right)
        for index in (9, 3, 14, 8, 18):
            np.testing.assert_array_equal(video.frames([index])[0], right[index])
    for index in (14, 9):
        with Video(path) as video:
            np.testing.assert_array_equal(video.frames([index])[0], right[index])
    found = examine(path, decode=True)
    assert worst(list(found.findings)) == "repeated"
    assert found.findings[0].reason == "4 packets without a picture"


@pytest.mark.parametrize("cut", ["inside", "key"])
@pytest.mark.parametrize(
    ("suffix", "codec", "options"),
    [
        ("ts", "libx264", {"g": "8", "bf": "2"}),
        ("mkv", "libx264", {"x264-params": "open-gop=1:keyint=8:bframes=3"}),
        ("ts", "mpeg2video", {"g": "8", "bf": "2"}),
        ("mkv", "libx265", {"x265-params": "log-level=none:pools=none:open-gop=1:keyint=8:bframes=2"}),
        ("mkv", "mpeg4", {"g": "8", "bf": "2"}),
        ("mkv", "libvpx", {"g": "8"}),
    ],
)
def test_a_stream_is_numbered_from_the_first_picture_shown(
    tmp_path: Path, suffix: str, codec: str, options: dict[str, str], cut: str
) -> None:
    """A recording that begins inside a group of pictures, or with pictures that refer to the group before."""
    source = encode(tmp_path / f"a.{suffix}", codec, options=options, count=30)
    with av.open(str(source)) as container:
        keys = [packet.is_keyframe for packet in container.demux(video=0) if packet.size]
    first = 3 if cut == "inside" else keys.index(True, 1)
    path = remux(source, tmp_path / f"b.{suffix}", change=lambda number, packet: number >= first)
    if (codec, cut) == ("libvpx", "inside"):  # FFmpeg ends at the first packet that it cannot decode
        right = in_sequence(source).frames[keys.index(True, 1) :]
    else:
        right = in_sequence(path).frames
    for order in (range(len(right)), [5, 0, len(right) - 1], [1]):
        with Video(path) as video:
            assert video.num_frames == len(right)
            for index in order:
                np.testing.assert_array_equal(video.frames([index])[0], right[index])
    assert worst(list(examine(path, decode=True).findings)) not in UNREADABLE


def damaged(source: Path, out: Path, seed: int) -> Path:
    content = bytearray(source.read_bytes())
    rng = np.random.default_rng(seed)
    for place in rng.integers(len(content) // 5, len(content) * 4 // 5, 3):
        content[place : place + 8] = rng.integers(0, 256, 8).astype(np.uint8).tobytes()
    out.write_bytes(bytes(content))
    return out


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.avi", "mpeg4"), ("a.mkv", "libvpx")])
def test_the_audit_and_training_agree_on_damage(tmp_path: Path, name: str, codec: str) -> None:
    source = encode(tmp_path / name, codec, options={"g": "5"})
    words = set()
    for seed in range(12):
        path = damaged(source, tmp_path / f"{seed}_{name}", seed)
        found = examine(path, decode=True)
        word = worst(list(found.findings))
        words.add(word)
        readable = True
        try:
            with Video(path) as video:
                for index in np.random.default_rng(seed).permutation(video.num_frames):
                    video.frames([index])
        except VideoError:
            readable = False
        assert readable == (word not in UNREADABLE), (seed, found.findings)
    assert len(words) > 1


def test_concealed_damage_is_told_and_read(tmp_path: Path) -> None:
    source = encode(tmp_path / "a.mp4", options={"g": "5"}, size=(96, 128))
    found = {}
    for seed in range(20):
        path = damaged(source, tmp_path / f"{seed}.mp4", seed)
        found[worst(list(examine(path, decode=True).findings))] = path
    assert "concealed" in found
    record = Preprocessing(num_frames=20, short_side=96, crop=96)
    clip = VideoDataset([Sample(found["concealed"], 0)], record, train=False)[0]["clip"]
    assert clip.shape == (1, 20, 3, 96, 96)
