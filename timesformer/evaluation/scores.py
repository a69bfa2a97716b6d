"""Scores of each video in a parquet file, keyed by path, with what they were measured with; and averages of several.

A file has a row per evaluated video: index, path (as the annotation file names it), label, prediction, scores (a list:
probabilities where the merge is mean_softmax, else logits).  Its metadata holds, as JSON under `timesformer`, whatever
the writer stated: protocol, views and merge, for `timesformer evaluate` also the checkpoint and the fingerprint of the
data.  With several heads (`heads` in the metadata: their classes) label and prediction are lists, and scores hold the
heads one after the other.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet as parquet

from timesformer.errors import InputError
from timesformer.intervals import wilson_interval

KEY = b"timesformer"
COLUMNS = ("path", "label", "prediction", "scores")


@dataclass(frozen=True)
class Scores:
    """per_video: the rows of a file; metadata: what they were measured with."""

    per_video: pd.DataFrame
    metadata: dict[str, Any]

    @property
    def heads(self) -> tuple[int, ...]:
        """The number of classes of each of several heads; () for one."""
        return tuple(self.metadata.get("heads", ()))

    def accuracy(self) -> dict[str, float | int | None]:
        """top1_percent and top5_percent (None below 5 classes, and with several heads, of which all must be right),
        each with low and high of Wilson's 95 % interval; videos."""
        scores, label = np.array(self.per_video["scores"].tolist()), np.array(self.per_video["label"].tolist())
        right = _predict(scores, self.heads) == label
        hits: dict[int, int | None] = {1: int(right.reshape(len(right), -1).all(1).sum()), 5: None}
        if not self.heads and scores.shape[1] >= 5:
            # Of equal scores the first class counts as the higher one.
            first = np.argsort(-scores, axis=1, kind="stable")[:, :5]
            hits[5] = int((first == label[:, None]).any(1).sum())
        found: dict[str, float | int | None] = {"videos": len(label)}
        for k, count in hits.items():
            low, high = (None, None) if count is None else wilson_interval(count, len(label))
            found[f"top{k}_percent"] = None if count is None else 100 * count / len(label)
            found[f"top{k}_low_percent"], found[f"top{k}_high_percent"] = low, high
        return found


def _predict(scores: np.ndarray, heads: tuple[int, ...]) -> np.ndarray:
    """The class of the highest score (n,), of each of several heads (n, heads)."""
    if not heads:
        return scores.argmax(1)
    return np.stack([part.argmax(1) for part in np.split(scores, np.cumsum(heads)[:-1], axis=1)], axis=1)


def write_scores(path: Path, per_video: pd.DataFrame, metadata: dict[str, Any]) -> None:
    """Write a parquet file, with `metadata` as JSON among the file's own."""
    table = pyarrow.Table.from_pandas(per_video, preserve_index=False)
    stated = json.dumps(metadata, ensure_ascii=False, allow_nan=False).encode()
    parquet.write_table(table.replace_schema_metadata({**(table.schema.metadata or {}), KEY: stated}), path)


def read_scores(path: Path | str) -> Scores:
    """Read a file of `write_scores`.  Raises InputError for a missing file and for one without scores of videos."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file of scores")
    try:
        table = parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable parquet file ({' '.join(str(error).split())})") from error
    stated = (table.schema.metadata or {}).get(KEY)
    missing = [name for name in COLUMNS if name not in table.column_names]
    if stated is None or missing:
        lacking = f"no column {missing[0]!r}" if missing else "nothing says what they were measured with"
        raise InputError(f"{path}: not a file of scores that `timesformer evaluate` wrote ({lacking})")
    return Scores(table.to_pandas(), json.loads(stated))


def merge_scores(files: Sequence[Path | str]) -> Scores:
    """The mean of several files' scores of the same videos: of two protocols, say, or of two models.

    Rows are matched by path and come in the first file's order; the prediction is that of the mean.

    Raises InputError if the files differ in videos, labels, number of classes or in how views were merged
    (probabilities and logits have no common mean), and where a path occurs twice.
    """
    if len(files) < 2:
        raise InputError(f"merge_scores: expected at least two files, got {len(files)}")
    parts = [read_scores(file) for file in files]
    first, name = parts[0], files[0]
    for part, file in zip(parts, files, strict=True):
        _require_alike(first, part, name, file)
    paths = first.per_video["path"]
    stacked = [np.array(part.per_video.set_index("path").loc[paths, "scores"].tolist()) for part in parts]
    mean = np.mean(stacked, axis=0)
    frame = first.per_video.assign(prediction=_predict(mean, first.heads).tolist(), scores=mean.tolist())
    stated = {"protocol": "mean of files", "merge": first.metadata.get("merge"), "heads": list(first.heads)}
    return Scores(frame, stated | {"merged_from": [part.metadata for part in parts]})


def _require_alike(first: Scores, other: Scores, name: Path | str, file: Path | str) -> None:
    ours, theirs = first.per_video["path"], other.per_video["path"]
    if theirs.duplicated().any():
        raise InputError(f"{file}: the path {theirs[theirs.duplicated()].iloc[0]!r} occurs twice")
    for have, lack, these, those in ((name, file, ours, theirs), (file, name, theirs, ours)):
        some = sorted(set(these) - set(those))
        if some:
            more = f" and {len(some) - 1} more" if len(some) > 1 else ""
            raise InputError(f"{lack}: has no scores of {some[0]!r}{more}, which {have} has")
    if first.metadata.get("merge") != other.metadata.get("merge"):
        raise InputError(
            f"{file}: views are merged by {other.metadata.get('merge')}, in {name} by {first.metadata.get('merge')}; "
            "evaluate both with the same --merge"
        )
    frames = (first.per_video, other.per_video)
    labels = [dict(zip(frame["path"], map(_plain, frame["label"]), strict=True)) for frame in frames]
    unequal = [path for path in ours if labels[0][path] != labels[1][path]]
    if unequal:
        raise InputError(f"{file}: {unequal[0]!r} has label {labels[1][unequal[0]]}, in {name} {labels[0][unequal[0]]}")
    classes = [(*part.heads, len(part.per_video["scores"].iloc[0])) for part in (first, other)]
    if classes[0] != classes[1]:
        raise InputError(f"{file}: its scores are of {classes[1][-1]} classes, those of {name} of {classes[0][-1]}")


def _plain(label: Any) -> Any:
    """An array of labels (one a head) as a list."""
    return label.tolist() if isinstance(label, np.ndarray) else label
