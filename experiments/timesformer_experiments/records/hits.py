"""Test videos that a run had right, and which of them belong together: tests over videos need only the record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from timesformer.data.probes import KINDS, make_kind
from timesformer.data.probes.kind import Kind
from timesformer.errors import InputError
from timesformer.evaluation.confusion import Confusion
from timesformer.evaluation.scores import read_scores
from timesformer_experiments.records.folder import RunFolder

FIELD, GROUPS = "test_right", "test_groups"
TEST = 1
"""The split of a probe's test clips."""


def with_hits(record: Mapping[str, Any], runs: Path) -> dict[str, Any]:
    """The record with `test_right` and, of videos that belong together, `test_groups`, if its run has left scores."""
    scores = RunFolder(runs, str(record["hash"])).scores
    return {**record, **hits_fields(read_scores(scores).per_video)} if scores.is_file() else dict(record)


def hits_fields(per_video: pd.DataFrame) -> dict[str, Any]:
    """Return the fields of a record from the rows of its test videos.

    test_right: a bit for each video in the order of their paths, as hexadecimal digits of whole bytes.  test_groups:
    the number of the group of each, in the same order; left out where every video is its own.
    """
    rows = per_video.sort_values("path", kind="stable")
    found: dict[str, Any] = {FIELD: np.packbits(right_of(rows)).tobytes().hex()}
    if "group" in rows and rows["group"].duplicated().any():
        found[GROUPS] = pd.factorize(rows["group"].astype(str))[0].tolist()
    return found


def right_of(rows: pd.DataFrame) -> list[bool]:
    """Return of each row whether it is right, in all heads."""
    return [bool(np.array_equal(a, b)) for a, b in zip(rows["prediction"], rows["label"], strict=True)]


def names_of(paths: Sequence[str]) -> list[str]:
    """Return a name for each video: its path, with a number where a list names it more than once."""
    seen: Counter[str] = Counter()
    found = []
    for path in paths:
        seen[path] += 1
        found.append(path if seen[path] == 1 else f"{path}#{seen[path]}")
    return found


def hits_of(record: Mapping[str, Any]) -> dict[str, bool]:
    """By test video whether it was right; none where the record does not say.

    The videos' names begin with the test set's fingerprint, so that those of different sets are never taken for one
    another.  Raises InputError for fewer bits than videos.
    """
    if FIELD not in record:
        return {}
    count, prefix = int(record["metrics"]["test_videos"]), _fingerprint(record)
    bits = np.frombuffer(bytes.fromhex(record[FIELD]), np.uint8)
    if len(bits) != -(-count // 8):
        raise InputError(f"run {record['hash']}: {FIELD}: expected a bit for each of {count} test videos")
    return {f"{prefix}:{number:06d}": bool(bit) for number, bit in enumerate(np.unpackbits(bits, count=count))}


def _fingerprint(record: Mapping[str, Any]) -> str:
    return str(record["dataset"][record.get("evaluated_on") or "test"]["fingerprint"])


def groups_of(data: Mapping[str, Any], count: int, kept: Sequence[Any] | None = None) -> list[str]:
    """Return the group of each of `count` test videos, in the order of their paths, from a run's data as the record
    has it: videos that belong together (a clip and its reversal, clips of a subject) are one group, others a group
    each.

    The kind of a probe says what belongs together; of other data, `kept` does: what the annotation had.
    """
    if data.get("probe") in KINDS:
        return _kind_of(data).groups(TEST, count)
    if kept is not None:
        return [str(each) for each in kept]
    return [f"{number:06d}" for number in range(count)]


def _kind_of(data: Mapping[str, Any]) -> Kind:
    known = fields(KINDS[data["probe"]])
    dials = {field.name: data[field.name] for field in known if data.get(field.name) is not None}
    return make_kind(data["probe"], dials)


def clusters_of(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the group of each test video by its name, both as in `hits_of`; none where the record does not say which
    were right.

    Raises InputError for fewer groups than videos.
    """
    names, kept = list(hits_of(record)), record.get(GROUPS)
    if kept is not None and len(kept) != len(names):
        raise InputError(f"run {record['hash']}: {GROUPS}: expected one for each of {len(names)} test videos")
    groups = groups_of(record["spec"].get("data", {}), len(names), kept)
    return {name: f"{name.partition(':')[0]}:{group}" for name, group in zip(names, groups, strict=True)}


def join_clusters(known: dict[str, str], more: Mapping[str, str]) -> None:
    """Add the groups of test videos to those that are known.  Raises InputError where a video is in another group."""
    for name, group in more.items():
        if known.setdefault(name, group) != group:
            raise InputError(
                f"test video {name.partition(':')[2]}: in group {group.partition(':')[2]!r} of one run and in "
                f"{known[name].partition(':')[2]!r} of another (expected the same groups wherever runs are compared)"
            )


def confusions_of(record: Mapping[str, Any]) -> list[Confusion]:
    """Return what the record says of each class, for each head; empty where it does not.

    Records of probes that lack a confusion have, by `test_right`, which videos of each class were right, though not
    what the others were taken for.
    """
    if record.get("confusion"):
        return [Confusion.from_dict(plain) for plain in record["confusion"]]
    data, right = record["spec"].get("data", {}), list(hits_of(record).values())
    if data.get("probe") not in KINDS or not right:
        return []
    kind = _kind_of(data)
    labels = [clip.label for clip in sorted(kind.clips(TEST, len(right)), key=lambda clip: clip.name)]
    if len(labels) != len(right) or len(kind.labels) != record["spec"]["model"]["num_classes"]:
        return []
    size = len(kind.labels)
    videos, hits = np.bincount(labels, minlength=size), np.bincount(labels, weights=right, minlength=size)
    return [Confusion(None, tuple(kind.labels), videos, hits.astype(np.int64), None)]
