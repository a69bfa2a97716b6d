"""Weights of patches laid over the frames that they belong to.

Weight is light: the frame is grey and dimmed, and the more weight a patch has, the brighter it glows, from orange to
pale yellow.  Brightness rises with the weight over any picture, so that it reads with any colour vision and without
colour.
"""

import numpy as np
import torch
from matplotlib.colors import LinearSegmentedColormap
from torch.nn.functional import interpolate

from timesformer.errors import InputError

DIM = 0.5
"""Brightness of a frame under the map; below that of the darkest glow, so that weight only ever adds light."""
COVER = 0.85
"""How much of the picture the largest weight hides."""
LOW, HIGH = (232, 96, 28), (255, 246, 196)
"""The glow of the least and of the largest weight, RGB."""
GLOW = LinearSegmentedColormap.from_list("glow", [tuple(level / 255 for level in c) for c in ((0, 0, 0), LOW, HIGH)])
"""For colour bars: from nothing to the largest weight."""


def upsample(weights: np.ndarray, size: tuple[int, int], smooth: bool = False) -> np.ndarray:
    """Weights of patches (…, h, w) as weights of pixels (…, H, W): each patch covers H / h x W / w pixels, its own.

    smooth: bilinear between the patches' middles, level beyond the outermost ones; otherwise level over each patch

    Raises:
        InputError: a size that is no multiple of the grid.
    """
    height, width = weights.shape[-2:]
    if size[0] % height or size[1] % width:
        raise InputError(f"overlay: {size[0]} x {size[1]} pixels cannot be cut into {height} x {width} patches")
    if not smooth:
        return weights.repeat(size[0] // height, -2).repeat(size[1] // width, -1)
    flat = torch.from_numpy(np.ascontiguousarray(weights, np.float32)).reshape(1, -1, height, width)
    out = interpolate(flat, size, mode="bilinear", align_corners=False)
    return out.reshape(*weights.shape[:-2], *size).numpy()


def overlay(
    frames: np.ndarray, weights: np.ndarray, *, top: float | None = None, smooth: bool = False, colours: bool = False
) -> np.ndarray:
    """Frames (t, H, W, 3) with weights (tokens in time, h, w) over them: uint8 (t, H, W, 3).

    t is a multiple of the tokens in time: a tubelet's weight lies over each of its frames.
    top: the weight that glows brightest, by default the largest one, the same for all frames
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
    """Weights (tokens in time, …) for every frame (frames, …).  Raises InputError where they do not divide."""
    if frames % len(weights):
        raise InputError(f"overlay: {frames} frames are no multiple of the map's {len(weights)} tokens in time")
    return weights.repeat(frames // len(weights), 0)


def grey(frames: np.ndarray) -> np.ndarray:
    """RGB (…, 3) as luma of BT.601 (…, 1)."""
    return (frames.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]


def shares(weights: np.ndarray) -> np.ndarray:
    """A method's map as shares of a whole: what is negative counts as nothing, and a map whose weights sum to more than
    1, or to less than half, is divided by its sum.  (Gradients have no unit; rollout leaves some to class tokens.)"""
    found = np.maximum(weights, 0)
    total = float(found.sum())
    return found if total == 0 or 0.5 <= total <= 1 + 1e-4 else found / total


def holding(weights: np.ndarray, share: float = 0.5) -> np.ndarray:
    """The fewest patches that together hold at least `share` of all weight: bool, the weights' shape."""
    flat = weights.ravel().astype(np.float64)
    order = np.argsort(-flat, kind="stable")
    total = np.cumsum(flat[order])
    needed = int(np.searchsorted(total, share * total[-1] * (1 - 1e-12))) + 1
    out = np.zeros(flat.shape, bool)
    out[order[:needed]] = True
    return out.reshape(weights.shape)
