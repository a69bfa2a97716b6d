"""Accuracy of one model on test videos that belong together: groups are averaged first, and count the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from timesformer.intervals import wilson_interval
from timesformer_experiments.analysis.statistics.estimators import Estimate, crossed_mean


def right_by_video(per_video: pd.DataFrame, place: int | None = None) -> dict[str, bool]:
    """By video whether it is right: in all heads, or in one."""
    shape = (len(per_video), -1) if len(per_video) else (0, 1)
    same = np.equal(*(np.array(per_video[name].tolist()).reshape(shape) for name in ("label", "prediction")))
    hits = same.all(1) if place is None else same[:, place]
    return dict(zip(per_video["index"].astype(str), hits.tolist(), strict=True))


def of_class(per_video: pd.DataFrame, place: int, number: int) -> pd.DataFrame:
    """Return the videos of a class of a head."""
    labels = np.array(per_video["label"].tolist()).reshape(len(per_video), -1)
    return per_video[labels[:, place] == number]


def clusters_by_video(per_video: pd.DataFrame) -> dict[str, str]:
    """Return the group of each video, by default its own."""
    groups = per_video["group"] if "group" in per_video else per_video["index"]
    return dict(zip(per_video["index"].astype(str), groups.astype(str), strict=True))


def accuracy_of(right: Mapping[str, bool], clusters: Mapping[str, str]) -> tuple[Estimate, float | None, float | None]:
    """Return the mean over groups with the ends of its 95 % interval for new videos and this very model.

    Wilson's, where each video is a group of its own; else over groups, or over the videos of few given ones.
    """
    found = crossed_mean({0: {name: float(hit) for name, hit in right.items()}}, clusters)
    if found.clusters == found.videos:
        return found, *wilson_interval(sum(right.values()), len(right))
    low, high = found.videos_interval() or (None, None)
    return found, low, high


def grouped_accuracy(per_video: pd.DataFrame) -> dict[str, Any]:
    """Return figures beside a model's accuracy: groups, mean over them, interval, and what restricts it.

    Empty where the data have no groups.
    """
    if "group" not in per_video:
        return {}
    found, low, high = accuracy_of(right_by_video(per_video), clusters_by_video(per_video))
    return {
        "groups": found.clusters,
        "group_top1_percent": found.mean,
        "group_top1_low_percent": low,
        "group_top1_high_percent": high,
        "group_note": found.few_groups(),
    }
