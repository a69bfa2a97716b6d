"""Figures of variants: accuracies measured here with their intervals, filled, and published ones, hollow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from experiments.paper.setting import NAMES_IN_THE_PAPER
from experiments.report import COLOURS, MARKERS, new_figure
from experiments.tables import missing

OURS, PAPER = COLOURS[0], COLOURS[1]


def draw_dots(frame: pd.DataFrame, probes: Mapping[str, str], axis_label: str) -> Figure:
    """A row for each variant, a panel for each probe."""
    rows = frame.to_dict(orient="records")
    figure, axes = new_figure(3.2 + 4.2 * len(probes), 1.7 + 0.42 * len(rows), panels=len(probes))
    for number, (axis, (probe, dataset)) in enumerate(zip(axes, probes.items(), strict=True)):
        for place, row in enumerate(rows):
            if not missing(row[f"measured_{probe}_top1_percent"]):
                value, spread = _measured(row, probe)
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
            axis.set_ylabel(axis_label)
        _legend(axis)
    return figure


def draw_curves(frame: pd.DataFrame, probes: Mapping[str, str], axis_label: str) -> Figure:
    """Accuracy over the variants' x, a panel for each probe with the published curve beside it, in a panel of its own
    where the paper's x is another."""
    figure, axes = new_figure(5.2 * len(probes), 4.0, panels=len(probes))
    for axis, (probe, dataset) in zip(axes, probes.items(), strict=True):
        rows = frame.to_dict(orient="records")
        measured = [_measured(row, probe) for row in rows]
        spread = [[spread[side][0] for _, spread in measured] for side in (0, 1)]
        x = [row["x"] for row in rows]
        ours = [value for value, _ in measured]
        axis.errorbar(x, ours, yerr=spread, fmt=MARKERS[0] + "-", color=OURS, capsize=3, label=f"{probe}, here")
        paper = frame[f"published_{dataset}_top1_percent"]
        if paper.notna().any():
            name = f"{NAMES_IN_THE_PAPER.get(dataset, dataset)}, published"
            axis.plot(x, paper, MARKERS[1] + "--", color=PAPER, markerfacecolor="none", label=name)
        axis.set_xticks(x)
        axis.set_xlabel(axis_label)
        axis.set_ylabel("top-1 accuracy [%]")
        axis.set_ylim(0, 102)
        _legend(axis)
    return figure


def _measured(row: Mapping[Any, Any], probe: str) -> tuple[float, list[list[float]]]:
    key = f"measured_{probe}_top1"
    value = row[f"{key}_percent"]
    return value, [[value - row[f"{key}_low_percent"]], [row[f"{key}_high_percent"] - value]]


def _legend(axis: Any) -> None:
    """Each label once, above the panel."""
    handles, labels = axis.get_legend_handles_labels()
    found = dict(zip(labels, handles, strict=True))
    place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 2}
    axis.legend(found.values(), found.keys(), frameon=False, fontsize="small", **place)
