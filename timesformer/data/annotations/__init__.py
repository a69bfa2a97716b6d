"""Readers of annotation files (lists of videos and labels).  To add a format, add a module here: see `READERS`."""

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
    """Collect the entries of `READERS` from the modules of this folder."""
    found: dict[str, Reader] = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        for name, reader in getattr(module, "READERS", {}).items():
            if name in found:
                both = f"{found[name].__module__} and {module.__name__}"
                raise InputError(f"annotation format {name!r}: defined twice, in {both}")
            found[name] = reader
    return found


READERS: dict[str, Reader] = _readers()
"""Annotation formats by name (a run's `data.format`): functions (file, root, num_classes, labels) -> annotations.

A format is an entry of `READERS` in a module of this folder and needs no other registration.  In every format, a folder
of images may replace a video file.
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

    root: folder of the videos; None: the format's default
    num_classes: number of classes (one per head where there are several), against which labels are checked
    labels: class names, for formats that refer to classes by name without listing them, and for reading a test set with
        the classes of the training set
    fps: frame rate of folders of images, where the format does not give it

    Raises InputError for an unknown format and for the errors of the format's reader.
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
