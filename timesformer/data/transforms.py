"""Resizing, cropping and normalisation of clips."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from timesformer._typing import Bool, Float, UInt8
from timesformer.data.preprocessing import Preprocessing
from timesformer.errors import InputError

_AT_ONCE = 1 << 23
"""Values that are resized at once."""


@dataclass(frozen=True)
class Geometry:
    """Geometry of a clip's views.

    size: (H, W) after resizing; crops: top left corners (y, x), one per view; flip: mirror left to right
    enlarged: the video was resized beyond its short side, until the crop fitted
    """

    size: tuple[int, int]
    crops: tuple[tuple[int, int], ...]
    flip: bool = False
    enlarged: bool = False


def short_side_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Return (H, W) with the given short side.  The long side is rounded down, as in FAIR's released code."""
    if height <= width:
        return short_side, width * short_side // height
    return height * short_side // width, short_side


def fitting_size(height: int, width: int, short_side: int, crop: tuple[int, int]) -> tuple[int, int]:
    """Return (H, W) with the given short side, or in the same proportion the smallest size that holds the crop."""
    size = short_side_size(height, width, short_side)
    if size[0] < crop[0]:
        size = crop[0], max(size[1], width * crop[0] // height)
    if size[1] < crop[1]:
        size = max(size[0], height * crop[1] // width), crop[1]
    return size


def train_geometry(
    height: int, width: int, record: Preprocessing, jitter: tuple[int, int] | None, flip: bool, rng: np.random.Generator
) -> Geometry:
    """Draw a training geometry: random short side, random crop and, if `flip`, mirroring with probability 1/2.

    The short side is drawn from `jitter`, or is the record's if that is None.  Raises InputError where the crop does
    not fit and the record says to refuse such videos.
    """
    short = record.short_side if jitter is None else round(rng.uniform(*jitter))
    size, enlarged = _size(height, width, short, record)
    room = _room(size, record)
    corner = (int(rng.integers(room[0] + 1)), int(rng.integers(room[1] + 1)))
    return Geometry(size, (corner,), bool(flip and rng.random() < 0.5), enlarged)


def test_geometry(height: int, width: int, record: Preprocessing, crops: int) -> Geometry:
    """Return the geometry for testing: the centre crop, or several crops.

    Several crops are spread from end to end of the long side (the width of a square).  Three are the left, centre and
    right crop, as in FAIR's released code.  With `centre` "floor" they lie at whole multiples of one step, as in
    mmaction2, so the last one may end before the edge.  Raises InputError where the crop does not fit and the record
    says to refuse such videos.
    """
    size, enlarged = _size(height, width, record.short_side, record)
    room = _room(size, record)
    up = record.centre == "ceil"
    centre = tuple((free + up) // 2 for free in room)
    if crops == 1:
        return Geometry(size, ((centre[0], centre[1]),), enlarged=enlarged)
    long = room[0] if size[0] > size[1] else room[1]
    gaps = crops - 1
    places = [-(-long * i // gaps) if up else long // gaps * i for i in range(crops)]
    if size[0] > size[1]:
        return Geometry(size, tuple((y, centre[1]) for y in places), enlarged=enlarged)
    return Geometry(size, tuple((centre[0], x) for x in places), enlarged=enlarged)


def _size(height: int, width: int, short: int, record: Preprocessing) -> tuple[tuple[int, int], bool]:
    """Return the size after resizing, and whether it had to be enlarged for the crop."""
    plain, size = short_side_size(height, width, short), fitting_size(height, width, short, record.crop_size)
    if size != plain and record.too_narrow == "refuse":
        crop = " x ".join(map(str, record.crop_size))
        raise InputError(
            f"a crop of {crop} (height x width) does not fit into a video resized to {plain[0]} x {plain[1]}, and the "
            "preprocessing says too_narrow: refuse"
        )
    return size, size != plain


def _room(size: tuple[int, int], record: Preprocessing) -> tuple[int, int]:
    """Return the distance by which the crop can move down and right."""
    return size[0] - record.crop_size[0], size[1] - record.crop_size[1]


def normalise(pixels: UInt8[Tensor, "*views t 3 H W"], record: Preprocessing) -> Float[Tensor, "*views t 3 H W"]:
    """Convert RGB pixels to the model's range and colour order."""
    scale, shift = (torch.tensor(values).view(3, 1, 1) for values in record.affine())
    if record.colour_order == "BGR":
        pixels = pixels.flip(-3)
    return pixels.to(torch.float32).mul_(scale).add_(shift)


def pixels_of(clip: Float[Tensor, "*views t 3 H W"], record: Preprocessing) -> UInt8[Tensor, "*views t 3 H W"]:
    """Invert `normalise`, rounding to whole pixel values."""
    scale, shift = (torch.tensor(values).view(3, 1, 1) for values in record.affine())
    pixels = ((clip - shift) / scale).round_().clamp_(0, 255).to(torch.uint8)
    return pixels.flip(-3) if record.colour_order == "BGR" else pixels


def resize(
    clip: Float[Tensor, "t c H W"] | UInt8[Tensor, "t c H W"], size: tuple[int, int], record: Preprocessing
) -> Float[Tensor, "t c h w"] | UInt8[Tensor, "t c h w"]:
    """Resize every frame.  For uint8 input, the result is uint8, rounded to whole grey levels and clamped."""
    return interpolate(clip, size, mode=record.interpolation, align_corners=False, antialias=record.antialias)


def crop(
    frames: UInt8[np.ndarray, "t c H W"] | Bool[np.ndarray, "t c H W"], geometry: Geometry, height: int, width: int
) -> np.ndarray:
    """Crop every view without resizing.  Returns a copy (views, t, c, height, width)."""
    views = np.stack([frames[:, :, y : y + height, x : x + width] for y, x in geometry.crops])
    return np.ascontiguousarray(views[..., ::-1]) if geometry.flip else views


def resized_crop(
    clip: Float[Tensor, "t c H W"] | UInt8[Tensor, "t c H W"], geometry: Geometry, record: Preprocessing
) -> Float[Tensor, "views t c h w"] | UInt8[Tensor, "views t c h w"]:
    """Resize the clip, then crop every view."""
    height, width = record.crop_size
    clip = resize(clip, geometry.size, record)
    views = torch.stack([clip[:, :, y : y + height, x : x + width] for y, x in geometry.crops])
    return views.flip(-1) if geometry.flip else views


def resized_views(
    clip: UInt8[Tensor, "t 3 H W"], geometry: Geometry, record: Preprocessing
) -> Float[Tensor, "views t 3 h w"] | UInt8[Tensor, "views t 3 h w"]:
    """Resize pixels and crop every view, a few frames at a time: large frames take four times their memory as float32.

    The result is uint8 if resizing is quantised, otherwise normalised float32.
    """
    step = max(1, _AT_ONCE // max(1, clip[0].numel()))
    # FAIR's released code normalises before resizing; PIL resizes before normalising, in whole grey levels.
    views = [
        resized_crop(part if record.quantised else normalise(part, record), geometry, record)
        for part in clip.split(step)
    ]
    return views[0] if len(views) == 1 else torch.cat(views, 1)
