"""The record that travels with a model."""

import json

import pytest

from timesformer import InputError
from timesformer.data import Preprocessing


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
        ({"colour": "RGB"}, "colour"),
    ],
)
def test_impossible_values_name_the_field(changed: dict[str, object], field: str) -> None:
    with pytest.raises(InputError, match=rf"preprocessing: .*{field}"):
        Preprocessing.from_dict({**Preprocessing().to_dict(), **changed})
