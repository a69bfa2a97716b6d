"""Several runs: in the order of their dependencies, in worker processes, carrying on where an earlier call stopped."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import torch

from experiments.records import now_utc
from experiments.run import default_data_dir, prepare, reason_of, record_failure, run_one, stored_record
from experiments.spec import ProbeData, RunSpec, resolve, with_dependencies
from timesformer.errors import InputError
from timesformer.progress import bars

__all__ = ["RunsFailed", "run_all", "run_one"]

Say = Callable[[str], None]


class RunsFailed(RuntimeError):
    """Some runs failed; the others are finished.  `failures`: name -> reason; `records`: of the finished ones."""

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
    """The records of the runs, in the order of `specs`; runs that they start from are made as well.

    With `jobs` > 1 (0: one for each core) runs go side by side in processes of one thread each.  Finished runs are not
    repeated and interrupted ones carry on, so after an interruption the same call completes what is left.  A failed run
    is recorded with its reason, as are those that would have started from it; the others go on.

    Raises:
        InputError: bad input, or a folder that cannot be written.
        RunsFailed: at the end, if runs failed.
    """
    if jobs < 0:
        raise InputError(f"jobs: expected 0 or more, got {jobs}")
    specs, runs_dir = resolve(specs), Path(runs_dir)
    data_dir = Path(data_dir) if data_dir is not None else default_data_dir(runs_dir)
    jobs = jobs or os.cpu_count() or 1
    needed = with_dependencies(specs)
    plan = _Plan(needed, runs_dir, data_dir)
    for key, spec in needed.items():
        record = stored_record(spec, runs_dir)
        if record is not None:
            plan.records[key] = record
    jobs = min(jobs, plan.left())
    if plan.left():
        for folder in (runs_dir, data_dir):
            _require_writable(folder)
        with _display(plan, progress) as display:
            _prepare(plan, jobs, display.say)
            if jobs > 1:
                _in_processes(plan, jobs, display)
            else:
                _in_turn(plan, display)
    if plan.failures:
        failures = {needed[key].name: reason for key, reason in plan.failures.items()}
        raise RunsFailed(failures, list(plan.records.values()))
    return [plan.records[spec.hash()] for spec in specs]


def _require_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(f"cannot write into the folder {folder}: {error.strerror}") from error


@dataclass
class _Plan:
    needed: dict[str, RunSpec]
    runs_dir: Path
    data_dir: Path
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    running: set[str] = field(default_factory=set)

    def left(self) -> int:
        return len(self.needed) - len(self.records) - len(self.failures)

    def next(self) -> str | None:
        """A run that can start now; records those that cannot any more, because what they start from failed."""
        for key, spec in self.needed.items():
            if key in self.records or key in self.failures or key in self.running:
                continue
            source = spec.init_from
            before = source.hash() if isinstance(source, RunSpec) else None
            if isinstance(source, RunSpec) and before in self.failures:
                self.fail(key, f"not started: {source.name!r}, from which it starts, failed")
            elif before is None or before in self.records:
                self.running.add(key)
                return key
        return None

    def done(self, key: str, record: dict[str, Any]) -> None:
        self.running.discard(key)
        self.records[key] = record

    def fail(self, key: str, reason: str, record: bool = True) -> None:
        self.running.discard(key)
        self.failures[key] = reason
        if record:
            record_failure(self.needed[key], self.runs_dir, self.data_dir, reason, now_utc(), 0.0)


def _prepare(plan: _Plan, jobs: int, say: Say) -> None:
    """Makes the probes before any run starts, so that no two runs make the same one."""
    made = set()
    for key, spec in plan.needed.items():
        if key in plan.records or not isinstance(spec.data, ProbeData):
            continue
        identity = (spec.data.probe, spec.data.num_train, spec.data.num_test, spec.data.seed, spec.data.difficulty)
        if identity not in made:
            made.add(identity)
            began = time.perf_counter()
            prepare(spec.data, plan.data_dir, workers=jobs)
            seconds = time.perf_counter() - began
            if seconds > 1:
                say(f"probe {spec.data.probe}: {spec.data.num_train} + {spec.data.num_test} videos, {seconds:.0f} s")


def _in_turn(plan: _Plan, display: _Display) -> None:
    while (key := plan.next()) is not None:
        spec = plan.needed[key]
        display.begin(key)

        def on_step(done: int, total: int, loss: float, key: str = key) -> None:
            display.step(key, done, total, loss)

        try:
            plan.done(key, run_one(spec, plan.runs_dir, data_dir=plan.data_dir, progress=on_step))
        except Exception as error:  # recorded by run_one; raised at the end of all runs
            plan.fail(key, reason_of(error), record=False)
        display.end(key)


@dataclass
class _Worker:
    process: SpawnProcess
    connection: Connection
    key: str | None = None


def _in_processes(plan: _Plan, jobs: int, display: _Display) -> None:
    workers: list[_Worker] = []
    try:
        while plan.left():
            idle = [worker for worker in workers if worker.key is None]
            while (idle or len(workers) < jobs) and (key := plan.next()) is not None:
                if not idle:
                    workers.append(_start(plan))
                    idle = workers[-1:]
                worker = idle.pop()
                worker.key = key
                worker.connection.send(plan.needed[key])
                display.begin(key)
            busy = {worker.connection: worker for worker in workers if worker.key is not None}
            for connection in wait(list(busy)) if busy else ():
                assert isinstance(connection, Connection)
                if not _receive(busy[connection], plan, display):
                    workers.remove(busy[connection])
    finally:  # also at an interruption: checkpoints are atomic, so a worker can be ended at any moment
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.process.join()
            worker.connection.close()


def _start(plan: _Plan) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, plan.runs_dir, plan.data_dir))
    process.start()
    theirs.close()  # so that the worker's end is an end of file here
    return _Worker(process, ours)


def _receive(worker: _Worker, plan: _Plan, display: _Display) -> bool:
    """Takes a worker's message; False if it died (out of memory, a crash in native code)."""
    key = worker.key
    assert key is not None
    try:
        kind, value = worker.connection.recv()
    except (EOFError, OSError):
        worker.process.join()
        code = worker.process.exitcode
        by = f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"
        plan.fail(key, f"its process ended by {by}")
        display.end(key)
        return False
    if kind == "step":
        display.step(key, *value)
        return True
    if kind == "done":
        plan.done(key, value)
    else:
        plan.fail(key, value, record=False)
    display.end(key)
    worker.key = None
    return True


