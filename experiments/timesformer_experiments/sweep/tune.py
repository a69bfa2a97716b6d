"""Tuning of a sweep: each variant's draws are trained and evaluated on validation, and the best becomes its recipe.

The choice is a function of the records of all draws, so it does not matter who made them, or when.  Draws whose loss
was not finite have no accuracy and come last.  Any other failure holds its variant back until the run is made again:
the budget would not be equal.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timesformer.errors import InputError
from timesformer_experiments.specs.job import Job
from timesformer_experiments.specs.sweep import Cell, Sweep
from timesformer_experiments.specs.tune import Tune

Outcomes = Mapping[str, Mapping[str, Any]]
"""Records of finished and failed runs by hash."""
DIVERGED = "diverged"


def key_of(variant: Mapping[str, Any]) -> str:
    """Return a variant's values as text."""
    return json.dumps(variant, sort_keys=True)


@dataclass(frozen=True)
class Choice:
    """The recipe of a variant.

    draw: its place among the draws, None where none of them has an accuracy.  percents: accuracy of each draw on
    validation.  digest: sha256 of the hashes and accuracies of all draws.
    """

    draw: int | None
    percents: tuple[float | None, ...]
    digest: str

    def fields(self, tune: Tune) -> dict[str, Any]:
        """Return what the final runs of the variant have beside its own values."""
        assert self.draw is not None
        values = tune.draws()[self.draw]
        selection = {
            "on": tune.on,
            "search": tune.search,
            "draws": tune.budget,
            "over": tune.space(),
            "chosen": values,
            "best_percent": self.percents[self.draw],
            "seed": tune.seed,
            "draw": self.draw,
            "tuning_sha256": self.digest,
        }
        return values | {"selection": selection}


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


def choose(keys: Sequence[str], outcomes: Outcomes) -> Choice | None:
    """Return the best draw on validation, of equal ones the earlier; None while draws are missing or have failed."""
    percents: list[float | None] = []
    for key in keys:
        record = outcomes.get(key)
        if record is None or (record["outcome"] != "done" and record.get("reason_kind") != DIVERGED):
            return None
        percents.append(float(record["metrics"]["top1_percent"]) if record["outcome"] == "done" else None)
    text = json.dumps([list(each) for each in zip(keys, percents, strict=True)])
    known = [percent for percent in percents if percent is not None]
    best = percents.index(max(known)) if known else None
    return Choice(best, tuple(percents), hashlib.sha256(text.encode()).hexdigest())
