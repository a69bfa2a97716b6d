"""Rows of the product of dense matrices, from what the head reads back to the patches: what rollout must give."""

from collections.abc import Callable

import torch
from torch import Tensor

from tests.maps.dense import Dense
from timesformer import TimeSformer
from timesformer.attention import Encoder
from timesformer.attention.operator import Query

Mix = Callable[[list[Tensor], list[str], int], Tensor]
"""One matrix (b, p, p) of a stage, from those of its steps (b, k, p, p), their names, and the number of the first."""


def products(model: TimeSformer, dense: Dense, mix: Mix) -> list[Tensor]:
    """Of every encoder the product over its stages, (clips or streams, p, p)."""
    found, number = [], 0
    for stack in model.encoders:
        product = None
        for block in stack.blocks:
            for stage in block.stages:
                steps = [call.matrix for call in dense.calls[number : number + len(stage)]]
                one = mix(steps, stage, number)
                product = one if product is None else one @ product
                number += len(stage)
        assert product is not None
        found.append(product)
    return found


def on_clip(encoder: Encoder, rows: Tensor, clips: int) -> Tensor:
    """Rows (clips or streams, r, p) over the clip's patches and, last, the class tokens: (clips, frames, r, p + 1)."""
    has_class = encoder.class_tokens != "none"
    patches = rows.shape[-1] - has_class
    left = rows[..., patches:].sum(-1, keepdim=True)
    if encoder.class_tokens != "frame":
        return torch.cat([rows[..., :patches], left], -1)[:, None]
    frames = len(rows) // clips
    out = rows.new_zeros(clips, frames, rows.shape[1], frames * patches + 1)
    for frame in range(frames):
        own = rows.unflatten(0, (clips, frames))[:, frame]
        out[:, frame, :, frame * patches : (frame + 1) * patches] = own[..., :patches]
        out[:, frame, :, -1] = own[..., patches:].sum(-1)
    return out


def pooled(encoder: Encoder, rows: Tensor, frames: int | None) -> Tensor:
    """What stands for the clip (clips, 1, p + 1), or for each of so many frames (clips, frames, p + 1); `rows` of all
    tokens from `on_clip`."""
    patches = rows.shape[2] - (encoder.class_tokens != "none")
    if encoder.class_tokens == "frame":
        each = rows[:, :, -1] if encoder.pool == "class" else rows[:, :, :patches].mean(2)
        return each if frames else each.mean(1, keepdim=True)
    if encoder.pool == "class":
        return rows[:, :, -1]
    one = rows[:, 0, :patches]
    return one.unflatten(1, (frames or 1, -1)).mean(2)


def rolled(model: TimeSformer, dense: Dense, mix: Mix, query: Query, clips: int, grid: tuple[int, int, int]) -> Tensor:
    """The query's row over the clip's patches and, last, the class tokens: (clips, p + 1)."""
    encoders = [stack.encoder for stack in model.encoders]
    found = products(model, dense, mix)
    first = on_clip(encoders[0], found[0], clips)
    if query != "class":
        t, h, w = query
        at = h * grid[2] + w
        return first[:, t, at] if encoders[0].class_tokens == "frame" else first[:, 0, t * grid[1] * grid[2] + at]
    if len(encoders) == 1:
        return pooled(encoders[0], first, None)[:, 0]
    last = pooled(encoders[1], on_clip(encoders[1], found[1], clips), None)[:, 0]
    out = torch.einsum("bt,btp->bp", last[:, : grid[0]], pooled(encoders[0], first, grid[0]))
    out[:, -1] += last[:, grid[0] :].sum(-1)
    return out
