"""Figures of `skills`: accuracy over the dials beside both predictions, and learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from timesformer.attention import build
from timesformer_experiments.paper.skills.measured import Row
from timesformer_experiments.paper.skills.registered import skills
from timesformer_experiments.report.report import Part
from timesformer_experiments.report.style import COLOURS, MARKERS

ACROSS = 3
"""Panels side by side."""
APART = 0.11
"""Distance from scheme to scheme at a value of a dial, where values are 1 apart."""


def draw(rows: Sequence[Row]) -> Figure:
    """Draw a panel for each probe: measured accuracies with intervals, filled, and predicted ones, hollow."""
    probes = list(dict.fromkeys(row.probe for row in rows))
    figure, axes = _panels(len(probes))
    for axis, probe in zip(axes, probes, strict=True):
        skill = skills().probes[probe]
        shown = [row for row in rows if row.probe == probe and row.depth == skill.expected[0].depth]
        values = list(dict.fromkeys(row.value for row in shown))
        for number, scheme in enumerate(skills().schemes):
            style = {"color": COLOURS[number], "marker": MARKERS[number], "linestyle": "none"}
            own = [row for row in shown if row.scheme == scheme]
            x = [values.index(row.value) + APART * (number - (len(skills().schemes) - 1) / 2) for row in own]
            axis.errorbar(x, [row.percent for row in own], yerr=_ends(own), capsize=2, label=_title(scheme), **style)
            axis.plot(x, [row.predicted.predicted_percent for row in own], markerfacecolor="none", alpha=0.6, **style)
            bounds = [(at, row.predicted.bound_percent) for at, row in zip(x, own, strict=True)]
            for at, bound in bounds:
                if bound < 100:
                    axis.plot([at - APART / 2, at + APART / 2], [bound, bound], "-", color=COLOURS[number])
        for place, value in enumerate(values):
            cheap = next((row.cheap for row in shown if row.value == value and row.cheap is not None), None)
            if cheap is not None:
                axis.plot([place - 0.4, place + 0.4], [cheap, cheap], ":", color="black", linewidth=1)
        axis.axhline(shown[0].found.chance, color="#888888", linewidth=0.8)
        axis.set_xticks(range(len(values)), [str(value) for value in values])
        axis.set_xlabel(skill.dial)
        axis.set_ylim(0, 104)
        axis.set_ylabel("top-1 accuracy [%]")
        axis.set_title(f"{probe}, {skill.expected[0].depth} blocks", fontsize="medium")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=6, frameon=False, fontsize="small")
    figure.supxlabel(
        "filled: measured, 95 % interval; hollow: predicted; short lines: bounds below 100 %; dotted: best classifier "
        "without attention; grey: chance",
        fontsize="small",
    )
    return figure


def curves(entries: Sequence[Mapping[str, Any]]) -> Part | None:
    """Return the learning curves of the first seed at the registered values as a part; None where there are none."""
    registered = skills().probes
    shown = [
        entry
        for entry in entries
        if entry["seed"] == 0
        and not entry["followup"]
        and entry["probe"] in registered
        and str(entry["value"]) == str(registered[entry["probe"]].registered)
        and entry["depth"] == registered[entry["probe"]].expected[0].depth
    ]
    if not shown:
        return None
    probes = list(dict.fromkeys(entry["probe"] for entry in shown))
    figure, axes = _panels(len(probes))
    for axis, probe in zip(axes, probes, strict=True):
        for number, scheme in enumerate(skills().schemes):
            own = [entry for entry in shown if (entry["probe"], entry["scheme"]) == (probe, scheme)]
            percents = [entry["measured_train_top1_percent"] for entry in own]
            axis.plot([entry["step"] for entry in own], percents, color=COLOURS[number], label=_title(scheme))
        axis.set_title(f"{probe}, {registered[probe].dial}={registered[probe].registered}", fontsize="medium")
        axis.set_xlabel("step")
        axis.set_ylim(0, 104)
        axis.set_ylabel("accuracy in training [%]")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=6, frameon=False, fontsize="small")
    said = "Accuracy on training batches, each before the step that learns from it; curves.csv has them all."
    return Part("curves", "Learning curves", figure=figure, findings=(said,))


def _panels(count: int) -> tuple[Figure, list[Any]]:
    across = min(count, ACROSS)
    down = -(-count // across)
    figure = Figure(figsize=(1.0 + 4.0 * across, 0.8 + 3.1 * down), layout="constrained")
    axes = list(figure.subplots(down, across, squeeze=False).ravel())
    for axis in axes:
        axis.grid(True, color="#dddddd", linewidth=0.6)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[count:]:
        axis.remove()
    return figure, axes[:count]


def _ends(rows: Sequence[Row]) -> list[list[float]]:
    """Return how far the intervals reach below and above; 0 where there is none."""
    spreads = [row.spread for row in rows]
    below = [0.0 if each.low is None else max(0.0, each.mean - each.low) for each in spreads]
    return [below, [0.0 if each.high is None else max(0.0, each.high - each.mean) for each in spreads]]


def _title(scheme: str) -> str:
    return build(scheme).title.partition(" (")[0]
