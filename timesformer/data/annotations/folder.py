"""Datasets with one folder per class."""

import os
from pathlib import Path

from timesformer.data.annotations.classes import unknown_class
from timesformer.data.annotations.reading import VIDEO_SUFFIXES, one_head, require_names, suffixes_of, tell_passed_over
from timesformer.data.annotations.sample import Annotations, Labels, NumClasses, Sample
from timesformer.data.natural import natural_key
from timesformer.errors import InputError
from timesformer.text import path_text


def read_folder(
    path: Path, root: Path | None = None, num_classes: NumClasses | None = None, labels: Labels | None = None
) -> Annotations:
    """Read a dataset of the form `path/class/video`.

    Class names are the names of the folders, or `labels`, which must then contain every folder's name.  Videos are
    files with a video suffix, and folders of images.  Other files are passed over and listed, and a class without a
    video is told, both with a warning; names that begin with a dot are ignored.  Read the test set with the `labels` of
    the training set so that both use the same classes.  `root` is not used.

    Raises InputError if there is no such folder, no class or no video, if a folder of a class cannot be read, or if
    `labels` lacks a class.
    """
    if not os.path.isdir(path):
        raise InputError(f"{path}: no such folder of classes")
    folders = sorted(entry.name for entry in _entries(path) if os.path.isdir(entry))
    if not folders:
        raise InputError(f"{path}: expected one folder per class, got a folder without folders")
    _, names = one_head(path, num_classes, labels if labels is not None else folders)
    index, samples = require_names(path, names, path), list[Sample]()
    passed_over, empty = list[Path](), list[str]()
    for name in folders:
        if name not in index:
            raise unknown_class(str(path / name), name, index)
        before = len(samples)
        for video in sorted(_entries(path / name), key=lambda entry: natural_key(entry.name)):
            if video.suffix.lower() in VIDEO_SUFFIXES or os.path.isdir(video):
                samples.append(Sample(video, index[name], f"{name}/{video.name}"))
            else:
                passed_over.append(video)
        if len(samples) == before:
            empty.append(name)
    if not samples:
        raise InputError(
            f"{path}: the folders of its {len(folders)} classes contain no video{suffixes_of(passed_over)}"
        )
    tell_passed_over(path, passed_over, empty)
    return Annotations(tuple(samples), names, passed_over=tuple(passed_over), empty=tuple(map(path_text, empty)))


def _entries(folder: Path) -> list[Path]:
    """List what is not hidden in a folder."""
    try:
        return [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise InputError(f"{path_text(folder)}: the folder cannot be read ({error.strerror})") from error


READERS = {"folder": read_folder}
