"""Demands of `equalise`, `tune` and `until` on the other fields of their sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from timesformer.errors import InputError
from timesformer_experiments.specs.claims import Until
from timesformer_experiments.specs.equalise import Equalise
from timesformer_experiments.specs.tune import Tune


class Fields(Protocol):
    """The fields of a sweep that matter here."""

    @property
    def base(self) -> Mapping[str, Any]: ...
    @property
    def axes(self) -> Mapping[str, list[Any]]: ...
    @property
    def zipped(self) -> Sequence[Sequence[str]]: ...
    @property
    def measure(self) -> Sequence[str]: ...
    @property
    def equalise(self) -> Equalise | None: ...
    @property
    def tune(self) -> Tune | None: ...
    @property
    def until(self) -> Until | None: ...


def require_fair(sweep: Fields) -> None:
    """Raise InputError that names the field where the sweep cannot be what these ask for."""
    if sweep.equalise is not None:
        _equalise(sweep, sweep.equalise)
    for name in ("tune", "until"):
        if getattr(sweep, name) is not None and "accuracy" not in sweep.measure:
            raise InputError(f"{name}: needs accuracy in measure, got {', '.join(sweep.measure)}")
    if sweep.tune is not None:
        _tune(sweep, sweep.tune)
    if sweep.until is not None:
        _until(sweep, sweep.until)


def _equalise(sweep: Fields, equalise: Equalise) -> None:
    if equalise.axis not in sweep.axes:
        raise InputError(f"equalise.axis: {equalise.axis!r} is no axis; expected some of {', '.join(sweep.axes)}")
    if equalise.to not in sweep.axes[equalise.axis]:
        raise InputError(f"equalise.to: expected one of {sweep.axes[equalise.axis]}, got {equalise.to!r}")
    if equalise.path in sweep.axes:
        raise InputError(f"equalise.vary: {equalise.path} is an axis already; expected a field that is free")


def _tune(sweep: Fields, tune: Tune) -> None:
    for path in tune.over:
        if path in sweep.axes:
            raise InputError(f"tune.over.{path}: it is an axis, of which every value is a variant of its own")
        if sweep.equalise is not None and path == sweep.equalise.path:
            raise InputError(f"tune.over.{path}: equalise solves for it")
    if sweep.base.get("evaluate_on", "test") != "test" or "evaluate_on" in sweep.axes:
        raise InputError("evaluate_on: with tune it is left out: validation for the draws, test for the chosen recipe")
    if "seed" not in sweep.axes:
        if sweep.until is None and tune.seed == (seed := sweep.base.get("seed", 0)):
            raise InputError(f"tune.seed: {tune.seed} is a seed of the final runs too ({seed}); expected another")
        return
    together = next((group for group in sweep.zipped if "seed" in group), ["seed"])
    for path in together:
        if path.rpartition(".")[2] == "seed" and tune.seed in (values := sweep.axes[path]):
            what = "a seed" if path == "seed" else f"a value of {path}"
            raise InputError(
                f"tune.seed: {tune.seed} is {what} of the final runs too ({', '.join(map(str, values))}); expected "
                "another"
            )


def _until(sweep: Fields, until: Until) -> None:
    if "seed" not in sweep.axes:
        return
    seeds = sweep.axes["seed"]
    if len(seeds) < until.seeds[-1]:
        raise InputError(f"axes.seed: until asks for up to {until.seeds[-1]} seeds, got {len(seeds)}")
