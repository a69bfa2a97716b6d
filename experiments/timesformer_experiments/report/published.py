"""Values published in the paper, read from `values.yaml`, with the source and confidence of each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from timesformer.errors import InputError

VALUES = Path(__file__).with_name("values.yaml")
CONFIDENCES = ("seen", "seen_secondary", "digitised", "derived")


@dataclass(frozen=True)
class Published:
    """One block of published values.

    `rows`: mapping from scheme to fields, or a list of fields, as in the file. Field names end in their unit.
    `digitising_error`: in `digitising_unit`; None for values that were printed.
    """

    name: str
    source: str
    confidence: str
    rows: Any
    note: str = ""
    digitising_error: float | None = None
    digitising_unit: str = ""


@dataclass(frozen=True)
class Remark:
    """A remark on the published values, with its source.

    `rows`: rows that it concerns (key, model or attention); empty if it concerns the artefact as a whole.
    """

    text: str
    source: str
    confidence: str
    rows: tuple[str, ...] = ()


@cache
def _file(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _block(artefact: str, name: str, path: Path) -> Any:
    try:
        return _file(path)[artefact][name]
    except KeyError as error:
        raise InputError(f"{path}: no published values under {artefact}.{name}") from error


def _checked(block: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the block if it has a source and a confidence; without them, a value must not be shown as published."""
    for field in ("source", "confidence"):
        if not block.get(field):
            raise InputError(f"{where}: `{field}` is missing")
    if "digitising_error" in block and not block.get("digitising_unit"):
        raise InputError(f"{where}: `digitising_unit` is missing")
    if block["confidence"] not in CONFIDENCES:
        raise InputError(f"{where}: confidence: expected one of {', '.join(CONFIDENCES)}, got {block['confidence']!r}")
    return block


def published(artefact: str, name: str, path: Path = VALUES) -> Published:
    """Return the block `name` of an artefact, e.g. `published("table1", "schemes")`.

    Raises `InputError` if it does not exist or has no source or no confidence.
    """
    block = _checked(_block(artefact, name, path), f"{path}: {artefact}.{name}")
    return Published(
        name=name,
        source=block["source"],
        confidence=block["confidence"],
        rows=block["rows"],
        note=block.get("note", ""),
        digitising_error=block.get("digitising_error"),
        digitising_unit=block.get("digitising_unit", ""),
    )


def remarks(artefact: str, path: Path = VALUES) -> tuple[Remark, ...]:
    """Return the remarks on the published values of an artefact, then its contradictions.

    Raises `InputError` like `published`.
    """
    if artefact not in _file(path):
        raise InputError(f"{path}: no published values under {artefact}")
    own = _file(path)[artefact].get("remarks", [])
    found = [Remark(**_checked(remark, f"{path}: {artefact}.remarks[{index}]")) for index, remark in enumerate(own)]
    return (*found, *contradictions(artefact, path))


def contradictions(artefact: str, path: Path = VALUES) -> tuple[Remark, ...]:
    """Return contradictions between published values of an artefact.  Raises `InputError` like `published`."""
    found = []
    for entry in _file(path).get("contradictions", []):
        _checked(entry, f"{path}: contradiction {entry['number']}")
        if artefact in entry["concerns"]:
            text, rows = f"{entry['title']}. {entry['text']}", tuple(entry["concerns"][artefact])
            found.append(Remark(text, entry["source"], entry["confidence"], rows))
    return tuple(found)


def paper(path: Path = VALUES) -> str:
    """Return the citation of the paper."""
    return str(_file(path)["paper"])
