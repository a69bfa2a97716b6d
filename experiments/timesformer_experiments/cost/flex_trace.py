"""Computation of FlexAttention, written as matrix products that can be traced and counted."""

from __future__ import annotations

from functools import lru_cache

import torch.nn.functional as F
from torch import Tensor

from timesformer.attention.backends import block_mask
from timesformer.attention.partition import Grid
from timesformer.attention.predicate import Predicate


@lru_cache(maxsize=256)
def _blocks(predicate: Predicate, grid: Grid, keys: int) -> tuple[int, int, int]:
    """Return the number of blocks that are computed, and how many queries and keys each has."""
    mask = block_mask(predicate, grid, keys, "cpu")
    count = int(mask.kv_num_blocks.sum())
    if mask.full_kv_num_blocks is not None:
        count += int(mask.full_kv_num_blocks.sum())
    return count, *mask.BLOCK_SIZE


def blocks_of_flex(q: Tensor, k: Tensor, v: Tensor, predicate: Predicate, grid: Grid) -> Tensor:
    """Stand in for `timesformer.attention.backends.flex_attention` in a trace on the meta device.

    q: (b, k, p, e); k, v: (b, k, s, e).  For every block of queries and keys that the backend's own block mask keeps,
    whole or in part, the products of that block; the result has the shape of `q` and no values of use.  Call it once
    before it is traced: the mask cannot be made in a trace, and is kept.
    """
    count, rows, columns = _blocks(predicate, grid, k.shape[2])
    queries, keys, values = (
        F.pad(part, (0, 0, 0, -part.shape[2] % side))[:, :, :side].unsqueeze(2).expand(-1, -1, count, -1, -1)
        for part, side in ((q, rows), (k, columns), (v, columns))
    )
    found = (queries @ keys.transpose(-1, -2)).softmax(-1) @ values
    return q + found.sum((2, 3)).unsqueeze(2)
