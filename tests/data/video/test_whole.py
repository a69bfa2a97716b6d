"""Whole files are told from cut ones by what their structure declares."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.data.conftest import write_video
from tests.data.video.made import encode, patch, remux
from timesformer.data import Video, VideoError
from timesformer.data.video.whole import is_cut_off

STEADY = [40 * index for index in range(20)]
FILES = {
    "a.mp4": ("libx264", {}),
    "a.mov": ("mpeg4", {}),
    "a.mkv": ("libx264", {}),
    "a.webm": ("libvpx", {}),
    "a.avi": ("mpeg4", {}),
    "a.flv": ("libx264", {}),
    "a.asf": ("mpeg4", {}),
    "fragments.mp4": ("libx264", {"movflags": "frag_keyframe+empty_moov"}),
    "front.mp4": ("libx264", {"movflags": "faststart"}),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    for name, (codec, mux) in FILES.items():
        options = {"bf": "0", "g": "5"} if codec == "libx264" else {"g": "5"}
        encode(folder / name, codec, times=STEADY, time_base=Fraction(1, 1000), last=5000, options=options, mux=mux)
    return folder


@pytest.mark.parametrize("name", FILES)
def test_a_whole_file_is_read_and_each_cut_one_is_reported(files: Path, tmp_path: Path, name: str) -> None:
    path = files / name
    assert is_cut_off(path) is False
    with Video(path) as video:  # the last picture stands for five seconds, twenty times as long as any other
        assert video.num_frames == 20
        video.check()
    content = path.read_bytes()
    for share in (0.8, 0.6, 0.3):
        cut = tmp_path / name
        cut.write_bytes(content[: int(share * len(content))])
        assert is_cut_off(cut) is True
        with pytest.raises(VideoError, match="truncated") as caught:
            Video(cut)
        assert caught.value.kind == "truncated"


def test_files_that_declare_nothing(tmp_path: Path) -> None:
    live = encode(tmp_path / "live.mkv", mux={"live": "1"})
    for path in (live, encode(tmp_path / "a.ts"), encode(tmp_path / "a.h264")):
        assert is_cut_off(path) is None
    for size in (0, 3, 4, 11):
        (tmp_path / "short").write_bytes(live.read_bytes()[:size])
        assert is_cut_off(tmp_path / "short") is None
    unfinished = patch(
        encode(tmp_path / "a.avi", "mpeg4"), tmp_path / "b.avi", lambda c: c.__setitem__(slice(4, 8), bytes(4))
    )
    assert is_cut_off(unfinished) is None
    nameless = patch(
        encode(tmp_path / "a.flv"),
        tmp_path / "b.flv",
        lambda c: c.__setitem__(slice(0, len(c)), c.replace(b"filesize", b"filesiz_")),
    )
    assert is_cut_off(nameless) is False  # by the chain of its tags
    nameless.write_bytes(nameless.read_bytes()[:-40])
    assert is_cut_off(nameless) is True


def test_a_file_with_sound_that_lasts_longer_is_whole(tmp_path: Path) -> None:
    """The header's duration is the longest stream's."""
    path = tmp_path / "a.mkv"
    source = write_video(tmp_path / "video.mkv", frames=15)
    with av.open(str(source)) as video, av.open(str(path), "w") as out:
        copy, sound = out.add_stream_from_template(video.streams.video[0]), out.add_stream("pcm_s16le", rate=8000)
        for packet in video.demux(video=0):
            if packet.size:
                packet.stream = copy
                out.mux(packet)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 32000), np.int16), format="s16", layout="mono")
        frame.rate = 8000
        for packet in (*sound.encode(frame), *sound.encode(None)):
            out.mux(packet)
    with Video(path) as found:
        assert found.num_frames == 15
        assert found.clock.lasting == pytest.approx(0.5, abs=0.01)


def test_an_edit_list_that_plays_a_part_is_no_damage(tmp_path: Path) -> None:
    """Its packets are fewer than its samples: more than a group of pictures is skipped."""

    def trim(content: bytearray) -> None:
        place = content.find(b"elst") + 12
        start = int.from_bytes(content[place + 4 : place + 8], "big")
        content[place + 4 : place + 8] = (start + 9 * 512).to_bytes(4, "big")

    path = patch(encode(tmp_path / "a.mp4", options={"g": "4"}), tmp_path / "b.mp4", trim)
    with Video(path) as video:
        assert video.num_frames == 11
        video.check()
    front = remux(path, tmp_path / "c.mp4", mux={"movflags": "faststart"})
    cut = patch(front, tmp_path / "d.mp4", lambda content: content.__delitem__(slice(-1200, None)))
    with pytest.raises(VideoError, match="truncated") as caught:
        Video(cut)
    assert caught.value.kind == "truncated"
