"""Correct videos of each run, and tests between the schemes of a sweep that use them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from timesformer.errors import InputError
from timesformer.evaluation.scores import read_scores
from timesformer_experiments.analysis.axes import CELL, Axes, groups
from timesformer_experiments.analysis.pairs import Comparison, compare, judged
from timesformer_experiments.analysis.seeds import Seeds
from timesformer_experiments.records.folder import RunFolder
from timesformer_experiments.records.hits import groups_of, join_clusters, names_of, right_of
from timesformer_experiments.records.read import HASH_NAMED, find_records
from timesformer_experiments.report.tables import missing

RIGHT = "right.parquet"
"""File beside a log that stores, for each run and video, whether the prediction was correct."""
ACCURACY = "top1_percent"


class Right(dict[str, dict[str, bool]]):
    """{hash of the run: {video: whether the prediction was correct}}.

    groups: {hash of the run: {video: its group}}, where that is known.
    """

    def __init__(self, found: Mapping[str, dict[str, bool]] | None = None) -> None:
        super().__init__(found or {})
        self.groups: dict[str, dict[str, str]] = {}

    def add(self, key: str, rows: pd.DataFrame) -> None:
        """Add a run's videos: `path`, `right` and, where that is known, `group`."""
        ordered = rows.sort_values("path", kind="stable")
        names = names_of(ordered["path"].astype(str).tolist())
        self[key] = dict(zip(names, ordered["right"].astype(bool).tolist(), strict=True))
        if "group" in ordered and ordered["group"].notna().all():
            self.groups[key] = dict(zip(names, ordered["group"].astype(str), strict=True))


def read_right(folder: Path, frame: pd.DataFrame) -> Right:
    """Read which videos the runs had right, and the videos' groups, from the runs' scores, else beside their log.

    Raises InputError if a file is broken, or does not agree with the record of its run.
    """
    found = Right()
    for log in frame["log"].unique():
        place = (folder / log).parent if folder.is_dir() else folder.parent
        kept = _kept(place / RIGHT)
        for row in frame[(frame["log"] == log) & (frame["outcome"] == "done")].itertuples():
            key = str(row.hash)
            scores = RunFolder(place, key).scores
            source = scores
            if HASH_NAMED.fullmatch(key) and scores.is_file():
                rows = read_scores(scores).per_video
                found.add(key, rows.assign(right=right_of(rows)))
            elif key in kept:
                source = place / RIGHT
                found.add(key, kept[key])
            else:
                continue
            _require_agreement(found[key], getattr(row, ACCURACY, None), source)
    return found


def _kept(path: Path) -> dict[str, pd.DataFrame]:
    if not path.is_file():
        return {}
    try:
        rows = pd.read_parquet(path)
        rows = rows[["hash", "path", "right", *(["group"] if "group" in rows else [])]]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: not a readable file of predictions ({' '.join(str(error).split())})") from error
    return {str(key): part for key, part in rows.groupby("hash", sort=False, observed=True)}


def _require_agreement(right: dict[str, bool], percent: float | None, path: Path) -> None:
    if percent is None or not right:
        return
    ours = 100 * sum(right.values()) / len(right)
    if abs(ours - percent) > 1e-6:
        raise InputError(f"{path}: {ours:.4f} % of the videos are right in it, its run's record says {percent:.4f} %")


def right_frame(right: Right) -> pd.DataFrame:
    """Return the frame that is stored in `RIGHT`: hash, path and right, and group where runs have groups."""
    rows = [
        (key, path, found[path], right.groups.get(key, {}).get(path))
        for key, found in right.items()
        for path in sorted(found)
    ]
    frame = pd.DataFrame(rows, columns=["hash", "path", "right", "group"])
    if frame["group"].isna().all():
        frame = frame.drop(columns="group")
    return frame.astype({name: "category" for name in frame if name != "right"})


