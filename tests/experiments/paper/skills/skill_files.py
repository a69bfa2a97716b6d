"""Files of predictions and recipes in place of the committed ones, and records of runs that no one has trained."""

from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.experiments.paper.experiments_records import record_of
from timesformer_experiments.paper.skills import plan, recipes, registered
from timesformer_experiments.paper.skills.plan import Cell

SELECTION = {
    "on": "validation",
    "search": "random",
    "draws": 4,
    "seed": 0,
    "budget": "20 core-seconds a draw",
    "validation_percent": 90.0,
    "core_seconds": 12.5,
    "over": {"recipe.lr": [0.001, 0.003]},
}
RECIPE = {"recipe.lr": 0.003, "recipe.steps": 10, "selection": SELECTION}


@contextmanager
def in_place(
    folder: Path,
    followups: Sequence[dict[str, Any]] = (),
    without: tuple[str, str] | None = None,
    left_out: Set[str] = frozenset(),
) -> Iterator[None]:
    """Read predictions with these follow-ups, and recipes for all schemes and probes but `without`, from `folder`.

    No profile leaves out values of a dial, but quick the probes `left_out`.
    """
    values = yaml.safe_load(registered.SKILLS.read_text()) | {"followups": list(followups)}
    for name, skill in values["probes"].items():
        skill["left_out"] = {"quick": skill["values"]} if name in left_out else {}
    files = {probe: {scheme: dict(RECIPE) for scheme in values["schemes"]} for probe in values["probes"]}
    if without is not None:
        del files[without[0]][without[1]]
    (folder / "skills.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    (folder / "skills_recipes.yaml").write_text(yaml.safe_dump(files))
    caches = (registered.skills, recipes.recipes, plan.cells)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registered, "SKILLS", folder / "skills.yaml")
        patch.setattr(recipes, "RECIPES", folder / "skills_recipes.yaml")
        for each in caches:
            each.cache_clear()
        yield
    for each in caches:
        each.cache_clear()


def records_of(cells: Sequence[Cell], right: Callable[[Cell, int], list[bool]]) -> list[dict[str, Any]]:
    """Return a record for each run; right(cell, number of test videos): which test videos it had right."""
    found = []
    for cell in cells:
        record = record_of(cell.spec, right(cell, cell.spec.data.num_test))
        record["metrics"] |= {"train_seconds": 10.0, "train_top1_percent": 80.0}
        found.append(record)
    return found


def share(percent: float, count: int) -> list[bool]:
    """Return so many videos, a share of them right, in groups of eight spread evenly."""
    return [((number // 8) * percent) // 100 < ((number // 8 + 1) * percent) // 100 for number in range(count)]
