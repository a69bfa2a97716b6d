"""Registry of the kinds of probes, collected from the modules of `kinds/`."""

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_type_hints

from timesformer.data.probes.kind import Kind, build
from timesformer.errors import InputError


def find() -> dict[str, type[Kind]]:
    """Return the kinds by name, in the order of `seed_index`, in which they were added."""
    package = importlib.import_module(f"{__package__}.kinds")
    found: list[type[Kind]] = []
    for info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, Kind) and value.__module__ == module.__name__:
                found.append(value)
    return {kind.name: kind for kind in sorted(found, key=lambda kind: kind.seed_index)}


def dial_types(kinds: Mapping[str, type[Kind]]) -> dict[str, Any]:
    """Return the types of the kinds' dials by name; a dial of several kinds gets the union of their types."""
    found: dict[str, Any] = {}
    for kind in kinds.values():
        hints = get_type_hints(kind)
        for dial in fields(kind):
            found[dial.name] = found[dial.name] | hints[dial.name] if dial.name in found else hints[dial.name]
    return found


KINDS = find()
LABELS: dict[str, tuple[str, ...]] = {name: kind.labels for name, kind in KINDS.items()}
DIAL_TYPES = dial_types(KINDS)


def make_kind(name: str, dials: Mapping[str, object] | None = None) -> Kind:
    """Make a kind of probe with these dials.  Raises InputError for an unknown name or dial and for invalid values."""
    if name not in KINDS:
        raise InputError(f"unknown probe {name!r}: expected one of {', '.join(KINDS)}")
    return build(KINDS[name], dials or {})
