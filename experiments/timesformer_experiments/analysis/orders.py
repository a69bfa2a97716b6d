"""Accuracy on rearranged frames, all orders side by side, for all videos and for each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from timesformer.evaluation.confusion import confusions
from timesformer.evaluation.evaluate import EvalResult
from timesformer.evaluation.frame_order import COMPARED, FRAME_ORDERS, FrameOrder, one_frame_share_percent
from timesformer.heads import Heads, Labels
from timesformer_experiments.analysis.grouped import accuracy_of, clusters_by_video, of_class, right_by_video
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
    right = {order: right_by_video(result.per_video) for order, result in results.items()}
    rows = [{"head": None, "class": ALL, **_row(right, results["normal"].per_video)}]
    counted = confusions(results["normal"].per_video, labels, heads, classes)
    for place, each in enumerate(counted):
        for number, name in enumerate(each.classes):
            frames = {order: of_class(result.per_video, place, number) for order, result in results.items()}
            hits = {order: right_by_video(frame, place) for order, frame in frames.items()}
            rows.append({"head": each.head, "class": name, **_row(hits, frames["normal"])})
    return rows


def _row(right: Mapping[FrameOrder, Mapping[str, bool]], per_video: pd.DataFrame) -> dict[str, Any]:
    row: dict[str, Any] = {"videos": len(per_video)}
    percent: dict[FrameOrder, float] = {}
    clusters = clusters_by_video(per_video)
    for order in FRAME_ORDERS:
        row |= dict.fromkeys((f"{order}_percent", f"{order}_low_percent", f"{order}_high_percent"))
        if len(per_video):
            estimate, low, high = accuracy_of(right[order], clusters)
            percent[order] = estimate.mean
            row |= {f"{order}_percent": estimate.mean, f"{order}_low_percent": low, f"{order}_high_percent": high}
            row["groups"] = estimate.clusters
    for name, (first, second) in COMPARED.items():
        stem = name.removesuffix("_points")
        row |= dict.fromkeys((name, f"{stem}_low_points", f"{stem}_high_points"))
        if len(per_video):
            found = crossed_difference({0: right[first]}, {0: right[second]}, clusters)
            low, high = found.videos_interval() or (None, None)
            row["note"] = found.few_groups()
            row |= {name: found.mean, f"{stem}_low_points": low, f"{stem}_high_points": high}
    row["one_frame_share_percent"] = one_frame_share_percent(percent) if len(per_video) else None
    return row


def order_table(rows: Sequence[Mapping[str, Any]], name: str) -> Table:
    """The rows as they are read; the frame also has a 95 % interval of each accuracy, Wilson's or over groups."""
    columns = [Column("class", "Class", "label"), Column("videos", "Videos", "counted", decimals=0)]
    if any(row["head"] for row in rows):
        columns.insert(0, Column("head", "Head", "label"))
    for order in FRAME_ORDERS:
        columns.append(Column(f"{order}_percent", f"{order} [%]", "measured"))
    for key, title in TITLES.items():
        stem = key.removesuffix("_points")
        columns.append(Column(key, title, "measured", bounds=(f"{stem}_low_points", f"{stem}_high_points")))
    columns.append(Column("one_frame_share_percent", "One frame: middle / normal [%]", "measured"))
    groups, videos = rows[0].get("groups"), rows[0]["videos"]
    averaged = "" if groups in (None, videos) else f", mean over {groups} groups of test videos"
    few = f"; {rows[0]['note']}" if rows[0].get("note") else ""
    caption = (
        f"{name}: top-1 accuracy{averaged} by the order of frames; differences with 95 % intervals over groups of test "
        f"videos, for this very model{few}"
    )
    return Table(pd.DataFrame(rows), tuple(columns), caption, measured="measured here")
