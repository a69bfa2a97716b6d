"""Recipes as sweeps on validation data found them, by probe and scheme, read from a file that `choose.py` wrote.

match:
  joint:
    recipe.lr: 0.003                # fields of the run by dotted path
    recipe.steps: 800
    model.position_std: 0.3
    selection: {on: validation, search: random, draws: 8, seed: 0, budget: 20 core-seconds a draw,
                validation_percent: 98.4, core_seconds: 19.5}
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, RootModel, ValidationError, model_validator

from timesformer.errors import InputError
from timesformer_experiments.specs.data import Strict
from timesformer_experiments.specs.reading import read_yaml
from timesformer_experiments.specs.run import describe

PLACES = ("model.", "recipe.")


class Chosen(Strict):
    """Choice of a recipe: on which split, how draws were made, what they cost, and what the best one had.

    budget: of each draw, in words; core_seconds: of the best one; over: the fields that were drawn and from what.
    """

    on: Literal["validation"]
    search: str = Field(min_length=1)
    draws: int = Field(ge=1)
    seed: int = Field(ge=0)
    budget: str | float
    validation_percent: float = Field(ge=0, le=100)
    core_seconds: float = Field(gt=0)
    over: dict[str, Any] | None = None
    note: str = ""

    @model_validator(mode="before")
    @classmethod
    def _bare_on(cls, values: Any) -> Any:
        """Take `on` without quotes, which YAML reads as a truth value, as it is meant."""
        if isinstance(values, dict) and True in values:
            return {"on" if name is True else name: value for name, value in values.items()}
        return values


class SchemeRecipe(Strict):
    """Fields of a run by dotted path, below `model` or `recipe`, and how they were chosen."""

    fields: dict[str, Any] = Field(min_length=1)
    selection: Chosen

    @model_validator(mode="before")
    @classmethod
    def _apart(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            raise InputError(f"expected fields of a run, got {values!r}")
        fields = {name: value for name, value in values.items() if name != "selection"}
        for name in fields:
            if not isinstance(name, str) or not name.startswith(PLACES):
                raise InputError(f"{name}: expected selection, or a field of a run that begins with model. or recipe.")
        return {"fields": fields, **({"selection": values["selection"]} if "selection" in values else {})}


class Recipes(RootModel[dict[str, dict[str, SchemeRecipe]]]):
    """Recipes by probe and scheme."""


def read_recipes(path: Path) -> Recipes:
    """Read and validate a file of recipes, none where there is no file.

    Raises InputError that names the file and the field.
    """
    if not path.is_file():
        return Recipes({})
    try:
        return Recipes.model_validate(read_yaml(path, "recipes"))
    except ValidationError as error:
        raise InputError(describe(error, path)) from error


def recipe_of(recipes: Recipes, path: Path, probe: str, scheme: str) -> SchemeRecipe:
    """Return the recipe of a scheme on a probe.  path: of the file, for the error.

    Raises InputError if there is none.
    """
    found = recipes.root.get(probe, {}).get(scheme)
    if found is None:
        raise InputError(f"{path.name}: no recipe of {scheme} on {probe} (expected one for every scheme and probe)")
    return found


def selection_said(recipe: SchemeRecipe) -> dict[str, Any] | None:
    """Return the `selection` of a run's record, where the recipe says what was drawn from what."""
    chosen = recipe.selection
    over = {name: values for name, values in (chosen.over or {}).items() if name in recipe.fields}
    if chosen.search not in ("random", "grid") or not over:
        return None
    return {
        "on": chosen.on,
        "search": chosen.search,
        "draws": chosen.draws,
        "over": over,
        "chosen": {name: recipe.fields[name] for name in over},
        "best_percent": chosen.validation_percent,
        "seed": chosen.seed,
    }
