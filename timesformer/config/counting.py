"""Cost counted from the declaration: query-key pairs and multiply–accumulates.

One MAC counts as one FLOP, as in the paper, fvcore and mmaction2.  Only matrix products are counted.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

import torch.nn.functional as F

from timesformer.attention.mixer import Mixer
from timesformer.attention.partition import Grid, Partition
from timesformer.attention.predicate import Predicate
from timesformer.attention.scheme import Encoder, Step

if TYPE_CHECKING:
    from timesformer.config.transformer import TimeSformerConfig

MacsKind = Literal["needed", "executed"]
FLEX_BLOCK = 128
"""Side of the blocks of queries and keys that FlexAttention computes or skips, the default of its block mask."""
POOLER_RATIO = 4
"""Width of the hidden layers of an attentive pooler's MLPs, in widths of the model."""


@dataclass(frozen=True)
class Pairs:
    """Query-key pairs of one part of a step: those with a patch, and with class token or register as the query."""

    patches: int
    cls: int

    @property
    def total(self) -> int:
        return self.patches + self.cls


def step_pairs(
    step: Step, grid: Grid, *, kind: MacsKind = "needed", backend: str = "auto", specials: int = 1
) -> list[Pairs | None]:
    """Count the pairs of each part of the step on a (t, h, w) grid; None for a mixer, which counts its own operations.

    `specials`: number of class tokens and registers, which a step may leave out.

    `needed` counts the pairs of the declaration.  `executed` counts those that the backend computes: for a predicate
    or tiles, queries that are taken together with all keys of any of them (`timesformer.attention.plan`), a dense
    masked product on the `reference` backend, and on the `flex` backend the whole blocks of `FLEX_BLOCK` queries and
    keys in which a pair is seen, class token and registers after the last patch.
    """
    tokens = grid[0] * grid[1] * grid[2]
    beside = specials if step.cls != "absent" else 0
    found: list[Pairs | None] = []
    for over in step.over:
        if isinstance(over, Mixer):
            found.append(None)
            continue
        if isinstance(over, Partition):
            sizes = [(tile.num_groups, tile.group_size) for tile in over.tiles(grid)]
            patches = sum(groups * size * (size + beside) for groups, size in sizes)
            replicated = beside * sum(groups * (size + beside) for groups, size in sizes)
        else:
            patches, replicated = _predicate_pairs(over, grid, kind, backend, beside), 0
        cls = {"absent": 0, "global": beside * (tokens + beside), "replicated": replicated}[step.cls]
        found.append(Pairs(patches, cls))
    return found


def _predicate_pairs(over: Predicate, grid: Grid, kind: MacsKind, backend: str, beside: int) -> int:
    """Count the pairs of patches with patches and with so many tokens beside them, which every patch sees."""
    tokens = grid[0] * grid[1] * grid[2]
    if kind == "needed":
        return over.pairs(grid) + tokens * beside
    if backend == "reference":
        return tokens * (tokens + beside)
    if backend != "flex":
        return sum(batch.pairs for batch in over.plan(grid)) + tokens * beside
    mask, order = over.mask(grid), over.order(grid)
    if order is not None:
        mask = mask[order][:, order]
    mask = F.pad(F.pad(mask, (0, beside), value=True), (0, -(tokens + beside) % FLEX_BLOCK, 0, -tokens % FLEX_BLOCK))
    blocks = mask.unflatten(1, (-1, FLEX_BLOCK)).unflatten(0, (-1, FLEX_BLOCK)).any(3).any(1)
    return int(blocks.sum()) * FLEX_BLOCK**2


def encoder_runs(config: "TimeSformerConfig") -> Iterator[tuple[Encoder, int, int, Grid]]:
    """Yield each encoder with its depth, its number of streams per clip, and the grid of a stream."""
    t, h, w = config.grid
    for number, encoder in enumerate(config.scheme.encoders):
        depth = config.depth if encoder.depth == "depth" else config.temporal_depth
        if encoder.class_tokens == "frame":
            yield encoder, depth, t, (1, h, w)
        else:
            yield encoder, depth, 1, (t, h, w) if number == 0 else (t, 1, 1)


