"""Test videos that a run classified correctly, as bits in its record: tests over videos need only the record."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from timesformer.evaluation.scores import read_scores
from timesformer_experiments.records.folder import RunFolder

FIELD = "test_right"


def with_hits(record: Mapping[str, Any], runs: Path) -> dict[str, Any]:
    """The record with `test_right`, if its run has left scores: a bit for each test video in the order of their paths,
    as hexadecimal digits of whole bytes."""
    scores = RunFolder(runs, str(record["hash"])).scores
    if not scores.is_file():
        return dict(record)
    rows = read_scores(scores).per_video.sort_values("path")
    right = [bool(np.array_equal(a, b)) for a, b in zip(rows["prediction"], rows["label"], strict=True)]
    return {**record, FIELD: np.packbits(right).tobytes().hex()}


def hits_of(record: Mapping[str, Any]) -> dict[str, bool]:
    """By test video whether it was right; none where the record does not say.

    The videos' names begin with the test set's fingerprint, so that those of different sets are never taken for one
    another.
    """
    if FIELD not in record:
        return {}
    evaluated = record["dataset"][record.get("evaluated_on") or "test"]
    count, prefix = int(record["metrics"]["test_videos"]), evaluated["fingerprint"]
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(record[FIELD]), np.uint8), count=count)
    return {f"{prefix}:{number:06d}": bool(bit) for number, bit in enumerate(bits)}
