"""Difference between two folders of results: cells that are the same, changed, added or removed.

Cells are matched by their hash, then by the values of their axes and their seed, then by name.  Of each setting (the
cells that differ in nothing but the seed) the metrics' means are compared.  Accuracies are judged as one family, in the
words of `pairs`: with an interval for new seeds and new test videos where both folders hold which videos were right.
Other figures that vary have Student's interval over their seeds.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from timesformer.files import write_atomic
from timesformer_experiments.analysis.axes import CELL, axes_of, groups, shown
from timesformer_experiments.analysis.comparisons import ACCURACY, Right, read_right, seeds_of
from timesformer_experiments.analysis.pairs import NOT_TESTED, Comparison, compare, judged
from timesformer_experiments.analysis.seeds import students_interval
from timesformer_experiments.records.read import load_results
from timesformer_experiments.report import pages
from timesformer_experiments.report.report import require_writable
from timesformer_experiments.report.tables import Column, Table, missing, to_csv, to_markdown

TIMES = ("wall_seconds", "train_seconds", "evaluate_seconds", "train_clips_per_second")
"""Durations, which are not results."""
SPEEDS = ("latency_seconds", "clips_per_second")
"""Measurements that vary with every repetition: they are shown, but do not count as a change of the cell."""
NOT_METRICS = ("hash", "name", "kind", "sweep", "outcome", "reason", "reason_kind", "seed", "protocol", "log")
VARYING = ("_percent", "_seconds", "_per_second", "_loss")
"""Suffixes of metrics that vary with the seed; others are counts."""
EXACT = 1e-9


@dataclass(frozen=True)
class Pair:
    """Cell that is in both folders or in one.

    state: "same", "changed", "added" (only in the second) or "removed" (only in the first).  changed: what differs, as
    (first, second): metrics, the outcome, fields of the configuration.
    """

    name: str
    place: dict[str, Any]
    state: str
    matched_by: str
    changed: dict[str, tuple[Any, Any]]


@dataclass(frozen=True)
class Change:
    """Mean of a metric over the seeds of a setting in both folders; difference: second minus first.

    low, high: the difference's 95 % interval, None where there is nothing to take it from (`over`
    says from what they are: "seeds and videos", "videos" or "seeds").
    """

    place: dict[str, Any]
    metric: str
    seeds: int
    first: float
    second: float
    difference: float
    percent: float | None
    low: float | None
    high: float | None
    over: str
    direction_p: float | None = None
    equivalence_p: float | None = None
    verdict: str | None = None


@dataclass(frozen=True)
class Difference:
    """Differences between two folders."""

    first: str
    second: str
    pairs: tuple[Pair, ...]
    changes: tuple[Change, ...]

    def counts(self) -> dict[str, int]:
        """Number of cells in every state."""
        return {state: sum(pair.state == state for pair in self.pairs) for state in STATES}

    def to_dict(self) -> dict[str, Any]:
        """Return the differences as plain data for JSON."""
        return {
            "first": self.first,
            "second": self.second,
            "counts": self.counts(),
            "cells": [asdict(pair) for pair in self.pairs],
            "changes": [asdict(change) for change in self.changes],
        }

    def findings(self) -> list[str]:
        """Return the differences in words."""
        counts = ", ".join(f"{count} {state}" for state, count in self.counts().items())
        said = [f"{self.first} → {self.second}: {counts}."]
        outcomes = [pair for pair in self.pairs if "outcome" in pair.changed]
        said += [f"{pair.name}: {pair.changed['outcome'][0]} → {pair.changed['outcome'][1]}" for pair in outcomes]
        words = Counter(change.verdict for change in self.changes if change.verdict not in (None, NOT_TESTED))
        if words:
            counts = ", ".join(f"{count} {word}" for word, count in words.items())
            said.append(f"Top-1 accuracy of {words.total()} settings that changed, judged together: {counts}.")
        return said


STATES = ("same", "changed", "added", "removed")


def difference(first: Path, second: Path) -> Difference:
    """Compare two folders of records.  Raises InputError if there are no records, or they are broken."""
    frames = [load_results(folder) for folder in (first, second)]
    matched = list(_matched(*frames))
    pairs = [_pair(frames[0], frames[1], *each) for each in matched]
    both = [(a, b) for a, b, _ in matched if a is not None and b is not None]
    rights = [read_right(folder, frame) for folder, frame in zip((first, second), frames, strict=True)]
    names = _names(first, second)
    return Difference(*names, tuple(pairs), tuple(_judged(_changes(frames[0], frames[1], both, rights, names))))


def _names(first: Path, second: Path) -> tuple[str, str]:
    """Return the last parts of the folders' paths that distinguish them."""
    a, b = first.resolve().parts, second.resolve().parts
    count = 1
    while a[-count:] == b[-count:] and count < max(len(a), len(b)):
        count += 1
    return "/".join(a[-count:]), "/".join(b[-count:])


