"""Annotations of Something-Something V2: its json files, and the frame lists of SlowFast's model zoo."""

import csv
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from timesformer.data.annotations.classes import read_class_names, unknown_class
from timesformer.data.annotations.reading import (
    check_label,
    entry_field,
    find_video,
    one_head,
    read_entries,
    read_text,
    require_names,
    require_some,
    whole_number,
)
from timesformer.data.annotations.sample import Annotations, Labels, NumClasses, Sample
from timesformer.data.natural import natural_key
from timesformer.errors import InputError

HEADER = ("original_vido_id", "video_id", "frame_id", "path", "labels")
"""Header of a frame list.  The misspelled first name is that of the published files."""


def read_ssv2(
    path: Path, root: Path | None = None, num_classes: NumClasses | None = None, labels: Labels | None = None
) -> Annotations:
    """Read `something-something-v2-{train,validation}.json`: a list of {id, template, …}.

    The class is the template without its brackets.  Class names are `labels`, or come from
    `something-something-v2-labels.json` in the same folder.  A video is `ID.webm`, another video file or a folder of
    images named ID, in `root` (by default the folder of the json).

    Raises InputError naming file, entry and field.
    """
    names_file = _names_file(path)
    if labels is None and names_file.is_file():
        labels = read_class_names(names_file)
    _, names = one_head(path, num_classes, labels)
    base = root if root is not None else path.parent
    samples = []
    for video, label in _labelled(path, require_names(path, names, names_file)).items():
        samples.append(Sample(find_video(base, video, ".webm"), label, video))
    return Annotations(require_some(samples, path), names)


def _names_file(path: Path) -> Path:
    return path.with_name(re.sub(r"-?(train|validation|test)$", "", path.stem) + "-labels.json")


def _labelled(path: Path, index: dict[str, int]) -> dict[str, int]:
    """Return {id: label} of the entries of a json file."""
    found: dict[str, int] = {}
    for place, entry in read_entries(path):
        video = str(entry["id"]) if type(entry.get("id")) is int else entry_field(entry, "id", str, place)
        name = entry_field(entry, "template", str, place).replace("[", "").replace("]", "")
        if name not in index:
            raise unknown_class(f"{place}: field 'template'", name, index)
        if video in found:
            raise InputError(f"{place}: field 'id': {video!r} occurs twice")
        found[video] = index[name]
    return found


@dataclass
class _Video:
    """Frames of a video that have been listed so far."""

    folder: PurePosixPath
    label: str
    frames: int
    last: int
    last_name: str
    place: str


def read_ssv2_frames(
    path: Path, root: Path | None = None, num_classes: NumClasses | None = None, labels: Labels | None = None
) -> Annotations:
    """Read a frame list: a header `original_vido_id video_id frame_id path labels`, then one line per frame.

    Fields are separated by a space, tab or comma.  A video is the folder of its frames, under `root` (by default the
    folder of the list); the number of its lines is the number of images that are used, from the first on.  `labels` is
    a class index.  If it is empty (`""`, as in SlowFast's lists), the class comes from
    `something-something-v2-{train,validation}.json` in the same folder (train if the name of the list begins with
    "train"), and class names as in `read_ssv2`.

    Raises InputError naming file and line for a line with other fields, frames that are not consecutive, a video in two
    folders or with two classes, and two videos in one folder.
    """
    videos = _listed(path)
    split = "train" if path.stem.startswith("train") else "validation"
    json_file = path.with_name(f"something-something-v2-{split}.json")
    names_file = _names_file(json_file)
    if labels is None and names_file.is_file():
        labels = read_class_names(names_file)
    limit, names = one_head(path, num_classes, labels)
    by_json: dict[str, int] | None = None
    base = root if root is not None else path.parent
    samples = []
    for video, found in videos.items():
        if found.label:
            label = check_label(whole_number(found.label, "labels", found.place), limit, found.place)
        else:
            if by_json is None:
                by_json = _labelled(json_file, require_names(path, names, names_file))
            if video not in by_json:
                raise InputError(f"{found.place}: labels: video {video!r} has no label here and none in {json_file}")
            label = by_json[video]
        samples.append(Sample(base / found.folder, label, str(found.folder), 0, found.frames))
    return Annotations(require_some(samples, path), names)


def _listed(path: Path) -> dict[str, _Video]:
    lines = read_text(path).splitlines()
    header = lines[0] if lines else ""
    delimiter = next((sign for sign in " \t," if tuple(header.split(sign)) == HEADER), None)
    if delimiter is None:
        raise InputError(f"{path}:1: expected the header `{' '.join(HEADER)}`, got {header!r}")
    reader = csv.reader(lines, delimiter=delimiter)
    next(reader)
    videos: dict[str, _Video] = {}
    folders: dict[PurePosixPath, str] = {}
    for row in reader:
        if not row:
            continue
        place = f"{path}:{reader.line_num}"
        if len(row) != len(HEADER):
            raise InputError(f"{place}: expected {len(HEADER)} fields ({', '.join(HEADER)}), got {len(row)}")
        video, frame, image, label = row[0], whole_number(row[2], "frame_id", place), PurePosixPath(row[3]), row[4]
        if folders.setdefault(image.parent, video) != video:
            raise InputError(f"{place}: path: {image.parent} also contains frames of {folders[image.parent]!r}")
        if video not in videos:
            videos[video] = _Video(image.parent, label, 1, frame, image.name, place)
            continue
        known = videos[video]
        if image.parent != known.folder:
            raise InputError(f"{place}: path: frames of {video!r} are in {known.folder} and in {image.parent}")
        if label != known.label:
            raise InputError(f"{place}: labels: {video!r} has {known.label!r} and {label!r}")
        if frame != known.last + 1 or natural_key(image.name) <= natural_key(known.last_name):
            raise InputError(f"{place}: frame_id: {image.name} ({frame}) does not follow {known.last_name}")
        known.frames, known.last, known.last_name = known.frames + 1, frame, image.name
    return videos


READERS = {"ssv2": read_ssv2, "ssv2_frames": read_ssv2_frames}
