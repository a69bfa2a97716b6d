"""Readers of the files of class names that come with datasets and checkpoints."""

import csv
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from timesformer.data.annotations.reading import read_json, read_text
from timesformer.data.annotations.sample import Labels
from timesformer.errors import InputError

_INDEXED = re.compile(r"(?P<name>.*\S)\s*,\s*(?P<index>\d+)")


def read_class_names(path: Path | str) -> list[str]:
    """Read class names, in the order of their indices.

    .json: a list of names (a name may be a list of words, as in the vocabulary of Diving-48), or a mapping from names
        to indices or from indices to names
    .csv: two columns with index and name in either order, or a header with the columns `id` and `name` (or `key`)
    other suffixes: one name per line, or `name,index` per line (Moments in Time)

    Raises InputError naming file and line or entry for other content, for indices that are not 0, 1, … each exactly
    once, and for duplicate names.
    """
    path = Path(path)
    if path.suffix.lower() == ".json":
        names = _from_json(path, read_json(path))
    elif path.suffix.lower() == ".csv":
        names = _from_csv(path)
    else:
        names = _from_lines(path)
    if not names:
        raise InputError(f"{path}: there are no class names")
    seen: dict[str, int] = {}
    for index, name in enumerate(names):
        if seen.setdefault(name, index) != index:
            raise InputError(f"{path}: classes {seen[name]} and {index} have the same name, {name!r}")
    return names


def unknown_class(place: str, name: str, known: Iterable[str]) -> InputError:
    """Make the error for a class name that the dataset, or the checkpoint in use, does not have."""
    names = list(known)
    shown = ", ".join(map(repr, names[:8])) + (f", … ({len(names)} in all)" if len(names) > 8 else "")
    return InputError(f"{place}: no class is called {name!r}; the classes are {shown}")


def read_labels(source: Path | str | Mapping[str, Path | str]) -> Labels:
    """Read class names from a file; for several heads, {head: names} from {head: file}."""
    if isinstance(source, Mapping):
        return {head: read_class_names(path) for head, path in source.items()}
    return read_class_names(source)


def _from_json(path: Path, values: Any) -> list[str]:
    if isinstance(values, list):
        names = []
        for number, value in enumerate(values, start=1):
            words = value if isinstance(value, list) else [value]
            if not words or not all(isinstance(word, str) and word for word in words):
                raise InputError(f"{path}: entry {number}: expected a class name, got {value!r}")
            names.append(" ".join(words))
        return names
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected a list of class names or a mapping with indices, got {values!r}")
    pairs = list(values.items())
    forward = [(str(index), name) for name, index in pairs]
    backward = [(index, name) for index, name in pairs]
    # Names may be numbers as well: the side that counts from 0 is the index.
    if _counts(index for index, _ in backward) and not _counts(index for index, _ in forward):
        forward = backward
    for number, (_, name) in enumerate(forward, start=1):
        if not isinstance(name, str) or not name:
            raise InputError(f"{path}: entry {number}: expected a class name, got {name!r}")
    return _ordered(path, [(f"{path}: entry {number}", *pair) for number, pair in enumerate(forward, start=1)])


def _from_csv(path: Path) -> list[str]:
    reader = csv.reader(read_text(path).splitlines())
    rows = [(reader.line_num, [field.strip() for field in row]) for row in reader if any(row)]
    if not rows:
        return []
    header = rows[0][1]
    column = next((name for name in ("name", "key") if name in header), None)
    if "id" in header and column is not None:
        places = header.index("id"), header.index(column)
        rows = rows[1:]
    elif len(header) == 2:
        places = (0, 1) if _counts(row[0] for _, row in rows) else (1, 0)
    else:
        raise InputError(f"{path}:1: expected columns id and name, got {', '.join(header)}")
    found = []
    for line, row in rows:
        if len(row) != len(header):
            raise InputError(f"{path}:{line}: expected {len(header)} fields, got {len(row)}")
        found.append((f"{path}:{line}", row[places[0]], row[places[1]]))
    return _ordered(path, found)


def _from_lines(path: Path) -> list[str]:
    lines = [
        (number, line.strip()) for number, line in enumerate(read_text(path).splitlines(), start=1) if line.strip()
    ]
    matches = [(number, _INDEXED.fullmatch(line)) for number, line in lines]
    found = [(f"{path}:{number}", match["index"], match["name"]) for number, match in matches if match]
    if len(found) == len(lines) and _counts(index for _, index, _ in found):
        return _ordered(path, found)
    return [line for _, line in lines]


def _counts(indices: Iterable[str]) -> bool:
    """Return True for the numbers 0, 1, …, each exactly once, in any order."""
    texts = list(indices)
    return all(_is_index(text) for text in texts) and sorted(map(int, texts)) == list(range(len(texts)))


def _is_index(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _ordered(path: Path, found: list[tuple[str, str, str]]) -> list[str]:
    """Order names by index, given (place, index, name)."""
    names: dict[int, str] = {}
    for place, index, name in found:
        if not _is_index(index):
            raise InputError(f"{place}: expected the index of a class, got {index!r}")
        if not name:
            raise InputError(f"{place}: the class with index {index} has no name")
        if int(index) in names:
            raise InputError(f"{place}: index {index} occurs twice")
        names[int(index)] = name
    missing = sorted(set(range(len(names))) - set(names))
    if missing:
        raise InputError(f"{path}: expected the indices 0 to {len(names) - 1}, but {missing[0]} is missing")
    return [names[index] for index in range(len(names))]
