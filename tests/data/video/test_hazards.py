"""What lies in a folder beside videos: pipes, devices, loops; and files that change while they are read."""

import errno
import os
import shutil
import signal
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.data.video.made import encode, number_of, numbers_of
from timesformer.data import FrameCache, Sample, Video, VideoError, open_video, read_annotations
from timesformer.data.audit import audit, fingerprint
from timesformer.data.survey import survey
from timesformer.data.video.find import find_videos
from timesformer.errors import InputError


@pytest.fixture
def soon() -> Iterator[None]:
    """End what waits for a pipe or reads a device without an end."""

    def stop(*_: object) -> None:
        raise TimeoutError("waits for something that is no file")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("soon")
def test_nothing_but_files_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "set" / "class"
    folder.mkdir(parents=True)
    encode(folder / "a.mp4", count=3)
    os.mkfifo(folder / "pipe.mp4")
    os.symlink("/dev/zero", folder / "zero.mp4")
    os.symlink("loop.mp4", folder / "loop.mp4")
    (folder / "images").mkdir()
    os.mkfifo(folder / "images" / "1.png")
    samples = read_annotations("folder", tmp_path / "set")
    said = {found.sample.path.name: found.reason for found in survey(samples, decode=True, min_frames=1).verdicts}
    assert said.pop("a.mp4") == ""
    assert "not a file, but a pipe" in said["pipe.mp4"]
    assert "a device" in said["zero.mp4"]
    assert "symbolic links" in said["loop.mp4"]
    assert said["images"] == "image 1.png is not a file"
    cache = FrameCache(tmp_path / "cache")
    for name in said:
        with pytest.raises(VideoError), cache.open(folder / name) as video:
            video.pixels([0])
        with pytest.raises(VideoError):
            open_video(folder / name)
    assert fingerprint(samples).sha256 == fingerprint(samples).sha256
    assert audit(samples, cache)["num_unreadable"] == len(said)


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "set").mkdir()
    encode(tmp_path / "real" / "a.mp4", count=2)
    os.symlink(tmp_path / "real", tmp_path / "set" / "linked")
    os.symlink(tmp_path / "set", tmp_path / "set" / "linked" / "back")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert find_videos([tmp_path / "set"]) == [tmp_path / "set" / "linked" / "a.mp4"]


@pytest.mark.parametrize(
    "name", ["a%03d.gif", "what?.gif", "{a,b}.gif", "new\nline.gif", "concat:a|b.gif", "a%d.mjpeg"]
)
def test_a_name_that_looks_like_a_list_is_a_file(tmp_path: Path, name: str) -> None:
    path = encode(tmp_path / "a.gif", "gif", pix_fmt="rgb8").rename(tmp_path / name)
    with Video(path) as video:
        assert numbers_of(video.frames([3, 17])) == [3, 17]


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\npipe.ts\n#EXT-X-ENDLIST\n"),
        ("a.mp4", "ffconcat version 1.0\nfile pipe.ts\n"),
    ],
)
def test_files_in_a_list_are_not_even_opened(tmp_path: Path, name: str, text: str) -> None:
    os.mkfifo(tmp_path / "pipe.ts")
    (tmp_path / name).write_text(text)
    with pytest.raises(VideoError, match="list of other files"):
        Video(tmp_path / name)


def test_a_file_that_is_replaced_while_it_is_read_is_reported(tmp_path: Path) -> None:
    path, other = encode(tmp_path / "a.mkv"), encode(tmp_path / "b.mkv", count=9)
    with Video(path) as video:
        assert number_of(video.frames([3])[0]) == 3
        os.replace(other, path)
        video.reader.table = replace(video.reader.table, key_frames=[0], targets=[None])  # as after a seek that failed
        with pytest.raises(VideoError, match="was changed while it was being read"):
            video.frames([1])


def test_the_cache_keeps_nothing_of_a_file_that_was_replaced(tmp_path: Path) -> None:
    path, whole = encode(tmp_path / "a.mp4"), encode(tmp_path / "b.mp4", count=9)
    old = path.read_bytes()
    cache = FrameCache(tmp_path / "cache")
    with cache.open(path) as video:
        shutil.copy(whole, path)
        with pytest.raises(VideoError, match="was changed"):
            video.pixels([3])
    path.write_bytes(old)
    assert numbers_of(np.moveaxis(cache.get(path).pixels, 1, -1)) == list(range(20))


@pytest.mark.parametrize("first", [2, 15])
def test_the_size_is_that_of_the_first_frame_whatever_is_read_first(tmp_path: Path, first: int) -> None:
    parts = [encode(tmp_path / f"{side}.ts", size=(side, 64), options={"g": "5"}).read_bytes() for side in (48, 64)]
    (tmp_path / "a.ts").write_bytes(b"".join(parts))
    with open_video(Sample(tmp_path / "a.ts", 0)) as video:
        if first < 10:
            assert video.frames([first]).shape[1:3] == (48, 64)
        else:
            with pytest.raises(VideoError, match="frame size changes"):
                video.frames([first + 15])


def test_folders_that_may_not_be_listed_do_not_vanish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("open", "closed"):
        (tmp_path / "class" / name).mkdir(parents=True)
    encode(tmp_path / "class" / "open" / "a.mp4", count=2)
    real = os.scandir

    def refuse(path: str | Path) -> object:  # also where tests run as root, who may read everything
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    closed = tmp_path / "class" / "closed"
    assert find_videos([tmp_path]) == [closed, tmp_path / "class" / "open" / "a.mp4"]
    with pytest.raises(VideoError, match="the folder cannot be read"):
        open_video(closed)
    monkeypatch.setattr(Path, "iterdir", lambda folder: (folder / entry.name for entry in refuse(folder)))
    (verdict,) = (
        each for each in survey(read_annotations("folder", tmp_path)).verdicts if "closed" in each.sample.name
    )
    assert verdict.reason.startswith("the folder cannot be read (Permission denied)")
    with pytest.raises(InputError, match="closed: the folder cannot be read"):
        read_annotations("folder", tmp_path / "class")
