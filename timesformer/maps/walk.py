"""From what the head reads back through every block to the patches of the video: the walk that rollout and
gradient-weighted maps share.

A few rows are carried, (clips or frame streams, queries, tokens), from the last stage of the last block to the first
of the first: no matrix of tokens by tokens is ever needed.
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
    """How much each patch counts, by some method.

    weights: (clip, query, t, h, w), float32, t counting tokens in time (tubelets); one query, "class", where the method
        explains the model's output
    on_class: (clip, query), what stays on class tokens; None for a method that has none
    """

    method: str
    queries: tuple[Query, ...]
    weights: np.ndarray
    on_class: np.ndarray | None = None


@dataclass
class Taken:
    """What a walk needs of a step: its recorded qkv, and perhaps the norms of each token's residual and of what
    the step added to it, both (b, p), or the gradient of what the attention mixed, (b, k, p, e); the class token is
    last."""

    site: Site
    recorder: Recorder
    has_class: bool
    norms: tuple[Tensor, Tensor] | None = None
    gradient: Tensor | None = None

    def operator(self) -> StepOperator:
        """The step's matrix, from q and k computed again."""
        return self.recorder.operator(self.site, self.has_class)


Cross = Callable[[Sequence[Taken], Tensor], Tensor]
"""Carries rows back over the steps of one stage."""


def walk_back(
    model: TimeSformer, taken: Sequence[Taken], queries: Sequence[Query], grid: Grid, clips: int, cross: Cross
) -> tuple[Tensor, Tensor]:
    """Rows of the queries over the patches (clip, query, t, h, w), and what is left on class tokens (clip, query).

    The query "class" is what the head reads: the class token (the mean over the frames' class tokens), or the mean over
    the patches.  A patch is a token of the first encoder after its last block.  `grid`: that of a clip.
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
    """The queries' own rows: `patches` and what is `pooled` of the encoder (other queries: zero)."""
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
    """From the rows over one token a frame (b, q, t) to the tokens of the encoder that these were pooled from."""
    frame = grid[1] * grid[2]
    if encoder.class_tokens == "frame":
        out = y.new_zeros(len(y), grid[0], y.shape[1], frame + 1)
        if encoder.pool == "class":
            out[..., -1] = y.transpose(1, 2)
        else:
            out[..., :frame] = y.transpose(1, 2)[..., None] / frame
        return out.flatten(0, 1)
    return (y / frame).repeat_interleave(frame, -1)
