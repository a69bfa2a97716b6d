"""Recipes of `skills`, read from `skills_recipes.yaml`."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from timesformer_experiments.paper.recipes import Recipes, read_recipes, recipe_of, selection_said
from timesformer_experiments.paper.skills.registered import Profile

RECIPES = Path(__file__).parents[1] / "skills_recipes.yaml"
SMOKE: dict[str, Any] = {"recipe.steps": 2, "recipe.batch_size": 8, "model.embed_dim": 16, "model.num_heads": 2}
"""Fields of all runs of the profile smoke, whose accuracies mean nothing."""


@cache
def recipes() -> Recipes:
    """Return the committed recipes."""
    return read_recipes(RECIPES)


def fields_of(probe: str, scheme: str, profile: Profile) -> dict[str, Any]:
    """Return the fields of a run that a probe's recipe for a scheme sets.

    Raises InputError if there is none, except in the profile smoke, which has its own.
    """
    return SMOKE if profile == "smoke" else recipe_of(recipes(), RECIPES, probe, scheme).fields


def selection_of(probe: str, scheme: str, profile: Profile) -> dict[str, Any] | None:
    """Return the `selection` of a run's record, where the recipe says what was drawn from what."""
    found = recipes().root.get(probe, {}).get(scheme)
    return None if profile == "smoke" or found is None else selection_said(found)
