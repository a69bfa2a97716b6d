"""Tuning of a sweep: each variant's draws are trained and evaluated on validation, and the best becomes its recipe.

The choice is a function of the records of all draws, so it does not matter who made them, or when.  Draws whose loss
was not finite have no accuracy and come last.  Any other failure holds its variant back until the run is made again:
the budget would not be equal.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timesformer.errors import InputError
from timesformer_experiments.specs.choice import DIVERGED, Choice, Outcomes, choose
from timesformer_experiments.specs.job import Job
from timesformer_experiments.specs.sweep import Cell, Sweep
from timesformer_experiments.specs.tune import Tune

__all__ = ["DIVERGED", "Choice", "Outcomes", "Tuning", "choose", "key_of", "tuning"]


def key_of(variant: Mapping[str, Any]) -> str:
    """Return a variant's values as text."""
    return json.dumps(variant, sort_keys=True)


@dataclass(frozen=True)
class Tuning:
    """The first phase of a sweep: its jobs by hash, and by variant the hash of each draw."""

    tune: Tune
    jobs: dict[str, Job]
    draws: dict[str, tuple[str, ...]]

    def ended(self, outcomes: Outcomes) -> bool:
        """True if every draw has an outcome."""
        return all(key in outcomes for keys in self.draws.values() for key in keys)

    def choices(self, outcomes: Outcomes) -> dict[str, Choice]:
        """Return the choice of each variant whose draws have all ended as they should."""
        found = {}
        for variant, keys in self.draws.items():
            choice = choose(keys, outcomes)
            if choice is not None and choice.draw is not None:
                found[variant] = choice
        return found


def tuning(sweep: Sweep, source: str | Path, folder: Path) -> Tuning:
    """Return the first phase of a sweep.

    Raises InputError, also where draws change the cost that `equalise` holds equal: variants that choose different ones
    would then differ in it.
    """
    tune = sweep.tune
    assert tune is not None
    draws, cells, seed = tune.draws(), [], sweep.tuning_seed()
    for variant in sweep.variants():
        for number, values in enumerate(draws):
            note = {"variant": variant, "draw": number, "values": values}
            cells.append(
                Cell(
                    variant | seed,
                    values | sweep.drawn_by(seed) | {"evaluate_on": tune.on},
                    {"tuning": note},
                    suffix=f" draw={number}",
                    counts=False,
                )
            )
    jobs = sweep.jobs(source, folder, cells)
    hashes = {
        key_of({"variant": job.notes["tuning"]["variant"], "values": job.notes["tuning"]["values"]}): key
        for key, job in jobs.items()
        if job.role == "tuning"
    }
    _require_one_cost(sweep, tune, jobs)
    found = {
        key_of(variant): tuple(hashes[key_of({"variant": variant, "values": values})] for values in draws)
        for variant in sweep.variants()
    }
    return Tuning(tune, jobs, found)


def _require_one_cost(sweep: Sweep, tune: Tune, jobs: Mapping[str, Job]) -> None:
    targets: dict[str, int] = {}
    for job in jobs.values():
        if job.role != "tuning" or "equalised" not in job.notes:
            continue
        note, variant = job.notes["equalised"], key_of(job.notes["tuning"]["variant"])
        if targets.setdefault(variant, note["target"]) != note["target"]:
            raise InputError(
                f"tune.over: a draw of {', '.join(tune.over)} changes the {note['by']} of {note['to']!r} "
                f"({targets[variant]} and {note['target']}), which equalise holds equal: variants that choose "
                "different draws would not cost the same"
            )
