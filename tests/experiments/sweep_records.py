"""Sweeps whose records and scores are made up, by the functions that make real ones; nothing is trained."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from timesformer.evaluation.scores import write_scores
from timesformer.intervals import wilson_interval
from timesformer_experiments.records.log import LOG, append_record, make_record
from timesformer_experiments.specs.job import Job
from timesformer_experiments.specs.sweep import parse_sweep

STARTED = "2026-01-01T00:00:00Z"
SCHEMES = {"space": 0.2, "divided": 0.85, "axial": 0.85}
VIDEOS = 64
BASE = {
    "data": {"probe": "motion", "num_train": 8, "num_test": VIDEOS},
    "model": {"patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2},
    "recipe": {"steps": 2, "batch_size": 4},
}
AXES: dict[str, list[Any]] = {
    "model.attention": list(SCHEMES),
    "model.num_frames": [4, 8],
    "model.image_size": [16, 32],
    "seed": [0, 1, 2],
}
SMALL: dict[str, list[Any]] = {"model.attention": ["space", "divided"], "model.depth": [1, 2], "seed": [0, 1]}
"""Frames, resolution and cost are the same in all cells: there is nothing to draw."""


def jobs(axes: dict[str, list[Any]] | None = None, **more: Any) -> dict[str, Job]:
    """The cells of a sweep by hash; more: further fields of its file."""
    return parse_sweep({"name": "made-up", "base": BASE, "axes": axes or AXES} | more).jobs()


def right_answers(job: Job) -> np.ndarray:
    """Which videos a cell has right: hard videos are hard for all, schemes and seeds add their part."""
    model, seed = job.spec.model, job.spec.seed
    hardness = np.random.default_rng(0).normal(size=VIDEOS)
    number = list(SCHEMES).index(model.attention) if model.attention in SCHEMES else 7
    noise = np.random.default_rng([number, model.num_frames, model.height_width[0], seed or 0]).normal(size=VIDEOS)
    score = 0.8 * hardness + 0.6 * noise + 0.1 * (model.num_frames == 8)
    return score > -2 * (SCHEMES.get(model.attention, 0.8) - 0.5)


def metrics(job: Job, right: np.ndarray) -> dict[str, Any]:
    """The metrics of a cell: accuracy from `right`, made-up costs."""
    model = job.spec.model
    low, high = wilson_interval(int(right.sum()), len(right))
    size = model.num_frames * model.height_width[0] ** 2
    return {
        "top1_percent": 100 * float(right.mean()),
        "top1_low_percent": low,
        "top1_high_percent": high,
        "test_videos": len(right),
        "train_seconds": 3,
        "params": 1_000_000 + 10 * len(model.attention),
        "macs_per_view": 1000 * size,
        "tflops_total": size / 1e4,
        "memory_device": "cuda",
        "memory_batch": 4,
        "train_peak_memory_bytes": size**2 * 2**10,
        "inference_peak_memory_bytes": size * 2**18,
    }


def write_cell(
    folder: Path,
    job: Job,
    *,
    change: Callable[[dict[str, Any]], None] = lambda metrics: None,
    scores: bool = True,
    log: Path | None = None,
) -> str:
    """The record of a finished cell and its scores; change: alters the metrics.  Returns the hash."""
    right, key = right_answers(job), job.hash()
    found = metrics(job, right)
    change(found)
    dataset = {
        half: {"fingerprint": half, "num_videos": VIDEOS, "num_unreadable": 0, "labels": {}, "unreadable": []}
        for half in ("train", "test")
    }
    record = make_record(job.spec, started_utc=STARTED, wall_seconds=3.0, metrics=found, dataset=dataset, **job.belongs)
    append_record(log or folder / LOG, record)
    if scores:
        label = np.arange(VIDEOS) % 4
        rows = {
            "index": range(VIDEOS),
            "path": [f"{number:03}.mp4" for number in range(VIDEOS)],
            "label": label,
            "prediction": np.where(right, label, (label + 1) % 4),
            "scores": [np.zeros(4)] * VIDEOS,
        }
        (folder / key).mkdir(parents=True, exist_ok=True)
        write_scores(folder / key / "scores.parquet", pd.DataFrame(rows), {"heads": [], "merge": "mean_softmax"})
    return key


def write_failure(folder: Path, job: Job, reason: str = "RuntimeError: broken", kind: str = "error") -> str:
    """The record of a failed cell.  Returns the hash."""
    record = make_record(
        job.spec,
        started_utc=STARTED,
        wall_seconds=1.0,
        outcome="failed",
        reason=reason,
        reason_kind=kind,
        **job.belongs,
    )
    append_record(folder / LOG, record)
    return job.hash()


def write_example(folder: Path, reason: str = "RuntimeError: broken") -> Path:
    """A sweep along `AXES`; its last cell has failed, none knows the memory of inference.  Returns the folder."""
    *done, last = jobs(AXES).values()
    for job in done:
        write_cell(folder, job, change=lambda metrics: metrics.pop("inference_peak_memory_bytes"))
    write_failure(folder, last, reason, "out_of_memory")
    return folder


def write_sweep(folder: Path, axes: dict[str, list[Any]] | None = None, **more: Any) -> dict[str, Job]:
    """All cells of a sweep, finished."""
    cells = jobs(axes)
    for job in cells.values():
        write_cell(folder, job, **more)
    return cells
