"""One run on several processes of this machine, which split every batch (DDP) and optionally the model (FSDP).

accelerate finds its processes by the environment variables that its launcher and torchrun set; here they are set for
our own processes.  The processes leave the finished checkpoint of the run, from which one process continues.
"""

from __future__ import annotations

import os
import socket
import time
import traceback
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from timesformer.errors import InputError
from timesformer.progress import OnStep, step_bar
from timesformer.training.loop import fit
from timesformer_experiments.records.folder import RunFolder
from timesformer_experiments.run.failures import Failed, kind_of, reason_of
from timesformer_experiments.run.identity import Identities
from timesformer_experiments.run.inputs import datasets, initial_model, validating
from timesformer_experiments.run.processes import Child, start, waiting
from timesformer_experiments.specs.run import RunSpec, load_scheme_file

SETTLE_SECONDS = 2.0
"""Time to wait for the other processes' messages after one fails, to tell the first failure from lost connections."""


def train_in_processes(spec: RunSpec, folder: RunFolder, data_dir: Path, progress: bool | OnStep = False) -> None:
    """Train a run with `spec.processes` processes, from its checkpoint if it has one.

    Raises:
        InputError: the machine has GPUs, but fewer than processes.
        Failed: a process failed or died; the others are ended.
    """
    gpus = torch.cuda.device_count()
    if 0 < gpus < spec.processes:
        raise InputError(f"processes: expected at most {gpus}, the number of GPUs here, got {spec.processes}")
    port, ranks = _free_port(), list[Child]()
    try:
        for rank in range(spec.processes):
            ranks.append(start(_rank, rank, port, spec, folder, data_dir, torch.get_num_threads()))
        with step_bar(spec.name, progress) as on_step:
            _follow(ranks, on_step)
    finally:
        for child in ranks:
            child.process.kill()
        for child in ranks:
            child.end(kill=True)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _follow(ranks: list[Child], on_step: OnStep) -> None:
    """Follow the processes until all are done or one has failed."""
    left, failures, give_up = list(ranks), list[Failed](), float("inf")
    while left and time.monotonic() < give_up:
        ready = waiting(left, SETTLE_SECONDS if failures else None)
        if not ready and failures:
            break
        for child in ready:
            try:
                kind, value = child.receive()
            except Failed as failure:
                left.remove(child)
                failures.insert(0, failure)
                continue
            if kind == "step":
                on_step(*value)
                continue
            left.remove(child)
            if kind == "failed":
                failures.append(value)
        if failures:
            give_up = min(give_up, time.monotonic() + SETTLE_SECONDS)
    if failures:
        # A process that only lost its peer reports a connection error, of kind "error".
        raise next((failure for failure in failures if failure.kind != "error"), failures[0])


def _rank(
    connection: Connection, rank: int, port: int, spec: RunSpec, folder: RunFolder, data_dir: Path, threads: int
) -> None:
    """Run one of the processes."""
    os.environ.update(
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(spec.processes),
        LOCAL_WORLD_SIZE=str(spec.processes),
    )
    if not torch.cuda.is_available():
        os.environ["ACCELERATE_USE_CPU"] = "true"
    torch.set_num_threads(threads)
    try:
        _train(spec, folder, data_dir, lambda *step: connection.send(("step", step)))
        message: tuple[str, Any] = ("done", None)
    except Exception as error:
        traceback.print_exc()
        message = ("failed", Failed(reason_of(error), kind_of(error)))
    connection.send(message)


def _train(spec: RunSpec, folder: RunFolder, data_dir: Path, on_step: OnStep) -> None:
    if spec.scheme_file is not None:
        load_scheme_file(spec.scheme_file)
    train_set, _, labels = datasets(spec, data_dir)
    model, _, _ = initial_model(spec, folder.runs_dir, labels)
    fit(
        model,
        train_set,
        replace(spec.recipe, seed=spec.seed),
        folder.checkpoint,
        validation=validating(spec, data_dir),
        progress=on_step if os.environ["RANK"] == "0" else False,
        tracker=spec.tracker,
        tracker_folder=folder.tracker,
        strategy=spec.strategy,
        videos=Identities(data_dir).of(spec).train,
    )
    if torch.distributed.is_initialized():  # the end of a tracker may have destroyed it already
        torch.distributed.destroy_process_group()
