"""Correct videos of each run, and tests between the schemes of a sweep that use them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from timesformer.errors import InputError
from timesformer.evaluation.scores import read_scores
from timesformer_experiments.analysis.axes import Axes, groups
from timesformer_experiments.records.folder import RunFolder
from timesformer_experiments.records.read import HASH_NAMED
from timesformer_experiments.report.statistics import Comparison, compare, corrected

RIGHT = "right.parquet"
"""File beside a log that stores, for each run and video, whether the prediction was correct."""
ACCURACY = "top1_percent"

Right = dict[str, dict[str, bool]]


def read_right(folder: Path, frame: pd.DataFrame) -> Right:
    """Read {hash of the run: {path of the video: whether the prediction was correct}} for runs with scores.

    Raises InputError if a file is broken, or does not agree with the record of its run.
    """
    found: Right = {}
    for log in frame["log"].unique():
        place = (folder / log).parent if folder.is_dir() else folder.parent
        kept = _kept(place / RIGHT)
        for row in frame[(frame["log"] == log) & (frame["outcome"] == "done")].itertuples():
            key = str(row.hash)
            scores = RunFolder(place, key).scores
            if HASH_NAMED.fullmatch(key) and scores.is_file():
                found[key] = _of_scores(scores)
                _require_agreement(found[key], getattr(row, ACCURACY, None), scores)
            elif key in kept:
                found[key] = kept[key]
                _require_agreement(found[key], getattr(row, ACCURACY, None), place / RIGHT)
    return found


def _of_scores(path: Path) -> dict[str, bool]:
    rows = read_scores(path).per_video
    right = [bool(np.array_equal(a, b)) for a, b in zip(rows["prediction"], rows["label"], strict=True)]
    return dict(zip(rows["path"].astype(str), right, strict=True))


def _kept(path: Path) -> Right:
    if not path.is_file():
        return {}
    try:
        rows = pd.read_parquet(path, columns=["hash", "path", "right"])
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: not a readable file of predictions ({' '.join(str(error).split())})") from error
    return {
        str(key): dict(zip(part["path"].astype(str), part["right"].astype(bool), strict=True))
        for key, part in rows.groupby("hash", sort=False)
    }


def _require_agreement(right: dict[str, bool], percent: float | None, path: Path) -> None:
    if percent is None or not right:
        return
    ours = 100 * sum(right.values()) / len(right)
    if abs(ours - percent) > 1e-6:
        raise InputError(f"{path}: {ours:.4f} % of the videos are right in it, its run's record says {percent:.4f} %")


def right_frame(right: Mapping[str, Mapping[str, bool]]) -> pd.DataFrame:
    """Return the frame that is stored in `RIGHT`."""
    rows = [(key, path, found[path]) for key, found in right.items() for path in sorted(found)]
    return pd.DataFrame(rows, columns=["hash", "path", "right"]).astype({"hash": "category", "path": "category"})


def compare_all(frame: pd.DataFrame, axes: Axes, right: Right) -> list[Comparison]:
    """Compare each two values of the compared axis with all else equal, corrected for the number of comparisons.

    Without scores the test is over the accuracies of the seeds.  Pairs without a common seed are left out.
    """
    if axes.compared is None or ACCURACY not in frame:
        return []
    done = frame[(frame["outcome"] == "done") & frame[ACCURACY].notna()]
    found = []
    for _, setting in groups(done, axes.others):
        place = axes.values(setting.iloc[0].to_dict(), axes.others)
        runs = {key[0]: _by_seed(part, right) for key, part in groups(setting, [axes.compared])}
        for (first, (accuracy, shown)), (second, (other, others_shown)) in itertools.combinations(runs.items(), 2):
            if set(accuracy) & set(other):
                names = (str(first), str(second))
                found.append(compare(accuracy, other, shown, others_shown, names=names, setting=place))
    return corrected(found)


def _by_seed(rows: pd.DataFrame, right: Right) -> tuple[dict[int, float], dict[int, dict[str, bool]]]:
    """Return accuracies and correct videos, each by seed."""
    accuracies, predictions = dict[int, float](), dict[int, dict[str, bool]]()
    for row in rows.itertuples():
        seed: Any = row.seed
        if int(seed) in accuracies:
            raise InputError(
                f"{row.log}: two runs with seed {seed} do not differ in any axis: {row.name} (of the runs of "
                "`timesformer reproduce` it makes the report itself: `timesformer report NAME`)"
            )
        accuracies[int(seed)] = float(getattr(row, ACCURACY))
        if str(row.hash) in right:
            predictions[int(seed)] = right[str(row.hash)]
    return accuracies, predictions
