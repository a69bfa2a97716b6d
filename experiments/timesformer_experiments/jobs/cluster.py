"""The jobs of a sweep on a Ray cluster, with predicted resources; jobs of a lost machine restart on others.

If all machines see the sweep's folder, a job works in it as a local worker does, and another machine can resume it from
its checkpoint. If not, it works in a folder of its machine, and its files are returned through Ray.
"""

from __future__ import annotations

import hashlib
import importlib
import math
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, redirect_stdout, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from timesformer.errors import InputError
from timesformer.files import write_atomic
from timesformer_experiments.cost.measures import predicted_memory, timed
from timesformer_experiments.jobs.cluster_task import Board, look_around, task
from timesformer_experiments.jobs.workers import Event, OnJobStep
from timesformer_experiments.records.folder import Busy, RunFolder
from timesformer_experiments.records.log import append_record
from timesformer_experiments.specs.cost import CostSpec
from timesformer_experiments.specs.job import Job

BASE_BYTES = 2**30
"""Host memory of a process in addition to the prediction: the interpreter, torch, loaded clips."""
SPARE = 1.25
"""Requested GPU memory divided by the prediction, to allow for the CUDA context and fragmentation."""
GPU_PARTS = 8
MAX_LOST = 5
"""Number of times that a job may lose its machine."""
SETTLE_SECONDS = 20.0
"""Time that Ray may take to notice the loss of a machine after the loss of a process on it."""


@dataclass(frozen=True)
class Request:
    """Resources that a job requests from the cluster; memory is that of the host, in bytes."""

    num_cpus: int
    num_gpus: float
    memory: int


@dataclass
class _Begun:
    job: Job
    request: Request
    ref: Any
    lost: int
    claim: ExitStack


