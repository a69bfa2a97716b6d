"""Packing of maps into bytes for a page: small integers, compressed by zlib.  explorer_data.js unpacks them.

A weight is the square of a byte, relative to the largest weight of its row; the error is at most 0.4 % of the largest.
"""

import zlib
from collections.abc import Sequence

import numpy as np

from timesformer.attention import Grid, Partition, Predicate
from timesformer.errors import InputError
from timesformer.maps.capture import Site
from timesformer.maps.top_keys import TopKeys

COUNTS = (64, 48, 32, 24, 16, 12, 8)
"""Numbers of keys that can be stored for a query; the largest that fits is used."""
BYTES_A_KEY = 2.2
"""Approximate bytes on a page for a stored key: three bytes, compressed, in base64 (1.9 for a random ViT-B)."""
MOST_CELLS = 1 << 16


def pack_keys(found: TopKeys) -> bytes:
    """Pack the strongest keys and the class row of one step.

    Slots are (head, query, count), rows are (head, query).  The bytes hold, in this order:

    - for each slot, the low bytes, then the high bytes, of the key's distance from the previous key (keys increase
      along count), then the weights;
    - for each row, low and high bytes of the root of its largest weight, then of its weight on the class token, both in
      units of 1 / 65535;
    - the weights of the class row, (head, cell);
    - for each head two float32: the largest weight of the class row, and its weight on the class token.
    """
    order = np.argsort(np.where(found.weights > 0, found.keys, MOST_CELLS), axis=-1, kind="stable")
    weights = np.take_along_axis(found.weights, order, -1)
    keys = np.where(weights > 0, np.take_along_axis(found.keys, order, -1), 0)
    keys = np.maximum.accumulate(keys, -1)  # unused slots repeat the last key
    steps = np.diff(keys, axis=-1, prepend=0)
    top = found.weights.max(-1)
    root = np.sqrt(np.clip(top, 0, 1))
    row = found.class_row.reshape(len(found.class_row), -1)
    parts = [
        *_low_high(steps),
        _squares(weights, (np.round(65535 * root) / 65535)[..., None] ** 2),
        *_low_high(np.round(65535 * root)),
        *_low_high(np.round(65535 * np.clip(found.on_class, 0, 1))),
        _squares(row, row.max(-1, keepdims=True)),
        np.stack([row.max(-1), found.class_on_class], -1).astype("<f4").view(np.uint8),
    ]
    return zlib.compress(b"".join(part.tobytes() for part in parts), 6)


def pack_map(weights: np.ndarray) -> bytes:
    """Pack one map of nonnegative weights, relative to the largest."""
    return zlib.compress(_squares(weights, weights.max()).tobytes(), 9)


def _low_high(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    whole = values.astype(np.uint16)
    return (whole & 255).astype(np.uint8), (whole >> 8).astype(np.uint8)


def _squares(values: np.ndarray, top: np.ndarray) -> np.ndarray:
    """Convert values to bytes whose squares are proportional to them, with 255 for `top`."""
    share = np.divide(values, top, out=np.zeros(values.shape, np.float64), where=top > 0)
    return np.round(255 * np.sqrt(np.clip(share, 0, 1))).astype(np.uint8)


def what_fits(sites: Sequence[Site], grid: Grid, heads: int, page_bytes: float) -> tuple[int, Grid]:
    """Return the number of keys of each query that fit into `page_bytes`, and the cell: (count, (t, h, w)).

    The cell is the first for which at least eight keys fit.  Cells grow by doubling, first in space until no side has
    more than 7 cells, then in time to at most 8 cells, then in both.  `heads` counts the mean of the heads as one more.

    Raises:
        InputError: not even one cell fits.
    """
    cell: Grid = (1, 1, 1)
    while True:
        cells = tuple(-(-length // side) for length, side in zip(grid, cell, strict=True))
        if cells[0] * cells[1] * cells[2] < MOST_CELLS:
            for count in COUNTS:
                if sum(_page_bytes(site, grid, cell, heads, count) for site in sites) <= page_bytes:
                    return count, cell
        if cells == (1, 1, 1):
            raise InputError(f"explorer: {page_bytes:.0f} bytes are too few for {len(sites)} maps, even with one cell")
        if max(cells[1:]) > 7 or cells[0] == 1:
            cell = (cell[0], 2 * cell[1], 2 * cell[2])
        elif cells[0] > 8 or max(cells[1:]) == 1:
            cell = (2 * cell[0], cell[1], cell[2])
        else:
            cell = (2 * cell[0], 2 * cell[1], 2 * cell[2])


def _page_bytes(site: Site, grid: Grid, cell: Grid, heads: int, count: int) -> float:
    shape = grid if site.encoder == 0 else (grid[0], 1, 1)
    rows = 1
    for length, side in zip(shape, cell, strict=True):
        rows *= -(-length // min(side, length))
    seen = min(count, rows, _keys_seen(site, shape))
    return heads * (rows * (BYTES_A_KEY * seen + 4) + 1.4 * rows)


def _keys_seen(site: Site, grid: Grid) -> int:
    """Largest number of patches that one query sees."""
    every = grid[0] * grid[1] * grid[2]
    frame = every // grid[0] if site.streams else every
    groups = [
        max(tile.group_size for tile in over.tiles(grid))
        if isinstance(over, Partition)
        else max(batch.keys.shape[1] for batch in over.plan(grid))
        if isinstance(over, Predicate)
        else every
        for over in site.step.over
    ]
    return min(frame, sum(groups))
