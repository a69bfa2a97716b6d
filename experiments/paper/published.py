"""The paper's own values, read from `values.yaml`, with the source and confidence of each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from timesformer.errors import InputError

VALUES = Path(__file__).with_name("values.yaml")
CONFIDENCES = ("seen", "digitised", "derived")


@dataclass(frozen=True)
class Published:
    """One block of published values.

    `rows` is a mapping from scheme to fields, or a list of fields, as it stands in the file. Units are in the names of
    the fields. `digitising_error` is in the unit of the values and is None where they were printed.
    """

    name: str
    source: str
    confidence: str
    rows: Any
    note: str = ""
    digitising_error: float | None = None


@dataclass(frozen=True)
class Remark:
    """What a reader of the published values has to know, with its source."""

    text: str
    source: str
    confidence: str


@cache
def _file(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _block(artefact: str, name: str, path: Path) -> Any:
    try:
        return _file(path)[artefact][name]
    except KeyError as error:
        raise InputError(f"{path}: no published values under {artefact}.{name}") from error


def _checked(block: dict[str, Any], where: str) -> dict[str, Any]:
    """Source and confidence are compulsory: a value of unknown origin cannot be shown as published."""
    for field in ("source", "confidence"):
        if not block.get(field):
            raise InputError(f"{where}: `{field}` is missing")
    if block["confidence"] not in CONFIDENCES:
        raise InputError(f"{where}: confidence {block['confidence']!r}, expected one of {', '.join(CONFIDENCES)}")
    return block


def published(artefact: str, name: str, path: Path = VALUES) -> Published:
    """The block `name` of an artefact, e.g. `published("table1", "schemes")`.

    Raises `InputError` if it does not exist or lacks its source or its confidence.
    """
    block = _checked(_block(artefact, name, path), f"{path}: {artefact}.{name}")
    return Published(
        name=name,
        source=block["source"],
        confidence=block["confidence"],
        rows=block["rows"],
        note=block.get("note", ""),
        digitising_error=block.get("digitising_error"),
    )


def remarks(artefact: str, path: Path = VALUES) -> tuple[Remark, ...]:
    """What is to be known about the published values of an artefact; raises `InputError` like `published`."""
    return tuple(
        Remark(**_checked(remark, f"{path}: {artefact}.remarks[{index}]"))
        for index, remark in enumerate(_block(artefact, "remarks", path))
    )


def paper(path: Path = VALUES) -> str:
    """The paper, as it is cited."""
    return str(_file(path)["paper"])
