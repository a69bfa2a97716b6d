"""Pools that run jobs: in this process, or in worker processes on this machine.

A pool accepts jobs while it has room and reports how they end as `Event`s. `timesformer_experiments.jobs.cluster` has a
pool for clusters.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from timesformer_experiments.jobs.attempt import attempt
from timesformer_experiments.records.folder import Busy, RunFolder
from timesformer_experiments.run.failures import Failed, oom_kills
from timesformer_experiments.run.processes import Child, start, waiting
from timesformer_experiments.specs.job import Job

OnJobStep = Callable[[str, int, int, float], None]
"""Function called with (hash, steps done, total steps, mean loss)."""


@dataclass(frozen=True)
class Event:
    """End of a job.

    kind: "record" for a finished or failed run, with its record as value; "died" if its process or machine is gone,
    with reason and kind; "busy" if the process of another driver is working on it.
    """

    key: str
    kind: Literal["record", "died", "busy"]
    value: Any = None


class Pool(Protocol):
    """A place that runs jobs."""

    def room(self, job: Job) -> bool:
        """Return True if a job can begin now."""
        ...

    def submit(self, key: str, job: Job) -> None:
        """Begin a job."""
        ...

    def events(self, seconds: float) -> list[Event]:
        """Return the jobs that have ended, after waiting at most `seconds` for one."""
        ...

    def close(self) -> None:
        """End all jobs; running ones can be resumed later."""
        ...


@dataclass(frozen=True)
class Places:
    """Settings of every attempt: folders, threads, and the position in the log from which others' failures count."""

    runs_dir: Path
    data_dir: Path
    threads: int | None
    since: int


class InTurn:
    """One job at a time, in this process."""

    def __init__(self, places: Places, on_step: OnJobStep) -> None:
        self.places, self.on_step = places, on_step
        self.ended: list[Event] = []

    def room(self, job: Job) -> bool:
        return not self.ended

    def submit(self, key: str, job: Job) -> None:
        def on_step(done: int, total: int, loss: float) -> None:
            self.on_step(key, done, total, loss)

        self.ended.append(Event(key, *outcome(job, self.places, on_step)))

    def events(self, seconds: float) -> list[Event]:
        found, self.ended = self.ended, []
        if not found:
            time.sleep(seconds)
        return found

    def close(self) -> None:
        pass


def outcome(
    job: Job, places: Places, on_step: Callable[[int, int, float], None]
) -> tuple[Literal["record", "busy"], dict[str, Any] | None]:
    """Attempt a job and return kind and value of its event."""
    try:
        record = attempt(
            job, places.runs_dir, places.data_dir, progress=on_step, threads=places.threads, since=places.since
        )
    except Busy:
        return "busy", None
    return "record", record


@dataclass
class _Worker:
    child: Child
    devices: tuple[str, ...]
    key: str | None = None
    slots: int = 0


@dataclass
class Workers:
    """Worker processes: `slots` jobs in parallel, or one per GPU.

    gpus: names of the GPUs as in CUDA_VISIBLE_DEVICES. A run on several processes takes one GPU for each, or on a CPU
    one slot for each.
    """

    places: Places
    on_step: OnJobStep
    slots: int
    gpus: Sequence[str] = ()
    workers: list[_Worker] = field(default_factory=list)
    free_slots: int = field(init=False)
    free_gpus: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.free_slots, self.free_gpus = self.slots, list(self.gpus)

    def _needs(self, job: Job) -> int:
        return min(job.spec.processes, len(self.gpus) or self.slots)

    def room(self, job: Job) -> bool:
        return self._needs(job) <= (len(self.free_gpus) if self.gpus else self.free_slots)

    def submit(self, key: str, job: Job) -> None:
        count, devices = self._needs(job), tuple[str, ...]()
        if self.gpus:
            devices, self.free_gpus = tuple(self.free_gpus[:count]), self.free_gpus[count:]
        self.free_slots -= count
        idle = [worker for worker in self.workers if worker.key is None]
        worker = next((worker for worker in idle if worker.devices == devices), None)
        if worker is None:
            for other in idle:  # workers that hold one of these devices in another combination
                if set(other.devices) & set(devices):
                    self._end(other)
            seen = {"CUDA_VISIBLE_DEVICES": ",".join(devices)} if devices else None
            worker = _Worker(start(_work, self.places, environment=seen), devices)
            self.workers.append(worker)
        worker.key, worker.slots, worker.child.oom_before = key, count, oom_kills()
        with suppress(OSError):  # the worker has died: `events` reports it
            worker.child.connection.send(job)

    def events(self, seconds: float) -> list[Event]:
        busy = [worker for worker in self.workers if worker.key is not None]
        if not busy:
            time.sleep(seconds)
            return []
        ready = waiting([worker.child for worker in busy], seconds)
        events = [self._receive(worker) for worker in busy if worker.child in ready]
        return [event for event in events if event is not None]

    def _receive(self, worker: _Worker) -> Event | None:
        key = worker.key
        assert key is not None
        crash = RunFolder(self.places.runs_dir, key).crash
        try:
            kind, value = worker.child.receive(lambda: crash.read_text(errors="replace") if crash.is_file() else "")
        except Failed as failure:
            self._release(worker)
            self.workers.remove(worker)
            return Event(key, "died", (str(failure), failure.kind))
        if kind == "step":
            self.on_step(key, *value)
            return None
        self._release(worker)
        return Event(key, kind, value)

    def _release(self, worker: _Worker) -> None:
        worker.key = None
        self.free_slots += worker.slots
        self.free_gpus += worker.devices

    def _end(self, worker: _Worker) -> None:
        worker.child.end()
        self.workers.remove(worker)

    def close(self) -> None:
        """End the workers, also after an interruption: checkpoints are atomic, so they can be ended at any moment."""
        for worker in self.workers:
            worker.child.process.terminate()
        for worker in list(self.workers):
            self._end(worker)


def visible_gpus() -> tuple[str, ...]:
    """Names of the GPUs of this process, as in CUDA_VISIBLE_DEVICES."""
    count, named = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    names = named.split(",") if named else [str(number) for number in range(count)]
    return tuple(name.strip() for name in names[:count])


def _work(connection: Connection, places: Places) -> None:
    """Run a worker process: attempt each job that arrives until the connection is closed."""
    torch.set_num_threads(1)

    def send(kind: str, value: Any) -> None:
        try:
            connection.send((kind, value))
        except OSError:  # the parent is gone: stop, the checkpoint is complete
            os._exit(1)

    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        send(*outcome(job, places, lambda *step: send("step", step)))
