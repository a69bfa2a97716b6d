"""Clips of the gallery and what is known of weights, read from `clips.yaml`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from timesformer.config.yaml_text import parse_yaml
from timesformer.errors import InputError

UNKNOWN = {"title": "unknown weights", "credit": "unknown", "licence": "unknown"}
"""Description of weights that are not registered."""


@dataclass(frozen=True)
class Still:
    """A clip whose frames may be shown.

    sha256: of its file; other files are refused, since their licence is not known
    seconds: the part that is shown; columns: patches from left to right
    query: the patch that looks, as frame, row and column
    class_layer, patch_layer: layers whose attention is shown, of the class token and of the patch
    """

    name: str
    file: str
    sha256: str
    title: str
    credit: str
    licence: str
    seconds: tuple[float, float]
    columns: int
    query: tuple[int, int, int]
    class_layer: int
    patch_layer: int

    @property
    def credited(self) -> str:
        """Title, author and licence in one line."""
        return f"Frames: {self.title}, {self.credit}; {self.licence}"

    def found_in(self, folder: Path) -> Path:
        """Return the clip's file.

        Raises:
            InputError: it is not in the folder, or is another one.
        """
        path = folder / self.file
        if not path.is_file():
            raise InputError(f"{path}: no such file; the gallery shows {self.title} ({self.credit})")
        if (found := file_sha256(path)) != self.sha256:
            raise InputError(
                f"{path}: expected the file with sha256 {self.sha256}, whose licence is known, got {found}"
            )
        return path


@dataclass(frozen=True)
class Shown:
    """Everything that the gallery shows: frames of a clip, patch rows of a frame, the clips, weights by sha256."""

    frames: int
    rows: int
    clips: tuple[Still, ...]
    weights: Mapping[str, Mapping[str, str]]


def read_shown(path: Path | None = None) -> Shown:
    """Read a list of clips, by default the gallery's own."""
    text = (resources.files(__package__) / "clips.yaml" if path is None else path).read_text(encoding="utf-8")
    fields: Any = parse_yaml(text, "clips.yaml")
    clips = tuple(
        Still(**{**each, "seconds": tuple(each["seconds"]), "query": tuple(each["query"])}) for each in fields["clips"]
    )
    return Shown(fields["frames"], fields["rows"], clips, fields["weights"])


def file_sha256(path: Path) -> str:
    """Compute the sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
