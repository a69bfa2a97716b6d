"""The cache of decoded frames: what it returns, and what it withstands."""

import multiprocessing
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest

from timesformer.data import FrameCache, Sample, Video, VideoError, open_video, read_kinetics_csv
from timesformer.data import cache as cache_module
from timesformer.data.cache import decode
from timesformer.data.probes import ProbeInfo


def stored(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.frames"))


def test_frames_are_the_videos_and_decoded_once(
    plain_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Sample] = []
    monkeypatch.setattr(cache_module, "open_video", lambda sample: (calls.append(sample), open_video(sample))[1])
    cache = FrameCache(tmp_path)
    assert plain_video not in cache
    for _ in range(3):
        found = cache.get(plain_video)
        with Video(plain_video) as video:
            assert np.array_equal(found.pixels.transpose(0, 2, 3, 1), video.all_frames())
            assert found.fps == video.fps
    assert plain_video in cache
    FrameCache(tmp_path).get(plain_video)
    pickle.loads(pickle.dumps(cache)).get(str(plain_video))
    assert len(calls) == 1
    assert len(stored(tmp_path)) == 1


def test_content_is_the_key(plain_video: Path, tmp_path: Path) -> None:
    copy = tmp_path / "another name.mp4"
    copy.write_bytes(plain_video.read_bytes())
    cache = FrameCache(tmp_path / "cache")
    cache.get(plain_video)
    cache.get(copy)
    assert len(stored(cache.folder)) == 1
    from tests.data.conftest import write_video

    write_video(copy, frames=7)  # the same path now holds another video
    assert len(cache.get(copy).pixels) == 7
    assert len(cache.get(plain_video).pixels) == 30


@pytest.mark.parametrize("damage", ["cut", "emptied", "overwritten"])
def test_damaged_entry_is_made_anew(plain_video: Path, tmp_path: Path, damage: str) -> None:
    expected = np.array(FrameCache(tmp_path).get(plain_video).pixels)
    (file,) = stored(tmp_path)
    content = file.read_bytes()
    file.unlink()
    file.write_bytes({"cut": content[:1000], "emptied": b"", "overwritten": b"x" * len(content)}[damage])
    assert np.array_equal(FrameCache(tmp_path).get(plain_video).pixels, expected)
    assert file.read_bytes() == content


def test_full_cache_says_so_and_goes_on(motion: ProbeInfo, tmp_path: Path) -> None:
    samples = read_kinetics_csv(motion.train_csv)
    cache = FrameCache(tmp_path, max_bytes=5 * (16 * 3 * 40 * 40 + 64 + 12 * 16))
    with pytest.warns(UserWarning, match="is full"):
        frames = [np.array(cache.get(sample.path).pixels) for sample in samples[:8]]
    assert len(stored(tmp_path)) == 5
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once
        assert all(np.array_equal(cache.get(s.path).pixels, f) for s, f in zip(samples, frames, strict=False))


def test_more_videos_than_descriptions(motion: ProbeInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "_MAX_OPEN", 4)
    cache = FrameCache(tmp_path)
    samples = read_kinetics_csv(motion.train_csv)[:10]
    for _ in range(2):
        for sample in samples:
            assert np.array_equal(cache.get(sample.path).pixels, decode(sample.path).pixels)
    assert len(cache._known) == 4


def test_unreadable_video_leaves_nothing(tmp_path: Path) -> None:
    cache = FrameCache(tmp_path / "cache")
    (tmp_path / "a.mp4").write_bytes(b"no video")
    for name in ("a.mp4", "missing.mp4"):
        with pytest.raises(VideoError):
            cache.get(tmp_path / name)
    assert not list((tmp_path / "cache").rglob("*.*"))


def test_failed_write_leaves_nothing(plain_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("timesformer.files.os.replace", fail)
    with pytest.raises(OSError, match="no space left"):
        FrameCache(tmp_path).get(plain_video)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def fill(folder: Path, csv: Path) -> list[int]:
    cache = FrameCache(folder)
    return [int(cache.get(sample.path).pixels.sum(dtype=np.int64)) for sample in read_kinetics_csv(csv)]


@pytest.mark.integration
def test_two_processes_fill_one_cache(motion: ProbeInfo, tmp_path: Path) -> None:
    expected = [int(decode(sample.path).pixels.sum(dtype=np.int64)) for sample in read_kinetics_csv(motion.train_csv)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        results = pool.starmap(fill, [(tmp_path, motion.train_csv)] * 2)
    assert results == [expected, expected]
    assert len(stored(tmp_path)) == len(expected)
    assert not list(tmp_path.rglob("*.partial"))


def refuse(*_: object) -> None:
    raise AssertionError("the video was opened")


def test_frames_that_are_asked_for_are_kept(plain_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "WHOLE_BYTES", 1000)
    cache, right = FrameCache(tmp_path), decode(plain_video).pixels
    with cache.open(plain_video) as video:
        assert (video.num_frames, video.clock.fps) == (30, 30.0)
        assert np.array_equal(video.pixels([7, 3, 7]), right[[7, 3, 7]])
    (file,) = stored(tmp_path)
    assert cache._used == 64 + 12 * 30 + 2 * right[0].nbytes
    for reader in (cache, FrameCache(tmp_path)):
        with monkeypatch.context() as patch:
            patch.setattr(cache_module, "open_video", refuse)
            with reader.open(plain_video) as video:
                assert np.array_equal(video.pixels([3, 3, 7]), right[[3, 3, 7]])
                assert video.clock.lasting == 1.0
                with pytest.raises(AssertionError, match="was opened"):
                    video.pixels([3, 4])
    assert np.array_equal(FrameCache(tmp_path).get(plain_video).pixels, right)
    assert file.stat().st_size == 64 + 12 * 30 + right.nbytes


def test_a_small_video_is_kept_whole(plain_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FrameCache(tmp_path).open(plain_video) as video:
        video.pixels([7])
    monkeypatch.setattr(cache_module, "open_video", refuse)
    assert len(FrameCache(tmp_path).get(plain_video).pixels) == 30


def test_a_video_longer_than_is_worth_keeping(plain_video: Path, tmp_path: Path) -> None:
    right = decode(plain_video).pixels
    cache = FrameCache(tmp_path, max_bytes=right.nbytes * 3 // 2)
    with pytest.warns(UserWarning, match=r"plain\.mp4: its frames would take .* are decoded each time"):
        assert np.array_equal(cache.get(plain_video).pixels, right)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once
        with cache.open(plain_video) as video:
            assert np.array_equal(video.pixels([9]), right[[9]])
    assert not stored(tmp_path)


def test_a_frame_that_a_crash_has_lost_is_decoded_again(plain_video: Path, tmp_path: Path) -> None:
    right = np.array(FrameCache(tmp_path).get(plain_video).pixels)
    (file,) = stored(tmp_path)
    with file.open("r+b") as content:  # its checksum reached the disk, the frame did not
        content.seek(-right[0].nbytes, 2)
        content.write(bytes(right[0].nbytes))
    assert np.array_equal(FrameCache(tmp_path).get(plain_video).pixels, right)


def test_another_decoder_has_frames_of_its_own(
    plain_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FrameCache(tmp_path).get(plain_video)
    monkeypatch.setattr(cache_module, "_DECODER", "another")
    assert plain_video not in FrameCache(tmp_path)
    FrameCache(tmp_path).get(plain_video)
    assert len(stored(tmp_path)) == 2
