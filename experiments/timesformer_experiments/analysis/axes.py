"""Along which fields the runs of a folder differ, and how they are laid out: what is compared, what is drawn over."""

from __future__ import annotations

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
"""Fields that are axes even where they follow from others; looked at first where no sweep says what its axes are."""
CELL = "cell."


@dataclass(frozen=True)
class Axes:
    """Columns of a frame of results.

    columns: along which the runs differ, seeds apart.  compared: the one of which each value is a line in a figure, and
    whose values are tested against one another; None where there is none.
    """

    columns: tuple[str, ...]
    compared: str | None

    @property
    def others(self) -> tuple[str, ...]:
        """All but the compared one."""
        return tuple(column for column in self.columns if column != self.compared)

    def title(self, column: str) -> str:
        """The last part of a column's name, or all of it where that says too little."""
        path = column.removeprefix(CELL)
        last = path.rpartition(".")[2]
        return last if sum(other.rpartition(".")[2] == last for other in self.columns) == 1 else path

    def column_of(self, *paths: str) -> str | None:
        """The axis of a field, if it is one."""
        found = (column for column in self.columns if column.removeprefix(CELL) in paths)
        return next(found, None)

    def values(self, row: Mapping[Any, Any], columns: Sequence[str] | None = None) -> dict[str, Any]:
        """A row's place on axes, by their titles, as it is read."""
        return {self.title(column): shown(row[column]) for column in (self.columns if columns is None else columns)}


def axes_of(frame: pd.DataFrame, compare: str | None = None) -> Axes:
    """The axes of results: a sweep's own, else the fields that tell the runs apart.

    compare: path of the field that is compared, by default the attention scheme, else the first that is no number.

    Raises InputError if runs do not differ in that field.
    """
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
    """Without those that follow from the seed and from others before them."""
    kept: list[str] = []
    for column in columns:
        if column.removeprefix(CELL) in FIRST or not follows(frame, column, ["seed", *kept]):
            kept.append(column)
    return kept


def follows(frame: pd.DataFrame, column: str, others: Sequence[str]) -> bool:
    """Whether a column has one value wherever the others have theirs."""
    if not others:
        return not _varies(frame, column)
    return len(frame.drop_duplicates([*others, column])) == len(frame.drop_duplicates(list(others)))


def shown(value: Any) -> Any:
    """A value of an axis as plain data: a whole number, a number or text; none where there is none."""
    if missing(value):
        return "none"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    return int(value) if float(value).is_integer() else float(value)


def groups(frame: pd.DataFrame, columns: Sequence[str]) -> Iterator[tuple[tuple[Any, ...], pd.DataFrame]]:
    """The rows of each combination of values that occurs, in the order of the axes' values: of numbers by size, of
    words as they first occur."""
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
    """The place of each value among those of its column."""
    distinct = list(dict.fromkeys(shown(value) for value in values))
    numbers = sorted(value for value in distinct if not isinstance(value, str))
    words = [value for value in distinct if isinstance(value, str)]
    return {value: rank for rank, value in enumerate([*numbers, *words])}
