"""One attempt at a job, which returns an existing record or carries out the run."""

from __future__ import annotations

import faulthandler
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from timesformer.errors import InputError
from timesformer.progress import OnStep
from timesformer_experiments.cost.measures import measured
from timesformer_experiments.records.folder import Busy, RunFolder, size_of_log
from timesformer_experiments.records.log import now_utc
from timesformer_experiments.run.failures import kind_of, reason_of
from timesformer_experiments.run.identity import Identities
from timesformer_experiments.run.recording import record_failure, recorded
from timesformer_experiments.run.train import train_and_evaluate
from timesformer_experiments.specs.cost import CostSpec
from timesformer_experiments.specs.job import Job
from timesformer_experiments.specs.run import RunSpec, load_scheme_file


def attempt(
    job: Job,
    runs_dir: Path,
    data_dir: Path,
    *,
    progress: bool | OnStep = False,
    threads: int | None = None,
    since: int | None = None,
) -> dict[str, Any]:
    """Return the record of a job: the existing one, or that of a run carried out now, which may have failed.

    The run that it starts from must be finished.  since: position in the log; a failure that another process recorded
    after it counts as the outcome, so that two drivers do not fail the same run twice.  None ignores such failures.

    Raises:
        Busy: another process is working on this run.
    """
    started_utc, began, log_size = now_utc(), time.perf_counter(), size_of_log(runs_dir)
    folder = RunFolder(runs_dir, job.hash())
    try:
        with folder.claimed(job.name):
            record = folder.record()
            if record is not None and isinstance(job.spec, RunSpec):
                Identities(data_dir).require(job.spec, record, folder)
            if record is not None and job.complete(record):
                return record
            if record is None and since is not None and (before := folder.failed_since(since)) is not None:
                return before
            with crash_notes(folder):
                if record is None:
                    work = _work(job, folder, data_dir, progress)
                    return recorded(job.spec, runs_dir, data_dir, threads, work, job.belongs)
                return _completed(job, record, folder)
    except Busy:
        raise
    except Exception as error:  # already recorded, unless it came before the work or the disk was full
        before = folder.failed_since(log_size)
        return before or failed(job, runs_dir, data_dir, error, started_utc, time.perf_counter() - began)


def failed(
    job: Job, runs_dir: Path, data_dir: Path, error: BaseException, started_utc: str = "", seconds: float = 0.0
) -> dict[str, Any]:
    """Write and return the record of a failure; if it cannot be written, return it all the same."""
    reason, kind, at = reason_of(error), kind_of(error), started_utc or now_utc()
    try:
        return record_failure(job.spec, runs_dir, data_dir, reason, kind, at, seconds, job.belongs)
    except (InputError, OSError):
        return {
            "hash": job.hash(),
            "name": job.name,
            "outcome": "failed",
            "reason": reason,
            "reason_kind": kind,
            "metrics": {},
            "unwritten": True,
            **job.belongs,
        }


def _work(job: Job, folder: RunFolder, data_dir: Path, progress: bool | OnStep) -> Callable[[], dict[str, Any]]:
    def work() -> dict[str, Any]:
        counted = _measured(job.cost, job.measure)  # first: this takes seconds, training perhaps days
        if not isinstance(job.spec, RunSpec) or "accuracy" not in job.measure:
            return {"metrics": counted}
        details = train_and_evaluate(job.spec, folder, data_dir, progress)
        return {**details, "metrics": {**details["metrics"], **counted}}

    return work


def _completed(job: Job, record: dict[str, Any], folder: RunFolder) -> dict[str, Any]:
    """Add missing measures to the record of a finished run."""
    more = _measured(job.cost, job.lacks(record))
    whole = {**record, **job.belongs, "metrics": {**record["metrics"], **more}}
    folder.store(whole)
    return whole


def _measured(spec: CostSpec, measures: Sequence[str]) -> dict[str, Any]:
    """Measure the cost of a model."""
    if spec.scheme_file is not None:  # a worker process has not read this file yet
        load_scheme_file(spec.scheme_file)
    return measured(spec, measures)


@contextmanager
def crash_notes(folder: RunFolder) -> Iterator[None]:
    """Leave the Python stack in the folder if this process dies of a fault in native code."""
    path = folder.crash
    before = faulthandler.is_enabled()
    try:
        notes = path.open("w")
    except OSError:  # a full disk: the run will report it
        yield
        return
    with notes:
        faulthandler.enable(notes)
        try:
            yield
        finally:
            faulthandler.disable()
            if before and sys.__stderr__ is not None:
                faulthandler.enable(sys.__stderr__)  # sys.stderr may have been replaced by an object without a file
            with suppress(OSError):
                path.unlink()