def _keys(frame: pd.DataFrame) -> Iterator[tuple[str, list[Any]]]:
    """Yield the ways to match cells, each with a key for every row; None for rows without one."""
    yield "hash", frame["hash"].tolist()
    cells = sorted(column for column in frame.columns if column.startswith(CELL))
    places: list[Any] = []
    for row in frame[[*cells, "seed", "kind"]].astype(object).to_dict(orient="records"):
        values = [(column, shown(row[column])) for column in cells if not missing(row[column])]
        places.append((tuple(values), shown(row["seed"]), row["kind"]) if values else None)
    yield "axes", places
    yield "name", frame["name"].tolist()


def _matched(first: pd.DataFrame, second: pd.DataFrame) -> Iterator[tuple[int | None, int | None, str]]:
    """Yield the rows of the two frames that are the same cell, with the kind of match; then unmatched rows."""
    left, right = dict.fromkeys(range(len(first))), dict.fromkeys(range(len(second)))
    found: dict[int, tuple[int, str]] = {}
    for (how, ours), (_, theirs) in zip(_keys(first), _keys(second), strict=True):
        places = {theirs[row]: row for row in right if theirs[row] is not None}
        for row in list(left):
            other = places.pop(ours[row], None) if ours[row] is not None else None
            if other is not None:
                found[row] = (other, how)
                del left[row], right[other]
    for row in range(len(first)):
        other, how = found.get(row, (None, "none"))
        yield row, other, how
    yield from ((None, row, "none") for row in right)


def _pair(first: pd.DataFrame, second: pd.DataFrame, a: int | None, b: int | None, how: str) -> Pair:
    rows = [None if at is None else dict[Any, Any](frame.iloc[at].to_dict()) for frame, at in ((first, a), (second, b))]
    there = rows[1] if rows[1] is not None else rows[0]
    assert there is not None
    place = {name.removeprefix(CELL): shown(value) for name, value in there.items()
             if str(name).startswith(CELL) and not missing(value)}  # fmt: skip
    if rows[0] is None or rows[1] is None:
        return Pair(str(there["name"]), place, "added" if rows[0] is None else "removed", how, {})
    changed = {name: (_plain(rows[0].get(name)), _plain(rows[1].get(name)))
               for name in _compared(first, second) if not _same(rows[0].get(name), rows[1].get(name))}  # fmt: skip
    return Pair(str(there["name"]), place, "changed" if changed else "same", how, changed)


def _compared(first: pd.DataFrame, second: pd.DataFrame) -> list[str]:
    """List the compared columns: outcome, configuration and metrics, without durations, place and time."""
    columns = dict.fromkeys([*first.columns, *second.columns])
    left_out = (*NOT_METRICS, *TIMES, *SPEEDS, "started_utc", "finished_utc", "init_from_name")
    return ["outcome", "protocol", *(
        name for name in columns if name not in left_out and not name.startswith((CELL, "environment."))
    )]  # fmt: skip


def _same(a: Any, b: Any) -> bool:
    if missing(a) or missing(b):
        return missing(a) and missing(b)
    if isinstance(a, str) or isinstance(b, str):
        return bool(a == b)
    return math.isclose(float(a), float(b), rel_tol=EXACT, abs_tol=0.0)


def _plain(value: Any) -> Any:
    if missing(value):
        return None
    return value if isinstance(value, str | bool) else shown(value)


def _changes(
    first: pd.DataFrame,
    second: pd.DataFrame,
    both: Sequence[tuple[int, int]],
    rights: Sequence[Right],
    names: tuple[str, str],
) -> Iterator[tuple[Change, Comparison | None]]:
    """Metrics that differ between the cells that both folders have finished, accuracies with their comparison."""
    done = [(a, b) for a, b in both if {first.iloc[a]["outcome"], second.iloc[b]["outcome"]} == {"done"}]
    if not done:
        return
    ours, theirs = first.iloc[[a for a, _ in done]], second.iloc[[b for _, b in done]]
    axes = axes_of(ours)
    numbered = ours.reset_index(drop=True)
    for _, rows in groups(numbered, axes.columns):
        others = theirs.iloc[list(rows.index)]
        place = axes.values(rows.iloc[0].to_dict())
        for name in _metrics(ours, theirs):
            pairs = [(a, b) for a, b in zip(rows[name], others[name], strict=True) if not (missing(a) or missing(b))]
            if pairs and any(not _same(a, b) for a, b in pairs):
                yield _change(place, name, pairs, (rows, others), rights, names)


def _metrics(first: pd.DataFrame, second: pd.DataFrame) -> list[str]:
    """List the numeric columns that were measured or counted."""
    found = []
    for name in first.columns:
        ends = name.endswith(("_low_percent", "_high_percent"))
        if "." in name or ends or name in (*NOT_METRICS, *TIMES) or name not in second:
            continue
        if all(pd.api.types.is_numeric_dtype(frame[name]) for frame in (first, second)):
            found.append(name)
    return found


