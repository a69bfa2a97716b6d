"""Checks of what a recipe freezes, and of tokens that are kept, before anything is read or trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from timesformer.config.registry import build_model
from timesformer.errors import InputError
from timesformer.evaluation.protocols import protocol_named
from timesformer.training.freezing import frozen_names, rates
from timesformer.training.stem import blocks_of_stem

if TYPE_CHECKING:
    from timesformer_experiments.specs.run import RunSpec


def require_trainable(spec: RunSpec) -> None:
    """Require frozen parameters and scaled rates to be those of the run's model, and kept tokens to be possible.

    Raises InputError that names the field.
    """
    recipe = spec.recipe
    if recipe.freeze is None and recipe.layer_decay == 1 and not recipe.lr_scale:
        return
    with torch.device("meta"):
        model = build_model(spec.model)
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
    if spec.data.copies is None:
        raise InputError("recipe.cache_stem: expected data.copies, the number of random clips made of each video")
    if spec.processes > 1:
        raise InputError(f"recipe.cache_stem: expected processes: 1, got {spec.processes}")
    if protocol_named(spec.protocol).views.per_video is None:
        raise InputError(f"recipe.cache_stem: the views of protocol {spec.protocol} depend on the video")