def compare_all(frame: pd.DataFrame, axes: Axes, right: Right, untested: str = "") -> list[Comparison]:
    """Every two values of the compared axis, where the other axes are equal, judged as one family.

    Without scores the test is over the accuracies of the seeds.  Pairs without a common seed are left out.
    untested: why none of them may be tested, such as a number of seeds that depends on their results.
    """
    if axes.compared is None or ACCURACY not in frame:
        return []
    done = frame[(frame["outcome"] == "done") & frame[ACCURACY].notna()]
    found = []
    for _, setting in groups(done, axes.others):
        place = axes.values(setting.iloc[0].to_dict(), axes.others)
        runs = {key[0]: seeds_of(part, right) for key, part in groups(setting, [axes.compared])}
        for (first, one), (second, other) in itertools.combinations(runs.items(), 2):
            if set(one.percent) & set(other.percent):
                found.append(compare(one, other, names=(str(first), str(second)), setting=place))
    return [replace(each, untested=untested) for each in found] if untested else judged(found)


def seeds_of(rows: pd.DataFrame, right: Right) -> Seeds:
    """Return what the finished runs of one setting say of accuracy, by seed.

    Raises InputError where two of them have the same seed.
    """
    percent, hits = dict[int, float](), dict[int, dict[str, bool]]()
    clusters, own = dict[str, str](), dict[int, tuple[float, float]]()
    for row in rows.astype(object).to_dict(orient="records"):
        seed = int(row["seed"])
        if seed in percent:
            raise InputError(
                f"{row['log']}: two runs with seed {seed} do not differ in any axis: {row['name']} (of the runs of "
                "`timesformer reproduce` it makes the report itself: `timesformer report NAME`)"
            )
        percent[seed] = float(row[ACCURACY])
        low: Any = row.get("top1_low_percent")
        high: Any = row.get("top1_high_percent")
        if not (missing(low) or missing(high)):
            own[seed] = (float(low), float(high))
        if videos := right.get(str(row["hash"])):
            hits[seed], groups_ = _named(row, videos, right.groups.get(str(row["hash"])))
            join_clusters(clusters, groups_)
    return Seeds(percent, hits, clusters, own)


def on_different_videos(results: pd.DataFrame, axes: Axes, folder: Path) -> int:
    """Return the number of finished runs whose data the axes do not tell apart, though their videos differ."""
    records = {found.record["hash"]: found.record["dataset"].get("identity") for found in find_records(folder)}
    data = [column for column in axes.columns if column.removeprefix(CELL).startswith("data.")]
    mixed = 0
    for _, runs in groups(results[results["outcome"] == "done"], data):
        states: dict[bool, list[tuple[str, str]]] = {}  # digests of all bytes and of samples cannot be compared
        for identity in map(records.get, runs["hash"]):
            if identity is not None and identity["kind"] == "files":
                states.setdefault(identity["full"], []).append(
                    (identity["train"], identity.get("test") or identity["validation"])
                )
        mixed += sum(len(found) for found in states.values() if len(set(found)) > 1)
    return mixed


def _named(
    row: dict[Any, Any], videos: Mapping[str, bool], kept: Mapping[str, str] | None
) -> tuple[dict[str, bool], dict[str, str]]:
    """Hits and groups of a run's test videos; their names begin with the test set's fingerprint, so that those of
    different sets are never taken for one another."""
    split = row.get("evaluated_on")
    prefix = row.get(f"dataset.{'test' if missing(split) else split}.fingerprint")
    names = sorted(videos)
    data = {str(key).removeprefix("data."): _plain(value) for key, value in row.items() if str(key).startswith("data.")}
    members = groups_of(data, len(names), None if kept is None else [kept[name] for name in names])
    named = {name: f"{prefix}:{name}" for name in names}
    groups_ = {named[name]: f"{prefix}:{group}" for name, group in zip(names, members, strict=True)}
    return {named[name]: videos[name] for name in names}, groups_


def _plain(value: Any) -> Any:
    """A dial's value as the run's file has it; None where there is none."""
    if missing(value):
        return None
    return json.loads(value) if isinstance(value, str) and value[:1] in "[{" else value
