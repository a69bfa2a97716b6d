"""Checks of what a recipe freezes, and of tokens that are kept, before anything is read or trained."""

from __future__ import annotations

import torch

from timesformer.config.registry import ModelConfig, build_model
from timesformer.errors import InputError
from timesformer.evaluation.protocols import protocol_named
from timesformer.training.freezing import frozen_names, rates
from timesformer.training.recipe import Recipe
from timesformer.training.stem import blocks_of_stem


def require_trainable(config: ModelConfig, recipe: Recipe, copies: int | None, processes: int, protocol: str) -> None:
    """Require frozen parameters and scaled rates to be those of a run's model, and kept tokens to be possible.

    Raises InputError that names the field.
    """
    if recipe.freeze is None and recipe.layer_decay == 1 and not recipe.lr_scale:
        return
    with torch.device("meta"):
        model = build_model(config)
    try:
        frozen = frozen_names(model, recipe.freeze)
        if len(frozen) == len(list(model.parameters())):
            raise InputError("freeze: it holds all parameters; expected one to train")
        rates(model, recipe.layer_decay, recipe.lr_scale)
        if recipe.cache_stem:
            blocks_of_stem(model, recipe)
    except InputError as error:
        raise InputError(f"recipe.{error}") from error
    if not recipe.cache_stem:
        return
    if copies is None:
        raise InputError("recipe.cache_stem: expected data.copies, the number of random clips made of each video")
    if processes > 1:
        raise InputError(f"recipe.cache_stem: expected processes: 1, got {processes}")
    if protocol_named(protocol).views.per_video is None:
        raise InputError(f"recipe.cache_stem: the views of protocol {protocol} depend on the video")
