"""Frames of ordinary encoded files, in any order, and every way in which a file can be unreadable."""

import pickle
from pathlib import Path

import av
import numpy as np
import pytest

from tests.data.conftest import write_video
from timesformer.data import Video, VideoError


def levels(frames: np.ndarray) -> list[int]:
    """Which frames these are, told by their grey level."""
    return [round((float(frame[-8:, -8:].mean()) - 20) / 4) for frame in frames]


@pytest.mark.parametrize("threads", [1, 0])
def test_frames_in_any_order(plain_video: Path, threads: int) -> None:
    with Video(plain_video, threads=threads) as video:
        assert (video.num_frames, video.height, video.width, video.fps) == (30, 48, 64, 30.0)
        assert video.key_frames == [0, 10, 20]
        for wanted in ([0, 1, 2], [29], [5, 25, 5, 0], [28, 3, 12, 11, 10, 9], list(range(30))):
            frames = video.frames(wanted)
            assert frames.shape == (len(wanted), 48, 64, 3)
            assert frames.dtype == np.uint8
            assert levels(frames) == wanted
        assert np.array_equal(video.all_frames(), video.frames(np.arange(30)))
        assert video.frames([]).shape == (0, 48, 64, 3)


def test_skips_ahead_by_key_frames(plain_video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Video(plain_video) as video:
        sought: list[int] = []
        seek = video._seek
        monkeypatch.setattr(video, "_seek", lambda place: (sought.append(video.key_frames[place]), seek(place))[1])
        assert levels(video.frames([1, 3, 25, 26])) == [1, 3, 25, 26]
        assert sought == [0, 20]


@pytest.mark.parametrize(("name", "codec"), [("a.webm", "libvpx"), ("a.avi", "mpeg4"), ("a.mkv", "libx264")])
def test_other_containers(tmp_path: Path, name: str, codec: str) -> None:
    with Video(write_video(tmp_path / name, codec=codec)) as video:
        assert video.num_frames == 30
        assert levels(video.frames([17, 2, 29, 0])) == [17, 2, 29, 0]


def test_frame_outside(plain_video: Path) -> None:
    with Video(plain_video) as video, pytest.raises(VideoError, match=r"frame 30 asked for.*0 to 29"):
        video.frames([30])


def unreadable(folder: Path) -> dict[str, tuple[Path, str]]:
    """Files that cannot be read, with a part of the reason expected."""
    whole = write_video(folder / "whole.mp4").read_bytes()
    contents = {"empty": (b"", "empty"), "text": (b"these are words\n" * 50, "not a video")}
    contents["cut"] = (whole[: len(whole) // 2], "not a video")  # the index, at the end of the file, is lost
    files = {}
    for name, (content, reason) in contents.items():
        path = folder / f"{name}.mp4"
        path.write_bytes(content)
        files[name] = (path, reason)
    files["missing"] = (folder / "missing.mp4", "no such file")
    files["folder"] = (folder, "no such file")
    sound = folder / "sound.mp4"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    files["sound"] = (sound, "no video stream")
    return files


def test_unreadable_files(tmp_path: Path) -> None:
    for path, reason in unreadable(tmp_path).values():
        with pytest.raises(VideoError, match=reason) as caught:
            Video(path)
        assert caught.value.path == str(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.webm", "libvpx"), ("a.mkv", "libx264")])
def test_file_cut_off_behind_its_header(tmp_path: Path, name: str, codec: str) -> None:
    path = write_video(tmp_path / name, frames=58, codec=codec, rate=15)
    if name == "a.mp4":  # move the index to the front, as files made for streaming have it
        with (
            av.open(str(path)) as source,
            av.open(str(tmp_path / "b.mp4"), "w", options={"movflags": "faststart"}) as out,
        ):
            stream = out.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.size:
                    packet.stream = stream
                    out.mux(packet)
        path = tmp_path / "b.mp4"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(VideoError, match="cut off"):
        Video(path)


def test_damage_in_the_middle_is_an_error(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", gop=1)
    content = bytearray(path.read_bytes())
    with Video(path) as video:
        before = video.all_frames()
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    path.write_bytes(bytes(content))
    with pytest.raises(VideoError, match="damaged"), Video(path) as video:
        video.frames(range(len(before)))


def test_error_crosses_processes() -> None:
    error = pickle.loads(pickle.dumps(VideoError("a b.mp4", "gone")))
    assert (error.path, error.reason, str(error)) == ("a b.mp4", "gone", "a b.mp4: gone")
