"""Feature extraction: representations of videos before the classifier, written to files.

In Python, for a clip (b, t, 3, H, W) that is normalised as the checkpoint's preprocessing says:

    model.features(clip)              (b, d): input of the classifier, the class token or what `pool` says
    model.forward_features(clip)      patches (b, t, h, w, d) and cls (b, d) or None, after the last norm

`write_features` does this for videos under a protocol's views.  The file states its model, data and protocol.
"""

import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import torch
from torch import Tensor

from timesformer.checkpoints import weights_sha256
from timesformer.data import Preprocessing, Sample
from timesformer.errors import InputError
from timesformer.evaluation.evaluate import Protocol, protocol_named
from timesformer.evaluation.feature_files import NpyFile, NpzFile, ParquetFile, Rows, Writer
from timesformer.evaluation.forward import computing, forward_only
from timesformer.evaluation.viewing import each_batch
from timesformer.files import write_atomic
from timesformer.models.timesformer import TimeSformer
from timesformer.progress import OnStep
from timesformer.training.recipe import Precision

NO_LABEL = -1
"""Label of a sample without a label."""

AXES = {
    "features": ("row", "channel"),
    "patches": ("row", "time", "height", "width", "channel"),
    "cls": ("row", "channel"),
}
"""Axes of the arrays.  features: the pooled vector; patches: tokens in their grid (the space scheme averages time, so
that its length is 1); cls: the class token, where the model has one."""


POOLED = {
    "class": "class token",
    "mean": "mean of the patches",
    "class+mean": "class token, then mean of the patches",
    "attentive": "attentive pooling of the patches",
}


@dataclass(frozen=True)
class Written:
    """Result of `write_features`.

    files: written files; rows: number of rows; unreadable: (path, reason) of videos that could not be read; metadata:
    metadata in the file
    """

    files: tuple[Path, ...]
    rows: int
    unreadable: list[tuple[str, str]]
    metadata: dict[str, Any]


def write_features(
    out: Path | str,
    model: TimeSformer,
    samples: Sequence[Sample],
    preprocessing: Preprocessing,
    *,
    protocol: str | Protocol = "paper",
    tokens: bool = False,
    per_view: bool = False,
    metadata: dict[str, Any] | None = None,
    batch_size: int = 8,
    workers: int = 0,
    device: torch.device | str | None = None,
    precision: Precision = "fp32",
    progress: bool | OnStep = False,
) -> Written:
    """Write a row for each video that can be read: the mean of the pooled vector over its views.

    out: .parquet (features), .npy (features or patches, the rest in a .json beside it) or .npz (everything)
    per_view: write a row for each view instead; tokens: write all tokens of each view

    Only the current batch is in memory, and the file is written atomically.  A label of -1 stands for no label.

    Raises:
        InputError: another file type, tokens for .parquet, an unknown protocol, no readable video, or a file that
            cannot be written.
    """
    out = Path(out)
    protocol = protocol if isinstance(protocol, Protocol) else protocol_named(protocol)
    if out.suffix not in (".parquet", ".npy", ".npz"):
        raise InputError(f"{out}: expected a name that ends in .parquet, .npy or .npz")
    if tokens and out.suffix == ".parquet":
        raise InputError(f"{out}: expected .npy or .npz for tokens, parquet holds one vector per row")
    beside = out.with_suffix(".json")
    arrays = _arrays(model, tokens)[: 1 if out.suffix == ".npy" else None]
    if device is not None:
        model = model.to(device)
    running = forward_only(model.eval(), precision)
    assert isinstance(running, TimeSformer)
    job = _Job(
        model, running, precision, list(samples), preprocessing, protocol, arrays, per_view or tokens, batch_size
    )
    rows, unreadable, enlarged = 0, list[tuple[str, str]](), list[str]()
    described: dict[str, Any] = {}

    def write(path: Path) -> None:
        nonlocal rows
        writer = _writer(path, out, beside, job)
        try:
            for batch, arrays in job.run(unreadable, enlarged, workers, device, progress):
                rows += len(batch.path)
                writer.add(batch, arrays)
            if not rows:
                reasons = "".join(f"\n  {name}: {reason}" for name, reason in unreadable)
                raise InputError(f"{out}: not written, none of {len(samples)} videos can be read:{reasons}")
            described.update(_described(job, preprocessing, metadata or {}, unreadable, enlarged))
            writer.finish(described)
        except BaseException:
            writer.abandon()
            raise

    write_atomic(out, write)
    return Written((out, beside) if out.suffix == ".npy" else (out,), rows, unreadable, described)


