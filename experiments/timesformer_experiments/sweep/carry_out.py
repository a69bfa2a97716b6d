"""Execution of a sweep in its folder, by any number of drivers at once, with resumption after interruptions.

DIR/sweep.yaml       copy of the sweep file
    cells.json       the cells (hash, name and values) and the runs that they start from
    records.jsonl    a record for each finished or failed run (`timesformer_experiments.records.log`)
    <hash>/          files of a run (`timesformer_experiments.records.folder`); only the record if nothing is trained
    .reserve         space kept for records on a full disk
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from timesformer.errors import InputError
from timesformer.files import write_atomic
from timesformer_experiments.cost.measures import timed
from timesformer_experiments.jobs.plan import Plan, carry_out, prepare_probes
from timesformer_experiments.jobs.watching import Watch
from timesformer_experiments.jobs.workers import OnJobStep, Places, Pool, Workers, visible_gpus
from timesformer_experiments.records.folder import default_data_dir
from timesformer_experiments.records.log import keep_reserve, now_utc
from timesformer_experiments.specs.job import Job
from timesformer_experiments.specs.reading import read_yaml
from timesformer_experiments.specs.sweep import CELLS_FILE, SWEEP_FILE, Sweep, parse_sweep

Retry = Literal["none", "failed"]


@dataclass(frozen=True)
class SweepResult:
    """Result of a sweep: records of its cells in order, and of the failed runs among those that they start from."""

    cells: list[dict[str, Any]]
    starts_failed: list[dict[str, Any]]

    @property
    def failures(self) -> dict[str, str]:
        """Reason of each failure, by name of the run."""
        ended = (*self.starts_failed, *self.cells)
        return {record["name"]: record["reason"] for record in ended if record["outcome"] != "done"}


@dataclass(frozen=True)
class Opened:
    """A sweep and the plan of its jobs, with their state in the folder."""

    sweep: Sweep
    plan: Plan
    file: Path

    @property
    def timed(self) -> bool:
        """True if time is measured, which other work on the machine would distort."""
        return timed(self.sweep.measure)

    @property
    def trains(self) -> bool:
        """True if anything is trained."""
        return "accuracy" in self.sweep.measure


def open_sweep(file: Path, out: Path, data_dir: Path | None = None, retry: Retry = "none") -> Opened:
    """Read and validate a sweep file, and read the state of the folder; write nothing.

    Raises InputError that names file and field, also if the folder holds another sweep.
    """
    sweep = parse_sweep(read_yaml(file, "a sweep"), file)
    stored = out / SWEEP_FILE
    if stored.is_file() and (other := read_yaml(stored, "a sweep").get("name")) != sweep.name:
        raise InputError(f"--out {out}: expected a folder of the sweep {sweep.name!r}, but it holds {other!r}")
    plan = Plan(sweep.jobs(file, file.parent), out, data_dir if data_dir is not None else default_data_dir(out))
    plan.recall(retry=retry == "failed")
    return Opened(sweep, plan, file)


def default_jobs(opened: Opened) -> int:
    """Return the default number of parallel runs: one per GPU, or one on a CPU; one per core if nothing is trained."""
    gpus = len(visible_gpus())
    if gpus or opened.trains or opened.timed:
        return gpus or 1
    return os.cpu_count() or 1


def carry_out_sweep(opened: Opened, *, jobs: int = 0, ray: str | None = None, progress: bool = True) -> SweepResult:
    """Carry out the remaining runs of a sweep.

    jobs: number of workers on this machine, 0 for `default_jobs`.  ray: address of a cluster to use instead.

    Raises InputError before anything runs if a folder cannot be written or the machine cannot measure what is asked.
    """
    plan = opened.plan
    if jobs < 0:
        raise InputError(f"--jobs {jobs}: expected 0 or more")
    gpus = visible_gpus()
    jobs = jobs or default_jobs(opened)
    if opened.timed and not gpus and (jobs > 1 or ray is not None):
        raise InputError(
            "measure: latency and throughput cannot be measured with several runs in parallel on CPUs; run the sweep "
            "without them first, then with them and --jobs 1 in the same folder, which adds them to the finished runs"
        )
    plan.require_usable()
    _write_sweep(opened)
    if plan.left():
        jobs = min(jobs, plan.left())
        watch = Watch(len(plan.jobs), shown=progress, runs_dir=plan.runs_dir, slots=jobs)
        watch.done, watch.failed = plan.counts()
        with closing(_pool(opened, jobs, gpus, ray, watch.step, watch.say)) as pool, watch.showing():
            if ray is None:
                prepare_probes(plan, os.cpu_count() or 1, watch.say)
            else:
                watch.slots = max(1, pool.slots)  # type: ignore[attr-defined]
            carry_out(plan, pool, watch)
    return _result(plan)


def _pool(
    opened: Opened,
    jobs: int,
    gpus: tuple[str, ...],
    ray: str | None,
    on_step: OnJobStep,
    say: Callable[[str], None],
) -> Pool:
    plan = opened.plan
    if ray is not None:
        from timesformer_experiments.jobs.cluster import Cluster

        return Cluster(ray, plan.runs_dir, plan.data_dir, plan.since, on_step, say)
    threads = max(1, (os.cpu_count() or 1) // jobs)
    places = Places(plan.runs_dir, plan.data_dir, threads, plan.since)
    return Workers(places, on_step, jobs, gpus[:jobs])


def _write_sweep(opened: Opened) -> None:
    """Write the sweep's file and cells into its folder, and reserve space for records."""
    plan = opened.plan
    text = opened.file.read_bytes()
    stored = plan.runs_dir / SWEEP_FILE
    if not stored.is_file() or stored.read_bytes() != text:
        write_atomic(stored, text)
    cells = {
        "sweep": opened.sweep.name,
        "measure": list(opened.sweep.measure),
        "written_utc": now_utc(),
        "cells": [_entry(key, job) for key, job in plan.jobs.items() if job.cell is not None],
        "starts": [_entry(key, job) for key, job in plan.jobs.items() if job.cell is None],
    }
    write_atomic(plan.runs_dir / CELLS_FILE, json.dumps(cells, indent=1) + "\n")
    keep_reserve(plan.runs_dir)


def _entry(key: str, job: Job) -> dict[str, Any]:
    return {"hash": key, "name": job.name, "cell": job.cell}


def _result(plan: Plan) -> SweepResult:
    ended = {**plan.records, **plan.failures}
    return SweepResult(
        [ended[key] for key, job in plan.jobs.items() if job.cell is not None],
        [plan.failures[key] for key, job in plan.jobs.items() if job.cell is None and key in plan.failures],
    )
