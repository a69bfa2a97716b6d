"""Annotations in the format of Kinetics: `path label` on each line."""

import re
import textwrap
from pathlib import Path

from timesformer.data.annotations.reading import check_label, one_head, read_text, require_some
from timesformer.data.annotations.sample import Annotations, Labels, NumClasses, Sample
from timesformer.errors import InputError

# The label follows the last space or comma, so that paths may contain both.
_LINE = re.compile(r"(?P<path>.*\S)\s*[ ,\t]\s*(?P<label>[+-]?\d+)")


def read_kinetics(
    path: Path, root: Path | None = None, num_classes: NumClasses | None = None, labels: Labels | None = None
) -> Annotations:
    """Read lines of `path label`, separated by a space or comma, without a header; paths may contain spaces.

    Relative paths start at `root`, by default the folder of the csv; a path may be a folder of images.

    Raises InputError for a file that is missing, empty or not text, and, naming the line, for a malformed line and for
    a label outside 0 … num_classes - 1.
    """
    limit, names = one_head(path, num_classes, labels)
    base = root if root is not None else path.parent
    samples = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise InputError(
                f"{place}: expected `path label` with a whole number as label, got "
                f"{textwrap.shorten(line, 100)!r}; for other formats set `format`"
            )
        name = match["path"].rstrip(" ,\t").strip('"')
        samples.append(Sample(base / name, check_label(int(match["label"]), limit, place), name))
    return Annotations(require_some(samples, path), names)


def read_kinetics_csv(path: Path | str, root: Path | str | None = None, num_classes: int | None = None) -> list[Sample]:
    """Read the samples of a file in the format of Kinetics; see `read_kinetics`."""
    return list(read_kinetics(Path(path), None if root is None else Path(root), num_classes))


READERS = {"kinetics": read_kinetics}
