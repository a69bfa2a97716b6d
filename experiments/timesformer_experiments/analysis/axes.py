"""Axes of a folder of runs: the fields in which the runs differ, and the field whose values are compared."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from timesformer.errors import InputError
from timesformer_experiments.report.tables import missing

SCHEME, FRAMES = "model.attention", "model.num_frames"
HEIGHT, WIDTH = "model.image_height", "model.image_width"
SIZES = ("model.image_size", HEIGHT)
FIRST = (SCHEME, "data.probe", FRAMES, *SIZES)
"""Fields that are axes even if they follow from others; they are considered first if no sweep defines the axes."""
CELL = "cell."


@dataclass(frozen=True)
class Axes:
    """Axes as columns of a frame of results.

    columns: along which the runs differ, seeds apart.  compared: the one of which each value is a line in a figure, and
    whose values are tested against one another; None where there is none.
    """

    columns: tuple[str, ...]
    compared: str | None

    @property
    def others(self) -> tuple[str, ...]:
        """All axes except the compared one."""
        return tuple(column for column in self.columns if column != self.compared)

    def title(self, column: str) -> str:
        """Return the last part of a column's name, or the whole name if that part is not clear enough."""
        path = column.removeprefix(CELL)
        last = path.rpartition(".")[2]
        return last if sum(other.rpartition(".")[2] == last for other in self.columns) == 1 else path

    def column_of(self, *paths: str) -> str | None:
        """Return the axis of a field, None if it is not an axis."""
        found = (column for column in self.columns if column.removeprefix(CELL) in paths)
        return next(found, None)

    def values(self, row: Mapping[Any, Any], columns: Sequence[str] | None = None) -> dict[str, Any]:
        """Return the values of a row on the axes for display, by their titles."""
        return {self.title(column): shown(row[column]) for column in (self.columns if columns is None else columns)}


def axes_of(
    frame: pd.DataFrame, compare: str | None = None, planned: Mapping[str, Mapping[str, Any]] | None = None
) -> Axes:
    """Return the axes of results: those of the sweep, otherwise the fields that distinguish the runs.

    compare: path of the field that is compared, by default the attention scheme, else the first that is no number.
    planned: values on the axes of all cells of a sweep, by hash; an unfinished sweep keeps the axes of the whole one.

    Raises InputError if runs do not differ in that field.
    """
    if planned and set(planned) - set(frame["hash"]):
        frame = _whole(frame, planned)
    cells = [column for column in frame.columns if column.startswith(CELL) and column != f"{CELL}seed"]
    several = [column for column in cells if _varies(frame, column)]
    if frame["sweep"].nunique() > 1:
        several.insert(0, "sweep")
    columns = (_independent(frame, several) or cells) if cells else _independent(frame, _candidates(frame))
    axes = Axes(tuple(columns), None)
    if compare is not None:
        column = axes.column_of(compare)
        if column is None:
            raise InputError(f"--compare {compare}: the runs differ in {', '.join(_paths(axes)) or 'nothing'}")
        return Axes(axes.columns, column)
    words = [column for column in columns if not pd.api.types.is_numeric_dtype(frame[column])]
    first = axes.column_of(SCHEME) or (words[0] if words else None)
    return Axes(axes.columns, first)


def _whole(frame: pd.DataFrame, planned: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return the axes of all cells of a sweep, as results have them; the results where they know further axes."""
    rows = [
        {f"{CELL}{axis}": json.dumps(one) if isinstance(one, list | dict) else one for axis, one in cell.items()}
        for cell in planned.values()
    ]
    whole = pd.DataFrame(rows)
    if set(whole.columns) != {column for column in frame.columns if column.startswith(CELL)}:
        return frame
    return whole.assign(seed=whole.get(f"{CELL}seed", 0), sweep=frame["sweep"].iloc[0])


def _paths(axes: Axes) -> list[str]:
    return [column.removeprefix(CELL) for column in axes.columns]


def _candidates(frame: pd.DataFrame) -> list[str]:
    fields = [
        name
        for name in frame.columns
        if name.startswith(("model.", "data.", "recipe.")) or name in ("protocol", "evaluated_on")
    ]
    ordered = [*(name for name in FIRST if name in fields), *(name for name in fields if name not in FIRST)]
    return [name for name in ordered if _varies(frame, name)]


def _varies(frame: pd.DataFrame, column: str) -> bool:
    return frame[column].nunique(dropna=False) > 1


def _independent(frame: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """Return the columns without those that follow from the seed and from earlier columns."""
    kept: list[str] = []
    for column in columns:
        if column.removeprefix(CELL) in FIRST or not follows(frame, column, ["seed", *kept]):
            kept.append(column)
    return kept


def follows(frame: pd.DataFrame, column: str, others: Sequence[str]) -> bool:
    """Return True if the values of the other columns determine the value of a column."""
    if not others:
        return not _varies(frame, column)
    return len(frame.drop_duplicates([*others, column])) == len(frame.drop_duplicates(list(others)))


def also_differ(frame: pd.DataFrame, axes: Axes) -> list[str]:
    """Return the fields, beside the compared one, in which finished runs differ where the other axes and the seed are
    equal: recipes that go with a scheme, its width, the run that it starts from."""
    if axes.compared is None:
        return []
    done, compared = frame[frame["outcome"] == "done"], axes.compared.removeprefix(CELL)
    known = set(_paths(axes)) | ({HEIGHT, WIDTH} if compared in SIZES else set())
    equal = [*axes.others, "seed"]
    found = []
    for name in [*_candidates(done), *(name for name in ("init_from",) if name in done and _varies(done, name))]:
        if name in known or compared.startswith(f"{name}.") or follows(done, name, equal):
            continue
        found.append(name)
    return found


def shown(value: Any) -> Any:
    """Return a value of an axis as plain data: a whole number, a number or text; None if there is none."""
    if missing(value):
        return "none"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    return int(value) if float(value).is_integer() else float(value)


def groups(frame: pd.DataFrame, columns: Sequence[str]) -> Iterator[tuple[tuple[Any, ...], pd.DataFrame]]:
    """Yield the rows of each combination of values that occurs, in the order of the axes' values.

    Numbers are ordered by size, words by first occurrence.
    """
    if not columns:
        yield (), frame
        return
    ranks = {column: _ranks(frame[column]) for column in columns}
    plain = {column: [shown(value) for value in frame[column]] for column in columns}
    keys = list(zip(*(plain[column] for column in columns), strict=True))
    found: dict[tuple[Any, ...], list[int]] = {}
    for row, key in enumerate(keys):
        found.setdefault(key, []).append(row)

    def rank(key: tuple[Any, ...]) -> tuple[int, ...]:
        return tuple(ranks[column][value] for column, value in zip(columns, key, strict=True))

    for key in sorted(found, key=rank):
        yield key, frame.iloc[found[key]]


def _ranks(values: pd.Series) -> dict[Any, int]:
    """Return the rank of each value in its column."""
    distinct = list(dict.fromkeys(shown(value) for value in values))
    numbers = sorted(value for value in distinct if not isinstance(value, str))
    words = [value for value in distinct if isinstance(value, str)]
    return {value: rank for rank, value in enumerate([*numbers, *words])}
