"""Summary of a sweep with one row per setting: means over seeds, counts and predictions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from timesformer_experiments.analysis.axes import FRAMES, HEIGHT, WIDTH, Axes, groups, shown
from timesformer_experiments.cost.measures import ACCURACY, MACS, METRICS, TFLOPS, Metric
from timesformer_experiments.report.statistics import Comparison, mean_interval
from timesformer_experiments.report.tables import Column, Table, missing


@dataclass(frozen=True)
class Summary:
    """Summary of results.

    frame: a row per setting.  axes: axes of the runs.  metrics: available metrics, in units that suit their sizes.
    """

    frame: pd.DataFrame
    axes: Axes
    metrics: tuple[Metric, ...]

    def metric(self, wanted: Metric) -> Metric | None:
        """Return the metric in the unit of this summary; None if no run has it."""
        return next((metric for metric in self.metrics if metric.name == wanted.name), None)

    @property
    def titles(self) -> dict[str, str]:
        """Column of the frame for each axis."""
        return {column: self.axes.title(column) for column in self.axes.columns}


def summarise(frame: pd.DataFrame, axes: Axes) -> Summary:
    """Summarise results by setting: means over finished runs, intervals over seeds, or over videos with one seed."""
    metrics = tuple(_suited(metric, frame) for metric in METRICS if _there(frame, metric.name))
    rows = []
    for _, runs in groups(frame, axes.columns):
        done = runs[runs["outcome"] == "done"]
        first = runs.iloc[0].to_dict()
        row: dict[str, Any] = {
            **axes.values(first),
            "frames": shown(first.get(FRAMES)),
            "image_height_pixels": shown(first.get(HEIGHT)),
            "image_width_pixels": shown(first.get(WIDTH)),
            "runs_done": len(done),
            "runs_failed": len(runs) - len(done),
        }
        for metric in metrics:
            row |= _values(metric, done)
        rows.append(row)
    return Summary(pd.DataFrame(rows), axes, metrics)


def _there(frame: pd.DataFrame, name: str) -> bool:
    return name in frame and pd.api.types.is_numeric_dtype(frame[name]) and bool(frame[name].notna().any())


def _suited(metric: Metric, frame: pd.DataFrame) -> Metric:
    """Return the metric in the next smaller unit if all values are small."""
    unit = metric.smaller
    if unit is None or float(frame[metric.name].max()) >= unit.limit:
        return metric
    title, axis = (text.replace(unit.large, unit.small) for text in (metric.title, metric.axis))
    return replace(metric, title=title, axis=axis, scale=unit.scale)


def _values(metric: Metric, done: pd.DataFrame) -> dict[str, Any]:
    values = [float(value) for value in done[metric.name].dropna()]
    if not values:
        return {metric.key: math.nan, **(dict.fromkeys(metric.bounds, math.nan) if metric.spread else {})}
    if not metric.spread:
        return {metric.key: math.fsum(values) / len(values)}
    if len(values) > 1:
        mean, low, high = mean_interval(values)
    else:
        mean, (low, high) = values[0], _own_interval(metric, done)
    return {metric.key: mean, metric.bounds[0]: low, metric.bounds[1]: high}


def _own_interval(metric: Metric, done: pd.DataFrame) -> tuple[float, float]:
    """Return the interval of an accuracy over test videos that the record has."""
    stem, _, unit = metric.name.rpartition("_")
    names = (f"{stem}_low_{unit}", f"{stem}_high_{unit}")
    if not all(name in done for name in names):
        return math.nan, math.nan
    row = done[done[metric.name].notna()].iloc[0]
    low, high = (math.nan if missing(row[name]) else float(row[name]) for name in names)
    return low, high


def summary_table(summary: Summary, caption: str) -> Table:
    """Make the table that shows the summary."""
    columns = [Column(title, title, "label", decimals=_decimals_of_axis(summary.frame[title]))
               for title in summary.titles.values()]  # fmt: skip
    most = summary.frame[["runs_done", "runs_failed"]].max()
    if most["runs_done"] > 1:
        columns.append(Column("runs_done", "Seeds", "label", decimals=0))
    if most["runs_failed"] > 0:
        columns.append(Column("runs_failed", "Failed", "label", decimals=0))
    for metric in summary.metrics:
        if metric.name == MACS.name and summary.metric(TFLOPS) is not None:
            continue  # the same, without the number of views
        decimals = 1 if metric.spread and metric.name == ACCURACY.name else digits(summary.frame[metric.key], metric)
        bounds = metric.bounds if metric.spread else None
        columns.append(Column(metric.key, metric.title, metric.origin, decimals, metric.scale, bounds))
    return Table(summary.frame, tuple(columns), caption, measured="measured here")


def _decimals_of_axis(values: pd.Series) -> int:
    """Return the number of decimals of the values, at most 6."""
    numbers = [value for value in values if not isinstance(value, str)]
    return max((len(f"{value:.6f}".rstrip("0").partition(".")[2]) for value in numbers), default=0)


def digits(values: pd.Series, metric: Metric) -> int:
    """Return the number of decimals that gives the smallest value three digits, at most 6."""
    positive = [abs(value) / metric.scale for value in values if not missing(value) and value != 0]
    return min(6, max(0, 2 - math.floor(math.log10(min(positive))))) if positive else 0


def failures_table(frame: pd.DataFrame) -> Table | None:
    """Make the table of failed runs with the reasons; None if there are none."""
    failed = frame[frame["outcome"] == "failed"]
    if failed.empty:
        return None
    columns = (
        Column("name", "Run", "label"),
        Column("reason_kind", "Kind", "label"),
        Column("reason", "Reason", "label"),
    )
    plain = failed[["name", "reason_kind", "reason", "hash"]].astype(object)
    return Table(plain.where(plain.notna(), None), columns, "Runs that failed")


def comparison_table(comparisons: Sequence[Comparison]) -> Table | None:
    """Make the table of tests, a row per pair; None if there are none."""
    if not comparisons:
        return None
    rows = []
    for each in comparisons:
        rows.append(
            {
                **each.setting,
                "first": each.first,
                "second": each.second,
                "seeds": len(each.seeds),
                "videos": each.videos,
                "measured_first_percent": each.first_percent,
                "measured_second_percent": each.second_percent,
                "measured_difference_points": each.difference_points,
                "measured_difference_low_points": each.low_points,
                "measured_difference_high_points": each.high_points,
                "p_value": each.p_value,
                "p_holm": each.p_holm,
                "permutation_p": each.permutation_p,
                "mcnemar_p": " ".join(f"{value:.3g}" for value in each.mcnemar_p) or None,
                "tested_over": each.method,
                "verdict": each.verdict,
            }
        )
    bounds = ("measured_difference_low_points", "measured_difference_high_points")
    columns = (
        *(Column(name, name, "label", decimals=0) for name in comparisons[0].setting),
        Column("first", "First", "label"),
        Column("second", "Second", "label"),
        Column("measured_difference_points", "First − second [points]", "measured", bounds=bounds),
        Column("p_value", "p", "label", decimals=4, least=1e-4),
        Column("p_holm", "p, Holm", "label", decimals=4, least=1e-4),
        Column("permutation_p", "p over videos", "label", decimals=4, least=1e-4),
        Column("verdict", "Verdict", "label"),
    )
    over = comparisons[0].method
    family = comparisons[0].family
    caption = (
        f"Differences of top-1 accuracy with 95 % intervals, two-sided tests over {over}; Holm's correction for "
        f"{family} comparisons; p over videos: by permutation, for these trained models"
    )
    return Table(pd.DataFrame(rows), columns, caption, measured="measured here")
