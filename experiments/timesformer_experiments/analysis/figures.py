"""Figures of a sweep: accuracy and cost over frames and resolution, accuracy against cost with the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator
from matplotlib.transforms import ScaledTranslation

from timesformer.attention import build, names
from timesformer_experiments.analysis.axes import FRAMES, SIZES, follows
from timesformer_experiments.analysis.chance import CHANCE, above_chance
from timesformer_experiments.analysis.summary import Summary
from timesformer_experiments.cost.measures import (
    ACCURACY,
    INFERENCE,
    LATENCY,
    MACS,
    TFLOPS,
    THROUGHPUT,
    TRAINING,
    Metric,
)
from timesformer_experiments.report.style import COLOURS, MARKERS

LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (3, 1, 1, 1)), (0, (5, 1)), (0, (1, 1)))
PANELS_A_FIGURE, PANELS_A_ROW = 6, 3
LABEL_POINTS = (60.0, 9.0)
"""Width and height of a label in points."""
OVER = {
    "frames": ("frames", (FRAMES,), "frames"),
    "resolution": ("image_height_pixels", SIZES, "height of a frame [pixels]"),
}
"""{name in files: (column of a summary, paths of the axis, label)}."""


def style(number: int) -> dict[str, Any]:
    """Return colour, marker and line of a series.  Series differ in all three, beyond seven series in two."""
    turn, place = divmod(number, len(COLOURS))
    return {
        "color": COLOURS[place],
        "marker": MARKERS[(place + turn) % len(MARKERS)],
        "linestyle": LINES[(place + 3 * turn) % len(LINES)],
    }


def figures(summary: Summary) -> dict[str, Figure]:
    """Draw all figures for which there are values, by the name of their file."""
    found: dict[str, Figure] = {}
    accuracy = summary.metric(ACCURACY)
    costs = {"tflops": TFLOPS, "training_memory": TRAINING, "inference_memory": INFERENCE}
    if summary.metric(TFLOPS) is None:
        costs = {"macs": MACS, **{name: metric for name, metric in costs.items() if metric is not TFLOPS}}
    curves = {"accuracy": ACCURACY, **costs, "latency": LATENCY, "throughput": THROUGHPUT}
    for name, wanted in curves.items():
        metric = summary.metric(wanted)
        for over, (column, paths, label) in OVER.items():
            if metric is not None and summary.axes.column_of(*paths) and summary.frame[column].nunique() > 1:
                found |= _numbered(f"{name}_over_{over}", _curves(summary, metric, column, paths, label))
    for name, wanted in costs.items():
        metric = summary.metric(wanted)
        if accuracy is not None and metric is not None and summary.frame[metric.key].nunique() > 1:
            found |= _numbered(f"accuracy_against_{name}", _fronts(summary, accuracy, metric))
    return found


def _numbered(name: str, made: Iterator[Figure]) -> dict[str, Figure]:
    several = list(made)
    for figure in several:  # laid out once, for all forms in which it is written
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    return {name if number == 1 else f"{name}_{number}": figure for number, figure in enumerate(several, start=1)}


def series(summary: Summary) -> dict[Any, int]:
    """Return {value of the compared axis: number of its series}, the same in all figures."""
    if summary.axes.compared is None:
        return {None: 0}
    values = dict.fromkeys(summary.frame[summary.titles[summary.axes.compared]])
    return {value: number for number, value in enumerate(values)}


def title_of(value: Any) -> str:
    """Return the label of a line; schemes are named by their titles."""
    if value is None:
        return "all"
    if value in names():
        return build(value).title or str(value)
    return str(value)


def _panels(summary: Summary, left_out: Sequence[str], x: str | None) -> Iterator[list[tuple[str, pd.DataFrame]]]:
    """Group rows by the axes that a panel does not show, a few panels at a time, each with its title."""
    frame, titles = summary.frame, summary.titles
    shown = [summary.axes.compared, *left_out]
    others = [titles[column] for column in summary.axes.columns if column not in shown]
    if x is not None:
        others = [other for other in others if not follows(frame, other, [x]) or frame[other].nunique() == 1]
    parts = [(", ".join(f"{o} {v}" for o, v in zip(others, _tuple(key), strict=True)), rows)
             for key, rows in frame.groupby(others, sort=False)] if others else [("", frame)]  # fmt: skip
    for start in range(0, len(parts), PANELS_A_FIGURE):
        yield parts[start : start + PANELS_A_FIGURE]


def _tuple(key: Any) -> tuple[Any, ...]:
    return key if isinstance(key, tuple) else (key,)


def _grid(count: int) -> tuple[Figure, list[Any]]:
    """Make a figure with this number of panels in rows, all with the same scales."""
    across = min(count, PANELS_A_ROW)
    down = math.ceil(count / across)
    figure = Figure(figsize=(max(4.6, 3.6 * across), 3.4 * down + 0.7), layout="constrained")
    axes = list(figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).flat)
    for axis in axes[count:]:
        axis.set_visible(False)
    for axis in axes[max(0, count - across) : count]:
        axis.tick_params(labelbottom=True)
    for axis in axes[:count]:
        axis.grid(True, color="#dddddd", linewidth=0.6)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes[:count]


def _curves(summary: Summary, metric: Metric, x: str, paths: tuple[str, ...], label: str) -> Iterator[Figure]:
    axis_column = summary.axes.column_of(*paths)
    numbers = series(summary)
    compared = summary.axes.compared
    for panels in _panels(summary, [axis_column] if axis_column else [], x):
        figure, axes = _grid(len(panels))
        for axis, (said, rows) in zip(axes, panels, strict=True):
            for value, number in numbers.items():
                part = rows if compared is None else rows[rows[summary.titles[compared]] == value]
                part = part[part[metric.key].notna()].sort_values(x, kind="stable")
                if part.empty:
                    continue
                shift = (number - (len(numbers) - 1) / 2) * 2.5 if metric.spread and len(numbers) > 1 else 0.0
                _line(figure, axis, part, metric, x, number, shift, title_of(value))
                if metric.name == ACCURACY.name:
                    _seeds(figure, axis, part[x], summary, number, shift)
            if metric.name == ACCURACY.name:
                _chance(axis, rows)
            axis.set_title(said, fontsize="small")
        _scales(axes, summary.frame, x, metric)
        _labels(figure, axes, label, metric.axis, len(panels))
        yield figure


def _line(
    figure: Figure, axis: Any, rows: pd.DataFrame, metric: Metric, x: str, number: int, shift: float, title: str
) -> None:
    """Draw a series.  shift: horizontal offset in points, so that intervals do not overlap."""
    look = style(number) | {"label": title, "markersize": 5, "linewidth": 1.4}
    if not metric.spread:  # counts may be the same: hollow, of falling size, they do not hide one another
        look |= {"markersize": max(4.0, 9.0 - 0.8 * number), "markerfacecolor": "none"}
    place = axis.transData + ScaledTranslation(shift / 72, 0, figure.dpi_scale_trans)
    y = rows[metric.key] / metric.scale
    spread = _bars(rows, metric)
    if spread is not None:
        axis.errorbar(rows[x], y, yerr=spread, capsize=2, elinewidth=1, transform=place, **look)
    else:
        axis.plot(rows[x], y, transform=place, **look)
    axis.update_datalim(list(zip(rows[x], y, strict=True)))
    axis.autoscale_view()


def _bars(rows: pd.DataFrame, metric: Metric) -> list[pd.Series] | None:
    """Return the lengths of error bars, below and above; an accuracy's end at 0 and 100 %.  None without intervals."""
    ends = [rows[bound] / metric.scale for bound in metric.bounds] if metric.spread else []
    if not ends or not ends[0].notna().any():
        return None
    if metric.name == ACCURACY.name:
        ends = [end.clip(0, 100 / metric.scale) for end in ends]
    y = rows[metric.key] / metric.scale
    return [(y - ends[0]).clip(lower=0), (ends[1] - y).clip(lower=0)]