def _change(
    place: dict[str, Any],
    name: str,
    pairs: Sequence[tuple[Any, Any]],
    rows: tuple[pd.DataFrame, pd.DataFrame],
    rights: Sequence[Right],
    names: tuple[str, str],
) -> tuple[Change, Comparison | None]:
    values = [(float(a), float(b)) for a, b in pairs]
    first, second = (math.fsum(column) / len(values) for column in zip(*values, strict=True))
    low = high = None
    over, compared = "nothing", None
    seeds = rows[0]["seed"]
    if name == ACCURACY and seeds.notna().all() and seeds.is_unique:
        # The seed of a setting is that of the first folder, by which the cells were matched.
        same_seeds = rows[1].assign(seed=list(seeds))
        ours, theirs = seeds_of(rows[0], rights[0]), seeds_of(same_seeds, rights[1])
        compared = compare(theirs, ours, names=names[::-1], setting=place)
        low, high, over = compared.low_points, compared.high_points, compared.spread.over
    elif name.endswith(VARYING) and (ends := students_interval([b - a for a, b in values])):
        (low, high), over = ends, "seeds alone"
    percent = 100 * (second - first) / abs(first) if first else None
    return Change(place, name, len(values), first, second, second - first, percent, low, high, over), compared


def _judged(changes: Iterable[tuple[Change, Comparison | None]]) -> Iterator[Change]:
    """The changes with the words for those of accuracy, judged as one family."""
    found = list(changes)
    answers = iter(judged([compared for _, compared in found if compared is not None]))
    for change, compared in found:
        if compared is None:
            yield change
            continue
        answer = next(answers)
        facts = answer.to_dict()
        p_values = {name: facts[name] for name in ("direction_p", "equivalence_p")}
        yield replace(change, **p_values, verdict=answer.verdict)


def changes_table(found: Difference) -> Table | None:
    """Make the table of changed metrics; None if there are none."""
    if not found.changes:
        return None
    places = list(dict.fromkeys(name for change in found.changes for name in change.place))
    rows = [{**{name: change.place.get(name) for name in places}, **asdict(change)} for change in found.changes]
    columns = (
        *(Column(name, name, "label", decimals=0) for name in places),
        Column("metric", "Metric", "label"),
        Column("first", found.first, "label", decimals=None),
        Column("second", found.second, "label", decimals=None),
        Column("difference", "Difference", "label", decimals=None, bounds=("low", "high")),
        Column("percent", "[%]", "label", decimals=2),
        Column("over", "interval over", "label"),
        Column("direction_p", "p, direction", "label", decimals=4, least=1e-4),
        Column("equivalence_p", "p, equivalence", "label", decimals=4, least=1e-4),
        Column("verdict", "Verdict", "label"),
    )
    frame = pd.DataFrame(rows).drop(columns="place")
    return Table(
        frame,
        columns,
        "Metrics that differ: second minus first, 95 % intervals; accuracies judged together",
    )


def cells_table(found: Difference) -> Table | None:
    """Make the table of cells that are not the same; None if all are."""
    rows = [
        {
            "name": pair.name,
            "state": pair.state,
            "matched_by": pair.matched_by,
            "changed": "; ".join(f"{name}: {_said(a)} → {_said(b)}" for name, (a, b) in pair.changed.items()),
        }
        for pair in found.pairs
        if pair.state != "same"
    ]
    if not rows:
        return None
    columns = (
        Column("name", "Cell", "label"),
        Column("state", "State", "label"),
        Column("matched_by", "Matched by", "label"),
        Column("changed", "What", "label"),
    )
    return Table(pd.DataFrame(rows), columns, "Cells that are not the same")


def _said(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def write_difference(found: Difference, out: Path) -> list[Path]:
    """Write diff.json, diff.md, diff.html and, unless they would be empty, diff_changes.csv and diff_cells.csv."""
    require_writable(out)
    tables = {"changes": changes_table(found), "cells": cells_table(found)}
    there = {stem: table for stem, table in tables.items() if table is not None}
    title = f"{found.first} → {found.second}"
    lines = [f"# {title}", "", *(f"- {finding}" for finding in found.findings()), ""]
    for table in there.values():
        lines += [table.caption, "", to_markdown(table)]
    contents = {
        "diff.json": json.dumps(found.to_dict(), indent=1, allow_nan=False) + "\n",
        "diff.md": "\n".join(lines),
        "diff.html": pages.page("difference.html", title, findings=found.findings(), tables=list(there.values())),
        **{f"diff_{stem}.csv": to_csv(table) for stem, table in there.items()},
    }
    for name, text in contents.items():
        write_atomic(out / name, text)
    return [out / name for name in contents]
