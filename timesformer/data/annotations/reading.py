"""What the readers of annotation files share: text, tables, JSON, labels, and where a video lies."""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from timesformer.data.annotations.sample import Labels, NumClasses
from timesformer.errors import InputError

T = TypeVar("T")

VIDEO_SUFFIXES = (".mp4", ".webm", ".mkv", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ts")
"""Names of video files end in one of these; the upper case counts as well."""


def read_text(path: Path) -> str:
    """The content of a text file.  Raises InputError for a file that is missing or no text."""
    if not path.is_file():
        raise InputError(f"{path}: no such annotation file")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file in UTF-8 ({error.reason})") from error


def read_json(path: Path) -> Any:
    """The content of a JSON file.  Raises InputError that names the line."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not valid JSON ({error.msg})") from error


def read_entries(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a JSON list, each with its place for messages; entries count from 1."""
    values = read_json(path)
    if not isinstance(values, list):
        raise InputError(f"{path}: expected a list of entries, got {type(values).__name__}")
    for number, entry in enumerate(values, start=1):
        place = f"{path}: entry {number}"
        if not isinstance(entry, dict):
            raise InputError(f"{place}: expected an object with fields, got {entry!r}")
        yield place, entry


def entry_field(entry: dict[str, Any], name: str, kind: type[T], place: str) -> T:
    """A field of a JSON object.  Raises InputError where it is missing or of another type."""
    if name not in entry:
        raise InputError(f"{place}: field {name!r} is missing")
    value = entry[name]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        expected = {str: "text", int: "a whole number"}[kind]
        raise InputError(f"{place}: field {name!r}: expected {expected}, got {value!r}")
    return value


def read_table(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a csv with a header that holds at least `columns`, each with its place `file:line` for messages.

    Raises InputError for a header without one of them and for a row with more or fewer fields than the header.
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
    """A number of 0 or more.  Raises InputError that names the column."""
    if not (text.isascii() and text.isdigit()):
        raise InputError(f"{place}: {name}: expected a whole number, got {text!r}")
    return int(text)


def check_label(label: int, limit: int | None, place: str, name: str = "label") -> int:
    """The label, if it is one of `limit` classes.  Raises InputError."""
    if label < 0 or (limit is not None and label >= limit):
        expected = "0 or more" if limit is None else f"0 to {limit - 1}"
        raise InputError(f"{place}: {name} {label} is out of range, expected {expected}")
    return label


def one_head(path: Path, num_classes: NumClasses | None, labels: Labels | None) -> tuple[int | None, list[str] | None]:
    """Number and names of the classes of a format with one head.

    Raises InputError where they do not agree, or are for several heads.
    """
    if isinstance(num_classes, tuple) or isinstance(labels, dict):
        raise InputError(f"{path}: this format has one label a video; expected the classes of one head")
    if labels is None:
        return num_classes, None
    if num_classes is not None and num_classes != len(labels):
        raise InputError(f"{path}: num_classes is {num_classes}, but there are {len(labels)} class names")
    return len(labels), labels


def require_names(path: Path, labels: list[str] | None, file: Path) -> dict[str, int]:
    """Class name -> index, for a format that names classes.  Raises InputError where there are no names."""
    if labels is None:
        raise InputError(f"{path}: class names are needed: there is no {file}, and no `classes` file was given")
    return {name: index for index, name in enumerate(labels)}


def find_video(base: Path, stem: str, suffix: str) -> Path:
    """The video called `stem` in a folder: a file (`suffix` first, then any other video's), or a folder of images.

    Where there is none, the path that the dataset itself would have: it will be found missing.
    """
    usual = base / f"{stem}{suffix}"
    if usual.is_file():
        return usual
    if (base / stem).is_dir():
        return base / stem
    others = (base / f"{stem}{other}" for other in (suffix.upper(), *VIDEO_SUFFIXES))
    return next((path for path in others if path.is_file()), usual)


def require_some(samples: Sequence[T], path: Path) -> tuple[T, ...]:
    """The samples; InputError where there are none."""
    if not samples:
        raise InputError(f"{path}: the annotation file is empty")
    return tuple(samples)
