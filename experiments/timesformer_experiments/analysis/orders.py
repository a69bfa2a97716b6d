"""Accuracy on rearranged frames, all orders side by side, for all videos and for each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from timesformer.evaluation.confusion import confusions
from timesformer.evaluation.evaluate import EvalResult
from timesformer.evaluation.frame_order import COMPARED, FRAME_ORDERS, FrameOrder, one_frame_share_percent
from timesformer.heads import Heads, Labels
from timesformer.intervals import wilson_interval
from timesformer_experiments.analysis.statistics.estimators import crossed_difference
from timesformer_experiments.report.tables import Column, Table

Results = Mapping[FrameOrder, EvalResult]
ALL = "all videos"
TITLES = {
    "order_sensitivity_points": "Order: normal − shuffled [points]",
    "reversal_sensitivity_points": "Direction: normal − reversed [points]",
    "gain_from_frames_points": "More frames: normal − middle [points]",
    "gain_from_second_half_points": "Every frame: normal − repeated [points]",
}


def order_rows(results: Results, labels: Labels | None, heads: Heads, classes: int) -> list[dict[str, Any]]:
    """A row for all videos and one for each class: accuracy in each order, differences, share of one frame.

    Differences have 95 % intervals for new videos with this very model: the videos are the same in all orders, and
    those of a group count as one.
    """
    right = {order: _right(result.per_video) for order, result in results.items()}
    rows = [{"head": None, "class": ALL, **_row(right, results["normal"].per_video)}]
    counted = confusions(results["normal"].per_video, labels, heads, classes)
    for place, each in enumerate(counted):
        for number, name in enumerate(each.classes):
            frames = {order: _of_class(result.per_video, place, number) for order, result in results.items()}
            hits = {order: _right(frame, place) for order, frame in frames.items()}
            rows.append({"head": each.head, "class": name, **_row(hits, frames["normal"])})
    return rows


def _of_class(per_video: pd.DataFrame, place: int, number: int) -> pd.DataFrame:
    labels = np.array(per_video["label"].tolist()).reshape(len(per_video), -1)
    return per_video[labels[:, place] == number]


def _right(per_video: pd.DataFrame, place: int | None = None) -> dict[str, bool]:
    """By video whether it is right: in all heads, or in one."""
    shape = (len(per_video), -1) if len(per_video) else (0, 1)
    same = np.equal(*(np.array(per_video[name].tolist()).reshape(shape) for name in ("label", "prediction")))
    hits = same.all(1) if place is None else same[:, place]
    return dict(zip(per_video["index"].astype(str), hits.tolist(), strict=True))


def _row(right: Mapping[FrameOrder, Mapping[str, bool]], per_video: pd.DataFrame) -> dict[str, Any]:
    row: dict[str, Any] = {"videos": len(per_video)}
    percent: dict[FrameOrder, float] = {}
    for order in FRAME_ORDERS:
        hits, videos = sum(right[order].values()), len(right[order])
        ends = wilson_interval(hits, videos) if videos else (None, None)
        row[f"{order}_percent"] = 100 * hits / videos if videos else None
        row |= {f"{order}_low_percent": ends[0], f"{order}_high_percent": ends[1]}
        percent[order] = row[f"{order}_percent"]
    groups = per_video["group"] if "group" in per_video else per_video["index"].astype(str)
    clusters = dict(zip(per_video["index"].astype(str), groups, strict=True))
    for name, (first, second) in COMPARED.items():
        stem = name.removesuffix("_points")
        row |= dict.fromkeys((name, f"{stem}_low_points", f"{stem}_high_points"))
        if len(per_video):
            found = crossed_difference({0: right[first]}, {0: right[second]}, clusters)
            low, high = found.videos_interval() or (None, None)
            row |= {name: found.mean, f"{stem}_low_points": low, f"{stem}_high_points": high}
    row["one_frame_share_percent"] = one_frame_share_percent(percent) if len(per_video) else None
    return row


def order_table(rows: Sequence[Mapping[str, Any]], name: str) -> Table:
    """The rows as they are read; the frame also has Wilson's 95 % interval of each accuracy."""
    columns = [Column("class", "Class", "label"), Column("videos", "Videos", "counted", decimals=0)]
    if any(row["head"] for row in rows):
        columns.insert(0, Column("head", "Head", "label"))
    for order in FRAME_ORDERS:
        columns.append(Column(f"{order}_percent", f"{order} [%]", "measured"))
    for key, title in TITLES.items():
        stem = key.removesuffix("_points")
        columns.append(Column(key, title, "measured", bounds=(f"{stem}_low_points", f"{stem}_high_points")))
    columns.append(Column("one_frame_share_percent", "One frame: middle / normal [%]", "measured"))
    caption = (
        f"{name}: top-1 accuracy by the order of frames; differences with 95 % intervals over groups of test videos, "
        "for this very model"
    )
    return Table(pd.DataFrame(rows), tuple(columns), caption, measured="measured here")