def _seeds(figure: Figure, axis: Any, x: pd.Series, summary: Summary, number: int, shift: float) -> None:
    """Draw the accuracy of each seed, small and light, where a setting has several."""
    places = [(place, value) for row, place in zip(x.index, x, strict=True) for value in summary.seeds.get(row, ())]
    if places:
        moved = axis.transData + ScaledTranslation((shift + 1.8) / 72, 0, figure.dpi_scale_trans)
        look = style(number) | {"linestyle": "none", "markersize": 2.2, "alpha": 0.7, "markeredgewidth": 0}
        axis.plot(*zip(*places, strict=True), transform=moved, label="_seeds", **look)


def _chance(axis: Any, rows: pd.DataFrame) -> None:
    """Draw the accuracy of a constant answer, named at its right end."""
    for level in sorted(set(rows[CHANCE].dropna())) if CHANCE in rows else ():
        axis.axhline(level, color="#777777", linewidth=1, linestyle=(0, (1, 2)), zorder=0, label="_chance")
        axis.annotate("chance", (1, level), (0, 2), xycoords=("axes fraction", "data"), textcoords="offset points",
                      ha="right", fontsize="x-small", color="#777777")  # fmt: skip


def _scales(axes: Sequence[Any], frame: pd.DataFrame, x: str, metric: Metric) -> None:
    ticks = sorted({value for value in frame[x] if not isinstance(value, str)})
    for axis in axes:
        if ticks[-1] / ticks[0] > 3:
            axis.set_xscale("log", base=2)
            axis.xaxis.set_minor_locator(NullLocator())
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        values = (frame[metric.key] / metric.scale).dropna()
        if metric.name == ACCURACY.name:
            low, high = (frame[bound].dropna().clip(0, 100) for bound in metric.bounds)
            bottom = min([*low, *values, *(frame[CHANCE].dropna() if CHANCE in frame else ())])
            axis.set_ylim(max(0, bottom - 5) if bottom > 0 else -2, min(102, max([*high, *values]) + 3))
        elif values.min() > 0 and values.max() / values.min() > 10:
            _log(axis, "y", values)
        else:
            axis.set_ylim(bottom=0)