def block_runs(config: "TimeSformerConfig") -> Iterator[tuple[Encoder, int, int, Grid]]:
    """Yield, for each kind of block of each encoder, an encoder of that kind, their number, streams and grid."""
    for encoder, depth, streams, grid in encoder_runs(config):
        kinds = Counter(encoder.at(number) for number in range(depth))
        for kind, blocks in kinds.items():
            yield kind, blocks, streams, grid


def macs_per_view(config: "TimeSformerConfig", kind: MacsKind = "executed") -> int:
    """Count the multiply–accumulates of one clip and crop: embedding, linear layers, q·k, attention·v and head."""
    _, h, w = config.grid
    total, tokens = _embedding_macs(config) + config.head_width * sum(config.heads), 0
    for encoder, depth, streams, grid in block_runs(config):
        tokens = grid[0] * grid[1] * grid[2]
        total += depth * streams * _block_macs(config, encoder, grid, kind)
    if config.resolved_pool == "attentive":
        frames = config.scheme.encoders[-1].class_tokens == "frame"  # they are averaged before
        total += pooler_macs(config, tokens if not frames else h * w)
    return total


def stem_macs(config: "TimeSformerConfig", blocks: int) -> int:
    """Count the executed multiply–accumulates of the embedding and the first encoder's first blocks, for one clip."""
    encoder, _, streams, grid = next(encoder_runs(config))
    found = (_block_macs(config, encoder.at(number), grid, "executed") for number in range(blocks))
    return _embedding_macs(config) + streams * sum(found)


def _embedding_macs(config: "TimeSformerConfig") -> int:
    t, h, w = config.grid
    return t * h * w * config.in_channels * config.tubelet_size * config.patch_size**2 * config.embed_dim


def _block_macs(config: "TimeSformerConfig", encoder: Encoder, grid: Grid, kind: MacsKind) -> int:
    """Count the multiply–accumulates of a block of this kind in one stream."""
    d, mlp = config.embed_dim, int(config.embed_dim * config.mlp_ratio)
    linears = 3 if config.mlp == "swiglu" else 2
    gate = {None: 0, "head": config.num_heads, "channel": d}[config.gate]
    tokens, specials = grid[0] * grid[1] * grid[2], config.specials(encoder)
    block = (tokens + specials) * linears * d * mlp
    for step in encoder.steps:
        beside = specials if step.cls != "absent" else 0
        block += (tokens + beside) * d * (d * (5 if step.extra_linear else 4) + gate)
        width, heads = d // len(step.over), config.num_heads // len(step.over)
        counted = step_pairs(step, grid, kind=kind, backend=config.backend, specials=specials)
        for over, pairs in zip(step.over, counted, strict=True):
            if pairs is not None:
                block += 2 * width * pairs.total
            elif isinstance(over, Mixer):
                block += over.macs(grid, width, heads)
                block += 2 * width * beside * (tokens + beside) * (step.cls == "global")
    return block


def pooler_macs(config: "TimeSformerConfig", tokens: int) -> int:
    """Count the multiply–accumulates of an attentive pooler over so many tokens."""
    d = config.embed_dim
    hidden = int(d * POOLER_RATIO)
    layer = tokens * (4 * d * d + 2 * d * hidden) + 2 * tokens * tokens * d
    return config.pooler_depth * layer + 2 * tokens * d * d + d * d + 2 * tokens * d + 2 * d * hidden


def comparisons_per_patch(config: "TimeSformerConfig") -> float | None:
    """Count the keys that a patch is compared with in one block, as a mean over patches, heads and blocks.

    Source: section 3 of the paper, joint N·F + 1 and divided N + F + 2; the latter has the class token in both steps,
    as with `cls_policy="global"`.  The result is None where a step is a mixer, which declares no keys.
    """
    total = Fraction(0)
    depths = {encoder.depth: depth for encoder, depth, _, _ in encoder_runs(config)}
    for encoder, blocks, _, grid in block_runs(config):
        tokens = grid[0] * grid[1] * grid[2]
        for step in encoder.steps:
            counted = step_pairs(step, grid, specials=config.specials(encoder))
            parts = [pairs.patches for pairs in counted if pairs is not None]
            if len(parts) < len(step.over):
                return None
            total += Fraction(sum(parts) * blocks, tokens * len(parts) * depths[encoder.depth])
    return float(total)
