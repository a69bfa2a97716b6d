"""Several runs in the order of their dependencies, in worker processes, resuming where an earlier call stopped."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from timesformer.errors import InputError
from timesformer.parallel import cores
from timesformer_experiments.jobs.attempt import failed
from timesformer_experiments.jobs.watching import Watch
from timesformer_experiments.jobs.workers import Event, InTurn, Places, Pool, Workers
from timesformer_experiments.records.folder import RunFolder, default_data_dir, size_of_log
from timesformer_experiments.records.log import LOG, latest, read_records
from timesformer_experiments.run.failures import Failed
from timesformer_experiments.run.identity import Identities, OtherData
from timesformer_experiments.run.inputs import check_annotations, prepare
from timesformer_experiments.run.train import run_one
from timesformer_experiments.specs.job import Job, jobs_of
from timesformer_experiments.specs.run import ProbeData, RunSpec, resolve, with_dependencies

__all__ = ["Plan", "RunsFailed", "carry_out", "run_all", "run_one"]

Say = Callable[[str], None]
LOOK_EVERY_SECONDS = 1.0
"""Interval at which runs of other drivers are checked."""


class RunsFailed(RuntimeError):
    """Some runs failed and the others finished.  `failures`: name -> reason; `records`: those of the finished runs."""

    def __init__(self, failures: dict[str, str], records: list[dict[str, Any]]) -> None:
        lines = "".join(f"\n  {name}: {reason}" for name, reason in failures.items())
        super().__init__(f"{len(failures)} of {len(failures) + len(records)} runs failed:{lines}")
        self.failures, self.records = failures, records


def run_all(
    specs: Sequence[RunSpec],
    runs_dir: str | Path,
    jobs: int = 1,
    *,
    data_dir: str | Path | None = None,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Carry out runs and return their records in the order of `specs`; runs that they start from are carried out too.

    With `jobs` > 1 (0: one per core), runs go in parallel in processes of one thread each.  Finished runs are not
    repeated and interrupted ones resume, so that after an interruption the same call completes the rest.  A failed run
    is recorded with its reason, as are those that would have started from it; the others go on.  If another process is
    working on a run, the call waits for it.

    Raises:
        InputError: bad input, or a folder that cannot be written.
        RunsFailed: at the end, if runs failed.
    """
    if jobs < 0:
        raise InputError(f"jobs: expected 0 or more, got {jobs}")
    specs, runs_dir = resolve(specs), Path(runs_dir)
    data_dir = Path(data_dir) if data_dir is not None else default_data_dir(runs_dir)
    jobs = jobs or cores()
    plan = Plan(jobs_of(with_dependencies(specs).values()), runs_dir, data_dir)
    plan.recall(retry=True)
    if plan.left():
        jobs = min(jobs, plan.left())
        plan.require_usable()
        watch = Watch(len(plan.jobs), shown=progress, done=len(plan.records), slots=jobs)
        places = Places(runs_dir, data_dir, 1 if jobs > 1 else None, size_of_log(runs_dir))
        pool: Pool = Workers(places, watch.step, jobs) if jobs > 1 else InTurn(places, watch.step)
        with closing(pool), watch.showing():
            prepare_probes(plan, jobs, watch.say)
            carry_out(plan, pool, watch)
    plan.raise_failures()
    return [plan.records[spec.hash()] for spec in specs]


