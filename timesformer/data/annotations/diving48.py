"""Annotations of Diving-48."""

from pathlib import Path

from timesformer.data.annotations.classes import read_class_names
from timesformer.data.annotations.reading import (
    check_label,
    entry_field,
    find_video,
    one_head,
    read_entries,
    require_some,
)
from timesformer.data.annotations.sample import Annotations, Labels, NumClasses, Sample
from timesformer.errors import InputError


def read_diving48(
    path: Path, root: Path | None = None, num_classes: NumClasses | None = None, labels: Labels | None = None
) -> Annotations:
    """Read `Diving48_V2_{train,test}.json`: a list of {vid_name, label, start_frame, end_frame}.

    Every dive has its own file `vid_name.mp4` (or another video file, or a folder of images) in `root`, by default the
    folder of the json.  start_frame and end_frame refer to the frames of that file, from 0 to its length; they are
    checked, and the whole file is used unless start_frame is above 0.  Class names are `labels`, or come from
    `Diving48_vocab.json` in the same folder (a list with the four parts of each dive).

    Raises InputError naming file, entry and field.
    """
    vocabulary = path.with_name("Diving48_vocab.json")
    if labels is None and vocabulary.is_file():
        labels = read_class_names(vocabulary)
    limit, names = one_head(path, num_classes, labels)
    base = root if root is not None else path.parent
    samples = []
    for place, entry in read_entries(path):
        name = entry_field(entry, "vid_name", str, place)
        label = check_label(entry_field(entry, "label", int, place), limit, place)
        start, end = (entry_field(entry, field, int, place) for field in ("start_frame", "end_frame"))
        if not 0 <= start < end:
            raise InputError(f"{place}: field 'end_frame': expected a number above start_frame {start}, got {end}")
        first, last = (start, end) if start else (None, None)
        video = find_video(base, name, ".mp4")
        samples.append(Sample(video, label, f"{name}[{start}:{end}]" if start else name, first, last, group=name))
    return Annotations(require_some(samples, path), names)


READERS = {"diving48": read_diving48}
