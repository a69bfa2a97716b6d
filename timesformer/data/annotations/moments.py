"""Annotations of Moments in Time."""

import csv
from pathlib import Path

from timesformer.data.annotations.classes import read_class_names, unknown_class
from timesformer.data.annotations.reading import one_head, read_text, require_names, require_some
from timesformer.data.annotations.sample import Annotations, Labels, NumClasses, Sample
from timesformer.errors import InputError

FOLDERS = {"trainingSet": "training", "validationSet": "validation"}
"""Folder of the videos of each list."""


def read_moments(
    path: Path, root: Path | None = None, num_classes: NumClasses | None = None, labels: Labels | None = None
) -> Annotations:
    """Read `trainingSet.csv` or `validationSet.csv`: lines of `path,class name,…` without a header.

    Class names are `labels`, or come from `moments_categories.txt` (`name,index`) in the same folder.  Paths start at
    the folder `training` or `validation` of `root` if it exists, otherwise at `root` itself (by default the folder of
    the csv).  A folder of images `x` may replace `x.mp4`.

    Raises InputError naming file and line.
    """
    categories = path.with_name("moments_categories.txt")
    if labels is None and categories.is_file():
        labels = read_class_names(categories)
    _, names = one_head(path, num_classes, labels)
    base = root if root is not None else path.parent
    folder = base / FOLDERS.get(path.stem, "")
    base = folder if folder.is_dir() else base
    reader = csv.reader(read_text(path).splitlines())
    index, samples = require_names(path, names, categories), []
    for row in reader:
        if not any(row):
            continue
        place = f"{path}:{reader.line_num}"
        if len(row) < 2 or not row[0].strip():
            raise InputError(f"{place}: expected `path,class name`, got {','.join(row)!r}")
        name, label = row[0].strip(), row[1].strip()
        if label not in index:
            raise unknown_class(place, label, index)
        video = base / name
        if not video.exists() and video.with_suffix("").is_dir():
            video = video.with_suffix("")
        samples.append(Sample(video, index[label], name))
    return Annotations(require_some(samples, path), names)


READERS = {"moments": read_moments}
