"""Accuracy below which a training counts as failed, registered before the runs.

failed_below_percent: midpoint        # of probes where order counts, see `midpoint_percent`
failed_below_percent: 60              # or a number [percent]
failed_below_percent: {motion: 75}    # or one for each probe
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import PlainValidator

from timesformer.data.probes import KINDS
from timesformer.errors import InputError
from timesformer.evaluation.protocols import protocol_named
from timesformer_experiments.specs.run import ProbeData, RunSpec

MIDPOINT: Literal["midpoint"] = "midpoint"


def _level(value: Any) -> Any:
    if value is None or value == MIDPOINT:
        return value
    several = value if isinstance(value, dict) else {"": value}
    for probe, percent in several.items():
        where = f"{probe}: " if probe else ""
        if probe and probe not in KINDS:
            raise InputError(f"{probe}: expected one of the probes {', '.join(KINDS)}")
        if isinstance(percent, bool) or not isinstance(percent, int | float) or not 0 < percent < 100:
            raise InputError(f"{where}expected a percentage or {MIDPOINT}, got {percent!r}")
    return value


Level = Annotated[float | dict[str, float] | Literal["midpoint"] | None, PlainValidator(_level)]


def level_of(registered: float | dict[str, float] | str | None, spec: RunSpec) -> float | None:
    """Return the level of a run [percent]; None where there is none for its data."""
    if registered is None:
        return None
    if registered == MIDPOINT:
        return midpoint_percent(spec)
    if isinstance(registered, dict):
        return registered.get(spec.data.probe) if isinstance(spec.data, ProbeData) else None
    assert isinstance(registered, int | float)
    return float(registered)


def midpoint_percent(spec: RunSpec) -> float | None:
    """Return the accuracy halfway between what no model can pass that is blind to the order of frames, and what none
    can pass that reads these clips [percent].

    A training below it has learnt less than half of what order adds.  It follows from the probe's construction and the
    run's views, so that no result has a part in it.  None where order adds nothing, and for other data.
    """
    if not isinstance(spec.data, ProbeData):
        return None
    views = protocol_named(spec.protocol).views
    blind, seeing = (spec.data.kind.ceiling_percent(spec.preprocessing, views, order) for order in (True, False))
    most = 100.0 if seeing is None else seeing
    return None if blind is None or blind >= most else (blind + most) / 2
