"""Videos laid out of patches: every patch a texture of its own, stored without loss.

A texture is 4 x 4 cells of 2 x 2 pixels with a brightness each, and one colour.  Cells are as large as what video
stores of colour, and nothing is resized or coded with loss, so that a decoded patch shows what was drawn there and
nothing of its neighbours.
"""

from collections.abc import Sequence

import numpy as np

from timesformer.data.probes.scene import Scene, to_planes

Array = np.ndarray

PATCH, CELL = 8, 2
LOSSLESS = 0
"""x264's quantiser."""
SPREAD = 0.17
"""Standard deviation of the cells' brightness."""
GROUND = 0.45
"""Brightness where there is no texture."""


def textures(rng: np.random.Generator, *shape: int) -> Array:
    """Random textures (*shape, 3, PATCH, PATCH): brightness about one half, hue and saturation at random."""
    cells = PATCH // CELL
    luma = 0.5 + SPREAD * np.clip(rng.standard_normal((*shape, cells, cells)), -2.5, 2.5)
    hue, chroma = rng.uniform(0, 2 * np.pi, shape), rng.uniform(0.08, 0.22, shape)
    found = np.empty((*shape, 3, PATCH, PATCH), np.float32)
    found[..., 0, :, :] = luma.repeat(CELL, axis=-2).repeat(CELL, axis=-1)
    found[..., 1, :, :] = (chroma * np.cos(hue))[..., None, None]
    found[..., 2, :, :] = (chroma * np.sin(hue))[..., None, None]
    return found


def empty(frames: int, grid: int) -> Array:
    """Patches of plain grey, (frames, grid, grid, 3, PATCH, PATCH)."""
    found = np.zeros((frames, grid, grid, 3, PATCH, PATCH), np.float32)
    found[..., 0, :, :] = GROUND
    return found


def laid_out(
    patches: Array,
    shown: Array,
    rng: np.random.Generator,
    noise: float,
    facts: dict[str, object],
    order: Sequence[int] | None = None,
) -> Scene:
    """A video of patches (t, h, w, 3, PATCH, PATCH) with noise; the mask is the patches in `shown` (t, h, w).

    order: the frames, noise included, in the order in which they are played.
    """
    frames, rows, columns = patches.shape[:3]
    canvas = patches.transpose(0, 3, 1, 4, 2, 5).reshape(frames, 3, rows * PATCH, columns * PATCH).copy()
    mask = shown.repeat(PATCH, axis=1).repeat(PATCH, axis=2)
    luma, cb, cr = to_planes(canvas, rng, noise)
    played = np.arange(frames) if order is None else np.asarray(order)
    return Scene(luma[played], cb[played], cr[played], mask[played], facts)
