"""Files of scores by video (parquet) with the conditions of their evaluation, and averages of several files.

A file has a row per evaluated video: index, path (as in the annotation file), label, prediction, scores (a list:
probabilities where the merge is mean_softmax, else logits), and group if the data have groups.  Its metadata holds, as
JSON under `timesformer`, protocol, views, merge and order of frames; `timesformer evaluate` adds the checkpoint and the
fingerprint of the data.  With several heads (`heads` in the metadata: their numbers of classes), label and prediction
are lists, and scores hold the heads one after the other.
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
    """Scores of a file.

    per_video: rows of the file; metadata: conditions of the evaluation
    """

    per_video: pd.DataFrame
    metadata: dict[str, Any]

    @property
    def heads(self) -> tuple[int, ...]:
        """Number of classes of each of several heads; () for a single head."""
        return tuple(self.metadata.get("heads", ()))

    def accuracy(self) -> dict[str, float | int | None]:
        """Compute top1_percent and top5_percent, each with low and high of Wilson's 95 % interval, and videos.

        With several heads, a video is correct if all heads are.  top5_percent is None then, and below 5 classes.
        """
        scores, label = np.array(self.per_video["scores"].tolist()), np.array(self.per_video["label"].tolist())
        right = _predict(scores, self.heads) == label
        hits: dict[int, int | None] = {1: int(right.reshape(len(right), -1).all(1).sum()), 5: None}
        if not self.heads and scores.shape[1] >= 5:
            # Of equal scores, that of the first class counts as higher.
            first = np.argsort(-scores, axis=1, kind="stable")[:, :5]
            hits[5] = int((first == label[:, None]).any(1).sum())
        found: dict[str, float | int | None] = {"videos": len(label)}
        for k, count in hits.items():
            low, high = (None, None) if count is None else wilson_interval(count, len(label))
            found[f"top{k}_percent"] = None if count is None else 100 * count / len(label)
            found[f"top{k}_low_percent"], found[f"top{k}_high_percent"] = low, high
        return found


def _predict(scores: np.ndarray, heads: tuple[int, ...]) -> np.ndarray:
    """Class with the highest score, (n,), or (n, heads) with several heads."""
    if not heads:
        return scores.argmax(1)
    return np.stack([part.argmax(1) for part in np.split(scores, np.cumsum(heads)[:-1], axis=1)], axis=1)


def write_scores(path: Path, per_video: pd.DataFrame, metadata: dict[str, Any]) -> None:
    """Write a parquet file, with `metadata` as JSON in the metadata of the file."""
    table = pyarrow.Table.from_pandas(per_video, preserve_index=False)
    stated = json.dumps(metadata, ensure_ascii=False, allow_nan=False).encode()
    parquet.write_table(table.replace_schema_metadata({**(table.schema.metadata or {}), KEY: stated}), path)


def read_scores(path: Path | str) -> Scores:
    """Read a file of `write_scores`.

    Raises:
        InputError: the file is missing, or holds no scores of videos.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: expected an existing file of scores")
    try:
        table = parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: expected a readable parquet file ({' '.join(str(error).split())})") from error
    stated = (table.schema.metadata or {}).get(KEY)
    missing = [name for name in COLUMNS if name not in table.column_names]
    if stated is None or missing:
        lacking = f"column {missing[0]!r} is missing" if missing else f"metadata {KEY.decode()!r} is missing"
        raise InputError(f"{path}: expected a file of scores that `timesformer evaluate` wrote ({lacking})")
    return Scores(table.to_pandas(), json.loads(stated))


def merge_scores(files: Sequence[Path | str]) -> Scores:
    """Average the scores of several files for the same videos, for example of two protocols or of two models.

    Rows are matched by path and keep the order of the first file; the prediction is that of the mean.

    Raises:
        InputError: fewer than two files, a path that occurs twice, or files that differ in videos, labels, number of
            classes or merge (probabilities and logits have no common mean).
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
    orders = [part.metadata.get("frame_order", "normal") for part in (first, other)]
    if orders[0] != orders[1]:
        raise InputError(f"{file}: its frames are in the order {orders[1]}, those of {name} in the order {orders[0]}")
    ours, theirs = first.per_video["path"], other.per_video["path"]
    if theirs.duplicated().any():
        raise InputError(f"{file}: expected each path once, {theirs[theirs.duplicated()].iloc[0]!r} occurs twice")
    for have, lack, these, those in ((name, file, ours, theirs), (file, name, theirs, ours)):
        some = sorted(set(these) - set(those))
        if some:
            more = f" and {len(some) - 1} more" if len(some) > 1 else ""
            raise InputError(f"{lack}: expected scores of {some[0]!r}{more}, as in {have}")
    if first.metadata.get("merge") != other.metadata.get("merge"):
        raise InputError(
            f"{file}: expected merge {first.metadata.get('merge')}, as in {name}, got {other.metadata.get('merge')}; "
            "evaluate both with the same --merge"
        )
    frames = (first.per_video, other.per_video)
    labels = [dict(zip(frame["path"], map(_plain, frame["label"]), strict=True)) for frame in frames]
    unequal = [path for path in ours if labels[0][path] != labels[1][path]]
    if unequal:
        expected, got = labels[0][unequal[0]], labels[1][unequal[0]]
        raise InputError(f"{file}: expected label {expected} for {unequal[0]!r}, as in {name}, got {got}")
    classes = [(*part.heads, len(part.per_video["scores"].iloc[0])) for part in (first, other)]
    if classes[0] != classes[1]:
        raise InputError(f"{file}: expected scores of {classes[0][-1]} classes, as in {name}, got {classes[1][-1]}")


def _plain(label: Any) -> Any:
    """Convert an array of labels (one per head) to a list; return any other label unchanged."""
    return label.tolist() if isinstance(label, np.ndarray) else label
