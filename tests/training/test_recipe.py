"""Recipes: validation, schedules as pure functions, parameter groups."""

import math

import pytest
from torch import nn
from torch.optim import SGD, AdamW

from timesformer import TimeSformer, TimeSformerConfig
from timesformer.errors import InputError
from timesformer.training.recipe import Recipe

TINY = TimeSformerConfig(num_frames=2, image_size=16, patch_size=8, num_classes=3, embed_dim=8, depth=1, num_heads=2)


def test_the_papers_recipe():
    recipe = Recipe.paper()
    samples = 640  # 10 steps an epoch
    assert recipe.total_steps(samples) == 150
    rates = [recipe.learning_rate(step, samples) for step in range(150)]
    assert rates == pytest.approx([0.005] * 110 + [0.0005] * 30 + [0.00005] * 10)
    assert recipe.batch_size == 64
    assert recipe.clip_grad_norm is None
    optimiser = recipe.build_optimiser(TimeSformer(TINY))
    assert isinstance(optimiser, SGD)
    assert len(optimiser.param_groups) == 1
    group = optimiser.param_groups[0]
    assert (group["momentum"], group["nesterov"], group["weight_decay"]) == (0.9, True, 1e-4)


def test_milestones_in_steps():
    recipe = Recipe(steps=10, schedule="steps", lr=1.0, lr_steps=(0, 4), lr_factors=(1, 0.5))
    assert [recipe.learning_rate(step, 7) for step in range(10)] == [1.0] * 4 + [0.5] * 6


def test_onecycle_rises_and_falls():
    recipe = Recipe(steps=100, lr=1.0)
    rates = [recipe.learning_rate(step, 7) for step in range(100)]
    assert rates[0] == pytest.approx(1 / 25)
    assert rates[30] == 1.0 == max(rates)
    assert rates[:31] == sorted(rates[:31])
    assert rates[30:] == sorted(rates[30:], reverse=True)
    assert rates[-1] < 0.001


def test_cosine_with_warmup_and_constant():
    recipe = Recipe(steps=100, lr=2.0, schedule="cosine", warmup=0.1, final_lr_factor=0.1)
    assert recipe.learning_rate(0, 7) == pytest.approx(2 / 11)
    assert recipe.learning_rate(10, 7) == 2.0
    assert recipe.learning_rate(55, 7) == pytest.approx(2 * 0.55)
    assert recipe.learning_rate(99, 7) == pytest.approx(0.2, abs=2e-3)
    assert {Recipe(steps=5, schedule="constant").learning_rate(step, 7) for step in range(5)} == {1e-3}


@pytest.mark.parametrize(("epochs", "samples", "steps"), [(1, 64, 2), (1, 65, 3), (0.1, 640, 2), (0.001, 64, 1)])
def test_total_steps(epochs, samples, steps):
    assert Recipe(epochs=epochs).total_steps(samples) == steps


def test_adamw_spares_norms_biases_and_positions():
    model = TimeSformer(TINY)
    optimiser = Recipe(steps=1).build_optimiser(model)
    assert isinstance(optimiser, AdamW)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, spared = ({names[id(p)] for p in group["params"]} for group in optimiser.param_groups)
    assert [group["weight_decay"] for group in optimiser.param_groups] == [0.05, 0.0]
    assert decayed | spared == set(names.values())
    assert all(name.endswith("weight") and "norm" not in name for name in decayed)
    assert not any(part in name for name in decayed for part in ("positions", "cls_token"))
    assert {"head.bias", "encoders.0.cls_token", "encoders.0.positions.time", "encoders.0.norm.weight"} <= spared


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "epochs, steps: expected exactly one"),
        ({"steps": 1, "epochs": 1}, "epochs, steps: expected exactly one"),
        ({"steps": 0}, "steps: expected an integer of at least 1, got 0"),
        ({"epochs": -1}, "epochs: expected a number above 0"),
        ({"epochs": math.nan}, "epochs: expected a number"),
        ({"steps": 1, "lr": 0}, "lr: expected a number above 0"),
        ({"steps": 1, "lr": "fast"}, "lr: expected a number above 0"),
        ({"steps": 1, "optimiser": "lion"}, "optimiser: expected one of sgd, adamw, got 'lion'"),
        ({"steps": 1, "schedule": "linear"}, "schedule: expected one of"),
        ({"steps": 1, "precision": "fp16"}, "precision: expected one of fp32, bf16"),
        ({"steps": 1, "batch_size": 10, "accumulate": 4}, "batch_size: expected a multiple of accumulate 4, got 10"),
        ({"steps": 1, "schedule": "steps"}, "lr_steps: expected increasing numbers that begin with 0"),
        ({"steps": 1, "schedule": "steps", "lr_steps": [0, 1], "lr_factors": [1]}, "lr_factors: expected as many"),
        ({"steps": 1, "lr_steps": (0,), "lr_factors": (1,)}, "expected schedule 'steps'"),
        ({"steps": 1, "warmup": 2}, "warmup: expected a number of at least 0 and at most 1"),
        ({"steps": 1, "betas": (0.9, 1.0)}, "betas: expected two"),
        ({"steps": 1, "workers": -1}, "workers: expected an integer of at least 0"),
        ({"steps": 1, "checkpoint_minutes": 0}, "checkpoint_minutes: expected a number above 0"),
        ({"steps": 1, "nesterov": 1}, "nesterov: expected true or false"),
        ({"steps": 1, "colour": 1}, "unknown field 'colour'"),
    ],
)
def test_bad_fields_are_named(fields, message):
    with pytest.raises(InputError, match=message):
        Recipe.from_dict(fields)


def test_round_trip():
    recipe = Recipe.paper()
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert set(recipe.to_dict()) - set(recipe.defining()) == {
        "workers",
        "checkpoint_every",
        "checkpoint_minutes",
        "mixup_alpha",
        "ema_decay",
        "validate_every",
        "keep",
        "patience",
        "freeze",
        "layer_decay",
        "lr_scale",
        "cache_stem",
    }


def test_a_frozen_model_cannot_be_trained():
    model = nn.Linear(2, 2)
    model.requires_grad_(False)
    with pytest.raises(InputError, match="expected at least one trainable parameter"):
        Recipe(steps=1).build_optimiser(model)
