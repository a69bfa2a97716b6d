"""Per-class accuracies and confusion matrices of runs, from their records, as tables and figures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from timesformer.evaluation.confusion import Confusion
from timesformer_experiments.analysis.axes import groups
from timesformer_experiments.analysis.figures import title_of
from timesformer_experiments.analysis.grouped import accuracy_of, clusters_by_video, of_class, right_by_video
from timesformer_experiments.analysis.summary import Summary
from timesformer_experiments.report.tables import Column, Table

MOST_ROWS = 200
"""Most rows of the table of classes on a page; a longer one is in per_class.csv alone."""
MOST_CLASSES, MOST_NAMED, MOST_PANELS, ACROSS = 30, 12, 12, 3
"""Classes of a matrix that is drawn, and of one with names and numbers; matrices that are drawn, and those in a row."""

Records = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class ClassReport:
    """Report on the classes of a folder's runs.

    files: contents by name, per_class.csv and confusion.csv; table: for the page, None where it would be too long;
    figures: by name; findings: what is not shown, in words.
    """

    files: dict[str, bytes]
    table: Table | None
    figures: dict[str, Figure]
    findings: tuple[str, ...]


@dataclass(frozen=True)
class _Setting:
    """Group of runs that differ in the seed alone.

    values: on the axes by their titles; counted: over all their test videos.
    """

    values: dict[str, Any]
    seeds: int
    counted: Confusion

    def title(self) -> str:
        """Return the values in words, with the head where there are several."""
        return ", ".join(str(value) for value in [*self.values.values(), self.counted.head] if value is not None)


def class_report(results: pd.DataFrame, summary: Summary, records: Records) -> ClassReport | None:
    """The classes of finished runs; None where no record has a confusion."""
    settings = list(_settings(results, summary, records))
    if not settings:
        return None
    rows = [
        {
            **each.values,
            "head": row["head"],
            "class": row["class"],
            "seeds": each.seeds,
            "videos": row["videos"],
            "right": row["right"],
            "measured_top1_percent": row["top1_percent"],
        }
        for each in settings
        for row in each.counted.rows()
    ]
    files = {"per_class.csv": _csv(rows)}
    taken = [row for each in settings for row in _taken(each)]
    if taken:
        files["confusion.csv"] = _csv(taken)
    table, found = _wide(rows, summary), list[str]()
    too_long = len(table.frame) > MOST_ROWS
    if too_long:
        found.append("The accuracy of each class is in per_class.csv.")
    drawn = [each for each in settings if each.counted.counts is not None and len(each.counted.classes) <= MOST_CLASSES]
    if len(drawn) > MOST_PANELS:
        found.append(f"Confusion matrices of {MOST_PANELS} of {len(drawn)} settings are drawn; confusion.csv has all.")
    figures = {}
    for number, start in enumerate(range(0, min(len(drawn), MOST_PANELS), 2 * ACROSS), start=1):
        name = "confusion" if number == 1 else f"confusion_{number}"
        part = drawn[start : min(start + 2 * ACROSS, MOST_PANELS)]
        figures[name] = draw_matrices([(each.title(), each.counted) for each in part])
    return ClassReport(files, None if too_long else table, figures, tuple(found))


def _settings(results: pd.DataFrame, summary: Summary, records: Records) -> Iterator[_Setting]:
    for _, rows in groups(results[results["outcome"] == "done"], summary.axes.columns):
        sums: dict[tuple[Any, ...], list[Confusion]] = {}
        for key in rows["hash"].astype(str):
            for plain in records[key].get("confusion") or []:
                each = Confusion.from_dict(plain)
                sums.setdefault((each.head, each.classes), []).append(each)
        values = summary.axes.values(rows.iloc[0].to_dict())
        for several in sums.values():
            total = several[0]
            for each in several[1:]:
                total += each
            yield _Setting(values, len(several), total)


def _taken(setting: _Setting) -> list[dict[str, Any]]:
    """Pairs of classes that occur."""
    counted = setting.counted
    if counted.counts is None:
        return []
    return [
        {
            **setting.values,
            "head": counted.head,
            "class": counted.classes[true],
            "predicted": counted.classes[predicted],
            "videos": int(counted.counts[true, predicted]),
        }
        for true, predicted in zip(*np.nonzero(counted.counts), strict=True)
    ]


def _csv(rows: list[dict[str, Any]]) -> bytes:
    frame = pd.DataFrame(rows)
    if frame["head"].isna().all():
        frame = frame.drop(columns="head")
    return frame.to_csv(index=False, lineterminator="\n").encode()


def _wide(rows: Sequence[dict[str, Any]], summary: Summary) -> Table:
    """A row a class and setting, a column a value of the compared axis."""
    axes = summary.axes
    compared = None if axes.compared is None else axes.title(axes.compared)
    others = [axes.title(column) for column in axes.others]
    several = any(row["head"] is not None for row in rows)
    labels = [*others, *(["head"] if several else []), "class"]
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    values: dict[Any, None] = {}
    for row in rows:
        value = None if compared is None else row[compared]
        values[value] = None
        place = found.setdefault(tuple(row[name] for name in labels), {name: row[name] for name in labels})
        place[f"measured_{'top1' if value is None else value}_percent"] = row["measured_top1_percent"]
    columns = [Column(name, name if name in others else name.capitalize(), "label", decimals=None) for name in labels]
    for value in values:
        key, title = f"measured_{'top1' if value is None else value}_percent", title_of(value) if value else "top-1"
        columns.append(Column(key, f"{title} [%]", "measured"))
    caption = "Accuracy of each class, over the test videos of all seeds together"
    return Table(pd.DataFrame(found.values()), tuple(columns), caption, measured="measured here")


def draw_matrices(settings: Sequence[tuple[str, Confusion]]) -> Figure:
    """Draw a panel for each title and confusion: of each true class (row) the share of each predicted one [%]."""
    across = min(len(settings), ACROSS)
    down = math.ceil(len(settings) / across)
    size = max(len(counted.classes) for _, counted in settings)
    side = 3.4 if size <= MOST_NAMED else 4.2
    figure = Figure(figsize=(side * across + 1.2, side * down + 0.6), layout="constrained")
    panels = list(figure.subplots(down, across, squeeze=False).flat)
    for axis in panels[len(settings) :]:
        axis.set_visible(False)
    image = None
    for axis, (title, counted) in zip(panels, settings, strict=False):
        assert counted.counts is not None
        percent = 100 * counted.counts / np.maximum(counted.videos, 1)[:, None]
        image = axis.imshow(percent, cmap="Blues", vmin=0, vmax=100)
        axis.set_title(title, fontsize="small")
        places = range(len(counted.classes))
        if len(counted.classes) <= MOST_NAMED:
            axis.set_xticks(places, counted.classes, rotation=90, fontsize="x-small")
            axis.set_yticks(places, counted.classes, fontsize="x-small")
            for row, column in zip(*np.nonzero(counted.counts), strict=True):
                share = percent[row, column]
                colour = "white" if share > 60 else "black"
                axis.text(column, row, f"{share:.0f}", ha="center", va="center", fontsize=6, color=colour)
        axis.set_xlabel("predicted", fontsize="small")
        axis.set_ylabel("true", fontsize="small")
    assert image is not None
    figure.colorbar(image, ax=panels[: len(settings)], label="of a true class [%]", shrink=0.7)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def class_table(counted: Sequence[Confusion], name: str, per_video: pd.DataFrame | None = None) -> Table:
    """Accuracy of each class of one model, with its interval: over groups, where `per_video` has groups."""
    rows = [row for each in counted for row in each.rows()]
    over = "Wilson"
    if per_video is not None and "group" in per_video:
        numbers = [(place, number) for place, each in enumerate(counted) for number in range(len(each.classes))]
        for row, (place, number) in zip(rows, numbers, strict=True):
            if row["videos"]:
                part = of_class(per_video, place, number)
                found, low, high = accuracy_of(right_by_video(part, place), clusters_by_video(part))
                row |= {"top1_percent": found.mean, "top1_low_percent": low, "top1_high_percent": high}
                row["groups"] = found.clusters
        over = "groups of test videos averaged"
    columns = [
        Column("class", "Class", "label"),
        Column("videos", "Videos", "counted", decimals=0),
        Column("top1_percent", "top-1 [%]", "measured", bounds=("top1_low_percent", "top1_high_percent")),
    ]
    if any("groups" in row for row in rows):
        columns.insert(2, Column("groups", "Groups", "counted", decimals=0))
    if any(each.head is not None for each in counted):
        columns.insert(0, Column("head", "Head", "label"))
    caption = f"{name}: accuracy of each class with its 95 % interval ({over})"
    return Table(pd.DataFrame(rows), tuple(columns), caption, measured="measured here")
