"""Annotations of HowTo100M as used in section 4.6 of the paper: long videos, each of one task."""

import os
from pathlib import Path

from timesformer.data.annotations.reading import (
    VIDEO_SUFFIXES,
    one_head,
    read_table,
    require_names,
    require_some,
    whole_number,
)
from timesformer.data.annotations.sample import Annotations, Labels, NumClasses, Sample
from timesformer.errors import InputError


def read_howto100m(
    path: Path, root: Path | None = None, num_classes: NumClasses | None = None, labels: Labels | None = None
) -> Annotations:
    """Read `HowTo100M_v1.csv` or a subset of its rows, using the columns video_id and task_id.

    The class of a video is its task.  Class names are the task ids: `labels` in the given order, or those of the file
    in ascending order.  Read the test set with the `labels` of the training set so that both use the same classes.
    Videos are files named video_id with any video suffix, or folders of images, anywhere under `root` (by default the
    folder of the csv).  The paper uses the tasks with at least 100 videos, and clips that cover a video without
    overlap.

    Raises InputError naming file and line, also for a duplicate video.
    """
    rows = []
    for place, row in read_table(path, ("video_id", "task_id")):
        if not row["video_id"]:
            raise InputError(f"{place}: video_id: expected the name of a video, got an empty field")
        rows.append((place, row["video_id"], str(whole_number(row["task_id"], "task_id", place))))
    if labels is None:
        labels = sorted({task for _, _, task in rows}, key=int)
    _, names = one_head(path, num_classes, labels)
    index = require_names(path, names, path)
    found = _files(root if root is not None else path.parent, {video for _, video, _ in rows})
    base, samples, seen = root if root is not None else path.parent, [], set()
    for place, video, task in rows:
        if task not in index:
            raise InputError(f"{place}: task_id: {task} is not one of the {len(index)} classes")
        if video in seen:
            raise InputError(f"{place}: video_id: {video!r} occurs twice")
        seen.add(video)
        samples.append(Sample(found.get(video, base / f"{video}.mp4"), index[task], video))
    return Annotations(require_some(samples, path), names)


def _files(root: Path, wanted: set[str]) -> dict[str, Path]:
    """Find the video of each name under `root`.  Suffixes take precedence in their order, files before folders."""
    found: dict[str, tuple[int, str]] = {}
    for folder, folders, files in os.walk(root, followlinks=True):
        candidates = [(name, name, len(VIDEO_SUFFIXES)) for name in folders]
        for name in files:
            stem, suffix = os.path.splitext(name)
            if suffix.lower() in VIDEO_SUFFIXES:
                candidates.append((stem, name, VIDEO_SUFFIXES.index(suffix.lower())))
        for stem, name, rank in candidates:
            if stem in wanted:
                candidate = (rank, os.path.join(folder, name))
                found[stem] = min(found.get(stem, candidate), candidate)
        folders[:] = [name for name in folders if name not in wanted]
    return {stem: Path(file) for stem, (_, file) in found.items()}


READERS = {"howto100m": read_howto100m}