@dataclass(frozen=True)
class _Job:
    model: TimeSformer
    running: TimeSformer
    precision: Precision
    samples: list[Sample]
    record: Preprocessing
    protocol: Protocol
    arrays: tuple[str, ...]
    per_view: bool
    batch_size: int

    def run(
        self,
        unreadable: list[tuple[str, str]],
        enlarged: list[str],
        workers: int,
        device: torch.device | str | None,
        progress: bool | OnStep,
    ) -> Iterator[tuple[Rows, dict[str, np.ndarray]]]:
        """Yield rows and their arrays, batch by batch."""
        found = each_batch(
            self.running,
            self.samples,
            self.record,
            self.protocol.views,
            unreadable,
            batch_size=self.batch_size,
            workers=workers,
            device=device,
            progress=progress,
            enlarged=enlarged,
        )
        for indices, counts, clips in found:
            views = [(index, view) for index, count in zip(indices, counts, strict=True) for view in range(count)]
            parts = (self._arrays(part) for part in clips)
            if self.per_view:
                for start, arrays in zip(range(0, len(views), self.batch_size), parts, strict=True):
                    yield self._rows(views[start : start + self.batch_size]), arrays
            else:
                vectors = np.concatenate([arrays["features"] for arrays in parts])
                means = np.stack([some.mean(0) for some in np.split(vectors, np.cumsum(counts)[:-1])])
                yield self._rows([first for first in views if first[1] == 0]), {"features": means}

    @torch.inference_mode()
    def _arrays(self, clips: Tensor) -> dict[str, np.ndarray]:
        """Compute the arrays of some views (n, t, 3, H, W)."""
        with computing(clips.device, self.precision):
            if self.arrays == ("features",):
                return {"features": self.running.features(clips).float().cpu().numpy()}
            tokens = self.running.forward_features(clips)
        return {name: getattr(tokens, name).float().cpu().numpy() for name in self.arrays}

    def _rows(self, views: list[tuple[int, int]]) -> Rows:
        """Make the rows of (sample, view) pairs, without clip and crop where a row is a video."""
        rows, crops = Rows(), self.protocol.views.crops
        for number, view in views:
            sample = self.samples[number]
            rows.path.append(sample.name)
            rows.label.append(None if sample.label == NO_LABEL else sample.label)
            if self.per_view:
                rows.clip.append(view // crops)
                rows.crop.append(view % crops)
        return rows


def _arrays(model: TimeSformer, tokens: bool) -> tuple[str, ...]:
    """Names of the arrays, the main one first."""
    if not tokens:
        return ("features",)
    return ("patches", "cls") if model.scheme.encoders[-1].class_tokens != "none" else ("patches",)


def _writer(path: Path, out: Path, beside: Path, job: _Job) -> Writer:
    if out.suffix == ".npz":
        return NpzFile(path, job.arrays, out)
    if out.suffix == ".npy":
        return NpyFile(path, job.arrays[0], beside)
    labels = {type(sample.label) for sample in job.samples if sample.label != NO_LABEL}
    kind = None if not labels else pyarrow.list_(pyarrow.int64()) if tuple in labels else pyarrow.int64()
    return ParquetFile(path, kind, job.per_view)


def _described(
    job: _Job,
    record: Preprocessing,
    metadata: dict[str, Any],
    unreadable: list[tuple[str, str]],
    enlarged: list[str],
) -> dict[str, Any]:
    """Return the metadata: contents of the arrays, model, data, protocol and versions."""
    pool = job.model.config.resolved_pool
    return {
        **metadata,
        **{key: value for key, value in job.protocol.statement().items() if key != "merge"},
        "rows_are": "views" if job.per_view else "videos (mean over views)",
        "axes": {name: list(AXES[name]) for name in job.arrays},
        "pooled": POOLED[pool],
        "model": job.model.config.to_dict(),
        **({"precision": job.precision} if job.precision != "fp32" else {}),
        "weights_sha256": weights_sha256(job.model),
        "preprocessing": record.to_dict(),
        "videos_unreadable": [{"path": path, "reason": reason} for path, reason in unreadable],
        "videos_enlarged": enlarged,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("timesformer-ablations", "torch", "numpy", "av")},
        },
    }
