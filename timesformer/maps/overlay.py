"""Overlay of patch weights on the frames that they belong to.

Weight is shown as light: the frame is grey and dimmed, and the more weight a patch has, the brighter it glows, from
orange to pale yellow.  Brightness increases with the weight over any picture, so that maps are readable with any colour
vision and without colour.
"""

import numpy as np
import torch
from matplotlib.colors import LinearSegmentedColormap
from torch.nn.functional import interpolate

from timesformer.errors import InputError

DIM = 0.5
"""Brightness of a frame under the map; it is below that of the darkest glow, so that weight only adds light."""
COVER = 0.85
"""Opacity of the largest weight."""
LOW, HIGH = (232, 96, 28), (255, 246, 196)
"""Glow of the smallest and of the largest weight, RGB."""
GLOW = LinearSegmentedColormap.from_list("glow", [tuple(level / 255 for level in c) for c in ((0, 0, 0), LOW, HIGH)])
"""Colour map for colour bars, from no weight to the largest."""


def upsample(weights: np.ndarray, size: tuple[int, int], smooth: bool = False) -> np.ndarray:
    """Upsample weights of patches (…, h, w) to pixels (…, H, W): each patch covers its own H / h x W / w pixels.

    smooth: bilinear between the patch centres, constant beyond the outermost ones; otherwise constant on each patch

    Raises:
        InputError: a size that is not a multiple of the grid.
    """
    height, width = weights.shape[-2:]
    if size[0] % height or size[1] % width:
        raise InputError(f"overlay: expected multiples of {height} x {width} pixels, got {size[0]} x {size[1]}")
    if not smooth:
        return weights.repeat(size[0] // height, -2).repeat(size[1] // width, -1)
    flat = torch.from_numpy(np.ascontiguousarray(weights, np.float32)).reshape(1, -1, height, width)
    out = interpolate(flat, size, mode="bilinear", align_corners=False)
    return out.reshape(*weights.shape[:-2], *size).numpy()


def overlay(
    frames: np.ndarray, weights: np.ndarray, *, top: float | None = None, smooth: bool = False, colours: bool = False
) -> np.ndarray:
    """Overlay weights (tokens in time, h, w) on frames (t, H, W, 3): uint8 (t, H, W, 3).

    t is a multiple of the tokens in time: the weight of a tubelet covers each of its frames.

    top: weight of the brightest glow in all frames; the largest weight by default
    colours: keep the frames' colours under the map

    Raises:
        InputError: frames or pixels that the weights do not divide.
    """
    weights = over_frames(weights, len(frames))
    top = float(weights.max()) if top is None else top
    relative = weights / top if top > 0 else np.zeros_like(weights)
    strength = np.clip(upsample(relative, frames.shape[1:3], smooth), 0, 1)[..., None].astype(np.float32)
    ground = np.float32(DIM) * (frames if colours else grey(frames))
    low, high = np.array(LOW, np.float32), np.array(HIGH, np.float32)
    glow = low + strength * (high - low)
    return np.round(ground + COVER * strength * (glow - ground)).astype(np.uint8)


def over_frames(weights: np.ndarray, frames: int) -> np.ndarray:
    """Repeat weights (tokens in time, …) for every frame, (frames, …).

    Raises:
        InputError: the number of frames is not a multiple of the tokens in time.
    """
    if frames % len(weights):
        raise InputError(f"overlay: expected a multiple of {len(weights)} frames, the map's tokens, got {frames}")
    return weights.repeat(frames // len(weights), 0)


def grey(frames: np.ndarray) -> np.ndarray:
    """Convert RGB (…, 3) to luma (…, 1) by BT.601."""
    return (frames.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]


def shares(weights: np.ndarray) -> np.ndarray:
    """Convert a method's map to shares of a whole.

    Negative weights are set to 0, and a map whose sum is above 1 or below 0.5 is divided by its sum: gradients have no
    unit, while rollout leaves some weight on class tokens.
    """
    found = np.maximum(weights, 0)
    total = float(found.sum())
    return found if total == 0 or 0.5 <= total <= 1 + 1e-4 else found / total


def holding(weights: np.ndarray, share: float = 0.5) -> np.ndarray:
    """Find the smallest set of patches that holds at least `share` of all weight: bool, shaped like the weights."""
    flat = weights.ravel().astype(np.float64)
    order = np.argsort(-flat, kind="stable")
    total = np.cumsum(flat[order])
    needed = int(np.searchsorted(total, share * total[-1] * (1 - 1e-12))) + 1
    out = np.zeros(flat.shape, bool)
    out[order[:needed]] = True
    return out.reshape(weights.shape)
