"""Costs of training beyond a forward pass."""

from __future__ import annotations

from functools import cache
from typing import TypeVar

import pandas as pd
import torch

from timesformer.config.cnn import CnnConfig
from timesformer.config.registry import ModelConfig, build_model, macs_per_view, stem_macs
from timesformer.training.freezing import Freeze, frozen_names, stem_blocks
from timesformer.training.recipe import Recipe

BACKWARD = 2
"""MACs of a backward pass divided by those of the forward pass."""

Clips = TypeVar("Clips", int, pd.Series)


def train_macs(macs_per_view: int, clips: Clips) -> Clips:
    """Multiply-accumulates of training on a number of clips, or on each of several numbers."""
    return (1 + BACKWARD) * macs_per_view * clips


def macs_per_trained_clip(model: ModelConfig, recipe: Recipe) -> int:
    """Multiply-accumulates of training on one clip: forward, and backward through what is not frozen.

    Frozen weights behind trained ones pass gradients on, and are counted in full.  Of kept tokens (`cache_stem`) the
    forward pass of the frozen blocks is left out too.
    """
    whole = macs_per_view(model, kind="executed")
    blocks = _stem(model, recipe.freeze)
    stem = 0 if blocks is None else stem_macs(model, blocks)
    return (0 if recipe.cache_stem else stem) + (1 + BACKWARD) * (whole - stem)


@cache
def _stem(model: ModelConfig, freeze: Freeze | None) -> int | None:
    """Return the number of the first blocks that are frozen with the embedding, None if that is not."""
    if freeze is None:
        return None
    with torch.device("meta"):
        built = build_model(model)
    blocks = stem_blocks(built.layers(), frozen_names(built, freeze))
    # Of a transformer with a second encoder, the first one alone is counted.
    return blocks if blocks is None or isinstance(model, CnnConfig) else min(blocks, model.depth)
