"""The paper's tables and figures: one short module each, found by being here.

A module is an artefact if it defines `ARTEFACT`, an `Artefact`. Nothing else has to be told of it: `timesformer
reproduce` lists and makes it. Published values stand in `values.yaml`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, get_args

from timesformer.errors import InputError
from timesformer_experiments.paper import artefacts

if TYPE_CHECKING:
    from timesformer_experiments.report.report import Report
    from timesformer_experiments.specs.run import RunSpec

Profile = Literal["smoke", "quick", "full"]
PROFILES: tuple[Profile, ...] = get_args(Profile)
GROUPS = {"main": ("table1", "figure3", "memory")}
"""Artefacts that are made together under one name; `all` are all there are."""


@dataclass(frozen=True)
class Folders:
    """Where things lie: `data` probes and decoded frames, `runs` what training leaves behind, `out` the results."""

    data: Path
    runs: Path
    out: Path


def _nothing_more(records: Sequence[dict[str, Any]], profile: Profile, folders: Folders) -> Sequence[Path]:
    return ()


def _nothing_measured(
    records: Sequence[dict[str, Any]], profile: Profile, folders: Folders, jobs: int
) -> Sequence[dict[str, Any]]:
    return ()


@dataclass(frozen=True)
class Artefact:
    """A table or figure of the paper.

    `plan(profile)`: the runs that it needs, none if everything is counted. `measure(records, profile, folders, jobs)`:
    more records, of what is measured on the finished runs' models by so many processes, with `hash` and `outcome`.
    `report(records, profile)`: what is shown, made from the records of the runs and these alone. `finish(records,
    profile, folders)`: leaves more files in the results and returns their paths.
    """

    name: str
    title: str
    plan: Callable[[Profile], Sequence[RunSpec]]
    report: Callable[[Sequence[dict[str, Any]], Profile], Report]
    finish: Callable[[Sequence[dict[str, Any]], Profile, Folders], Sequence[Path]] = _nothing_more
    measure: Callable[[Sequence[dict[str, Any]], Profile, Folders, int], Sequence[dict[str, Any]]] = _nothing_measured


def names() -> tuple[str, ...]:
    """Names of the artefacts: the paper's tables, its figures, then all else, each in alphabetical order."""
    return tuple(sorted(_modules(), key=lambda name: (_place(name), name)))


def _place(name: str) -> int:
    return next((place for place, kind in enumerate(("table", "figure")) if name.startswith(kind)), 2)


def chosen(wanted: Sequence[str]) -> tuple[str, ...]:
    """The artefacts of names, of groups and of `all`, each once, in the order given; raises `InputError` for others."""
    groups = {**GROUPS, "all": names()}
    found: dict[str, None] = {}
    for name in wanted:
        if name not in groups and name not in names():
            raise InputError(f"artefact {name!r}: expected some of {', '.join((*names(), *groups))}")
        found.update(dict.fromkeys(groups.get(name, (name,))))
    return tuple(found)


def load(name: str) -> Artefact:
    """The artefact of a name; raises `InputError` with the names there are."""
    artefact = module_of(name).ARTEFACT
    assert isinstance(artefact, Artefact)
    return artefact


def module_of(name: str) -> ModuleType:
    """The module of an artefact, imported; raises `InputError` with the names there are."""
    if name not in names():
        raise InputError(f"artefact {name!r}: expected one of {', '.join(names())}")
    return importlib.import_module(_modules()[name])


def _modules() -> dict[str, str]:
    """Import names of the artefacts by their own: the modules in the folders of `artefacts/`, none of them imported."""
    found = {}
    for folder in pkgutil.iter_modules(artefacts.__path__):
        within = Path(artefacts.__path__[0]) / folder.name
        for module in pkgutil.iter_modules([str(within)]):
            found[module.name] = f"{artefacts.__name__}.{folder.name}.{module.name}"
    return found
