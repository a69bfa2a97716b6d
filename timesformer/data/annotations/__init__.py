"""Lists of videos and their labels.  A further annotation format is one more reader in `READERS`."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from timesformer.data.annotations.classes import read_class_names, read_labels
from timesformer.data.annotations.diving48 import read_diving48
from timesformer.data.annotations.epic_kitchens import read_epic_kitchens
from timesformer.data.annotations.folder import read_folder
from timesformer.data.annotations.howto100m import read_howto100m
from timesformer.data.annotations.kinetics import read_kinetics, read_kinetics_csv
from timesformer.data.annotations.moments import read_moments
from timesformer.data.annotations.sample import Annotations, Label, Labels, NumClasses, Sample, count_labels
from timesformer.data.annotations.ssv2 import read_ssv2, read_ssv2_frames
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
READERS: dict[str, Reader] = {
    "kinetics": read_kinetics,
    "ssv2": read_ssv2,
    "ssv2_frames": read_ssv2_frames,
    "diving48": read_diving48,
    "howto100m": read_howto100m,
    "epic_kitchens": read_epic_kitchens,
    "moments": read_moments,
    "folder": read_folder,
}
"""Annotation formats by the name that a run's `data.format` gives: (file, root, num_classes, labels) -> annotations.

In every format a folder of images may take the place of a video file.
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
