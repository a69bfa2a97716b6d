"""A sample's frames: video files, folders of images, and segments of either."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.data.conftest import write_video
from tests.data.images import grey, image_bytes, level, write_folder
from timesformer.data import (
    FrameCache,
    FrameFolder,
    Preprocessing,
    Sample,
    Video,
    VideoDataset,
    VideoError,
    open_video,
)
from timesformer.data.audit import audit
from timesformer.data.natural import natural_key
from timesformer.data.video.open import frames_key

RECORD = Preprocessing(num_frames=4, short_side=48, crop=32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def levels(sample: Sample, indices: list[int]) -> list[int]:
    with open_video(sample) as video:
        return [level(frame) for frame in video.frames(indices)]


def test_a_folder_gives_its_images(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a")
    (folder / "notes.txt").write_text("left out")
    (folder / ".hidden.png").write_bytes(b"left out")
    with open_video(folder) as video:
        assert (video.num_frames, video.fps, video.height, video.width) == (12, 30.0, 48, 64)
        frames = video.frames([11, 0, 9, 0])
        assert video.frames([]).shape == (0, 48, 64, 3)
    assert frames.dtype == np.uint8
    for frame, index in zip(frames, (11, 0, 9, 0), strict=True):  # 9 is frame_10: numbers, not letters, give the order
        np.testing.assert_array_equal(frame, grey(index))
    assert FrameFolder(folder, 25.0).fps == 25.0


def test_jpg_is_read_in_full_range(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a", frames=3, suffix=".jpg")
    (folder / "frame_1.jpg").rename(folder / "frame_1.JPEG")
    with open_video(folder) as video:
        frames = video.frames(range(3)).astype(int)
    for index in range(3):
        assert abs(frames[index] - grey(index)).max() <= 3
        assert frames[index][:8, :8].min() >= 252


def test_natural_order() -> None:
    names = ["b1", "a10.jpg", "a9.jpg", "a009.jpg", "10", "9"]
    assert sorted(names, key=natural_key) == ["9", "10", "a009.jpg", "a9.jpg", "a10.jpg", "b1"]


def test_segments_hold_their_frames(plain_video: Path, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a", frames=20)
    for path in (plain_video, folder):
        assert levels(Sample(path, 0, start_frame=5, end_frame=12), [0, 6, 3]) == [5, 11, 8]
        assert levels(Sample(path, 0, start_frame=17), [0, 2]) == [17, 19]
        assert levels(Sample(path, 0, end_frame=2), [1]) == [1]
    with open_video(Sample(plain_video, 0, start_frame=5, end_frame=12)) as video:
        assert (video.num_frames, video.fps, video.height, video.width) == (7, 30.0, 48, 64)
        with pytest.raises(VideoError, match="frame 7 requested, but the video has frames 0 to 6"):
            video.frames([7])


def test_a_segments_numbers_may_count_another_rate(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=40, rate=20)
    sample = Sample(path, 0, start_frame=30, end_frame=60, fps=60.0)  # from 0.5 to 1 second
    with open_video(sample) as video:
        assert video.num_frames == 10
    assert levels(sample, [0, 9]) == [10, 19]
    assert levels(replace(sample, start_frame=30, end_frame=31), [0]) == [10]
    near = Sample(path, 0, start_frame=10, end_frame=12, fps=20.02)  # 59.94 counts as 60
    assert levels(near, [0, 1]) == [10, 11]
    assert levels(Sample(path, 0, start_frame=60, fps=60.0), [0]) == [20]


def test_what_cannot_be_opened(plain_video: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(VideoError, match="the folder of this name is without images"):
        open_video(tmp_path / "empty")
    with pytest.raises(
        VideoError, match=r"plain\.mp4\[20:40\]: frames 20 to 39 requested, but the video has frames 0 to 29"
    ):
        open_video(Sample(plain_video, 0, start_frame=20, end_frame=40))
    with pytest.raises(VideoError, match=r"none\.mp4\[2:\]: no such file") as caught:
        open_video(Sample(tmp_path / "none.mp4", 0, start_frame=2))
    assert caught.value.path == str(tmp_path / "none.mp4[2:]")
    with pytest.raises(VideoError, match="the folder cannot be read"):
        FrameFolder(tmp_path / "nowhere")


def test_bad_images_are_named(tmp_path: Path) -> None:
    whole = {suffix: image_bytes(grey(3), suffix) for suffix in (".png", ".jpg")}
    bad = {
        "odd.png": (
            image_bytes(grey(3, (48, 32)), ".png"),
            "has 32 x 48 pixels, expected 64 x 48 as in the first image",
        ),
        "text.jpg": (b"no image", "is no image of a kind that is read"),
        "empty.jpg": (b"", "is no image of a kind that is read"),
        "cut.jpg": (whole[".jpg"][:-60], "is truncated"),
        "cut.png": (whole[".png"][:-30], "is truncated"),
        "broken.png": (whole[".png"][:16] + b"\xff" * 40 + whole[".png"][56:], "cannot be decoded"),
        "header.jpg": (b"\xff\xd8\xff\xd9", "cannot be decoded"),
    }
    for number, (name, (data, reason)) in enumerate(bad.items()):
        folder = write_folder(tmp_path / str(number), frames=2)
        (folder / f"x_{name}").write_bytes(data)
        with open_video(folder) as video, pytest.raises(VideoError, match=reason) as caught:
            video.frames([0, 2])
        assert f"x_{name}" in str(caught.value)
        segment = Sample(folder, 0, start_frame=1)
        with open_video(segment) as video, pytest.raises(VideoError, match=reason) as caught:
            video.frames([1])
        assert caught.value.path == f"{folder}[1:]"
    folder = write_folder(tmp_path / "link", frames=1)
    with open_video(folder) as video:
        (folder / "frame_1.png").unlink()
        with pytest.raises(VideoError, match=r"image frame_1\.png cannot be read"):
            video.frames([0])


def test_the_cache_keeps_segments_and_folders_apart(plain_video: Path, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a", frames=20)
    cache = FrameCache(tmp_path / "cache")
    samples = [
        Sample(path, 0, start_frame=start, end_frame=end)
        for path in (plain_video, folder)
        for start, end in ((None, None), (3, 6), (4, 6), (3, 7))
    ]
    for _ in range(2):
        for sample in samples:
            found = cache.get(sample)
            with open_video(sample) as video:
                np.testing.assert_array_equal(found.pixels.transpose(0, 2, 3, 1), video.frames(range(video.num_frames)))
            assert sample in cache
    assert len(list((tmp_path / "cache").glob("*/*.frames"))) == len(samples)
    assert plain_video in cache
    assert cache.get(Sample(folder, 0, fps=10.0)).fps == 10.0
    with pytest.raises(VideoError, match=r"nowhere\.mp4: no such file"):
        cache.get(tmp_path / "nowhere.mp4")


def test_the_key_of_a_folder_is_its_content(tmp_path: Path) -> None:
    first, second = (write_folder(tmp_path / name, frames=4) for name in "ab")
    assert frames_key(Sample(first, 0)) == frames_key(Sample(second, 1))
    inner = Sample(second, 0, start_frame=0, end_frame=3)
    before = frames_key(inner)
    (second / "frame_4.png").write_bytes(image_bytes(grey(9), ".png"))
    assert frames_key(Sample(first, 0)) != frames_key(Sample(second, 0))
    assert frames_key(inner) == before
    (second / "frame_4.png").rename(second / "frame_5.png")
    assert frames_key(Sample(first, 0)) != frames_key(Sample(second, 0))


@pytest.mark.parametrize("cached", [False, True])
def test_clips_from_segments_and_folders(plain_video: Path, tmp_path: Path, cached: bool) -> None:
    folder = write_folder(tmp_path / "a", frames=20)
    samples = [Sample(path, 0, start_frame=8, end_frame=12) for path in (plain_video, folder)]
    cache = FrameCache(tmp_path / "cache") if cached else None
    dataset = VideoDataset(samples, RECORD, train=False, cache=cache)
    for index in range(2):
        clip = dataset[index]["clip"][0].numpy() * 255
        assert [level(frame.transpose(1, 2, 0)) for frame in clip] == [8, 9, 10, 11]


def test_each_unreadable_segment_is_listed(plain_video: Path) -> None:
    samples = [Sample(plain_video, 0, f"s{start}", start, start + 4) for start in (20, 28, 29)]
    dataset = VideoDataset(samples, RECORD, train=False, allow_unreadable=True)
    batch = dataset.get_batch(0, range(3))
    assert [path for path, _ in batch["unreadable"]] == [f"{plain_video}[28:32]", f"{plain_video}[29:33]"]
    assert sorted(dataset.unreadable) == [f"{plain_video}[28:32]", f"{plain_video}[29:33]"]
    found = dataset.audit()
    assert found["num_unreadable"] == 2
    assert found["num_videos"] == 3


def test_fingerprints_tell_segments_and_folders(plain_video: Path, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a", frames=20)
    lists = [
        [Sample(plain_video, 0, "x")],
        [Sample(plain_video, 0, "x", 0, 4)],
        [Sample(plain_video, 0, "x", 0, 5)],
        [Sample(plain_video, (0, 1), "x", 0, 5)],
        [Sample(folder, 0, "x")],
        [Sample(folder, 0, "x", 0, 5)],
    ]
    found = [audit(samples) for samples in lists]
    assert len({entry["fingerprint"] for entry in found}) == len(lists)
    assert all(entry["num_unreadable"] == 0 for entry in found)
    moved = write_folder(tmp_path / "b", frames=20)
    assert audit([Sample(moved, 0, "x")])["fingerprint"] == found[4]["fingerprint"]
    assert sum(found[3]["labels"].values()) == 1


def test_a_folder_equals_the_video_it_came_from(plain_video: Path, tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    with Video(plain_video) as video:
        for index, frame in enumerate(video.frames(range(video.num_frames))):
            (folder / f"{index:05d}.png").write_bytes(image_bytes(frame, ".png"))
    samples = [Sample(plain_video, 0), Sample(folder, 0)]
    clips = [VideoDataset([sample], RECORD, train=True, seed=4, flip=True, jitter=(40, 60))[0] for sample in samples]
    np.testing.assert_array_equal(clips[0]["clip"].numpy(), clips[1]["clip"].numpy())
