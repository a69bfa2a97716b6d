"""Preprocessing record: the input format of a model, stored with its checkpoint."""

import math
import numbers
from dataclasses import asdict, dataclass, fields
from typing import Any

from timesformer.errors import InputError

Triple = tuple[float, float, float]
_LATER_FIELDS = ("target_fps", "centre", "quantised", "square_pixels", "too_narrow")


def _whole(value: Any) -> bool:
    """Return True for a whole number above 0; true is none."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) >= 1


def _numbers(values: Any, count: int) -> bool:
    """Return True for so many finite numbers."""
    return (
        isinstance(values, tuple | list)
        and len(values) == count
        and all(isinstance(v, numbers.Real) and not isinstance(v, bool) and math.isfinite(v) for v in values)
    )


@dataclass(frozen=True)
class Preprocessing:
    """Preprocessing from a video file to the model's input.

    num_frames: frames per clip
    sampling: "uniform" (one frame from each of num_frames segments) or "dense" (every frame_rate-th frame, counted at
        target_fps frames per second); frame_rate is needed for dense sampling only
    short_side: short side after resizing at test time (and in training without jitter); the long side is scaled in
        proportion and rounded down
    crop: size in pixels, or (height, width)
    centre: rounding of a centre crop's corner that falls on half a pixel: "ceil" (FAIR) or "floor" (Hugging Face,
        mmaction2)
    antialias: widen the filter when downsampling, as PIL does
    quantised: round resized pixels to whole grey levels, as PIL does
    too_narrow: treatment of a video into which the crop does not fit at this short side (a portrait video where the
        crop is a landscape): "enlarge" it in proportion until the crop fits, or "refuse" it as unreadable
    value_range: range to which the pixel values 0 to 255 are mapped before mean and std are applied, per channel
    colour_order: channel order that the model expects ("RGB" or "BGR")
    square_pixels: first resize videos whose pixels are not square to how they are meant to be displayed

    The defaults of mean, std, value_range and interpolation are those of the released TimeSformer.  Raises InputError
    naming the field.
    """

    num_frames: int = 8
    short_side: int = 224
    crop: int | tuple[int, int] = 224
    mean: Triple = (0.45, 0.45, 0.45)
    std: Triple = (0.225, 0.225, 0.225)
    value_range: tuple[float, float] = (0.0, 1.0)
    colour_order: str = "RGB"
    interpolation: str = "bilinear"
    antialias: bool = False
    sampling: str = "uniform"
    frame_rate: int | None = None
    target_fps: float = 30.0
    centre: str = "ceil"
    quantised: bool = False
    square_pixels: bool = False
    too_narrow: str = "enlarge"

    def __post_init__(self) -> None:
        self._require("num_frames", _whole(self.num_frames), "a whole number, at least 1")
        sides = self.crop if isinstance(self.crop, tuple | list) else (self.crop, self.crop)
        self._require("crop", len(sides) == 2 and all(map(_whole, sides)), "whole pixels, at least 1 pixel")
        self._require("short_side", _whole(self.short_side), "a whole number of pixels")
        self._require("short_side", self.short_side >= min(self.crop_size), "at least the crop's shorter side")
        self._require("mean", _numbers(self.mean, 3), "three numbers")
        self._require("std", _numbers(self.std, 3) and min(self.std) > 0, "three numbers above 0")
        rising = _numbers(self.value_range, 2) and self.value_range[0] < self.value_range[1]
        self._require("value_range", rising, "(low, high)")
        self._require("colour_order", self.colour_order in ("RGB", "BGR"), '"RGB" or "BGR"')
        self._require("interpolation", self.interpolation in ("bilinear", "bicubic"), '"bilinear" or "bicubic"')
        self._require("sampling", self.sampling in ("uniform", "dense"), '"uniform" or "dense"')
        self._require("target_fps", _numbers((self.target_fps,), 1) and self.target_fps > 0, "above 0")
        self._require("centre", self.centre in ("ceil", "floor"), '"ceil" or "floor"')
        self._require("too_narrow", self.too_narrow in ("enlarge", "refuse"), '"enlarge" or "refuse"')
        for flag in ("antialias", "quantised", "square_pixels"):
            self._require(flag, isinstance(getattr(self, flag), bool), "true or false")
        if self.sampling == "dense":
            strided = self.frame_rate is not None and _whole(self.frame_rate)
            self._require("frame_rate", strided, "at least 1 (dense sampling)")

    def _require(self, field: str, holds: bool, expected: str) -> None:
        if not holds:
            raise InputError(f"preprocessing: {field} must be {expected}, got {getattr(self, field)!r}")

    @property
    def crop_size(self) -> tuple[int, int]:
        """Size (height, width) of the crop."""
        return (self.crop, self.crop) if isinstance(self.crop, int) else self.crop

    def affine(self) -> tuple[Triple, Triple]:
        """Return (scale, shift) per channel: the model's input is `pixel * scale + shift` for pixels from 0 to 255."""
        low, high = self.value_range
        scale = tuple((high - low) / 255.0 / std for std in self.std)
        shift = tuple((low - mean) / std for mean, std in zip(self.mean, self.std, strict=True))
        return scale, shift  # type: ignore[return-value]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    def defining(self) -> dict[str, Any]:
        """Return `to_dict` without later fields at their defaults, to identify the preprocessing of a record.

        Records from before these fields existed thus keep their identity.
        """
        plain = {field.name: field.default for field in fields(self) if field.name in _LATER_FIELDS}
        return {key: value for key, value in self.to_dict().items() if key not in plain or value != plain[key]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Preprocessing":
        """Make a record from the result of `to_dict`.  Raises InputError for unknown fields."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise InputError(f"preprocessing: unknown field {unknown[0]!r}, expected fields among {sorted(known)}")
        # JSON has no tuples.
        plain: dict[str, Any] = {key: tuple(item) if isinstance(item, list) else item for key, item in values.items()}
        return cls(**plain)
