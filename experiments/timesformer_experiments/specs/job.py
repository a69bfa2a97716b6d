"""A unit of work of a sweep: a run or a cost, what is measured of it, and the cell of the sweep that it fills."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from timesformer_experiments.cost.measures import MEASURES
from timesformer_experiments.specs.cost import CostSpec
from timesformer_experiments.specs.run import RunSpec


@dataclass(frozen=True)
class Job:
    """A run, or a cost, with what is measured and where it belongs.

    cell: values of the sweep's axes by dotted path; None for a run that is there only for others to start from, or for
    the choice of a recipe.  notes: what else joins its record (`records.log`): equalised, tuning, claims_digest,
    failed_below_percent.
    """

    spec: RunSpec | CostSpec
    measure: tuple[str, ...] = ("accuracy",)
    sweep: str | None = None
    cell: dict[str, Any] | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.spec.name

    @property
    def belongs(self) -> dict[str, Any]:
        """`sweep`, `cell` and the notes of the record."""
        return {"sweep": self.sweep, "cell": self.cell, **self.notes}

    @property
    def role(self) -> Literal["cell", "tuning", "start"]:
        """Role in its sweep."""
        return "cell" if self.cell is not None else "tuning" if "tuning" in self.notes else "start"

    @property
    def source(self) -> RunSpec | None:
        """The run that it starts from."""
        return self.spec.init_from if isinstance(self.spec.init_from, RunSpec) else None

    @property
    def cost(self) -> CostSpec:
        """The cost side of it."""
        return CostSpec.of(self.spec) if isinstance(self.spec, RunSpec) else self.spec

    def hash(self) -> str:
        """Hash of the run or cost."""
        return self.spec.hash()

    def lacks(self, record: dict[str, Any]) -> tuple[str, ...]:
        """Return the wanted measures that a record does not have yet."""
        return tuple(name for name in self.measure if MEASURES[name].done_by not in record["metrics"])

    def complete(self, record: dict[str, Any]) -> bool:
        """True if a record of a finished run has all that is wanted of it."""
        unfiled = self.cell is not None and record.get("cell") != self.cell
        return not self.lacks(record) and not unfiled


def jobs_of(specs: Iterable[RunSpec]) -> dict[str, Job]:
    """Return jobs for runs outside of any sweep, by hash."""
    return {spec.hash(): Job(spec) for spec in specs}
