"""Backward walk from the input of the head through every block to the patches, for rollout and gradient-weighted maps.

It carries a few rows, (clips or frame streams, queries, tokens), from the last stage of the last block to the first
stage of the first block, and never needs a matrix of tokens by tokens.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor, nn

from timesformer.attention import Grid
from timesformer.attention.operator import Query, StepOperator, operator
from timesformer.attention.scheme import Encoder
from timesformer.maps.capture import Recorder, Site
from timesformer.models.blocks import Block
from timesformer.models.pooling import AttentivePooler
from timesformer.models.timesformer import TimeSformer


@dataclass(frozen=True)
class Saliency:
    """Importance of each patch by a method.

    weights: (clip, query, t, h, w), float32; t counts tokens in time (tubelets); a method that explains the model's
        output has the single query "class"
    on_class: (clip, query), weight that remains on class tokens and registers; None for a method without such weight
    """

    method: str
    queries: tuple[Query, ...]
    weights: np.ndarray
    on_class: np.ndarray | None = None


@dataclass
class Taken:
    """Data of a step that a walk needs.

    recorder: recorded qkv
    specials: number of class tokens and registers of a stream
    norms: norms of each token's residual and of the step's contribution to it, both (b, p), patches first
    gradient: gradient at the attention's output, (b, k, p, e), patches first
    """

    site: Site
    recorder: Recorder
    specials: int
    norms: tuple[Tensor, Tensor] | None = None
    gradient: Tensor | None = None

    def operator(self) -> StepOperator:
        """Return the step's matrix, from the recorded projection."""
        return self.recorder.operator(self.site, self.specials)


Cross = Callable[[Sequence[Taken], Tensor], Tensor]
"""Function that carries rows back over the steps of one stage."""


@contextmanager
def watching_pooler(model: TimeSformer) -> Iterator[list[Tensor]]:
    """Record the patches that an attentive pooler reads inside this context; the list stays empty without one."""
    read: list[Tensor] = []

    def keep(module: nn.Module, args: tuple[object, ...], output: tuple[Tensor | None, Tensor | None]) -> None:
        if output[0] is not None:
            read[:] = [output[0].detach()]

    handle = None if model.pooler is None else model.stacks()[-1].register_forward_hook(keep)
    try:
        yield read
    finally:
        if handle is not None:
            handle.remove()


def pooled_row(pooler: AttentivePooler, patches: Tensor) -> Tensor:
    """Return the weight of each patch in an attentive pooler's query, (b, p), as mixed by its own blocks.

    Heads are averaged, and a block counts as half residual and half attention, as in rollout.
    """
    mixing, x = [], patches
    for block in pooler.blocks:
        assert isinstance(block, Block)
        module = block.attention_steps()[0]
        assert module.qkv is not None
        mixing.append(operator(module.step, *module.prepared(module.qkv(module.norm(x)), None)))
        x, _ = block(x, None)
    y = pooler.weights(patches).mean(1, keepdim=True)
    for matrix in reversed(mixing):
        y = (y + matrix.rmatmul(y.to(matrix.q.dtype))) / 2
    return y[:, 0]


