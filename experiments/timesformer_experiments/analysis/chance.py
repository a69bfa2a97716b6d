"""Chance: the accuracy of a model that has learned nothing, and which settings are above it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

CHANCE, ABOVE = "chance_percent", "above_chance"
"""Columns of a summary: the accuracy of a constant answer, and "yes" or "no" where that is known."""


def chance_of(record: Mapping[str, Any]) -> float | None:
    """Return the accuracy [percent] of a record's best constant answer; None where nothing says how many classes.

    It is the share of the most frequent class among the evaluated videos, or one class of all where the record does
    not say how frequent they are.
    """
    split = record.get("dataset", {}).get(record.get("evaluated_on") or "test") or {}
    counts = list((split.get("labels") or {}).values())
    if counts and sum(counts):
        return 100 * max(counts) / sum(counts)
    classes = record.get("spec", {}).get("model", {}).get("num_classes")
    heads = classes if isinstance(classes, list) else [classes]
    return 100 / math.prod(heads) if heads and all(isinstance(count, int) for count in heads) else None


def judged_against(done: pd.DataFrame, low: float, chance: Mapping[str, float]) -> dict[str, Any]:
    """Return chance and whether a setting is above it, for the columns of a summary.

    low: lower end of the setting's interval [percent].  A setting is above chance where its interval is, or where the
    interval over test videos of every one of its runs is: two seeds have a wide interval, however good they are.
    """
    known = [chance[key] for key in done["hash"] if key in chance]
    if not known:
        return {CHANCE: math.nan, ABOVE: None}
    level = max(known)
    ends = done["top1_low_percent"] if "top1_low_percent" in done else pd.Series(dtype=float)
    each = len(ends) > 0 and bool((ends > level).all())
    return {CHANCE: level, ABOVE: "yes" if each or low > level else "no"}


def above_chance(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the settings of a summary that are above chance, or of which it is not known."""
    return rows[rows[ABOVE] != "no"] if ABOVE in rows else rows
