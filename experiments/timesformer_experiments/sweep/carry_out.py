"""Execution of a sweep in its folder, by any number of drivers at once, with resumption after interruptions.

DIR/sweep.yaml       copy of the sweep file
    cells.json       the cells (hash, name and values) and the runs that they start from
    records.jsonl    a record for each finished or failed run (`timesformer_experiments.records.log`)
    <hash>/          files of a run (`timesformer_experiments.records.folder`); only the record if nothing is trained
    .reserve         space kept for records on a full disk
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from timesformer.errors import InputError
from timesformer.files import write_atomic
from timesformer.parallel import cores, threads_of
from timesformer_experiments.cost.measures import timed
from timesformer_experiments.jobs.plan import Plan, carry_out, prepare_probes
from timesformer_experiments.jobs.watching import Watch
from timesformer_experiments.jobs.workers import OnJobStep, Places, Pool, Workers, visible_gpus
from timesformer_experiments.records.folder import default_data_dir
from timesformer_experiments.records.log import keep_reserve, now_utc
from timesformer_experiments.specs.job import Job
from timesformer_experiments.specs.reading import read_yaml
from timesformer_experiments.specs.sweep import CELLS_FILE, SWEEP_FILE, Sweep, parse_sweep
from timesformer_experiments.sweep.stages import Known, Stages
from timesformer_experiments.sweep.tune import DIVERGED

Retry = Literal["none", "failed"]


@dataclass(frozen=True)
class SweepResult:
    """Result of a sweep: records of its cells in order, and of the failed runs among those that they start from.

    A draw of a recipe with which the loss was not finite has an outcome as any other.  untuned: variants that have no
    recipe because their draws failed.
    """

    cells: list[dict[str, Any]]
    starts_failed: list[dict[str, Any]]
    untuned: tuple[str, ...] = ()

    @property
    def failures(self) -> dict[str, str]:
        """Reason of each failure, by name of the run."""
        ended = (*self.starts_failed, *self.cells)
        found = {record["name"]: record["reason"] for record in ended if record["outcome"] != "done"}
        reason = "no final runs: draws have failed, or none has an accuracy"
        return found | {f"variant {variant}": reason for variant in self.untuned}


@dataclass(frozen=True)
class Opened:
    """A sweep and the plan of its jobs, with their state in the folder."""

    sweep: Sweep
    plan: Plan
    file: Path
    retry: bool = False

    @cached_property
    def stages(self) -> Stages:
        """The runs, as far as they are known."""
        return Stages(self.sweep, self.file, self.plan.runs_dir)

    @property
    def timed(self) -> bool:
        """True if time is measured, which other work on the machine would distort."""
        return timed(self.sweep.measure)

    @property
    def trains(self) -> bool:
        """True if anything is trained."""
        return "accuracy" in self.sweep.measure

    def known(self) -> Known:
        """Return what is known of it now."""
        return self.stages.known({**self.plan.records, **self.plan.failures})

    def outlook(self) -> tuple[Plan, int]:
        """The plan with final runs whose recipe is not chosen yet, and the most runs that there can be, 0 where that is
        no question."""
        if not self.sweep.staged:
            return self.plan, 0
        known = self.known()
        return replace(self.plan, jobs={**self.plan.jobs, **known.expected}), known.most_runs

    def go_on(self) -> bool:
        """Take into the plan what follows from the outcomes; False if nothing is left to be done."""
        while not self.plan.left():
            jobs = self.known().jobs
            if jobs.keys() == self.plan.jobs.keys():
                return False
            self.plan.replace(jobs, self.retry)
        return True


def open_sweep(file: Path, out: Path, data_dir: Path | None = None, retry: Retry = "none") -> Opened:
    """Read and validate a sweep file, and read the state of the folder; write nothing.

    Raises InputError that names file and field, also if the folder holds another sweep.
    """
    sweep = parse_sweep(read_yaml(file, "a sweep"), file)
    stored = out / SWEEP_FILE
    if stored.is_file() and (other := read_yaml(stored, "a sweep").get("name")) != sweep.name:
        raise InputError(f"--out {out}: expected a folder of the sweep {sweep.name!r}, but it holds {other!r}")
    jobs = Stages(sweep, file, out).known({}).jobs
    plan = Plan(jobs, out, data_dir if data_dir is not None else default_data_dir(out))
    plan.recall(retry=retry == "failed")
    opened = Opened(sweep, plan, file, retry == "failed")
    if sweep.staged:
        opened.go_on()
    return opened


def default_jobs(opened: Opened) -> int:
    """Return the default number of parallel runs: one per GPU, or one on a CPU; one per core if nothing is trained."""
    gpus = len(visible_gpus())
    if gpus or opened.trains or opened.timed:
        return gpus or 1
    return cores()


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
        jobs = jobs if opened.sweep.staged else min(jobs, plan.left())
        watch = Watch(len(plan.jobs), shown=progress, runs_dir=plan.runs_dir, slots=jobs)
        watch.done, watch.failed = plan.counts()
        with closing(_pool(opened, jobs, gpus, ray, watch.step, watch.say)) as pool, watch.showing():
            if ray is not None:
                watch.slots = max(1, pool.slots)  # type: ignore[attr-defined]
            left = True
            while left:
                if ray is None:
                    prepare_probes(plan, cores(), watch.say)
                carry_out(plan, pool, watch)
                left = opened.sweep.staged and opened.go_on()
                if left:
                    watch.total = len(plan.jobs)
                    watch.done, watch.failed = plan.counts()
                    _write_sweep(opened)
    if opened.sweep.staged:
        _write_sweep(opened)
    return _result(opened)


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
    places = Places(plan.runs_dir, plan.data_dir, threads_of(jobs), plan.since)
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
        "starts": [_entry(key, job) for key, job in plan.jobs.items() if job.role == "start"],
    }
    if opened.sweep.staged:
        cells |= _of_stages(opened)
    write_atomic(plan.runs_dir / CELLS_FILE, json.dumps(cells, indent=1) + "\n")
    keep_reserve(plan.runs_dir)


def _of_stages(opened: Opened) -> dict[str, Any]:
    """Plain data that a sweep in stages adds: the runs of its tuning, the most runs there can be, the claims' state."""
    known, claims = opened.known(), opened.stages.claims
    found: dict[str, Any] = {"most_runs": known.most_runs}
    if opened.sweep.tune is not None:
        found["tuning"] = [_entry(key, job) for key, job in opened.plan.jobs.items() if job.role == "tuning"]
        if superseded := opened.stages.superseded({**opened.plan.records, **opened.plan.failures}):
            found["superseded"] = superseded
    if claims is not None:
        found |= {"claims_digest": claims.digest(), "claims": [each.to_dict() for each in known.standings]}
    return found


def _entry(key: str, job: Job) -> dict[str, Any]:
    entry = {"hash": key, "name": job.name, "cell": job.cell}
    return entry | {name: job.notes[name] for name in ("equalised", "tuning") if name in job.notes}


def _result(opened: Opened) -> SweepResult:
    plan = opened.plan
    ended = {**plan.records, **plan.failures}
    return SweepResult(
        [ended[key] for key, job in plan.jobs.items() if job.cell is not None],
        [
            plan.failures[key]
            for key, job in plan.jobs.items()
            if job.cell is None
            and key in plan.failures
            and not (job.role == "tuning" and plan.failures[key].get("reason_kind") == DIVERGED)
        ],
        opened.known().held if opened.sweep.staged else (),
    )
