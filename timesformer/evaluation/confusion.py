"""Accuracy of each class, and which classes are taken for which others."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from timesformer.heads import Heads, Labels, default_labels
from timesformer.intervals import wilson_interval

MOST_CLASSES = 100
"""With more classes the matrix is left out, and each class keeps its number of videos and of right ones."""


@dataclass(frozen=True)
class Confusion:
    """The predictions of a head.

    head: its name, None where there is one; classes: their names; videos, right: of each true class; counts: (true
    class, predicted class), None where there are more than `MOST_CLASSES`.
    """

    head: str | None
    classes: tuple[str, ...]
    videos: np.ndarray
    right: np.ndarray
    counts: np.ndarray | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data: head and classes, and counts, a row a true class, or else videos and right of each class."""
        plain: dict[str, Any] = {"head": self.head, "classes": list(self.classes)}
        if self.counts is not None:
            return plain | {"counts": self.counts.tolist()}
        return plain | {"videos": self.videos.tolist(), "right": self.right.tolist()}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "Confusion":
        """Read what `to_dict` gave."""
        classes = tuple(plain["classes"])
        if "counts" not in plain:
            return cls(plain["head"], classes, np.array(plain["videos"]), np.array(plain["right"]), None)
        counts = np.array(plain["counts"], dtype=np.int64).reshape(len(classes), len(classes))
        return cls(plain["head"], classes, counts.sum(1), counts.diagonal().copy(), counts)

    def __add__(self, other: "Confusion") -> "Confusion":
        """The counts of both, of the same head and classes."""
        assert (self.head, self.classes) == (other.head, other.classes)
        counts = None if self.counts is None or other.counts is None else self.counts + other.counts
        return Confusion(self.head, self.classes, self.videos + other.videos, self.right + other.right, counts)

    def rows(self) -> list[dict[str, Any]]:
        """A row a class: head, class, videos, right, and accuracy with Wilson's 95 % interval, None without videos."""
        found = []
        for name, videos, right in zip(self.classes, self.videos.tolist(), self.right.tolist(), strict=True):
            low, high = wilson_interval(right, videos) if videos else (None, None)
            found.append(
                {
                    "head": self.head,
                    "class": name,
                    "videos": videos,
                    "right": right,
                    "top1_percent": 100 * right / videos if videos else None,
                    "top1_low_percent": low,
                    "top1_high_percent": high,
                }
            )
        return found


def confusions(per_video: pd.DataFrame, labels: Labels | None, heads: Heads, classes: int) -> list[Confusion]:
    """Count the rows of `EvalResult.per_video`, for each head by itself.

    labels: class names, by default `class 0`, …; classes: of a model with one head.
    """
    label, prediction = (
        np.array(per_video[name].tolist()).reshape(len(per_video), -1) for name in ("label", "prediction")
    )
    sizes = heads or (classes,)
    named = labels if labels is not None else default_labels(sizes)
    by_head: Sequence[tuple[str | None, list[str]]] = (
        list(named.items()) if isinstance(named, dict) else [(None, named)]
    )
    return [_count(head, names, label[:, place], prediction[:, place]) for place, (head, names) in enumerate(by_head)]


def _count(head: str | None, names: list[str], label: np.ndarray, prediction: np.ndarray) -> Confusion:
    size = len(names)
    videos, right = (np.bincount(which, minlength=size) for which in (label, label[label == prediction]))
    counts = None
    if size <= MOST_CLASSES:
        counts = np.bincount(label * size + prediction, minlength=size * size).reshape(size, size)
    return Confusion(head, tuple(names), videos, right, counts)