def walk_back(
    model: TimeSformer,
    taken: Sequence[Taken],
    queries: Sequence[Query],
    grid: Grid,
    clips: int,
    cross: Cross,
    read: Sequence[Tensor] = (),
) -> tuple[Tensor, Tensor]:
    """Return the rows of the queries over the patches (clip, query, t, h, w), and their weight on class tokens.

    The weight that remains on class tokens and registers is (clip, query).  The query "class" is the input of the head:
    the class token (the mean over the frames' class tokens), the mean over the patches, half of each, or the patches
    as an attentive pooler weighs them.  A patch is a token of the first encoder after its last block.  `grid` is that
    of a clip; `read`: what `watching_pooler` recorded.
    """
    encoders = [stack.encoder for stack in model.stacks()]
    specials = [model.config.specials(encoder) for encoder in encoders]
    weight = model.head.weight
    like = weight.new_zeros((), dtype=torch.promote_types(weight.dtype, torch.float32))
    last = len(encoders) - 1
    left = like.new_zeros(clips, len(queries))
    row = pooled_row(model.pooler, read[0]).to(like.dtype) if model.pooler is not None and len(read) else None
    rule = _Start(encoders[last], specials[last], model.config.resolved_pool, row)
    y = rule.rows(queries, grid if last == 0 else (grid[0], 1, 1), clips, like, patches=last == 0)
    for number in range(last, -1, -1):
        steps = [step for step in reversed(taken) if step.site.encoder == number]
        for _, stage in groupby(steps, key=lambda step: (step.site.layer, step.site.stage)):
            y = cross(list(stage), y)
        if number == 0:
            break
        left = left + y[..., grid[0] :].sum(-1)
        y = _enter(encoders[number - 1], specials[number - 1], y[..., : grid[0]], grid)
        if number == 1:
            y = y + _Start(encoders[0], specials[0]).rows(queries, grid, clips, like, patches=True)
    inside = grid[1] * grid[2] * (1 if encoders[0].class_tokens == "frame" else grid[0])
    if encoders[0].class_tokens == "frame":
        streams = y.unflatten(0, (clips, grid[0])).transpose(1, 2)  # clip, query, t, p
        return streams[..., :inside].unflatten(-1, grid[1:]), left + streams[..., inside:].sum((-2, -1))
    return y[..., :inside].unflatten(-1, grid), left + y[..., inside:].sum(-1)


@dataclass(frozen=True)
class _Start:
    """Initial rows of a walk in an encoder.

    pool: what the head reads, None to set the rows of patches alone; row: weights of an attentive pooler, (b, p)
    """

    encoder: Encoder
    specials: int
    pool: str | None = None
    row: Tensor | None = None

    def rows(self, queries: Sequence[Query], grid: Grid, clips: int, like: Tensor, patches: bool) -> Tensor:
        """Return the initial rows of the queries; `patches`: set the rows of patch queries.  Other rows are 0."""
        streams = self.encoder.class_tokens == "frame"
        tokens = grid[1] * grid[2] * (1 if streams else grid[0])
        frames = grid[0] if streams else 1
        y = like.new_zeros(clips, frames, len(queries), tokens + self.specials)
        for number, query in enumerate(queries):
            if query == "class":
                y[:, :, number] = self._pooled(y[:, :, number], tokens) / frames
            elif patches:
                t, h, w = query
                y[:, t if streams else 0, number, ((0 if streams else t) * grid[1] + h) * grid[2] + w] = 1
        return y.flatten(0, 1)

    def _pooled(self, y: Tensor, tokens: int) -> Tensor:
        """Return the row of the pooled vector over the tokens of a stream."""
        out = torch.zeros_like(y)
        share = {"class": (1.0, 0.0), "class+mean": (0.5, 0.5), "mean": (0.0, 1.0)}.get(self.pool or "", (0.0, 0.0))
        if self.row is not None:
            out[..., :tokens] = self.row[:, None]
        else:
            out[..., :tokens] = share[1] / tokens
        if share[0]:
            out[..., tokens] = share[0]
        return out


def _enter(encoder: Encoder, specials: int, y: Tensor, grid: Grid) -> Tensor:
    """Carry rows over one token per frame (b, q, t) back to the tokens of the encoder that these were pooled from."""
    frame = grid[1] * grid[2]
    if encoder.class_tokens == "frame":
        out = y.new_zeros(len(y), grid[0], y.shape[1], frame + specials)
        if encoder.pool == "class":
            out[..., frame] = y.transpose(1, 2)
        else:
            out[..., :frame] = y.transpose(1, 2)[..., None] / frame
        return out.flatten(0, 1)
    return (y / frame).repeat_interleave(frame, -1)
