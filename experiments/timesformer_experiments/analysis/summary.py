"""Summary of a sweep with one row per setting: means over seeds, counts and predictions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from timesformer_experiments.analysis.axes import FRAMES, HEIGHT, WIDTH, Axes, groups, shown
from timesformer_experiments.analysis.chance import ABOVE, judged_against
from timesformer_experiments.analysis.comparisons import Right, seeds_of
from timesformer_experiments.analysis.pairs import Comparison
from timesformer_experiments.analysis.seeds import Seeds, Spread, mean_of, students_interval
from timesformer_experiments.analysis.statistics.equivalence import MARGIN_POINTS
from timesformer_experiments.analysis.statistics.humps import Humps, humps
from timesformer_experiments.cost.measures import ACCURACY, MACS, METRICS, TFLOPS, Metric
from timesformer_experiments.report.tables import Column, Table, missing


@dataclass(frozen=True)
class Summary:
    """Summary of results.

    frame: a row per setting.  axes: axes of the runs.  metrics: available metrics, in units that suit their sizes.
    notes: sentences on settings whose seeds fall into two humps, or whose test videos are of few groups.
    seeds: accuracies [percent] of the seeds of each row that has several.
    """

    frame: pd.DataFrame
    axes: Axes
    metrics: tuple[Metric, ...]
    notes: tuple[str, ...] = ()
    seeds: dict[int, tuple[float, ...]] = field(default_factory=dict)

    def metric(self, wanted: Metric) -> Metric | None:
        """Return the metric in the unit of this summary; None if no run has it."""
        return next((metric for metric in self.metrics if metric.name == wanted.name), None)

    @property
    def titles(self) -> dict[str, str]:
        """Column of the frame for each axis."""
        return {column: self.axes.title(column) for column in self.axes.columns}


def summarise(
    frame: pd.DataFrame,
    axes: Axes,
    right: Right | None = None,
    levels: Mapping[str, float] | None = None,
    chance: Mapping[str, float] | None = None,
) -> Summary:
    """The settings of results; means are over finished runs.

    right: which videos they had right.  The interval of an accuracy then holds for new seeds and new test videos; with
    one seed, or without, for what its column says.  Other figures have Student's interval over seeds.
    levels: by hash, the accuracy below which a training counts as failed; where fewer than 20 seeds lie on both sides,
    the mean has no interval.
    chance: the accuracy [percent] of a constant answer by the hash of a run; with it settings are judged against it.
    """
    metrics = tuple(_suited(metric, frame) for metric in METRICS if _there(frame, metric.name))
    rows, notes = list[dict[str, Any]](), list[str]()
    points: dict[int, tuple[float, ...]] = {}
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
            if metric.name != ACCURACY.name:
                row |= _values(metric, done)
                continue
            diverged = runs[runs["reason_kind"].astype(str) == DIVERGED] if "reason_kind" in runs else runs.iloc[:0]
            more, said = _accuracies(metric, done, Right() if right is None else right, levels or {}, len(diverged))
            place = ", ".join(f"{title} {value}" for title, value in axes.values(first).items())
            notes += [f"{place}: {each}." if place else f"{each}." for each in said]
            row |= more
        if ACCURACY.name in done:
            known = done[ACCURACY.name].dropna()
            if len(known) > 1:
                points[len(rows)] = tuple(float(value) for value in known)
            if chance and len(known):
                row |= judged_against(done, row[ACCURACY.bounds[0]], chance)
        rows.append(row)
    return Summary(pd.DataFrame(rows), axes, metrics, tuple(notes), points)


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
    low, high = students_interval(values) or (math.nan, math.nan)
    return {metric.key: math.fsum(values) / len(values), metric.bounds[0]: low, metric.bounds[1]: high}


DIVERGED = "diverged"
EACH_SEED, INTERVAL_OVER = "measured_top1_each_seed_percent", "measured_top1_interval_over"
FAILED_SEEDS, TEST_GROUPS = "measured_top1_two_humps", "measured_top1_test_groups"


def _accuracies(
    metric: Metric, done: pd.DataFrame, right: Right, levels: Mapping[str, float], diverged: int
) -> tuple[dict[str, Any], list[str]]:
    """Mean accuracy with its interval, what the interval holds for, and the seeds' own; and what restricts it.

    diverged: trainings without an accuracy, which have failed whatever the level.
    """
    nothing = dict.fromkeys((EACH_SEED, INTERVAL_OVER, FAILED_SEEDS, TEST_GROUPS))
    known = done[done[metric.name].notna()]
    if known.empty:
        return {metric.key: math.nan, **dict.fromkeys(metric.bounds, math.nan), **nothing}, []
    seeds = seeds_of(known, right)
    found: Spread = mean_of(seeds)
    fallen = _humps(seeds, {levels.get(str(key)) for key in known["hash"]}, diverged)
    hidden = fallen is not None and fallen.hides_the_mean
    ends = (math.nan if end is None or hidden else end for end in (found.low, found.high))
    over_videos = found.over in ("seeds and test videos", "test videos alone") and found.estimate is not None
    row = {
        metric.key: found.mean,
        **dict(zip(metric.bounds, ends, strict=True)),
        EACH_SEED: seeds.points() if len(seeds.percent) > 1 else None,
        INTERVAL_OVER: found.over,
        FAILED_SEEDS: None if fallen is None else fallen.short(),
        TEST_GROUPS: found.estimate.clusters if over_videos and found.estimate is not None else None,
    }
    said = [fallen.text()] if fallen is not None and fallen.two else []
    if over_videos and found.estimate is not None and found.estimate.conditional:
        said.append(found.estimate.few_groups())
    return row, said


def _humps(seeds: Seeds, levels: set[float | None], diverged: int) -> Humps | None:
    """Return the seeds as they lie about the level that all of them have; None without one, and for one seed."""
    level = levels.pop() if len(levels) == 1 else None
    if level is None or len(seeds.percent) + diverged < 2:
        return None
    return humps(list(seeds.each().values()), level, diverged)


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
        if metric.name == ACCURACY.name and summary.frame[EACH_SEED].notna().any():
            columns.append(Column(EACH_SEED, "Top-1, each seed [%]", metric.origin))
        if metric.name == ACCURACY.name and summary.frame[FAILED_SEEDS].notna().any():
            columns.append(Column(FAILED_SEEDS, "Failed seeds", metric.origin))
        if metric.name == ACCURACY.name and ABOVE in summary.frame and (summary.frame[ABOVE] == "no").any():
            columns.append(Column(ABOVE, "Above chance", "label"))
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
        found = each.to_dict()
        rows.append(
            {
                **each.setting,
                "first": each.first,
                "second": each.second,
                "seeds": len(each.seeds),
                "videos": found["videos"],
                "groups": found["groups"],
                "measured_first_percent": each.first_percent,
                "measured_second_percent": each.second_percent,
                "measured_difference_points": each.difference_points,
                "measured_difference_low_points": each.low_points,
                "measured_difference_high_points": each.high_points,
                "direction_p": found["direction_p"],
                "equivalence_p": found["equivalence_p"],
                "smallest_difference_points": found["smallest_difference_points"],
                "more_seeds": found["more_seeds"],
                "interval_over": each.spread.over,
                "design": found["design"],
                "verdict": each.verdict,
            }
        )
    bounds = ("measured_difference_low_points", "measured_difference_high_points")
    frame = pd.DataFrame(rows)
    columns = (
        *(Column(name, name, "label", decimals=0) for name in comparisons[0].setting),
        Column("first", "First", "label"),
        Column("second", "Second", "label"),
        Column("measured_difference_points", "First − second [points]", "measured", bounds=bounds),
        Column("seeds", "Seeds", "label", decimals=0),
        Column("direction_p", "p, direction", "label", decimals=4, least=1e-4),
        Column("equivalence_p", "p, equivalence", "label", decimals=4, least=1e-4),
        Column("smallest_difference_points", "80 % power [points]", "label"),
        Column("more_seeds", "Seeds still needed", "label", decimals=0),
        Column("verdict", "Verdict", "label"),
    )
    kept = tuple(column for column in columns if column.key in ("first", "second") or frame[column.key].notna().any())
    over = " or ".join(dict.fromkeys(each.spread.over for each in comparisons if each.spread.over != "nothing"))
    tested = max(each.family for each in comparisons)
    many = f"{tested} comparison{'s' * (tested != 1)}"
    said = [f"Differences of top-1 accuracy with 95 % intervals over {over or 'nothing'}"]
    seeds = [len(each.seeds) for each in comparisons]
    if untested := comparisons[0].untested:
        said.append(f"not tested: {untested}")
    elif max(seeds) > 1:
        said.append(
            f"p-values of no difference and of one of {MARGIN_POINTS:g} points or more, corrected together for {many}; "
            f"80 % power: the difference that so many seeds find, empty where they find none, however large; seeds "
            f"still needed: to find {MARGIN_POINTS:g} points, both at the spread seen"
        )
    if min(seeds) == 1 and not untested:
        said.append("one seed gives no p-value: the models differ, or are not told apart, at 5 % for each pair alone")
    caption = "; ".join(said)
    return Table(frame, kept, caption, measured="measured here")
