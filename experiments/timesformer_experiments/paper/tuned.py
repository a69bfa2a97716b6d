"""Runs of Table 1 anew: recipes from validation data, at equal steps and at equal training MACs, on fresh seeds.

`appearance` plays the part of K400, as before: for each seed an image model is trained on stills, and every scheme
starts from it.  `match` plays that of SSv2: a clip and its reversal hold the same frames, and no classifier without
attention comes near (`results/probes`).  Its models are those of `skills`: two blocks, no class token, trained from
nothing.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Literal

from timesformer import TimeSformerConfig
from timesformer.config.counting import macs_per_view
from timesformer_experiments.paper.artefact import Profile
from timesformer_experiments.paper.recipes import Recipes, read_recipes, recipe_of, selection_said
from timesformer_experiments.paper.setting import changed, image_fields, video_fields
from timesformer_experiments.paper.skills.recipes import SMOKE
from timesformer_experiments.paper.skills.registered import skills
from timesformer_experiments.paper.variants import started
from timesformer_experiments.specs.run import RunSpec

NAME = "table1_tuned"
RECIPES = Path(__file__).with_name("table1_recipes.yaml")
PROBES = {"appearance": "k400", "match": "ssv2"}
"""Probes, with the datasets that they stand in for."""
BASE = "divided"
"""The scheme whose training MACs the others get."""
SEEDS: dict[Profile, range] = {"smoke": range(10, 11), "quick": range(10, 13), "full": range(10, 15)}
"""Seeds that no earlier table and no draw has; each has videos of its own."""
DEPTH = 2
Budget = Literal["steps", "macs"]
"""Every scheme gets the same number of steps, or steps that cost as many MACs in training as those of `divided`."""


@cache
def recipes() -> Recipes:
    """Return the committed recipes."""
    return read_recipes(RECIPES)


def spec_of(profile: Profile, probe: str, scheme: str, seed: int, budget: Budget = "steps") -> RunSpec:
    """Return the run of a scheme on a probe.

    Raises InputError if the scheme has no recipe for the probe.
    """
    fields = _fields(profile, probe, scheme, seed)
    equal = budget == "macs" and scheme != BASE
    name = f"{NAME}-{profile}-{probe}-{scheme}{'-macs' if equal else ''}-s{seed}"
    spec = RunSpec.parse({"name": name, "seed": seed, **fields}, NAME)
    if not equal:
        return spec
    base = spec_of(profile, probe, BASE, seed)
    return RunSpec.parse(
        {"name": name, "seed": seed, **changed(fields, {"recipe.steps": equal_steps(spec, base)})}, NAME
    )


def equal_steps(spec: RunSpec, base: RunSpec) -> int:
    """Return the steps with which a run comes nearest to the training MACs of another of the same batch, at least 1."""
    assert isinstance(spec.model, TimeSformerConfig)
    assert isinstance(base.model, TimeSformerConfig)
    assert base.recipe.steps is not None
    return max(1, round(base.recipe.steps * macs_per_view(base.model) / macs_per_view(spec.model)))


def _fields(profile: Profile, probe: str, scheme: str, seed: int) -> dict[str, Any]:
    """Return the fields of a run but for its name and seed."""
    fields = _appearance(profile, scheme, seed) if probe == "appearance" else _match(profile, scheme, seed)
    if profile == "smoke":
        return fields
    recipe = recipe_of(recipes(), RECIPES, probe, scheme)
    return {**changed(fields, recipe.fields), "selection": selection_said(recipe)}


def _appearance(profile: Profile, scheme: str, seed: int) -> dict[str, Any]:
    own = {"data.seed": seed}
    image = {"name": f"{NAME}-{profile}-image-s{seed}", "seed": seed, **changed(image_fields(profile), own)}
    return {**changed(video_fields(profile, "appearance"), {**own, "model.attention": scheme}), **started(image)}


def _match(profile: Profile, scheme: str, seed: int) -> dict[str, Any]:
    registered = skills()
    skill = registered.probes["match"]
    data = {"probe": "match", **skill.data, "seed": seed, skill.dial: skill.registered}
    fields = {
        "data": {**data, **skill.smoke} if profile == "smoke" else data,
        "model": {**registered.model, **skill.model, "attention": scheme, "depth": DEPTH},
        "recipe": {},
        "protocol": registered.protocol,
    }
    return changed(fields, SMOKE) if profile == "smoke" else fields
