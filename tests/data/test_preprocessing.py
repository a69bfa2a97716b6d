"""The record that travels with a model."""

import json
from dataclasses import replace

import pytest
import torch

from timesformer import InputError
from timesformer.data import Preprocessing
from timesformer.data.transforms import resized_crop
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
        ({"colour": "RGB"}, "colour"),
    ],
)
def test_impossible_values_name_the_field(changed: dict[str, object], field: str) -> None:
    with pytest.raises(InputError, match=rf"preprocessing: .*{field}"):
        Preprocessing.from_dict({**Preprocessing().to_dict(), **changed})


def test_records_from_before_a_field_load_and_are_identified_as_before() -> None:
    later = ("target_fps", "centre", "quantised", "square_pixels")
    record = Preprocessing(sampling="dense", frame_rate=2)
    old = {key: value for key, value in record.to_dict().items() if key not in later}
    assert Preprocessing.from_dict(old) == record
    assert record.defining() == old
    stated = {"target_fps": 25.0, "centre": "floor", "quantised": True, "square_pixels": True}
    changed = Preprocessing(**stated)  # type: ignore[arg-type]
    assert {key: changed.defining()[key] for key in later} == stated


def test_quantised_resizing_gives_whole_grey_levels() -> None:
    pixels = torch.randint(0, 256, (2, 3, 30, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    record = Preprocessing(short_side=20, crop=16, quantised=True, mean=(0.0,) * 3, std=(1.0,) * 3)
    for interpolation in ("bilinear", "bicubic"):
        changed = replace(record, interpolation=interpolation)
        found = resized_crop(pixels, geometry_at_test(30, 40, changed, 3), changed)
        assert (found.dtype, found.shape) == (torch.uint8, (3, 2, 3, 16, 16))
