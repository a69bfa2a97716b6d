"""Clips: determinism, views, masks, colour, and what happens to unreadable videos."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from tests.data.conftest import write_video
from tests.data.video.test_video import unreadable
from timesformer import InputError
from timesformer.data import (
    FrameCache,
    Preprocessing,
    Sample,
    Unreadable,
    Video,
    VideoDataset,
    VideoError,
    Views,
    collate,
    read_kinetics_csv,
    uniform_indices,
)
from timesformer.data.masks import MaskStore
from timesformer.data.probes import ProbeInfo
from timesformer.data.transforms import short_side_size
from timesformer.data.video.clock import Clock

RECORD = Preprocessing(num_frames=8, short_side=40, crop=32)
PLAIN = Preprocessing(num_frames=4, short_side=48, crop=32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def test_training_sample(motion: ProbeInfo) -> None:
    dataset = VideoDataset(read_kinetics_csv(motion.train_csv), RECORD, train=True)
    item = dataset[0, 5]
    assert isinstance(item, dict)
    assert item["clip"].shape == dataset.clip_shape == (8, 3, 32, 32)
    assert item["clip"].dtype == torch.float32
    assert item["clip"].is_contiguous()
    assert (item["label"], item["index"]) == (5, 5)
    assert len(dataset) == 32
    assert torch.equal(dataset[5]["clip"], item["clip"])
    assert not torch.equal(dataset[1, 5]["clip"], item["clip"])
    assert len(list(dataset)) == 32


def test_normalisation_is_the_records(plain_video: Path) -> None:
    dataset = VideoDataset(
        [Sample(plain_video, 0)], replace(PLAIN, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0)), train=False
    )
    clip = dataset[0]["clip"]
    with Video(plain_video) as video:
        pixels = video.frames(uniform_indices(30, 4))[:, 8:40, 16:48].astype(np.float64)
    expected = (pixels / 255 - [0.1, 0.2, 0.3]) / [0.5, 0.25, 2.0]
    assert clip.shape == (1, 4, 3, 32, 32)
    np.testing.assert_allclose(clip[0].numpy(), expected.transpose(0, 3, 1, 2), atol=1e-6)


def test_colour_order(motion: ProbeInfo) -> None:
    samples = read_kinetics_csv(motion.train_csv)
    rgb = VideoDataset(samples, RECORD, train=True)[3]["clip"]
    bgr = VideoDataset(samples, replace(RECORD, colour_order="BGR"), train=True)[3]["clip"]
    assert torch.equal(rgb.flip(1), bgr)


KEYS = [(epoch, index) for epoch in (0, 3) for index in range(12)]
Variant = tuple[tuple[int, int] | None, bool]  # jitter, and whether frames are cached
VARIANTS: list[Variant] = [(jitter, cached) for jitter in (None, (34, 44)) for cached in (False, True)]


def variant(motion: ProbeInfo, folder: Path, jitter: tuple[int, int] | None, cached: bool) -> VideoDataset:
    cache = FrameCache(folder / f"cache {jitter}") if cached else None
    samples = read_kinetics_csv(motion.train_csv)
    return VideoDataset(samples, RECORD, train=True, jitter=jitter, flip=True, seed=7, cache=cache, masks=True)


class Several(Dataset[dict[str, Any]]):
    """Datasets by name, one at a time in a batch, so that the same processes load from all of them."""

    def __init__(self, datasets: dict[Variant, VideoDataset]) -> None:
        self.datasets = datasets

    def __getitems__(self, keys: list[tuple[Variant, tuple[int, int]]]) -> Any:
        return self.datasets[keys[0][0]].__getitems__([key for _, key in keys])


@pytest.fixture(scope="module")
def loaded(motion: ProbeInfo, tmp_path_factory: pytest.TempPathFactory) -> dict[Variant, dict[str, torch.Tensor]]:
    """All clips of every variant, in batches of 5, made by two processes."""
    folder = tmp_path_factory.mktemp("loaded")
    chunks = [KEYS[start : start + 5] for start in range(0, len(KEYS), 5)]
    loader = DataLoader(
        Several({each: variant(motion, folder, *each) for each in VARIANTS}),
        batch_sampler=[[(each, key) for key in chunk] for each in VARIANTS for chunk in chunks],
        num_workers=2,
        collate_fn=collate,
        multiprocessing_context="spawn",
    )
    batches = list(loader)
    return {
        each: {
            field: torch.cat([batch[field] for batch in batches[number * len(chunks) : (number + 1) * len(chunks)]])
            for field in ("clip", "mask", "label", "index")
        }
        for number, each in enumerate(VARIANTS)
    }


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("jitter", [None, (34, 44)])
def test_same_bits_in_any_order_batch_and_process(
    motion: ProbeInfo,
    loaded: dict[Variant, dict[str, torch.Tensor]],
    tmp_path: Path,
    cached: bool,
    jitter: tuple[int, int] | None,
) -> None:
    expected = variant(motion, tmp_path, jitter, cached).__getitems__(KEYS)
    dataset = variant(motion, tmp_path, jitter, cached)
    single = collate([dataset[key] for key in reversed(KEYS)])
    assert torch.equal(single["clip"].flip(0), expected["clip"])
    assert torch.equal(single["mask"].flip(0), expected["mask"])
    for field, values in loaded[jitter, cached].items():
        assert torch.equal(values, expected[field])


def test_other_seed_other_clips(motion: ProbeInfo) -> None:
    samples = read_kinetics_csv(motion.train_csv)
    clips = [VideoDataset(samples, RECORD, train=True, seed=seed).get_batch(0, range(8))["clip"] for seed in (0, 1)]
    assert not torch.equal(*clips)


def test_global_random_state_are_left_alone(motion: ProbeInfo) -> None:
    state, python_state = torch.get_rng_state(), random.getstate()
    VideoDataset(read_kinetics_csv(motion.train_csv), RECORD, train=True, flip=True, jitter=(34, 44)).get_batch(
        0, range(8)
    )
    assert torch.equal(state, torch.get_rng_state())
    assert python_state == random.getstate()


def test_flip_mirrors_every_second_clip(plain_video: Path) -> None:
    samples = [Sample(plain_video, 0)] * 200
    record = replace(PLAIN, short_side=48, crop=(48, 64))
    clips = VideoDataset(samples, record, train=True, flip=True).get_batch(0, range(200))["clip"]
    corner = clips[:, :, :, 4:12, 4:12].mean((1, 2, 3, 4)) > 0.9  # the white corner is at the left
    assert 70 < int(corner.sum()) < 130
    still = VideoDataset(samples[:20], record, train=True).get_batch(0, range(20))["clip"]
    assert (still[:, :, :, 4:12, 4:12].mean((1, 2, 3, 4)) > 0.9).all()


def test_views_follow_the_released_code(tmp_path: Path) -> None:
    wide, tall = write_video(tmp_path / "wide.mp4"), write_video(tmp_path / "tall.mp4", size=(64, 48))
    for path, edges in ((wide, [(8, 0), (8, 16), (8, 32)]), (tall, [(0, 8), (16, 8), (32, 8)])):
        dataset = VideoDataset([Sample(path, 0)], PLAIN, train=False, views=Views(clips=2, crops=3))
        clip = dataset[0]["clip"]
        assert clip.shape == dataset.clip_shape == (6, 4, 3, 32, 32)
        with Video(path) as video:
            for number in range(2):
                frames = video.frames(uniform_indices(30, 4, clip=number, clips=2)) / 255
                for view, (y, x) in enumerate(edges):
                    expected = frames[:, y : y + 32, x : x + 32].transpose(0, 3, 1, 2)
                    np.testing.assert_allclose(clip[3 * number + view].numpy(), expected, atol=1e-6)


def test_resizing_is_bilinear_without_antialias(plain_video: Path) -> None:
    record = replace(PLAIN, short_side=36)
    clip = VideoDataset([Sample(plain_video, 0)], record, train=False)[0]["clip"][0]
    with Video(plain_video) as video:
        frames = torch.from_numpy(video.frames(uniform_indices(30, 4)).transpose(0, 3, 1, 2) / 255).float()
    assert short_side_size(48, 64, 36) == (36, 48)
    resized = torch.nn.functional.interpolate(frames, (36, 48), mode="bilinear", align_corners=False)
    torch.testing.assert_close(clip, resized[:, :, 2:34, 8:40], atol=1e-5, rtol=0)
    smooth = VideoDataset([Sample(plain_video, 0)], replace(record, antialias=True), train=False)[0]["clip"][0]
    assert not torch.allclose(clip, smooth, atol=1e-3)


def test_long_side_is_rounded_down() -> None:
    assert short_side_size(240, 427, 256) == (256, 455)
    assert short_side_size(427, 240, 256) == (455, 256)
    assert short_side_size(40, 40, 40) == (40, 40)


def test_jitter_covers_its_range(plain_video: Path) -> None:
    dataset = VideoDataset([Sample(plain_video, 0)] * 40, PLAIN, train=True, jitter=(32, 64))
    sides = {dataset._geometry(48, 64, np.random.default_rng(seed)).size[0] for seed in range(600)}
    assert sides == set(range(32, 65))
    assert dataset.get_batch(0, range(40))["clip"].shape == (40, 4, 3, 32, 32)


def test_dense_sampling_reads_at_the_records_stride(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=58, rate=15)
    record = replace(PLAIN, sampling="dense", frame_rate=4)
    first = VideoDataset([Sample(path, 0)], record, train=False, views=Views(start="first"))[0]["clip"]
    levels = [round(float(frame[:, -8:, -8:].mean() * 255 - 20) / 4) for frame in first[0]]
    assert levels == [0, 2, 4, 7]  # 4 frames at a stride of 4 * 15 / 30 = 2: floor(linspace(0, 7, 4))
    middle = VideoDataset([Sample(path, 0)], record, train=False)[0]["clip"]
    levels = [round(float(frame[:, -8:, -8:].mean() * 255 - 20) / 4) for frame in middle[0]]
    assert levels[0] + levels[-1] == 57
    assert VideoDataset([Sample(path, 0)], record, train=True)[0]["clip"].shape == (4, 3, 32, 32)


def test_stills_take_one_frame(motion: ProbeInfo) -> None:
    samples = read_kinetics_csv(motion.train_csv)
    train = VideoDataset(samples, RECORD, train=True, stills=True)
    assert train[0]["clip"].shape == (1, 3, 32, 32)
    assert VideoDataset(samples, RECORD, train=False, stills=True)[0]["clip"].shape == (1, 1, 3, 32, 32)
    assert len({train[epoch, 0]["clip"].numpy().tobytes() for epoch in range(40)}) > 20


@pytest.mark.parametrize("jitter", [None, (36, 44)])
def test_masks_follow_frames_and_crops(motion: ProbeInfo, jitter: tuple[int, int] | None) -> None:
    """Paint each video with its own mask: then clip and mask must agree after sampling, resizing and cropping."""
    samples = read_kinetics_csv(motion.train_csv)[:16]
    store = MaskStore()

    for train in (True, False):
        dataset = VideoDataset(
            samples, replace(PLAIN, num_frames=8, short_side=40), train=train, jitter=jitter, flip=True, masks=True,
            views=Views(clips=2, crops=3),
        )  # fmt: skip
        for index in range(16):
            mask = store.get(samples[index].path)
            pixels = np.repeat(np.where(mask, 255, 0).astype(np.uint8)[:, None], 3, axis=1)
            rng = np.random.default_rng(index)
            chosen = dataset._choose(Clock.at_rate(16, 15.0), rng)
            geometry = dataset._geometry(40, 40, rng)
            for indices in chosen:
                clip = dataset._cut(pixels[indices], geometry)
                clip = clip.float() / 255 if clip.dtype == torch.uint8 else clip
                cut = dataset._cut_mask(mask[indices], geometry)
                assert clip.shape[:2] == cut.shape[:2]
                assert torch.equal(clip[:, :, 0] >= 0.5, cut)
        item = dataset[3]
        assert item["mask"].dtype == torch.bool
        assert item["mask"].shape == (*item["clip"].shape[:-3], 32, 32)
        assert item["mask"].any()


def test_masks_need_a_file_beside_the_video(plain_video: Path) -> None:
    with pytest.raises(InputError, match=r"expected a file .*masks\.npz"):
        VideoDataset([Sample(plain_video, 0)], PLAIN, train=False, masks=True)[0]


def mixed(folder: Path) -> tuple[list[Sample], dict[str, tuple[Path, str]]]:
    """Good videos between bad ones."""
    good = write_video(folder / "good.mp4")
    bad = unreadable(folder)
    samples = []
    for path, _ in bad.values():
        samples += [Sample(good, 1), Sample(path, 0)]
    return samples, bad


@pytest.mark.parametrize("cached", [False, True])
def test_unreadable_videos_are_counted_and_listed(tmp_path: Path, cached: bool) -> None:
    samples, bad = mixed(tmp_path)
    cache = FrameCache(tmp_path / "cache") if cached else None
    dataset = VideoDataset(samples, PLAIN, train=True, allow_unreadable=True, cache=cache)
    batch = dataset.get_batch(0, range(len(samples)))
    assert batch["clip"].shape == (len(bad), 4, 3, 32, 32)
    assert batch["label"].tolist() == [1] * len(bad)
    assert batch["index"].tolist() == list(range(0, len(samples), 2))
    assert [path for path, _ in batch["unreadable"]] == [str(path) for path, _ in bad.values()]
    for (_, reason), (_, expected) in zip(batch["unreadable"], bad.values(), strict=True):
        assert expected in reason
    assert dataset.unreadable == dict(batch["unreadable"])
    single = collate([dataset[index] for index in range(len(samples))])
    assert torch.equal(single["clip"], batch["clip"])
    assert single["unreadable"] == batch["unreadable"]
    assert isinstance(dataset[1], Unreadable)

    nothing = dataset.get_batch(0, [1, 3])
    assert nothing["clip"].shape == (0, 4, 3, 32, 32)
    assert nothing["label"].shape == (0,)
    assert len(collate([dataset[1]])["unreadable"]) == 1

    strict = VideoDataset(samples, PLAIN, train=True, cache=cache)
    for index in range(1, len(samples), 2):
        with pytest.raises(VideoError):
            strict[index]


def test_unreadable_video_in_a_loader_worker(tmp_path: Path) -> None:
    samples, bad = mixed(tmp_path)
    dataset = VideoDataset(samples, PLAIN, train=False, allow_unreadable=True)
    loader = DataLoader(dataset, batch_size=4, num_workers=1, collate_fn=collate, multiprocessing_context="spawn")
    assert sum(len(batch["unreadable"]) for batch in loader) == len(bad)


def test_audit(tmp_path: Path) -> None:
    samples, bad = mixed(tmp_path)
    cache = FrameCache(tmp_path / "cache")
    report = VideoDataset(samples, PLAIN, train=False, cache=cache).audit()
    assert report["num_videos"] == 2 * len(bad)
    assert report["labels"] == {"0": len(bad), "1": len(bad)}
    assert report["num_unreadable"] == len(bad)
    assert [entry["path"] for entry in report["unreadable"]] == [str(path) for path, _ in bad.values()]
    assert report == VideoDataset(samples, PLAIN, train=False).audit()
    again = VideoDataset(samples[::-1], PLAIN, train=False).audit()
    assert again["fingerprint"] == report["fingerprint"]
    changed = [replace(samples[0], label=2), *samples[1:]]
    assert VideoDataset(changed, PLAIN, train=False).audit()["fingerprint"] != report["fingerprint"]


def test_impossible_arguments(plain_video: Path) -> None:
    samples = [Sample(plain_video, 0)]
    with pytest.raises(InputError, match="no samples"):
        VideoDataset([], PLAIN, train=True)
    with pytest.raises(InputError, match="jitter"):
        VideoDataset(samples, PLAIN, train=True, jitter=(20, 40))
    with pytest.raises(InputError, match="seed"):
        VideoDataset(samples, PLAIN, train=True, seed=-1)
    with pytest.raises(InputError, match="does not fit"):
        VideoDataset(samples, replace(PLAIN, crop=(32, 100), too_narrow="refuse"), train=False)[0]
    for changed in ({"clips": 0}, {"crops": 0}, {"start": "end"}):
        with pytest.raises(InputError, match=next(iter(changed))):
            Views(**changed)  # type: ignore[arg-type]