def _work(connection: Connection, runs_dir: Path, data_dir: Path) -> None:
    """A worker process: runs what it is sent until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers itself
    torch.set_num_threads(1)

    def on_step(*step: Any) -> None:
        try:
            connection.send(("step", step))
        except OSError:  # the parent is gone: stop here, the checkpoint is good
            os._exit(1)

    while True:
        try:
            spec = connection.recv()
        except EOFError:
            return
        message: tuple[str, Any]
        try:
            message = ("done", run_one(spec, runs_dir, data_dir=data_dir, progress=on_step, threads=1))
        except Exception as error:  # recorded by run_one; the parent raises it at the end
            message = ("failed", reason_of(error))
        connection.send(message)


class _Display:
    """Progress on standard error: bars on a terminal, otherwise a line for each finished run."""

    def __init__(self, plan: _Plan, progress: bool) -> None:
        self.plan, self.progress = plan, progress
        self.bars = bars()
        self.tasks: dict[str, Any] = {}
        self.began: dict[str, float] = {}
        self.all = self.bars.add_task("all runs", total=len(plan.needed), completed=len(plan.records), note="")

    def say(self, text: str) -> None:
        if not self.progress:
            return
        if self.bars.disable:
            print(text, file=sys.stderr, flush=True)
        else:
            self.bars.console.print(text, highlight=False, markup=False)

    def begin(self, key: str) -> None:
        self.began[key] = time.perf_counter()
        self.tasks[key] = self.bars.add_task(self.plan.needed[key].name, total=None, note="")

    def step(self, key: str, done: int, total: int, loss: float) -> None:
        note = "" if math.isnan(loss) else f"loss {loss:.3f}"
        self.bars.update(self.tasks[key], completed=done, total=total, note=note)

    def end(self, key: str) -> None:
        self.bars.remove_task(self.tasks.pop(key))
        finished = len(self.plan.records) + len(self.plan.failures)
        self.bars.update(self.all, completed=finished)
        if key in self.plan.failures:
            outcome = f"failed: {self.plan.failures[key]}"
        else:
            outcome = f"top-1 {self.plan.records[key]['metrics']['top1_percent']:.1f} %"
        seconds = time.perf_counter() - self.began[key]
        name = self.plan.needed[key].name
        self.say(f"[{finished}/{len(self.plan.needed)}] {name}: {outcome}, {seconds:.0f} s")


@contextmanager
def _display(plan: _Plan, progress: bool) -> Iterator[_Display]:
    display = _Display(plan, progress)
    display.bars.disable = display.bars.disable or not progress
    if display.bars.disable:
        yield display
        return
    with display.bars:
        yield display
