"""Operation counts of grouped attention, for torch's FLOP counter and for other counters."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.flop_counter import register_flop_formula

from timesformer_kernels.grouped import BACKWARD, FORWARD
from timesformer_kernels.layout import numbered_tiles


def attention_pairs(layout: Sequence[int], mode: int) -> int:
    """Number of query-key pairs in one clip and head of a call of `timesformer::grouped_attention`."""
    sizes = [(tile.num_groups, tile.group_size) for tile in numbered_tiles(layout)]
    queries = {0: lambda s: s, 1: lambda s: s + 1, 2: lambda s: s, 3: lambda s: 1}[mode]
    return sum(groups * queries(size) * (size + (mode != 0)) for groups, size in sizes)


@register_flop_formula(FORWARD)
def _forward(qkv: torch.Size, cls: Any, layout: Sequence[int], mode: int, *_: Any, **__: Any) -> int:
    """FLOPs of the forward pass: two products of e multiplications and e additions for each pair."""
    return 4 * qkv[0] * qkv[5] * qkv[6] * attention_pairs(layout, mode)


@register_flop_formula(BACKWARD)
def _backward(dout: Any, dcls_out: Any, qkv: torch.Size, *rest: Any, **__: Any) -> int:
    """FLOPs of the backward pass: five products (one recomputes the scores), as torch counts its own attention."""
    layout, mode = rest[-2:]
    return 10 * qkv[0] * qkv[5] * qkv[6] * attention_pairs(layout, mode)
