"""Figures of variants: accuracies measured here with their intervals, filled, and published ones, hollow.

An interval holds for what the table's caption says; seeds that fall into two humps have none."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from timesformer_experiments.paper.setting import NAMES_IN_THE_PAPER
from timesformer_experiments.report.style import COLOURS, MARKERS, new_figure
from timesformer_experiments.report.tables import missing

OURS, PAPER = COLOURS[0], COLOURS[1]


def draw_dots(frame: pd.DataFrame, probes: Mapping[str, str], axis_label: str) -> Figure:
    """Draw a row for each variant and a panel for each probe."""
    rows = frame.to_dict(orient="records")
    figure, axes = new_figure(3.2 + 4.2 * len(probes), 1.7 + 0.42 * len(rows), panels=len(probes))
    for number, (axis, (probe, dataset)) in enumerate(zip(axes, probes.items(), strict=True)):
        for place, row in enumerate(rows):
            if not missing(row[f"measured_{probe}_top1_percent"]):
                value, spread = measured_of(row, probe)
                axis.errorbar(value, place, xerr=spread, fmt=MARKERS[0], color=OURS, capsize=3, label=f"{probe}, here")
            paper = row[f"published_{dataset}_top1_percent"]
            if not missing(paper):
                name = f"{NAMES_IN_THE_PAPER.get(dataset, dataset)}, published"
                axis.plot(paper, place, MARKERS[1], color=PAPER, markerfacecolor="none", markersize=8, label=name)
        axis.set_yticks(range(len(rows)), [row["label"] if number == 0 else "" for row in rows])
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.set_xlim(0, 100)
        axis.set_xlabel("top-1 accuracy [%]")
        if number == 0:
            axis.set_ylabel("\n".join(textwrap.wrap(axis_label, 16 + 4 * len(rows))))
        legend_above(axis)
    return figure


@dataclass(frozen=True)
class Curve:
    """Label of a figure's x axis.  paper_label: that of an axis for the paper's values, if its scale differs."""

    label: str
    paper_label: str = ""


def draw_curves(panels: Sequence[tuple[pd.DataFrame, str, str, Curve]]) -> Figure:
    """Draw accuracy over the variants' x, for each (frame, probe, dataset, axis).

    Measured and published curves share a panel, or are side by side if their scales differ.
    """
    count = sum(2 if axis.paper_label else 1 for _, _, _, axis in panels)
    figure, axes = new_figure(1.0 + 4.6 * count, 4.2, panels=count)
    free = iter(axes)
    for frame, probe, dataset, curve in panels:
        ours = next(free)
        theirs = next(free) if curve.paper_label else ours
        for number, (line, rows) in enumerate(frame.groupby("line", sort=False)):
            style = {"color": COLOURS[number], "marker": MARKERS[number]}
            said = f"{line!s}, " if line else ""
            _draw_ours(ours, rows, probe, f"{said}{probe}, here", style)
            if number == 0:
                _draw_bound(ours, rows, probe)
            x = "paper_x" if curve.paper_label else "x"
            _draw_theirs(theirs, rows, x, dataset, said, style)
        ours.set_xlabel(curve.label)
        if curve.paper_label:
            theirs.set_xlabel(curve.paper_label)
    for axis in axes:
        axis.set_ylabel("top-1 accuracy [%]")
        axis.set_ylim(0, 102)
        legend_above(axis)
    return figure


def _draw_ours(axis: Any, rows: pd.DataFrame, probe: str, label: str, style: dict[str, Any]) -> None:
    rows = rows[rows[f"measured_{probe}_top1_percent"].notna()]
    if rows.empty:
        return
    measured = [measured_of(row, probe) for row in rows.to_dict(orient="records")]
    spread = [[ends[side][0] for _, ends in measured] for side in (0, 1)]
    axis.errorbar(rows["x"], [value for value, _ in measured], yerr=spread, capsize=3, label=label, **style)
    axis.set_xticks(sorted(set(rows["x"])))


def _draw_bound(axis: Any, rows: pd.DataFrame, probe: str) -> None:
    bound = rows[f"counted_{probe}_ceiling_percent"]
    if bound.notna().any():
        axis.plot(rows["x"], bound, ":", color=COLOURS[6], label="bound of any model")


def _draw_theirs(axis: Any, rows: pd.DataFrame, x: str, dataset: str, said: str, style: dict[str, Any]) -> None:
    rows = rows[rows[f"published_{dataset}_top1_percent"].notna()]
    if rows.empty:
        return
    label = f"{said}{NAMES_IN_THE_PAPER.get(dataset, dataset)}, published"
    paper = rows[f"published_{dataset}_top1_percent"]
    axis.plot(rows[x], paper, linestyle="--", markerfacecolor="none", label=label, **style)
    axis.set_xticks(sorted(set(rows[x])))


def measured_of(row: Mapping[Any, Any], probe: str) -> tuple[float, list[list[float]]]:
    """Return an accuracy and how far its interval reaches below and above."""
    key = f"measured_{probe}_top1"
    value, low, high = (row[f"{key}_{end}percent"] for end in ("", "low_", "high_"))
    if missing(low) or missing(high):  # seeds in two humps have no interval
        return value, [[0.0], [0.0]]
    return value, [[value - low], [high - value]]


def legend_above(axis: Any) -> None:
    """Draw the legend above the panel, with each label once."""
    handles, labels = axis.get_legend_handles_labels()
    found = dict(zip(labels, handles, strict=True))
    place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 2}
    axis.legend(found.values(), found.keys(), frameon=False, fontsize="small", **place)
