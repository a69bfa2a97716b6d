"""The artefacts that there are: every module in the folders of `artefacts/`, which defines `ARTEFACT`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from timesformer.errors import InputError
from timesformer_experiments.paper.artefact import Artefact

ARTEFACTS = Path(__file__).parent / "artefacts"
GROUPS = {"main": ("table1", "figure3", "memory")}
"""Artefacts that are made together under one name; `all` are all there are."""


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
    package = f"{__package__}.{ARTEFACTS.name}"
    return {
        module.name: f"{package}.{folder.name}.{module.name}"
        for folder in pkgutil.iter_modules([str(ARTEFACTS)])
        for module in pkgutil.iter_modules([str(ARTEFACTS / folder.name)])
    }
