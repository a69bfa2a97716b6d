"""Lists of videos and their labels.  A further annotation format is one more reader in `READERS`."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from timesformer.errors import InputError


@dataclass(frozen=True)
class Sample:
    """A video and its class.  `name` is the path as the annotation file has it: it identifies the video in records."""

    path: Path
    label: int
    name: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", str(self.path))


# The label is what stands after the last space or comma, so that paths may contain both.
_LINE = re.compile(r"(?P<path>.*\S)\s*[ ,\t]\s*(?P<label>[+-]?\d+)")


def read_kinetics_csv(path: Path | str, root: Path | str | None = None, num_classes: int | None = None) -> list[Sample]:
    """Read Kinetics' `path label` lines: separated by a space or comma, without header; paths may contain spaces.

    Relative paths are taken from `root`, by default the csv's own folder.

    Raises InputError for a file that is missing, not text or empty; for a malformed line or a label outside
    0 … num_classes - 1 it names the line.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such annotation file")
    base = Path(root) if root is not None else path.parent
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file in UTF-8 ({error.reason})") from error
    samples = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise InputError(f"{path}:{number}: expected `path label`, the label a whole number, got {line.strip()!r}")
        name, label = match["path"].rstrip(" ,\t").strip('"'), int(match["label"])
        if label < 0 or (num_classes is not None and label >= num_classes):
            limit = "0 or more" if num_classes is None else f"0 to {num_classes - 1}"
            raise InputError(f"{path}:{number}: label {label} is out of range, expected {limit}")
        samples.append(Sample(base / name, label, name))
    if not samples:
        raise InputError(f"{path}: the annotation file is empty")
    return samples


Reader = Callable[[Path | str, Path | str | None, int | None], list[Sample]]
READERS: dict[str, Reader] = {"kinetics": read_kinetics_csv}
"""Annotation formats by the name that a run's `data.format` gives: (file, root, num_classes) -> samples."""


def read_annotations(
    format: str, path: Path | str, root: Path | str | None = None, num_classes: int | None = None
) -> list[Sample]:
    """Read an annotation file in one of the formats of `READERS`; raises InputError for another name, and as the
    format's reader does."""
    if format not in READERS:
        raise InputError(f"format: expected one of {', '.join(READERS)}, got {format!r}")
    return READERS[format](path, root, num_classes)