@dataclass
class Cluster:
    """A pool (see `timesformer_experiments.jobs.workers`) on a Ray cluster.

    address: `auto`, `HOST:PORT`, or `local` to start a cluster on this machine.
    shared: True if all machines see the sweep's folder; None to find out.

    Raises InputError if Ray is not installed or there is no cluster.
    """

    address: str
    runs_dir: Path
    data_dir: Path
    since: int
    on_step: OnJobStep
    say: Callable[[str], None]
    shared: bool | None = None
    begun: dict[str, _Begun] = field(default_factory=dict)
    waiting: list[Event] = field(default_factory=list)
    predictions: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.runs_dir, self.data_dir = self.runs_dir.resolve(), self.data_dir.resolve()
        self.open = ExitStack()
        with ExitStack() as opening:
            # Ray reports lost nodes on standard output, which is for results.
            opening.enter_context(redirect_stdout(sys.stderr))
            self.ray = connect(self.address)
            opening.callback(self.ray.shutdown)
            self._begin()
            self.open = opening.pop_all()

    def _begin(self) -> None:
        affinity = importlib.import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
        here = affinity(self.ray.get_runtime_context().get_node_id(), soft=False)
        self.board = self.ray.remote(Board).options(num_cpus=0, scheduling_strategy=here).remote()
        with tempfile.NamedTemporaryFile(dir=self.runs_dir, prefix=".seen-") as mark:
            look = self.ray.remote(look_around)
            found = [
                look.options(num_cpus=0, scheduling_strategy=affinity(node["NodeID"], soft=False)).remote(mark.name)
                for node in self._nodes()
            ]
            views = self.ray.get(found)
        if self.shared is None:
            self.shared = all(view["sees"] for view in views)
        cards = [size for view in views for size in view["gpu_bytes"]]
        self.card_bytes = min(cards, default=0)
        self.task = self.ray.remote(task)
        totals = self.ray.cluster_resources()
        self.slots = int(totals.get("GPU", 0) or totals.get("CPU", 1))
        folder = "all see the sweep's folder" if self.shared else "results are returned through Ray"
        self.say(f"cluster: {len(views)} nodes, {totals.get('CPU', 0):g} CPUs, {totals.get('GPU', 0):g} GPUs; {folder}")

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in self.ray.nodes() if node["Alive"]]

    def request(self, job: Job) -> Request:
        """Return the resources of a job, from its predicted memory."""
        cpus, gpus = (job.spec.threads or 1) * job.spec.processes, 0.0
        if isinstance(job.spec, CostSpec) and not timed(job.measure):
            return Request(cpus, gpus, BASE_BYTES)  # counting needs no GPU and little memory
        peak = self._predicted(job)
        if not self.card_bytes:
            return Request(cpus, gpus, job.spec.processes * (peak + BASE_BYTES))
        whole = job.spec.processes > 1 or timed(job.measure)
        gpus = float(job.spec.processes) if whole else share_of_card(peak, self.card_bytes)
        return Request(cpus, gpus, job.spec.processes * 2 * BASE_BYTES)

    def _predicted(self, job: Job) -> int:
        """Return the predicted peak of a training step in bytes, on a GPU if the cluster has any, else on a CPU."""
        cost = job.cost
        key = cost.hash()
        if key not in self.predictions:
            found = predicted_memory(cost, "cuda" if self.card_bytes else "cpu")
            self.predictions[key] = int(found["train_peak_memory_bytes"])
        return self.predictions[key]

    def _too_large(self, request: Request, job: Job) -> str | None:
        """Return the reason why no node has room for a job; None if one has."""
        largest = max((node["Resources"].get("memory", 0.0) for node in self._nodes()), default=0.0)
        if request.memory > largest:
            size = largest / 2**30
            return f"{request.memory / 2**30:.1f} GiB of memory are predicted, the largest node has {size:.1f}"
        if request.num_gpus and self._predicted(job) > self.card_bytes:
            size = self.card_bytes / 2**30
            return f"{self._predicted(job) / 2**30:.1f} GiB on a GPU are predicted, the smallest has {size:.1f}"
        return None

    def room(self, job: Job) -> bool:
        if not self.begun:
            return True
        totals, need = self.ray.cluster_resources(), self.request(job)
        asked = [begun.request for begun in self.begun.values()]
        return (
            sum(each.num_cpus for each in asked) + need.num_cpus <= totals.get("CPU", 0)
            and sum(each.num_gpus for each in asked) + need.num_gpus <= totals.get("GPU", 0)
            and sum(each.memory for each in asked) + need.memory <= totals.get("memory", 0)
        )

    def submit(self, key: str, job: Job) -> None:
        try:
            request = self.request(job)
            if (reason := self._too_large(request, job)) is not None:
                self.waiting.append(Event(key, "died", (f"not started: {reason}", "out_of_memory")))
                return
            claim = ExitStack()
            if not self.shared:  # nobody else holds the folder here
                claim.enter_context(RunFolder(self.runs_dir, key).claimed(job.name))
        except Busy:
            self.waiting.append(Event(key, "busy"))
            return
        except InputError as error:
            self.waiting.append(Event(key, "died", (str(error), "bad_input")))
            return
        self.begun[key] = _Begun(job, request, self._send(job, request), 0, claim)

    def _send(self, job: Job, request: Request) -> Any:
        options = {"num_cpus": request.num_cpus, "num_gpus": request.num_gpus, "memory": request.memory}
        source, files = job.source, None
        if source is not None and not self.shared:
            model = RunFolder(self.runs_dir, source.hash()).model
            files = {path.name: path.read_bytes() for path in model.iterdir() if path.is_file()}
        scratch = None
        if not self.shared:
            scratch = f"timesformer-{hashlib.sha256(str(self.runs_dir).encode()).hexdigest()[:16]}"
        remote = self.task.options(max_retries=0, scheduling_strategy="SPREAD", name=job.name, **options)
        return remote.remote(job, self.runs_dir, self.data_dir, self.since, self.board, scratch, files)

    def events(self, seconds: float) -> list[Event]:
        found, self.waiting = self.waiting, []
        keys = {begun.ref: key for key, begun in self.begun.items()}
        if not keys:
            if not found:
                time.sleep(seconds)
            return found
        ended, _ = self.ray.wait(list(keys), num_returns=1, timeout=0 if found else seconds)
        for key, *step in self.ray.get(self.board.take.remote()):
            self.on_step(key, *step)
        for ref in ended:
            event = self._outcome(keys[ref], self.begun[keys[ref]])
            if event is not None:
                self.begun.pop(event.key).claim.close()
                found.append(event)
        return found

    def _outcome(self, key: str, begun: _Begun) -> Event | None:
        """Return how a job ended; None if it lost its machine and restarts on another."""
        errors = self.ray.exceptions
        try:
            kind, record, files = self.ray.get(begun.ref)
        except errors.OutOfMemoryError as error:
            return Event(key, "died", (f"its process was killed: {_line(error)}", "out_of_memory"))
        except errors.RayTaskError as error:
            return Event(key, "died", (f"{type(error).__name__}: {_line(error)}", "error"))
        except errors.RayError as error:
            if isinstance(error, errors.WorkerCrashedError) and not self._machine_lost(key):
                return Event(key, "died", ("its process was killed or crashed", "killed"))
            begun.lost += 1
            if begun.lost > MAX_LOST:
                return Event(key, "died", (f"its machine was lost {begun.lost} times: {_line(error)}", "node_lost"))
            self.say(f"{begun.job.name}: its machine was lost; restarting on another")
            begun.ref = self._send(begun.job, begun.request)
            return None
        if kind == "record" and not self.shared:
            self._bring_home(key, record, files)
        return Event(key, kind, record)

    def _machine_lost(self, key: str) -> bool:
        """Return True if the machine of a job is gone, after waiting long enough for Ray to notice."""
        node = self.ray.get(self.board.place.remote(key))
        give_up = time.monotonic() + SETTLE_SECONDS
        while node is not None and time.monotonic() < give_up:
            if node not in {each["NodeID"] for each in self._nodes()}:
                return True
            time.sleep(1)
        return node is None

    def _bring_home(self, key: str, record: dict[str, Any], files: dict[str, bytes]) -> None:
        """Write the files of a run on another machine into the sweep's folder, the record last."""
        folder = RunFolder(self.runs_dir, key)
        for name, content in files.items():
            write_atomic(folder.path / name, content)
        if record["outcome"] == "done":
            folder.store(record)
        else:
            append_record(folder.log, record, once=True)

    def close(self) -> None:
        """End the running jobs; they can be resumed."""
        for begun in self.begun.values():
            with suppress(Exception):
                self.ray.cancel(begun.ref, force=True)
            begun.claim.close()
        self.open.close()


def connect(address: str) -> Any:
    """Return Ray, connected to a cluster.  Raises InputError if Ray is not installed or no cluster is found."""
    try:
        ray = importlib.import_module("ray")
    except ImportError as error:
        raise InputError("--ray: Ray is not installed; pip install 'timesformer-ablations[cluster]'") from error
    own = {"include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **own)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(f"--ray {address}: no Ray cluster at this address ({_line(error)})") from error
    return ray


def share_of_card(peak_bytes: int, card_bytes: int) -> float:
    """Return the share of a GPU that a run requests, in eighths: its predicted peak times `SPARE`."""
    return min(1.0, math.ceil(GPU_PARTS * SPARE * peak_bytes / card_bytes) / GPU_PARTS)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:400]
