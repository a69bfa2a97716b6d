"""Backward walk from the input of the head through every block to the patches, for rollout and gradient-weighted maps.

It carries a few rows, (clips or frame streams, queries, tokens), from the last stage of the last block to the first
stage of the first block, and never needs a matrix of tokens by tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from timesformer.attention import Grid
from timesformer.attention.operator import Query, StepOperator
from timesformer.attention.scheme import Encoder
from timesformer.maps.capture import Recorder, Site
from timesformer.models.timesformer import TimeSformer


@dataclass(frozen=True)
class Saliency:
    """Importance of each patch by a method.

    weights: (clip, query, t, h, w), float32; t counts tokens in time (tubelets); a method that explains the model's
        output has the single query "class"
    on_class: (clip, query), weight that remains on class tokens; None for a method without such weight
    """

    method: str
    queries: tuple[Query, ...]
    weights: np.ndarray
    on_class: np.ndarray | None = None


@dataclass
class Taken:
    """Data of a step that a walk needs.

    recorder: recorded qkv
    norms: norms of each token's residual and of the step's contribution to it, both (b, p), with the class token last
    gradient: gradient at the attention's output, (b, k, p, e), with the class token last
    """

    site: Site
    recorder: Recorder
    has_class: bool
    norms: tuple[Tensor, Tensor] | None = None
    gradient: Tensor | None = None

    def operator(self) -> StepOperator:
        """Return the step's matrix, from the recorded projection."""
        return self.recorder.operator(self.site, self.has_class)


Cross = Callable[[Sequence[Taken], Tensor], Tensor]
"""Function that carries rows back over the steps of one stage."""


def walk_back(
    model: TimeSformer, taken: Sequence[Taken], queries: Sequence[Query], grid: Grid, clips: int, cross: Cross
) -> tuple[Tensor, Tensor]:
    """Return the rows of the queries over the patches (clip, query, t, h, w), and their weight on class tokens.

    The weight that remains on class tokens is (clip, query).  The query "class" is the input of the head: the class
    token (the mean over the frames' class tokens), or the mean over the patches.  A patch is a token of the first
    encoder after its last block.  `grid` is that of a clip.
    """
    encoders = [stack.encoder for stack in model.stacks()]
    weight = model.head.weight
    like = weight.new_zeros((), dtype=torch.promote_types(weight.dtype, torch.float32))
    last = len(encoders) - 1
    left = like.new_zeros(clips, len(queries))
    y = _start(encoders[last], queries, grid if last == 0 else (grid[0], 1, 1), clips, like, patches=last == 0)
    for number in range(last, -1, -1):
        steps = [step for step in reversed(taken) if step.site.encoder == number]
        for _, stage in groupby(steps, key=lambda step: (step.site.layer, step.site.stage)):
            y = cross(list(stage), y)
        if number == 0:
            break
        left = left + y[..., grid[0] :].sum(-1)
        y = _enter(encoders[number - 1], y[..., : grid[0]], grid)
        if number == 1:
            y = y + _start(encoders[0], queries, grid, clips, like, patches=True, pooled=False)
    inside = grid[1] * grid[2] * (1 if encoders[0].class_tokens == "frame" else grid[0])
    if encoders[0].class_tokens == "frame":
        streams = y.unflatten(0, (clips, grid[0])).transpose(1, 2)  # clip, query, t, p
        return streams[..., :inside].unflatten(-1, grid[1:]), left + streams[..., inside:].sum((-2, -1))
    return y[..., :inside].unflatten(-1, grid), left + y[..., inside:].sum(-1)


def _start(
    encoder: Encoder, queries: Sequence[Query], grid: Grid, clips: int, like: Tensor, patches: bool, pooled: bool = True
) -> Tensor:
    """Return the initial rows of the queries.

    `patches`: set the rows of patch queries; `pooled`: set the row of the encoder's pooled output.  Other rows are 0.
    """
    streams = encoder.class_tokens == "frame"
    tokens = grid[1] * grid[2] * (1 if streams else grid[0])
    size, frames = tokens + (encoder.class_tokens != "none"), grid[0] if streams else 1
    y = like.new_zeros(clips, frames, len(queries), size)
    for number, query in enumerate(queries):
        if query == "class":
            if pooled and encoder.pool == "class":
                y[:, :, number, -1] = 1 / frames
            elif pooled:
                y[:, :, number, :tokens] = 1 / (frames * tokens)
        elif patches:
            t, h, w = query
            y[:, t if streams else 0, number, ((0 if streams else t) * grid[1] + h) * grid[2] + w] = 1
    return y.flatten(0, 1)


def _enter(encoder: Encoder, y: Tensor, grid: Grid) -> Tensor:
    """Carry rows over one token per frame (b, q, t) back to the tokens of the encoder that these were pooled from."""
    frame = grid[1] * grid[2]
    if encoder.class_tokens == "frame":
        out = y.new_zeros(len(y), grid[0], y.shape[1], frame + 1)
        if encoder.pool == "class":
            out[..., -1] = y.transpose(1, 2)
        else:
            out[..., :frame] = y.transpose(1, 2)[..., None] / frame
        return out.flatten(0, 1)
    return (y / frame).repeat_interleave(frame, -1)
