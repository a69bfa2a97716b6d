"""A table for a paper from a sweep's summary: chosen columns, display names, plain numbers, the best in bold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from timesformer.errors import InputError
from timesformer_experiments.analysis.chance import above_chance
from timesformer_experiments.analysis.figures import title_of
from timesformer_experiments.analysis.summary import INTERVAL_OVER, Summary, digits
from timesformer_experiments.cost.measures import ACCURACY, THROUGHPUT, Metric
from timesformer_experiments.report.tables import NO_VALUE, Column, latex_text, missing

HIGHER = (ACCURACY.name, THROUGHPUT.name)
"""Metrics of which more is better; of the others, which are costs, less is."""


def paper_table(
    summary: Summary, columns: Sequence[str] = (), names: Mapping[str, str] | None = None, label: str = "sweep"
) -> str:
    """Return a LaTeX table with booktabs, a row per setting.

    columns: titles of axes and names of metrics, such as `attention` and `top1_percent`; by default all.  names: the
    display names of columns and of values, by what they are called; schemes have their titles.  In each column of
    numbers the best is bold, of accuracies the best that is above chance.  The caption says how many seeds a mean is
    over, and what its interval holds for.

    Raises InputError for a column that there is not.
    """
    names = dict(names or {})
    axes = list(summary.titles.values())
    metrics = {metric.name: metric for metric in summary.metrics}
    chosen = list(columns) or [*axes, *metrics]
    for name in chosen:
        if name not in axes and name not in metrics:
            raise InputError(f"--columns: {name!r} is none of {', '.join([*axes, *metrics])}")
    frame = summary.frame
    head = [latex_text(names.get(name, metrics[name].title if name in metrics else name)) for name in chosen]
    cells = [
        _of_metric(frame, metrics[name]) if name in metrics else [_said(value, names) for value in frame[name]]
        for name in chosen
    ]
    layout = "".join("r" if name in metrics else "l" for name in chosen)
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{latex_text(_caption(summary, ACCURACY.name in chosen))}}}\label{{tab:{label}}}",
            rf"\begin{{tabular}}{{@{{}}{layout}@{{}}}}",
            r"\toprule",
            " & ".join(head) + r" \\",
            r"\midrule",
            *(" & ".join(row) + r" \\" for row in zip(*cells, strict=True)),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _said(value: Any, names: Mapping[str, str]) -> str:
    return latex_text(names.get(str(value), title_of(value)))


def _of_metric(frame: pd.DataFrame, metric: Metric) -> list[str]:
    """Return the cells of a metric; those that show the same number as the best are bold too."""
    accuracy = metric.name == ACCURACY.name
    decimals = 1 if accuracy else digits(frame[metric.key], metric)
    column = Column(metric.key, metric.title, metric.origin, decimals, metric.scale)
    bounds = metric.bounds if metric.spread else None
    spread = Column(metric.key, metric.title, metric.origin, decimals, metric.scale, bounds)
    rows = [{str(key): value for key, value in row.items()} for row in frame.to_dict(orient="records")]
    plain = [column.text(row) for row in rows]
    judged = (above_chance(frame) if accuracy else frame)[metric.key].dropna()
    best = None
    if len(frame) > 1 and len(judged) and judged.nunique() > 1:
        place = judged.idxmax() if metric.name in HIGHER else judged.idxmin()
        best = plain[frame.index.get_loc(place)]
    found = []
    for row, text in zip(rows, plain, strict=True):
        shown = latex_text(spread.text(row))
        is_best = text == best and not missing(row[metric.key]) and text != NO_VALUE
        found.append(rf"\textbf{{{shown}}}" if is_best else shown)
    return found


def _caption(summary: Summary, accuracy: bool) -> str:
    done = sorted(set(summary.frame["runs_done"]) - {0})
    seeds = " or ".join(map(str, done)) or "no"
    said = f"Means over {seeds} seeds" if done != [1] else "One seed"
    if accuracy and INTERVAL_OVER in summary.frame:
        over = sorted(set(summary.frame[INTERVAL_OVER].dropna()) - {"nothing"})
        if over:
            said += f"; accuracies with their 95 % interval over {' or '.join(over)}"
    return f"{said}. Best values in bold."