@dataclass
class Plan:
    """Jobs by hash, each after the run that it starts from, with their state.

    records: records of the finished jobs; failures: records of the failed ones; running: jobs begun here; elsewhere:
    jobs that another driver is working on.
    """

    jobs: dict[str, Job]
    runs_dir: Path
    data_dir: Path
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: dict[str, dict[str, Any]] = field(default_factory=dict)
    running: set[str] = field(default_factory=set)
    elsewhere: set[str] = field(default_factory=set)
    since: int = 0
    looked: float = 0.0

    def __post_init__(self) -> None:
        self.source = {key: job.source.hash() for key, job in self.jobs.items() if job.source is not None}

    def recall(self, retry: bool) -> None:
        """Read finished jobs from the folder, and failed ones unless they are to be repeated.

        Raises OtherData for a finished run whose videos are others today.
        """
        self.since = size_of_log(self.runs_dir)
        self._recall(list(self.jobs), retry)

    def replace(self, jobs: dict[str, Job], retry: bool) -> None:
        """Replace the jobs; keep what is known of those that stay, and read the new ones' state from the folder."""
        new = [key for key in jobs if key not in self.jobs]
        self.jobs = jobs
        self.records, self.failures = (
            {key: record for key, record in known.items() if key in jobs} for known in (self.records, self.failures)
        )
        self.__post_init__()
        self._recall(new, retry)

    def _recall(self, keys: Sequence[str], retry: bool) -> None:
        log = self.runs_dir / LOG
        known = latest(read_records(log)) if log.exists() and keys else {}
        identities = Identities(self.data_dir)
        for key in keys:
            job = self.jobs[key]
            record = known.get(key)
            if record is None or record["outcome"] != "done":  # a crash may have kept its record out of the log
                record = RunFolder(self.runs_dir, key).record() or record
            if record is None:
                continue
            if record["outcome"] == "done":
                if not self._holds(identities, job, record):
                    continue
                if job.complete(record):
                    self.records[key] = record
            elif not retry and record.get("reason_kind") != "not_started":
                self.failures[key] = record

    def _holds(self, identities: Identities, job: Job, record: dict[str, Any]) -> bool:
        """True for a record of today's videos; False for one whose run's folder was removed to train anew.

        Raises OtherData for any other one.
        """
        folder = RunFolder(self.runs_dir, record["hash"])
        try:
            if isinstance(job.spec, RunSpec):
                identities.require(job.spec, record, folder)
        except OtherData:
            if folder.stored.is_file():
                raise
            return False
        return True

    def require_usable(self) -> None:
        """Raise InputError for a malformed annotation file or a folder that cannot be written."""
        for key, job in self.jobs.items():
            if key not in self.records and isinstance(job.spec, RunSpec):
                check_annotations(job.spec)
        for folder in (self.runs_dir, self.data_dir):
            _require_writable(folder)

    def left(self) -> int:
        """Return the number of jobs without an outcome."""
        return len(self.jobs) - len(self.records) - len(self.failures)

    def counts(self) -> tuple[int, int]:
        """Return the numbers of finished and failed jobs."""
        return len(self.records), len(self.failures)

    def ready(self) -> Iterator[str]:
        """Yield jobs that can begin; record a failure for those whose starting run failed."""
        for key in self.jobs:
            if key in self.records or key in self.failures or key in self.running or key in self.elsewhere:
                continue
            source = self.source.get(key)
            if source in self.failures:
                reason = f"not started: the run that it starts from, {self.jobs[source].name!r}, failed"
                self.fail(key, Failed(reason, "not_started"))
            elif source is None or source in self.records:
                yield key

    def take(self, key: str, record: dict[str, Any]) -> None:
        """Note the outcome of a job."""
        self.running.discard(key)
        self.elsewhere.discard(key)
        (self.records if record["outcome"] == "done" else self.failures)[key] = record

    def fail(self, key: str, error: Exception) -> None:
        """Record a failure that no other process has recorded."""
        self.take(key, failed(self.jobs[key], self.runs_dir, self.data_dir, error))

    def look_elsewhere(self) -> list[str]:
        """Return the jobs of other drivers that have ended since; jobs whose driver is gone become ready again."""
        if not self.elsewhere or time.monotonic() - self.looked < LOOK_EVERY_SECONDS:
            return []
        self.looked, ended = time.monotonic(), []
        for key in sorted(self.elsewhere):
            folder = RunFolder(self.runs_dir, key)
            claimed = folder.is_claimed()  # before the record: the claim is released after the record is written
            record = folder.record()
            if record is None or not self.jobs[key].complete(record):
                record = folder.failed_since(self.since)
            if record is not None:
                self.take(key, record)
                ended.append(key)
            elif not claimed:
                self.elsewhere.discard(key)
        return ended

    def raise_failures(self) -> None:
        """Raise RunsFailed if any job failed."""
        if self.failures:
            failures = {self.jobs[key].name: record["reason"] for key, record in self.failures.items()}
            raise RunsFailed(failures, list(self.records.values()))


def _require_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(f"{folder}: cannot write into this folder ({error.strerror})") from error


def prepare_probes(plan: Plan, workers: int, say: Say) -> None:
    """Make the probes before any run starts, so that no two runs make the same one.

    If a probe cannot be made, its runs fail.
    """
    made: dict[Any, Exception | None] = {}
    for key, job in plan.jobs.items():
        data = job.spec.data if isinstance(job.spec, RunSpec) and "accuracy" in job.measure else None
        if key in plan.records or key in plan.failures or not isinstance(data, ProbeData):
            continue
        identity = (data.kind, data.num_train, data.num_test, data.num_val, data.seed, data.difficulty)
        if identity not in made:
            made[identity] = None
            began = time.perf_counter()
            try:
                prepare(data, plan.data_dir, workers=workers)
            except Exception as error:
                made[identity] = error
            seconds = time.perf_counter() - began
            if seconds > 1:
                say(f"probe {data.probe}: {data.num_train} + {data.num_test} videos, {seconds:.0f} s")
        cause = made[identity]
        if cause is not None:
            plan.fail(key, cause)


def carry_out(plan: Plan, pool: Pool, watch: Watch) -> None:
    """Run the jobs of a plan until each has an outcome."""
    while plan.left():
        for key in plan.ready():
            job = plan.jobs[key]
            if not pool.room(job):
                break
            plan.running.add(key)
            watch.begin(key, job)
            pool.submit(key, job)
        for event in pool.events(LOOK_EVERY_SECONDS if plan.running or plan.elsewhere else 0.0):
            _settle(event, plan, watch)
        for key in plan.look_elsewhere():
            _tell(key, plan, watch)
        watch.done, watch.failed, watch.elsewhere = *plan.counts(), len(plan.elsewhere)
        watch.tick()


def _settle(event: Event, plan: Plan, watch: Watch) -> None:
    key = event.key
    if event.kind == "busy":
        plan.running.discard(key)
        plan.elsewhere.add(key)
        watch.stop(key)
        return
    if event.kind == "died":
        plan.fail(key, Failed(*event.value))
    else:
        plan.take(key, event.value)
    _tell(key, plan, watch)


def _tell(key: str, plan: Plan, watch: Watch) -> None:
    outcome = plan.records.get(key) or plan.failures[key]
    watch.end(key, plan.jobs[key], outcome, plan.counts())