def _log(axis: Any, which: str, values: pd.Series) -> None:
    """Make an axis logarithmic with plain numbers, denser if the values span less than two decades."""
    getattr(axis, f"set_{which}scale")("log")
    ruler = getattr(axis, f"{which}axis")
    if values.max() / values.min() < 100:
        ruler.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ruler.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ruler.set_minor_formatter(NullFormatter())


def _labels(figure: Figure, axes: Sequence[Any], x: str, y: str, count: int) -> None:
    """Add labels at the edges, and one legend below."""
    across = min(count, PANELS_A_ROW)
    for number, axis in enumerate(axes):
        if number % across == 0:
            axis.set_ylabel(y)
        if number >= count - across:
            axis.set_xlabel(x)
    entries: dict[str, Any] = {}
    for axis in axes:
        handles, said = axis.get_legend_handles_labels()
        entries |= {text: handle for handle, text in zip(handles, said, strict=True) if text not in entries}
    if len(entries) > 1:
        columns = math.ceil(len(entries) / math.ceil(len(entries) / (1 + 2 * across)))
        figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=columns, frameon=False,
                      fontsize="small")  # fmt: skip


def front(rows: pd.DataFrame, cost: str, accuracy: str) -> pd.DataFrame:
    """Return the Pareto front by ascending cost: rows more accurate than every row of lower or equal cost."""
    there = rows[rows[cost].notna() & rows[accuracy].notna()]
    ordered = there.sort_values([cost, accuracy], ascending=[True, False], kind="stable")
    best = -math.inf
    kept = []
    for place, value in enumerate(ordered[accuracy]):
        if value > best:
            kept.append(place)
            best = value
    return ordered.iloc[kept]


def _fronts(summary: Summary, accuracy: Metric, cost: Metric) -> Iterator[Figure]:
    inside = [column for _, paths, _ in OVER.values() if (column := summary.axes.column_of(*paths))]
    numbers, compared = series(summary), summary.axes.compared
    for panels in _panels(summary, inside, None):
        figure, axes = _grid(len(panels))
        for axis, (said, rows) in zip(axes, panels, strict=True):
            for value, number in numbers.items():
                part = rows if compared is None else rows[rows[summary.titles[compared]] == value]
                look = style(number) | {"linestyle": "none", "label": title_of(value), "markersize": 6}
                at = part[cost.key] / cost.scale, part[accuracy.key] / accuracy.scale
                axis.errorbar(*at, yerr=_bars(part, accuracy), elinewidth=0.8, **look)
            _chance(axis, rows)
            best = front(above_chance(rows), cost.key, accuracy.key)
            axis.step(best[cost.key] / cost.scale, best[accuracy.key] / accuracy.scale, where="post", color="#777777",
                      linewidth=1, zorder=1, label="Pareto front")  # fmt: skip
            axis.set_title(said, fontsize="small")
            values = summary.frame[cost.key].dropna()
            if values.min() > 0 and values.max() / values.min() > 10:
                _log(axis, "x", values / cost.scale)
            axis.margins(0.12)
        _labels(figure, axes, cost.axis, accuracy.axis, len(panels))
        for axis, (_, rows) in zip(axes, panels, strict=True):
            _name_points(axis, front(above_chance(rows), cost.key, accuracy.key), summary, inside, cost, accuracy)
        yield figure


def _name_points(
    axis: Any, rows: pd.DataFrame, summary: Summary, inside: Sequence[str], cost: Metric, accuracy: Metric
) -> None:
    """Label the points of a front with frames and resolution, above and left of them, where there are no points."""
    words = {"frames": "f", "image_height_pixels": " px"}
    said = [name for name, paths, _ in OVER.values() if summary.axes.column_of(*paths) in inside]
    axis.figure.draw_without_rendering()
    taken: list[tuple[float, float]] = []
    for row in rows.to_dict(orient="records"):
        text = " × ".join(f"{row[name]}{words[name]}" for name in said)
        point = (row[cost.key] / cost.scale, row[accuracy.key] / accuracy.scale)
        across, up = (value * 72 / axis.figure.dpi for value in axis.transData.transform(point))
        lift = 3.0
        while any(abs(across - x) < LABEL_POINTS[0] and abs(up + lift - y) < LABEL_POINTS[1] for x, y in taken):
            lift += LABEL_POINTS[1] / 2
        taken.append((across, up + lift))
        at_edge = across - axis.bbox.x0 * 72 / axis.figure.dpi < LABEL_POINTS[0]
        place = {"xytext": (-4, lift + 3), "ha": "left"} if at_edge else {"xytext": (-4, lift), "ha": "right"}
        axis.annotate(text, point, textcoords="offset points", fontsize="x-small", **place)


def pdf(figure: Figure) -> bytes:
    """Return the figure as a PDF with text as text; the same figure gives the same bytes."""
    from io import BytesIO

    buffer = BytesIO()
    with mpl.rc_context({"pdf.fonttype": 42}):
        figure.savefig(buffer, format="pdf", metadata={"CreationDate": None, "Producer": None, "Creator": None})
    return buffer.getvalue()
