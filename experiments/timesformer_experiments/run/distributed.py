"""One run on several processes of this machine: each takes its part of every batch (DDP) or also of the model (FSDP).

accelerate finds its processes by the variables that its launcher and torchrun set; here they are set for processes of
our own.  What they leave is the run's finished checkpoint, from which one process carries on.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from timesformer.errors import InputError
from timesformer.progress import OnStep, step_bar
from timesformer_experiments.run.failures import Failed, died, kind_of, oom_kills, reason_of

if TYPE_CHECKING:
    from timesformer_experiments.specs.run import RunSpec

SETTLE_SECONDS = 2.0
"""How long to wait for what others say when one process fails: who failed first, and who only lost its peer."""


def train_in_processes(
    spec: RunSpec, folder: Path, runs_dir: Path, data_dir: Path, progress: bool | OnStep = False
) -> None:
    """Trains a run with `spec.processes` processes, as far as its checkpoint has not come yet.

    Raises:
        InputError: fewer GPUs than processes, on a machine that has some.
        Failed: a process failed or died; the others are ended.
    """
    gpus = torch.cuda.device_count()
    if 0 < gpus < spec.processes:
        raise InputError(f"processes: {spec.processes}, but there are {gpus} GPUs for them here")
    context = multiprocessing.get_context("spawn")
    port, before = _free_port(), oom_kills()
    ranks: dict[Connection, SpawnProcess] = {}
    try:
        for rank in range(spec.processes):
            ours, theirs = context.Pipe()
            values = (rank, port, theirs, spec, folder, runs_dir, data_dir, torch.get_num_threads())
            process = context.Process(target=_rank, args=values)
            process.start()
            theirs.close()
            ranks[ours] = process
        with step_bar(spec.name, progress) as on_step:
            _follow(ranks, on_step, before)
    finally:
        for process in ranks.values():
            process.kill()
        for connection, process in ranks.items():
            process.join()
            connection.close()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _follow(ranks: dict[Connection, SpawnProcess], on_step: OnStep, oom_before: int) -> None:
    """Until all are done, or one has failed."""
    left, failures, give_up = dict(ranks), list[Failed](), float("inf")
    while left and time.monotonic() < give_up:
        ready = wait(list(left), timeout=SETTLE_SECONDS if failures else None)
        if not ready and failures:
            break
        for connection in ready:
            assert isinstance(connection, Connection)
            try:
                kind, value = connection.recv()
            except (EOFError, OSError):
                process = left.pop(connection)
                process.join()
                failures.insert(0, Failed(*died(process.exitcode, oom_before)))
                continue
            if kind == "step":
                on_step(*value)
                continue
            del left[connection]
            if kind == "failed":
                failures.append(value)
        if failures:
            give_up = min(give_up, time.monotonic() + SETTLE_SECONDS)
    if failures:
        # One that only lost its peer says so with an error of the connection, which is of no kind of its own.
        raise next((failure for failure in failures if failure.kind != "error"), failures[0])


def _rank(
    rank: int,
    port: int,
    connection: Connection,
    spec: RunSpec,
    folder: Path,
    runs_dir: Path,
    data_dir: Path,
    threads: int,
) -> None:
    """One of the processes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its processes itself
    end_with_parent()
    world = spec.processes
    os.environ.update(
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world),
        LOCAL_WORLD_SIZE=str(world),
    )
    if not torch.cuda.is_available():
        os.environ["ACCELERATE_USE_CPU"] = "true"
    torch.set_num_threads(threads)
    try:
        _train(spec, folder, runs_dir, data_dir, lambda *step: connection.send(("step", step)))
        message: tuple[str, Any] = ("done", None)
    except Exception as error:
        traceback.print_exc()
        message = ("failed", Failed(reason_of(error), kind_of(error)))
    connection.send(message)


def _train(spec: RunSpec, folder: Path, runs_dir: Path, data_dir: Path, on_step: OnStep) -> None:
    from timesformer.training.loop import fit
    from timesformer_experiments.run.train import datasets, initial_model
    from timesformer_experiments.specs.run import load_scheme_file

    if spec.scheme_file is not None:
        load_scheme_file(spec.scheme_file)
    train_set, _, _ = datasets(spec, data_dir)
    model, _, _ = initial_model(spec, runs_dir)
    fit(
        model,
        train_set,
        replace(spec.recipe, seed=spec.seed),
        folder / "checkpoint",
        progress=on_step if os.environ["RANK"] == "0" else False,
        tracker=spec.tracker,
        tracker_folder=folder / "tracker",
        strategy=spec.strategy,
    )
    if torch.distributed.is_initialized():  # a tracker that ends has ended it
        torch.distributed.destroy_process_group()


def end_with_parent(before: Callable[[], object] = lambda: None) -> None:
    """Ends this process when its parent is gone, however that ended; `before` is called first.

    Checkpoints are written whole or not at all, so a process may end at any moment.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    sentinel = parent.sentinel

    def watch() -> None:
        wait([sentinel])
        before()
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end with parent").start()
