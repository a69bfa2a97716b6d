"""Test videos that a run classified correctly, as bits in its record: tests over videos need only the record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from timesformer.data.probes import KINDS, make_kind
from timesformer.evaluation.scores import read_scores
from timesformer_experiments.records.folder import RunFolder

FIELD = "test_right"
TEST = 1
"""The split of a probe's test clips."""


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


def groups_of(data: Mapping[str, Any], count: int) -> list[str]:
    """Return the group of each of `count` test videos, in the order of their paths, from a run's data as the record
    has it: videos that belong together (a clip and its reversal) are one group, others a group each.

    The kind of a probe says what belongs together; of other data the record does not say it.
    """
    if data.get("probe") not in KINDS:
        return [f"{number:06d}" for number in range(count)]
    dials = {field.name: data[field.name] for field in fields(KINDS[data["probe"]]) if data.get(field.name) is not None}
    return make_kind(data["probe"], dials).groups(TEST, count)


def clusters_of(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the group of each test video by its name, both as in `hits_of`; none where the record does not say which
    were right."""
    names = list(hits_of(record))
    groups = groups_of(record["spec"].get("data", {}), len(names))
    return {name: f"{name.partition(':')[0]}:{group}" for name, group in zip(names, groups, strict=True)}
