"""Code that runs on the machines of a cluster."""

from __future__ import annotations

import importlib
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from timesformer.files import write_atomic
from timesformer_experiments.jobs.workers import Places, outcome
from timesformer_experiments.records.folder import RunFolder, size_of_log
from timesformer_experiments.specs.job import Job

REPORT_EVERY_SECONDS = 0.5
NOT_SENT = (".lock", "record.json", "progress.json", "crash.txt")


class Board:
    """Actor on the driver's machine that knows the node and the latest step of each job."""

    def __init__(self) -> None:
        self.places: dict[str, str] = {}
        self.steps: dict[str, tuple[int, int, float]] = {}

    def began(self, key: str, node: str) -> None:
        """Note that a job has begun on a node."""
        self.places[key] = node

    def place(self, key: str) -> str | None:
        """Return the node that a job last ran on."""
        return self.places.get(key)

    def step(self, key: str, done: int, total: int, loss: float) -> None:
        """Note a step that a job reports."""
        self.steps[key] = (done, total, loss)

    def take(self) -> list[tuple[str, int, int, float]]:
        """Return the latest step of each job that has reported since the last call."""
        found, self.steps = self.steps, {}
        return [(key, *step) for key, step in found.items()]


def look_around(mark: str) -> dict[str, Any]:
    """Return whether this machine sees a file of the driver, and the memory of its GPUs in bytes."""
    gpus = [torch.cuda.get_device_properties(number).total_memory for number in range(torch.cuda.device_count())]
    return {"sees": os.path.exists(mark), "gpu_bytes": gpus}


def task(
    job: Job,
    runs_dir: Path,
    data_dir: Path,
    since: int,
    board: Any,
    scratch: str | None,
    source_files: dict[str, bytes] | None,
) -> tuple[str, dict[str, Any] | None, dict[str, bytes]]:
    """Carry out a job in the sweep's folder, or in a temporary folder named `scratch` on this machine.

    source_files: files of the model that it starts from, if this machine does not have them.  Returns kind and value of
    an `Event`, and with `scratch` the files of the run.
    """
    ray = importlib.import_module("ray")
    key, node = job.hash(), ray.get_runtime_context().get_node_id()
    ray.get(board.began.remote(key, node))
    if scratch is not None:
        home = Path(tempfile.gettempdir()) / scratch
        runs_dir, data_dir = home / "runs", home / ".cache"
        since = size_of_log(runs_dir)
        for name, content in (source_files or {}).items():
            assert job.source is not None
            write_atomic(RunFolder(runs_dir, job.source.hash()).model / name, content)
    reported = 0.0

    def on_step(done: int, total: int, loss: float) -> None:
        nonlocal reported
        now = time.monotonic()
        if now - reported > REPORT_EVERY_SECONDS:
            reported = now
            board.step.remote(key, done, total, loss)

    kind, record = outcome(job, Places(runs_dir, data_dir, job.spec.threads or 1, since), on_step)
    return kind, record, left_in(RunFolder(runs_dir, key).path) if scratch is not None and record is not None else {}


def left_in(folder: Path) -> dict[str, bytes]:
    """Return the files of a run by their path in its folder, without the checkpoint."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name not in NOT_SENT)
    named = {path.relative_to(folder).as_posix(): path for path in paths}
    return {name: path.read_bytes() for name, path in named.items() if not name.startswith("checkpoint/")}
