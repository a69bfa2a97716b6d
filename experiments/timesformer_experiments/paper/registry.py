"""Registry of the artefacts: all modules in the folders of `artefacts/`, each of which defines `ARTEFACT`."""

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
"""Groups of artefacts that are made together; the group `all` has all artefacts."""


def names() -> tuple[str, ...]:
    """Return the names of the artefacts: tables, figures, then the others, each in alphabetical order."""
    return tuple(sorted(_modules(), key=lambda name: (_place(name), name)))


def _place(name: str) -> int:
    return next((place for place, kind in enumerate(("table", "figure")) if name.startswith(kind)), 2)


def chosen(wanted: Sequence[str]) -> tuple[str, ...]:
    """Return the artefacts of names, groups and `all`, each once, in the given order.

    Raises `InputError` for an unknown name.
    """
    groups = {**GROUPS, "all": names()}
    found: dict[str, None] = {}
    for name in wanted:
        if name not in groups and name not in names():
            raise InputError(f"artefact {name!r}: expected one or more of {', '.join((*names(), *groups))}")
        found.update(dict.fromkeys(groups.get(name, (name,))))
    return tuple(found)


def load(name: str) -> Artefact:
    """Return the artefact with this name.  Raises `InputError` that lists the known names."""
    artefact = module_of(name).ARTEFACT
    assert isinstance(artefact, Artefact)
    return artefact


def module_of(name: str) -> ModuleType:
    """Import the module of an artefact.  Raises `InputError` that lists the known names."""
    if name not in names():
        raise InputError(f"artefact {name!r}: expected one of {', '.join(names())}")
    return importlib.import_module(_modules()[name])


def _modules() -> dict[str, str]:
    """Return {artefact: import name} for the modules in the folders of `artefacts/`, without importing them."""
    package = f"{__package__}.{ARTEFACTS.name}"
    return {
        module.name: f"{package}.{folder.name}.{module.name}"
        for folder in pkgutil.iter_modules([str(ARTEFACTS)])
        for module in pkgutil.iter_modules([str(ARTEFACTS / folder.name)])
    }
