"""Preprocessing against transformers' processors that run without torchvision, and against FAIR's rule by hand.

Of transformers' processors for these models VivitImageProcessor and VideoMAEImageProcessorPil do; both resize with PIL.
TimesformerVideoProcessor, VivitVideoProcessor and VideoMAEImageProcessor need torchvision.  VideoMAEImageProcessor is
what the hub's TimeSformer checkpoints name, with 0.45 / 0.225.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil
from transformers.models.vivit.image_processing_vivit import VivitImageProcessor

from timesformer.checkpoints.formats.hf_files import preprocessing_of_processor
from timesformer.checkpoints.published import names, preprocessing_of, published
from timesformer.data import Preprocessing
from timesformer.data.transforms import normalise, resized_crop
from timesformer.data.transforms import test_geometry as geometry_at_test

SIZES = [(240, 320), (360, 640), (427, 240), (256, 340), (200, 333)]
TIMESFORMER = {"image_mean": [0.45] * 3, "image_std": [0.225] * 3}
PROCESSORS = {
    "hub base TimeSformer": lambda: VideoMAEImageProcessorPil(**TIMESFORMER),
    "hub HR TimeSformer": lambda: VideoMAEImageProcessorPil(
        **TIMESFORMER, size={"shortest_edge": 448}, crop_size={"height": 448, "width": 448}
    ),
    "VideoMAE": VideoMAEImageProcessorPil,
    "ViViT": VivitImageProcessor,
    "ViViT, [-1, 1]": lambda: VivitImageProcessor(do_normalize=False),
}
VALUES = {
    "ViViT": (-3.0, 1.0),
    "ViViT, [-1, 1]": (-1.0, 1.0),
    "hub base TimeSformer": (-2.0, 0.55 / 0.225),
    "hub HR TimeSformer": (-2.0, 0.55 / 0.225),
}


def frames(height: int, width: int) -> np.ndarray:
    """uint8 (2, 3, H, W): noise, and a smooth picture with a sharp edge."""
    rng = np.random.default_rng(height * width)
    noise = rng.integers(0, 256, (3, height, width), dtype=np.uint8)
    y, x = np.mgrid[:height, :width]
    smooth = np.stack([120 + 100 * np.sin(x / 19), 120 + 100 * np.cos(y / 23), 255.0 * (x > width // 3)])
    return np.stack([noise, smooth.astype(np.uint8)])


def ours(pixels: np.ndarray, record: Preprocessing, crops: int = 1) -> torch.Tensor:
    """What the dataset does with frames that have to be resized: (views, t, 3, h, w)."""
    geometry = geometry_at_test(*pixels.shape[-2:], record, crops)
    whole = torch.from_numpy(pixels)
    if record.quantised:
        return normalise(resized_crop(whole, geometry, record), record)
    return resized_crop(normalise(whole, record), geometry, record)


def theirs(processor: Any, pixels: np.ndarray) -> np.ndarray:
    return np.asarray(processor(list(pixels.transpose(0, 2, 3, 1)), return_tensors="np")["pixel_values"])[0]


@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.parametrize("size", SIZES)
def test_agrees_with_processors_that_resize_by_pil(name: str, size: tuple[int, int]) -> None:
    """PIL rounds to whole grey levels after each of its two passes, along rows and then along columns, with weights in
    whole numbers.  Ours are rounded alike, but a value near the middle of two levels may fall to the other side: at
    most one pixel in twenty is off, by one grey level, and one in ten thousand by two (once in each pass).  In
    fractions of grey levels no pixel is off by more than half a level for each rounding of PIL's, and a hundredth for
    its weights."""
    processor = PROCESSORS[name]()
    found, notes = preprocessing_of_processor(json.loads(processor.to_json_string()), Path("preprocessor_config.json"))
    assert notes == []
    record = Preprocessing.from_dict(found)
    assert (record.antialias, record.quantised, record.centre) == (True, True, "floor")
    pixels = frames(*size)
    expected = theirs(processor, pixels)
    low, high = normalise(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 1, 1), record)
    level = float((high - low).max()) / 255
    if name in VALUES:
        assert (float(low.min()), float(high.max())) == pytest.approx(VALUES[name], abs=1e-6)
    off = np.abs(ours(pixels, record)[0].numpy() - expected) / level
    assert off.max() < 2.01
    assert (off > 0.01).mean() < 0.05
    assert (off > 1.01).mean() < 1e-4
    fractional = ours(pixels, replace(record, quantised=False))[0].numpy()
    assert np.abs(fractional - expected).max() / level < 1.01


def test_without_antialias_the_difference_is_no_rounding() -> None:
    processor = PROCESSORS["hub base TimeSformer"]()
    pixels = frames(360, 640)
    record = Preprocessing(centre="floor")
    level = 1 / 255 / 0.225
    assert np.abs(ours(pixels, record)[0].numpy() - theirs(processor, pixels)).max() / level > 20


def test_half_a_pixel_goes_to_the_other_side_of_fairs_centre() -> None:
    """A room of 75 (298 of 299 for the long side): their corner is at 37, FAIR's at 38."""
    pixels = frames(224, 299)
    expected = theirs(PROCESSORS["hub base TimeSformer"](), pixels)
    assert np.allclose(ours(pixels, Preprocessing(centre="floor"))[0].numpy(), expected, atol=1e-5)
    assert np.allclose(ours(pixels, Preprocessing())[0, ..., :-1].numpy(), expected[..., 1:], atol=1e-5)


def bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Without antialias: out pixel i is at (i + 0.5) * in / out - 0.5, between its two neighbours."""

    def weights(out: int, there: int) -> np.ndarray:
        matrix = np.zeros((out, there))
        for i in range(out):
            place = max((i + 0.5) * there / out - 0.5, 0.0)
            below = int(place)
            above = min(below + 1, there - 1)
            matrix[i, below] += 1 - (place - below)
            matrix[i, above] += place - below
        return matrix

    return weights(height, image.shape[-2]) @ image @ weights(width, image.shape[-1]).T


@pytest.mark.parametrize(("size", "resized"), [((240, 320), (224, 298)), ((333, 200), (372, 224)), ((224, 299), None)])
def test_fairs_rule_by_hand(size: tuple[int, int], resized: tuple[int, int] | None) -> None:
    """(pixel / 255 - 0.45) / 0.225, then bilinear without antialias to short side 224, the long side rounded down;
    three crops at 0, the upper half and the end of what is left over.  2e-4 is 1/87 of a grey level: weights in
    float32."""
    record = Preprocessing()
    pixels = frames(*size)
    values = (pixels / 255 - 0.45) / 0.225
    whole = values if resized is None else bilinear(values, *resized)
    height, width = whole.shape[-2:]
    room = max(height, width) - 224
    places = (0, int(np.ceil(room / 2)), room)
    found = ours(pixels, record, 3).numpy()
    for view, place in zip(found, places, strict=True):
        along, across = slice(place, place + 224), slice(0, 224)
        rows, columns = (along, across) if height > width else (across, along)
        np.testing.assert_allclose(view, whole[..., rows, columns], atol=2e-4, rtol=0)


def test_one_pixel_by_hand() -> None:
    """2 x 4 to short side 3, so 3 x 6: the pixel of row 1, column 2 lies at (0.5, 1.1666…)."""
    image = np.array([[0, 60, 120, 255], [30, 90, 150, 210]], np.uint8)
    pixels = np.repeat(image[None, None], 3, axis=1)
    record = Preprocessing(short_side=3, crop=3, mean=(0.0,) * 3, std=(1.0,) * 3, value_range=(0.0, 255.0))
    geometry = geometry_at_test(2, 4, record, 1)
    assert (geometry.size, geometry.crops) == ((3, 6), ((0, 2),))
    x = 1.5 / 3 * 0 + (2 + 0.5) * 4 / 6 - 0.5
    upper, lower = (row[1] + (x - 1) * (row[2] - row[1]) for row in image.astype(float))
    assert float(ours(pixels, record)[0, 0, 0, 1, 0]) == pytest.approx((upper + lower) / 2, abs=1e-4)
    assert (upper + lower) / 2 == pytest.approx(85.0)


def test_built_in_records() -> None:
    for name in names():
        record = Preprocessing.from_dict(preprocessing_of(name) or {})
        entry = published(name)
        assert entry is not None
        assert entry.preprocessing == record
        assert entry.source
        assert record.frame_rate is None if "ssv2" in name.lower() else record.sampling == "dense"
        assert record.colour_order == ("BGR" if "ssv2" in name.lower() else "RGB")
    base = preprocessing_of("facebook/timesformer-base-finetuned-k400")
    assert base is not None
    assert (base["mean"], base["std"], base["short_side"], base["crop"]) == ([0.45] * 3, [0.225] * 3, 224, 224)
    assert (base["num_frames"], base["frame_rate"], base["antialias"]) == (8, 32, False)
    large = preprocessing_of("fcakyon/timesformer-large-finetuned-k600")
    assert large is not None
    assert (large["num_frames"], large["frame_rate"], large["crop"]) == (96, 4, 224)
    vivit = Preprocessing.from_dict(preprocessing_of("google/vivit-b-16x2-kinetics400") or {})
    assert (vivit.short_side, vivit.crop, vivit.num_frames) == (256, 224, 32)
    ends = normalise(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 1, 1), vivit)
    torch.testing.assert_close(ends[:, 0, 0, 0], torch.tensor([-1.0, 1.0]))
    assert (published("TimeSformer_divST_96x32_224_HowTo100M.pyth") or entry).protocol == "coverx1"
    assert len(names()) == 6 + 3 + 4 + 6 + 2 + 2 + 5


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("/weights/TimeSformer_divST_16_448_SSv2.pyth", "TimeSformer_divST_16_448_SSv2.pyth"),
        ("https://host/s/x/TimeSformer_divST_8x32_224_K600.pyth?dl=0", "TimeSformer_divST_8x32_224_K600.pyth"),
        ("clones/facebook/timesformer-hr-finetuned-k400/", "facebook/timesformer-hr-finetuned-k400"),
        ("vivit/kinetics_400/vivit_large_16x2_fe/checkpoint", "kinetics_400/vivit_large_16x2_fe"),
        ("mine/timesformer-base-finetuned-k400", None),
        ("my_TimeSformer_divST_8x32_224_K600.pyth", None),
    ],
)
def test_names_are_found_at_the_end_of_a_path(name: str, known: str | None) -> None:
    assert preprocessing_of(name) == (preprocessing_of(known) if known else None)
