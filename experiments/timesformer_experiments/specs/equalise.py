"""Equal cost in a sweep: each variant gets the width, depth or steps at which it costs what one of them does.

    equalise: {to: divided, by: macs_per_view, vary: embed_dim}

by: macs_per_view, params or train_macs (forward and backward passes over all clips of the training); vary: embed_dim,
depth or steps; axis: the field whose values are the variants, by default model.attention.
"""

from __future__ import annotations

from typing import Any

from pydantic import model_validator

from timesformer.errors import InputError
from timesformer_experiments.cost.equalise import By, Subject, Vary, cost_of, equalised
from timesformer_experiments.specs.cost import CostSpec
from timesformer_experiments.specs.data import ProbeData, Strict
from timesformer_experiments.specs.run import RunSpec


class Equalise(Strict):
    """The fields; see the module.  The variant `to` stays as it is, in each cell of the other axes."""

    to: Any
    by: By
    vary: Vary
    axis: str = "model.attention"

    @model_validator(mode="after")
    def _possible(self) -> Equalise:
        if self.vary == "steps" and self.by != "train_macs":
            raise InputError(f"vary: steps change no {self.by}; expected by: train_macs, or vary: embed_dim or depth")
        return self

    @property
    def path(self) -> str:
        """The field that is solved for."""
        return "recipe.steps" if self.vary == "steps" else f"model.{self.vary}"

    def solve(self, run: RunSpec | CostSpec, reference: RunSpec | CostSpec) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return fields by path with which the run costs what the reference does, none for the reference itself, and
        what is noted of it.

        Raises InputError.
        """
        target = cost_of(self._subject(reference), self.by)
        found = self._subject(run)
        fields: dict[str, Any] = {}
        if run is not reference:
            found = equalised(found, self.by, self.vary, target)
            fields = self._fields(run, found)
        cost = cost_of(found, self.by)
        value = found.steps if self.vary == "steps" else getattr(found.model, self.vary, None)
        note = {
            "to": self.to,
            "by": self.by,
            "vary": self.vary,
            "value": value,
            "cost": cost,
            "target": target,
            "difference_percent": round(100 * (cost - target) / target, 4),
        }
        return fields, note

    def _fields(self, run: RunSpec | CostSpec, found: Subject) -> dict[str, Any]:
        if self.vary == "steps":
            if isinstance(run, RunSpec) and run.recipe.schedule == "steps":
                raise InputError("vary: the schedule 'steps' names the steps of its cuts; expected another schedule")
            return {"recipe.epochs": None, "recipe.steps": found.steps}
        names = ("depth",) if self.vary == "depth" else ("embed_dim", "num_heads")
        return {f"model.{name}": getattr(found.model, name) for name in names}

    def _subject(self, run: RunSpec | CostSpec) -> Subject:
        if isinstance(run, CostSpec):
            if self.by == "train_macs":
                raise InputError("by: train_macs needs the data and the recipe of a training")
            return Subject(run.model)
        steps = run.recipe.steps if run.recipe.steps is not None else run.recipe.total_steps(_train_videos(run))
        return Subject(run.model, run.recipe.batch_size, steps, run.recipe)


def _train_videos(run: RunSpec) -> int:
    data = run.data
    return data.num_train if isinstance(data, ProbeData) else len(data.annotations(run.evaluate_on)[0])
