"""Choice of a recipe among draws, by their accuracy on validation alone.

It is a function of the records of all draws, so it does not matter who made them, or when.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from timesformer_experiments.specs.tune import Tune

Outcomes = Mapping[str, Mapping[str, Any]]
"""Records of finished and failed runs by hash."""
DIVERGED = "diverged"


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
