"""Lists of videos and their labels.  A further annotation format is one more module here: see `READERS`."""

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from timesformer.data.annotations.classes import read_class_names, read_labels
from timesformer.data.annotations.kinetics import read_kinetics_csv
from timesformer.data.annotations.sample import Annotations, Label, Labels, NumClasses, Sample, count_labels
from timesformer.errors import InputError

__all__ = [
    "READERS",
    "Annotations",
    "Label",
    "Labels",
    "NumClasses",
    "Sample",
    "count_labels",
    "read_annotations",
    "read_class_names",
    "read_kinetics_csv",
    "read_labels",
]

Reader = Callable[[Path, Path | None, NumClasses | None, Labels | None], Annotations]


def _readers() -> dict[str, Reader]:
    """The entries of `READERS` in every module of this folder that has one."""
    found: dict[str, Reader] = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        for name, reader in getattr(module, "READERS", {}).items():
            if name in found:
                both = f"{found[name].__module__} and {module.__name__}"
                raise InputError(f"annotation format {name!r}: the name is taken twice, by {both}")
            found[name] = reader
    return found


READERS: dict[str, Reader] = _readers()
"""Annotation formats by the name that a run's `data.format` gives: (file, root, num_classes, labels) -> annotations.

A format is an entry of `READERS` in a module of this folder; nothing else has to be told of it.  In every format a
folder of images may take the place of a video file.
"""


def read_annotations(
    format: str,
    path: Path | str,
    root: Path | str | None = None,
    num_classes: NumClasses | Sequence[int] | None = None,
    labels: Labels | None = None,
    fps: float | None = None,
) -> Annotations:
    """Read an annotation file (a folder, for the format `folder`) in one of the formats of `READERS`.

    labels: class names, for formats that name classes and bring no names of their own, and to read a test set with the
    training set's classes; fps: frames per second of folders of images, where the format does not know them

    Raises InputError for another format, and as the format's reader does.
    """
    if format not in READERS:
        raise InputError(f"format: expected one of {', '.join(READERS)}, got {format!r}")
    if num_classes is not None and not isinstance(num_classes, int):
        num_classes = tuple(num_classes)
    found = READERS[format](Path(path), None if root is None else Path(root), num_classes, labels)
    if fps is None:
        return found
    if fps <= 0:
        raise InputError(f"fps: expected a number above 0, got {fps}")
    return replace(found, samples=tuple(s if s.fps is not None else replace(s, fps=fps) for s in found.samples))
