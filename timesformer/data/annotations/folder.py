"""A folder for each class."""

from pathlib import Path

from timesformer.data.annotations.classes import unknown_class
from timesformer.data.annotations.reading import VIDEO_SUFFIXES, one_head, require_names
from timesformer.data.annotations.sample import Annotations, Labels, NumClasses, Sample
from timesformer.data.natural import natural_key
from timesformer.errors import InputError


def read_folder(
    path: Path, root: Path | None = None, num_classes: NumClasses | None = None, labels: Labels | None = None
) -> Annotations:
    """`path/class/video`: class names are the folders' names, or `labels`, of which every folder must be one.

    Videos are files with a video's suffix, and folders (of images); other files, and what begins with a dot, are left
    out.  Read the test set with the training set's `labels`, so that both mean the same classes.  `root` is not used.

    Raises InputError where there is no such folder, no class, no video, or a class that `labels` does not name.
    """
    if not path.is_dir():
        raise InputError(f"{path}: no such folder of classes")
    folders = sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not folders:
        raise InputError(f"{path}: expected a folder for each class, there is none")
    _, names = one_head(path, num_classes, labels if labels is not None else folders)
    index, samples = require_names(path, names, path), []
    for name in folders:
        if name not in index:
            raise unknown_class(str(path / name), name, index)
        for video in sorted((path / name).iterdir(), key=lambda entry: natural_key(entry.name)):
            shown = not video.name.startswith(".") and (video.suffix.lower() in VIDEO_SUFFIXES or video.is_dir())
            if shown:
                samples.append(Sample(video, index[name], f"{name}/{video.name}"))
    if not samples:
        raise InputError(f"{path}: there is no video in the folders of its {len(folders)} classes")
    return Annotations(tuple(samples), names)


READERS = {"folder": read_folder}
