"""Width, depth or training steps at which a model costs what another one does, from exact counts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import torch

from timesformer.config.cnn import CnnConfig
from timesformer.config.registry import ModelConfig, build_model, macs_per_view
from timesformer.config.schedule import least_depth
from timesformer.config.transformer import TimeSformerConfig
from timesformer.errors import InputError
from timesformer.training.recipe import Recipe
from timesformer_experiments.cost.training import macs_per_trained_clip, train_macs

By = Literal["macs_per_view", "params", "train_macs"]
Vary = Literal["embed_dim", "depth", "steps"]
HEAD_TOLERANCE = 0.02
"""Part of the wanted cost by which a model may miss it so that the width of its heads is kept."""
MOST = 2**30
"""Largest widths, depths and steps that are looked at."""


@dataclass(frozen=True)
class Subject:
    """A model and how long it is trained: clips of a step, and steps; recipe: that of a training which freezes some."""

    model: ModelConfig
    batch_size: int = 1
    steps: int = 1
    recipe: Recipe | None = None


def cost_of(subject: Subject, by: By) -> int:
    """Return the MACs of a clip and crop, the parameters, or the MACs of the whole training."""
    if by == "params":
        return _params(subject.model)
    if by == "macs_per_view":
        return macs_per_view(subject.model, kind="executed")
    clips = subject.batch_size * subject.steps
    if subject.recipe is not None:
        return macs_per_trained_clip(subject.model, subject.recipe) * clips
    return train_macs(macs_per_view(subject.model, kind="executed"), clips)


@cache
def _params(model: ModelConfig) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_model(model).parameters())


def equalised(subject: Subject, by: By, vary: Vary, target: int) -> Subject:
    """Return the subject whose cost is nearest to the target, only its width, depth or steps being changed.

    Width: a whole multiple of the number of heads.  The width of a head is kept, and their number follows, where that
    meets the target within `HEAD_TOLERANCE`, or as nearly as any other width.  Of two equally near ones it is the
    smaller.

    Raises InputError for a convolutional network whose width or depth is asked for.
    """

    def cost(found: Subject) -> int:
        return cost_of(found, by)

    if vary == "steps":
        return _nearest(lambda number: replace(subject, steps=number), cost, target)
    model = subject.model
    if isinstance(model, CnnConfig):
        raise InputError(f"vary: the {model.baseline} network has no {vary}; expected steps")
    if vary == "depth":
        least = least_depth(model.schedule) if isinstance(model, TimeSformerConfig) else 1
        return _nearest(lambda number: replace(subject, model=replace(model, depth=number)), cost, target, least)
    head, heads = model.embed_dim // model.num_heads, _least_heads(model)

    def kept(number: int) -> Subject:
        return replace(subject, model=replace(model, num_heads=heads * number, embed_dim=head * heads * number))

    def free(number: int) -> Subject:
        return replace(subject, model=replace(model, embed_dim=model.num_heads * number))

    of_heads, of_width = _nearest(kept, cost, target), _nearest(free, cost, target)
    misses = [abs(cost(found) - target) for found in (of_heads, of_width)]
    return of_heads if misses[0] <= max(misses[1], HEAD_TOLERANCE * target) else of_width


def _least_heads(model: TimeSformerConfig) -> int:
    """Return the number that heads are a multiple of: a step may share them between its parts."""
    return math.lcm(*(len(step.over) for encoder in model.scheme.encoders for step in encoder.steps))


def _nearest(made: Callable[[int], Subject], cost: Callable[[Subject], int], target: int, least: int = 1) -> Subject:
    """Return what is made of the number from `least` on whose cost, which grows with it, is nearest to the target."""
    high = least
    while cost(made(high)) < target:
        high *= 2
        if high > MOST:
            raise InputError(f"no number up to {MOST} reaches a cost of {target}")
    if high == least:
        return made(least)
    low = high // 2  # its cost is below the target
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(made(middle)) < target else (low, middle)
    if target - cost(made(low)) <= cost(made(high)) - target:
        return made(low)
    return made(high)
