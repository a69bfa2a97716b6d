"""The record that travels with a model."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from timesformer import InputError
from timesformer.data import Preprocessing
from timesformer.data.transforms import resized_crop, short_side_size, train_geometry
from timesformer.data.transforms import test_geometry as geometry_at_test


def test_round_trip_through_json() -> None:
    for record in (Preprocessing(), Preprocessing(crop=(64, 96), short_side=64, sampling="dense", frame_rate=32)):
        assert Preprocessing.from_dict(json.loads(json.dumps(record.to_dict()))) == record


def test_affine_gives_the_ranges_of_known_models() -> None:
    scale, shift = Preprocessing().affine()
    assert 255 * scale[0] + shift[0] == pytest.approx((1 - 0.45) / 0.225)
    half = (0.5, 0.5, 0.5)
    scale, shift = Preprocessing(value_range=(-1.0, 1.0), mean=half, std=half).affine()  # Hugging Face's ViViT
    assert (shift[0], 255 * scale[0] + shift[0]) == (pytest.approx(-3), pytest.approx(1))


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"num_frames": 0}, "num_frames"),
        ({"crop": 300}, "short_side"),
        ({"crop": 0}, "crop"),
        ({"mean": (0.5,)}, "mean"),
        ({"std": (0.2, 0.0, 0.2)}, "std"),
        ({"value_range": (1.0, 0.0)}, "value_range"),
        ({"colour_order": "YUV"}, "colour_order"),
        ({"interpolation": "magic"}, "interpolation"),
        ({"sampling": "random"}, "sampling"),
        ({"sampling": "dense"}, "frame_rate"),
        ({"target_fps": 0.0}, "target_fps"),
        ({"centre": "left"}, "centre"),
        ({"short_side": True}, "short_side"),
        ({"short_side": 224.5}, "short_side"),
        ({"crop": True}, "crop"),
        ({"crop": (1, 2, 3)}, "crop"),
        ({"crop": "224"}, "crop"),
        ({"num_frames": True}, "num_frames"),
        ({"mean": 0.5}, "mean"),
        ({"mean": (0.5, math.nan, 0.5)}, "mean"),
        ({"std": (0.2, math.inf, 0.2)}, "std"),
        ({"std": (0.2, True, 0.2)}, "std"),
        ({"value_range": (0.0, math.inf)}, "value_range"),
        ({"target_fps": True}, "target_fps"),
        ({"quantised": "yes"}, "quantised"),
        ({"sampling": "dense", "frame_rate": True}, "frame_rate"),
        ({"colour": "RGB"}, "colour"),
    ],
)
def test_impossible_values_name_the_field(changed: dict[str, object], field: str) -> None:
    with pytest.raises(InputError, match=rf"preprocessing: .*{field}"):
        Preprocessing.from_dict({**Preprocessing().to_dict(), **changed})


def test_records_from_before_a_field_load_and_are_identified_as_before() -> None:
    later = ("target_fps", "centre", "quantised", "square_pixels", "too_narrow")
    record = Preprocessing(sampling="dense", frame_rate=2)
    old = {key: value for key, value in record.to_dict().items() if key not in later}
    assert Preprocessing.from_dict(old) == record
    assert record.defining() == old
    other = {
        "target_fps": 25.0,
        "centre": "floor",
        "quantised": True,
        "square_pixels": True,
        "too_narrow": "refuse",
    }
    changed = Preprocessing.from_dict(other)
    assert {key: changed.defining()[key] for key in later} == other


def test_quantised_resizing_gives_whole_grey_levels() -> None:
    pixels = torch.randint(0, 256, (2, 3, 30, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    record = Preprocessing(short_side=20, crop=16, quantised=True, mean=(0.0,) * 3, std=(1.0,) * 3)
    for interpolation in ("bilinear", "bicubic"):
        changed = replace(record, interpolation=interpolation)
        found = resized_crop(pixels, geometry_at_test(30, 40, changed, 3), changed)
        assert (found.dtype, found.shape) == (torch.uint8, (3, 2, 3, 16, 16))


@pytest.mark.parametrize("crop", [(24, 40), (40, 24), (32, 32), (24, 64)])
@pytest.mark.parametrize("size", [(30, 60), (60, 30), (40, 40), (31, 37), (25, 400)])
@pytest.mark.parametrize("train", [False, True])
def test_the_crop_fits_into_every_video(crop: tuple[int, int], size: tuple[int, int], train: bool) -> None:
    """Its proportions are kept, and a video into which it fits already is resized as before."""
    record, rng = Preprocessing(short_side=32, crop=crop), np.random.default_rng(0)
    for crops in (1, 3):
        found = train_geometry(*size, record, (32, 40), True, rng) if train else geometry_at_test(*size, record, crops)
        for y, x in found.crops:
            assert 0 <= y <= found.size[0] - crop[0]
            assert 0 <= x <= found.size[1] - crop[1]
        assert abs(found.size[0] * size[1] - found.size[1] * size[0]) <= max(size)  # a pixel of rounding
        if not train:
            plain = short_side_size(*size, 32)
            fits = plain[0] >= crop[0] and plain[1] >= crop[1]
            assert found.enlarged is not fits
            assert (found.size == plain) is fits
            assert fits or crop[0] == found.size[0] or crop[1] == found.size[1]  # no larger than needed


def test_a_record_may_refuse_what_is_too_narrow() -> None:
    refusing = Preprocessing(short_side=32, crop=(32, 48), too_narrow="refuse")
    geometry_at_test(30, 60, refusing, 3)
    with pytest.raises(InputError, match=r"32 x 48 .*resized to 32 x 32.*too_narrow: refuse"):
        geometry_at_test(40, 40, refusing, 3)
    with pytest.raises(InputError, match="too_narrow"):
        Preprocessing(too_narrow="stretch")
    assert Preprocessing.from_dict(refusing.to_dict()) == refusing
    assert "too_narrow" not in Preprocessing().defining()
