"""Functions shared by the readers of annotation files: text, tables, JSON, labels and paths of videos."""

import csv
import json
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from timesformer.data.annotations.sample import Labels, NumClasses
from timesformer.errors import InputError
from timesformer.text import path_text, printable

T = TypeVar("T")
_MOST_TOLD = 5  # files that a message names

_SUFFIXES = """
mp4 webm mkv avi mov m4v mpg mpeg wmv flv 3gp ts
mts m2ts m2t m2p trp tp tod mod vob ogv ogm asf wm dvr-ms wtv f4v ismv 3g2 3gpp qt mj2 insv mxf gxf dv dif
mpe mpv m1v m2v mp2v mjpeg mjpg h264 264 avc h265 265 hevc h266 vvc av1 obu ivf h261 h263 vc1 drc y4m
divx xvid rm rmvb nut nsv mk3d swf gif apng roq bik smk flc fli avs2 avs3 cine dav kux
"""
VIDEO_SUFFIXES = tuple(f".{suffix}" for suffix in _SUFFIXES.split())
"""Suffixes of video files that FFmpeg can open, in lower or upper case; the first ones are preferred."""


def read_text(path: Path) -> str:
    """Read a text file.  Raises InputError for a file that is missing or not text."""
    if not path.is_file():
        raise InputError(f"{path}: no such annotation file")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file in UTF-8 ({error.reason})") from error


def read_json(path: Path) -> Any:
    """Read a JSON file.  Raises InputError naming the line."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not valid JSON ({error.msg})") from error


def read_entries(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read the objects of a JSON list, each with its place for messages; entries count from 1."""
    values = read_json(path)
    if not isinstance(values, list):
        raise InputError(f"{path}: expected a list of entries, got {type(values).__name__}")
    for number, entry in enumerate(values, start=1):
        place = f"{path}: entry {number}"
        if not isinstance(entry, dict):
            raise InputError(f"{place}: expected an object with fields, got {entry!r}")
        yield place, entry


def entry_field(entry: dict[str, Any], name: str, kind: type[T], place: str) -> T:
    """Return a field of a JSON object.  Raises InputError if it is missing or has another type."""
    if name not in entry:
        raise InputError(f"{place}: field {name!r} is missing")
    value = entry[name]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        expected = {str: "text", int: "a whole number"}[kind]
        raise InputError(f"{place}: field {name!r}: expected {expected}, got {value!r}")
    return value


def read_table(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Read the rows of a csv whose header has at least `columns`, each with its place `file:line` for messages.

    Raises InputError for a missing column and for a row with more or fewer fields than the header.
    """
    reader = csv.reader(read_text(path).splitlines())
    header = [name.strip() for name in next(reader, [])]
    missing = [name for name in columns if name not in header]
    if missing:
        raise InputError(f"{path}:1: the header has no column {missing[0]!r}; expected {', '.join(columns)}")
    for row in reader:
        if not any(field.strip() for field in row):
            continue
        place = f"{path}:{reader.line_num}"
        if len(row) != len(header):
            raise InputError(f"{place}: expected {len(header)} fields as in the header, got {len(row)}")
        yield place, dict(zip(header, (field.strip() for field in row), strict=True))


def whole_number(text: str, name: str, place: str) -> int:
    """Parse a whole number of at least 0.  Raises InputError naming the column."""
    if not (text.isascii() and text.isdigit()):
        raise InputError(f"{place}: {name}: expected a whole number, got {text!r}")
    return int(text)


def check_label(label: int, limit: int | None, place: str, name: str = "label") -> int:
    """Return the label if it is one of `limit` classes.  Raises InputError otherwise."""
    if label < 0 or (limit is not None and label >= limit):
        expected = "0 or more" if limit is None else f"0 to {limit - 1}"
        raise InputError(f"{place}: {name} {label} is out of range, expected {expected}")
    return label


def one_head(path: Path, num_classes: NumClasses | None, labels: Labels | None) -> tuple[int | None, list[str] | None]:
    """Return number and names of the classes of a format with one head.

    Raises InputError if they disagree or are given for several heads.
    """
    if isinstance(num_classes, tuple) or isinstance(labels, dict):
        raise InputError(
            f"{path}: this format has one label per video; expected the classes of one head, got those of several"
        )
    if labels is None:
        return num_classes, None
    if num_classes is not None and num_classes != len(labels):
        raise InputError(f"{path}: num_classes is {num_classes}, but there are {len(labels)} class names")
    return len(labels), labels


class NamesMissing(InputError):
    """Error of an annotation file that refers to classes by name, where nothing lists the names."""


def require_names(path: Path, labels: list[str] | None, file: Path) -> dict[str, int]:
    """Return {class name: index}, for a format that refers to classes by name.

    Raises NamesMissing without names, and InputError for two classes of one name.
    """
    if labels is None:
        raise NamesMissing(f"{path}: class names are missing: expected {file}, or a file in `classes`")
    index: dict[str, int] = {}
    for number, name in enumerate(labels):
        if index.setdefault(name, number) != number:
            raise InputError(
                f"{path}: classes {index[name]} and {number} have the same name, {name!r}, but the videos' classes are "
                "given by name; expected another name for each class"
            )
    return index


def find_video(base: Path, stem: str, suffix: str) -> Path:
    """Find the video named `stem` in a folder: a file with `suffix`, a folder of images, or another video file.

    If there is none, return the path with `suffix`, which will be reported as missing.
    """
    usual = base / f"{stem}{suffix}"
    if usual.is_file():
        return usual
    if (base / stem).is_dir():
        return base / stem
    suffixes = (suffix.upper(), *VIDEO_SUFFIXES, *map(str.upper, VIDEO_SUFFIXES))
    others = (base / f"{stem}{other}" for other in suffixes)
    return next((path for path in others if path.is_file()), usual)


def require_some(samples: Sequence[T], path: Path) -> tuple[T, ...]:
    """Return the samples as a tuple.  Raises InputError if there are none."""
    if not samples:
        raise InputError(f"{path}: the annotation file is empty")
    return tuple(samples)


def tell_passed_over(folder: Path, passed_over: Sequence[Path], empty: Sequence[str] = ()) -> None:
    """Warn of files in a folder that are no videos by their suffix, and of classes without a video."""
    if empty:
        more = ", …" if len(empty) > _MOST_TOLD else ""
        _warn(f"{folder}: {len(empty)} classes have no video: {', '.join(map(path_text, empty[:_MOST_TOLD]))}{more}")
    if passed_over:
        names = [path_text(path.relative_to(folder)) for path in passed_over[:_MOST_TOLD]]
        counts = Counter(path_text(path.suffix.lower()) or "no suffix" for path in passed_over).most_common()
        kinds = ", ".join(f"{count} with {suffix}" for suffix, count in counts[:_MOST_TOLD])
        more = ", …" if len(passed_over) > len(names) else ""
        _warn(f"{folder}: {len(passed_over)} files are no videos by their suffix ({kinds}): {', '.join(names)}{more}")


def suffixes_of(paths: Sequence[Path]) -> str:
    """Return the suffixes of files that are no videos as the end of a message; empty without files."""
    suffixes = sorted({path_text(path.suffix.lower()) or "no suffix" for path in paths})
    more = ", …" if len(suffixes) > _MOST_TOLD else ""
    return f", only files with {', '.join(suffixes[:_MOST_TOLD])}{more}" if suffixes else ""


def _warn(text: str) -> None:
    warnings.warn(printable(text), stacklevel=4)
