"""Where jobs are carried out: in this process, or in worker processes of this machine.

A pool takes jobs while it has room and tells how they end as `Event`s. `timesformer_experiments.jobs.cluster` has
another one.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from timesformer_experiments.jobs.attempt import Job, attempt
from timesformer_experiments.run.distributed import end_with_parent
from timesformer_experiments.run.failures import CRASH_FILE, died, oom_kills
from timesformer_experiments.run.train import Busy

OnJobStep = Callable[[str, int, int, float], None]
"""Called with (hash, steps done, all steps, mean loss)."""


@dataclass(frozen=True)
class Event:
    """How a job ended.

    record: its record, of a finished or failed run; died: reason and kind, where its process or machine is gone; busy:
    another driver's process is at it.
    """

    key: str
    kind: Literal["record", "died", "busy"]
    value: Any = None


class Pool(Protocol):
    """What carries out jobs."""

    def room(self, job: Job) -> bool:
        """Whether a job can begin now."""
        ...

    def submit(self, key: str, job: Job) -> None:
        """Begin a job."""
        ...

    def events(self, seconds: float) -> list[Event]:
        """Jobs that have ended, waiting at most so long for one."""
        ...

    def close(self) -> None:
        """End everything; what is running can be resumed."""
        ...


@dataclass(frozen=True)
class Places:
    """What every attempt is told: folders, threads, and from where in the log failures of other drivers count."""

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
    """Kind and value of the event that an attempt ends with."""
    try:
        record = attempt(
            job, places.runs_dir, places.data_dir, progress=on_step, threads=places.threads, since=places.since
        )
    except Busy:
        return "busy", None
    return "record", record


@dataclass
class _Worker:
    process: SpawnProcess
    connection: Connection
    devices: tuple[str, ...]
    key: str | None = None
    oom_before: int = 0
    slots: int = 0


@dataclass
class Workers:
    """Worker processes: `slots` jobs side by side, or on GPUs one a card.

    gpus: names of the cards as in CUDA_VISIBLE_DEVICES; a run on several processes has as many, or on a CPU as many
    slots.
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
            for other in idle:  # those that hold one of the devices, in another combination
                if set(other.devices) & set(devices):
                    self._end(other)
            worker = _start(self.places, devices)
            self.workers.append(worker)
        worker.key, worker.oom_before = key, oom_kills()
        worker.slots = count
        with suppress(OSError):  # it has died meanwhile: `events` finds out
            worker.connection.send(job)

    def events(self, seconds: float) -> list[Event]:
        busy = {worker.connection: worker for worker in self.workers if worker.key is not None}
        if not busy:
            time.sleep(seconds)
            return []
        found = []
        for connection in wait(list(busy), seconds):
            assert isinstance(connection, Connection)
            event = self._receive(busy[connection])
            if event is not None:
                found.append(event)
        return found

    def _receive(self, worker: _Worker) -> Event | None:
        key = worker.key
        assert key is not None
        try:
            kind, value = worker.connection.recv()
        except (EOFError, OSError):
            worker.process.join()
            crash = _read(self.places.runs_dir / key / CRASH_FILE)
            self._release(worker)
            self.workers.remove(worker)
            return Event(key, "died", died(worker.process.exitcode, worker.oom_before, crash))
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
        worker.process.terminate()
        worker.process.join()
        worker.connection.close()
        self.workers.remove(worker)

    def close(self) -> None:
        """Also at an interruption: checkpoints are atomic, so a worker can be ended at any moment."""
        for worker in self.workers:
            worker.process.terminate()
        for worker in list(self.workers):
            self._end(worker)


def visible_gpus() -> tuple[str, ...]:
    """The GPUs of this process, by the names that CUDA_VISIBLE_DEVICES has for them."""
    count, named = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    names = named.split(",") if named else [str(number) for number in range(count)]
    return tuple(name.strip() for name in names[:count])


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _start(places: Places, devices: tuple[str, ...]) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, places))
    with _environment(devices):
        process.start()
    theirs.close()  # so that the worker's end is an end of file here
    return _Worker(process, ours, devices)


@contextmanager
def _environment(devices: tuple[str, ...]) -> Iterator[None]:
    """What a new process sees of the GPUs."""
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    if devices:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
    try:
        yield
    finally:
        if before is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = before
        elif devices:
            del os.environ["CUDA_VISIBLE_DEVICES"]


def _work(connection: Connection, places: Places) -> None:
    """A worker process: carries out what it is sent until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers itself
    end_with_parent()
    torch.set_num_threads(1)

    def send(kind: str, value: Any) -> None:
        try:
            connection.send((kind, value))
        except OSError:  # the parent is gone: stop here, the checkpoint is good
            os._exit(1)

    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        send(*outcome(job, places, lambda *step: send("step", step)))
