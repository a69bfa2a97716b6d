"""One run from its description to its record: data, model, training, evaluation.

runs/<hash>/spec.json          name and everything that decides the result
            checkpoint/        while it trains: from here it resumes
            model/             the trained model (`timesformer.checkpoints.load_model`)
            scores.parquet     per test video: path, label, prediction, scores
            curve.parquet      per step: loss, accuracy, learning rate
            tracker/           logs of `tracker:`
            error.txt          where the last failure came from
            record.json        there when the run is finished
runs/records.jsonl             records of finished and failed runs, appended
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from timesformer.checkpoints import save_model, transfer
from timesformer.config.registry import Model, build_model
from timesformer.data import Annotations, FrameCache, VideoDataset, read_annotations
from timesformer.data.probes import make_probe
from timesformer.errors import InputError
from timesformer.evaluation.evaluate import EvalResult, evaluate, protocol_named
from timesformer.evaluation.scores import write_scores
from timesformer.files import write_atomic
from timesformer.heads import Labels, default_labels, heads_of
from timesformer.progress import OnStep
from timesformer.seeding import seed_all
from timesformer.training.loop import FitResult, fit
from timesformer_experiments.records.log import LOG, append_record, make_record, now_utc, records_of
from timesformer_experiments.run.distributed import train_in_processes
from timesformer_experiments.run.failures import kind_of, reason_of
from timesformer_experiments.specs.run import ProbeData, RunSpec, load_scheme_file, resolve

if TYPE_CHECKING:
    from timesformer_experiments.specs.cost import CostSpec

RECORD = "record.json"
LOCK = ".lock"
PATIENCE_SECONDS = 0.5
"""How long a claim waits for a process that only looks whether a run is claimed."""


class Busy(InputError):
    """Another process is busy with the run."""


def default_data_dir(runs_dir: Path) -> Path:
    """Where probes and decoded frames lie unless said otherwise: `.cache` beside the runs."""
    return runs_dir.resolve().parent / ".cache"


def run_one(
    spec: RunSpec,
    runs_dir: str | Path,
    *,
    data_dir: str | Path | None = None,
    progress: bool | OnStep = True,
    threads: int | None = None,
) -> dict[str, Any]:
    """Trains, evaluates and records a run; the run that it starts from comes first, if that is not finished.

    A finished run gives its stored record at once, an interrupted one carries on from its checkpoint.  `threads` are
    torch's where the run does not state them.  A failure is recorded, with its reason, and raised.

    Raises:
        InputError: bad input or an unwritable folder.
        Busy: another process is busy with the run.
    """
    (spec,) = resolve([spec])
    runs_dir = Path(runs_dir)
    data_dir = Path(data_dir) if data_dir is not None else default_data_dir(runs_dir)
    record = stored_record(spec, runs_dir)
    if record is not None:
        return record
    if isinstance(spec.init_from, RunSpec):
        run_one(spec.init_from, runs_dir, data_dir=data_dir, progress=progress, threads=threads)
    check_annotations(spec)
    with claimed(runs_dir / spec.hash(), spec.name):
        record = stored_record(spec, runs_dir)  # finished by another process meanwhile
        if record is not None:
            return record
        return recorded(
            spec,
            runs_dir,
            data_dir,
            threads,
            lambda: train_and_evaluate(spec, runs_dir / spec.hash(), runs_dir, data_dir, progress),
        )


def check_annotations(spec: RunSpec) -> None:
    """Raises InputError for a malformed annotation file, before there is a folder of the run."""
    if not isinstance(spec.data, ProbeData):
        spec.data.annotations()


def stored_record(spec: RunSpec | CostSpec, runs_dir: Path) -> dict[str, Any] | None:
    """The record of a finished run, None for any other.  Completes the log if a crash kept the record out of it."""
    path, log = runs_dir / spec.hash() / RECORD, runs_dir / LOG
    if not path.is_file():
        return None
    record: dict[str, Any] = json.loads(path.read_text())
    if record not in records_of(log, record["hash"]):
        append_record(log, record, once=True)
    return record


def record_failure(
    spec: RunSpec | CostSpec,
    runs_dir: Path,
    data_dir: Path,
    reason: str,
    kind: str,
    started_utc: str,
    seconds: float,
    belongs: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Appends the record of a run that failed; the reason is cleared of this machine's folders.

    kind: see `timesformer_experiments.run.failures`; belongs: `sweep` and `cell`.
    """
    for folder, name in ((data_dir, "<data>"), (runs_dir, "<runs>"), (Path.home(), "~")):
        for form in {str(folder.resolve()), str(folder)} - {".", "/"}:
            reason = reason.replace(form, name)
    record = make_record(
        spec,
        started_utc=started_utc,
        wall_seconds=seconds,
        outcome="failed",
        reason=reason,
        reason_kind=kind,
        **belongs or {},
    )
    append_record(runs_dir / LOG, record)
    return record


def recorded(
    spec: RunSpec | CostSpec,
    runs_dir: Path,
    data_dir: Path,
    threads: int | None,
    work: Callable[[], dict[str, Any]],
    belongs: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The record of `work`, which gives its metrics and dataset; a failure is recorded and raised.

    The caller has claimed the run's folder.  belongs: `sweep` and `cell`.
    """
    folder, started_utc, began = runs_dir / spec.hash(), now_utc(), time.perf_counter()
    before = torch.get_num_threads()
    torch.set_num_threads(spec.threads or threads or before)
    try:
        _clear_half_written(folder)
        write_atomic(folder / "spec.json", json.dumps({"name": spec.name, **spec.definition()}, indent=2) + "\n")
        details = work()
        seconds = time.perf_counter() - began
        record = make_record(spec, started_utc=started_utc, wall_seconds=seconds, **details, **belongs or {})
        store_record(record, runs_dir)
    except Exception as error:
        with suppress(OSError, InputError):  # a full disk has no room for it either
            write_atomic(folder / "error.txt", traceback.format_exc())
        seconds = time.perf_counter() - began
        record_failure(spec, runs_dir, data_dir, reason_of(error), kind_of(error), started_utc, seconds, belongs)
        raise
    finally:
        torch.set_num_threads(before)
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)  # the optimiser's state is of no more use
    return record


def store_record(record: dict[str, Any], runs_dir: Path) -> None:
    """Writes the record of a finished run into its folder, then into the log."""
    write_atomic(runs_dir / record["hash"] / RECORD, json.dumps(record, indent=2, allow_nan=False) + "\n")
    append_record(runs_dir / LOG, record, once=True)


def _clear_half_written(folder: Path) -> None:
    """Removes what a process that was killed left of files that it was writing."""
    for place in (folder, folder / "checkpoint", folder / "model"):
        for path in place.glob(".*"):
            if path.name != LOCK:
                path.unlink(missing_ok=True)


def train_and_evaluate(
    spec: RunSpec, folder: Path, runs_dir: Path, data_dir: Path, progress: bool | OnStep
) -> dict[str, Any]:
    """Metrics and dataset of a run; its model, scores and curve are left in `folder`."""
    if spec.scheme_file is not None:  # in a process of its own the file has not been read yet
        load_scheme_file(spec.scheme_file)
    train_set, test_set, labels = datasets(spec, data_dir)
    if spec.processes > 1:
        train_in_processes(spec, folder, runs_dir, data_dir, progress)  # what they leave is a finished checkpoint
    model, started_from, licence = initial_model(spec, runs_dir)
    recipe = replace(spec.recipe, seed=spec.seed)
    tracker = spec.tracker if spec.processes == 1 else None
    trained = fit(
        model,
        train_set,
        recipe,
        folder / "checkpoint",
        progress=progress,
        tracker=tracker,
        tracker_folder=folder / "tracker",
    )
    views = test_set.views.per_video or 1
    batch = max(views, recipe.batch_size // recipe.accumulate)
    tested = evaluate(
        model, test_set, spec.protocol, batch, workers=recipe.workers, precision=recipe.precision, progress=False
    )
    model.to("cpu")
    provenance = {"name": spec.name, "hash": spec.hash(), "definition": spec.definition(), "started_from": started_from}
    if licence is not None:  # that of the weights it started from
        provenance["licence"] = licence
    save_model(
        folder / "model", model, preprocessing=spec.preprocessing.to_dict(), labels=labels, provenance=provenance
    )
    stated = {**tested.statement(), "run": spec.hash(), "heads": list(heads_of(model))}
    write_atomic(folder / "scores.parquet", lambda path: write_scores(path, tested.per_video, stated))
    rates = [recipe.learning_rate(step, len(train_set)) for step in range(trained.steps)]
    curve = pd.DataFrame(
        {"step": range(trained.steps), "loss": trained.losses, "accuracy": trained.accuracies, "learning_rate": rates}
    )
    write_atomic(folder / "curve.parquet", lambda path: curve.to_parquet(path, index=False))
    return {
        "metrics": _metrics(model, trained, tested),
        "dataset": {"train": _audit(train_set, trained.unreadable), "test": _audit(test_set, tested.unreadable)},
    }


def initial_model(spec: RunSpec, runs_dir: Path) -> tuple[Model, dict[str, Any] | None, str | None]:
    """The model as training finds it, what it started from, and the licence of those weights."""
    seed_all(spec.seed, "initialisation")
    model = build_model(spec.model)
    if spec.init_from is None:
        return model, None, None
    from_run = isinstance(spec.init_from, RunSpec)
    source = runs_dir / spec.init_from.hash() / "model" if isinstance(spec.init_from, RunSpec) else spec.init_from
    report = transfer(model, source)
    started_from = {"init_from": spec.definition()["init_from"], "run": from_run, "weights": report.counts()}
    return model, started_from, report.licence


def _metrics(model: Model, trained: FitResult, tested: EvalResult) -> dict[str, Any]:
    return {
        **tested.metrics(),
        "params": sum(parameter.numel() for parameter in model.parameters()),
        "train_steps": trained.steps,
        "train_loss": trained.train_loss,
        "train_top1_percent": trained.train_top1_percent,
        "train_seconds": trained.seconds,
        "train_clips_per_second": trained.clips_per_second,
        "train_videos_unreadable": len(trained.unreadable),
    }


def datasets(spec: RunSpec, data_dir: Path) -> tuple[VideoDataset, VideoDataset, Labels]:
    """Training set, test set with the protocol's views, and the names of the classes."""
    data, record = spec.data, spec.preprocessing
    if isinstance(data, ProbeData):
        probe = prepare(data, data_dir)
        train, test = (read_annotations("kinetics", path) for path in (probe.train_csv, probe.test_csv))
        labels: Labels = list(probe.labels)
    else:
        train, test = data.annotations()
        labels = train.labels or default_labels(data.heads, train.heads)
    frames = FrameCache(data_dir / "frames") if data.cache else None
    allow = data.allow_unreadable

    def dataset(samples: Annotations, train: bool) -> VideoDataset:
        return VideoDataset(
            samples,
            record,
            train=train,
            jitter=data.jitter,
            flip=data.flip,
            augment=data.augment,
            seed=spec.seed,
            views=protocol_named(spec.protocol).views,
            cache=frames,
            allow_unreadable=allow,
            stills=data.stills,
        )

    return dataset(train, True), dataset(test, False), labels


def prepare(data: ProbeData, data_dir: Path, workers: int = 1) -> Any:
    """Makes a probe, or finds it made."""
    return make_probe(
        data.probe,
        data_dir / "probes",
        num_train=data.num_train,
        num_test=data.num_test,
        seed=data.seed,
        difficulty=data.difficulty,
        dials=data.dials,
        workers=workers,
    )


def _audit(dataset: VideoDataset, unreadable: list[tuple[str, str]]) -> dict[str, Any]:
    """The dataset's audit with the videos that could not be read, by the names that the annotation file gives them."""
    names = {sample.place: sample.name for sample in dataset.samples}
    found = dataset.audit()
    reasons = {item["path"]: item["reason"] for item in found["unreadable"]} | dict(unreadable)
    listed = [
        {"path": _relative(names.get(path, path)), "reason": reason.replace(path, _relative(names.get(path, path)))}
        for path, reason in sorted(reasons.items())
    ]
    return found | {"num_unreadable": len(listed), "unreadable": listed}


def _relative(name: str) -> str:
    """A name without folders of this machine: an absolute path keeps its last two parts."""
    path = Path(name)
    return "/".join(path.parts[-2:]) if path.is_absolute() else name


@contextmanager
def claimed(folder: Path, name: str) -> Iterator[None]:
    """Holds a run's folder against other processes; the system lets go of it however this one ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise InputError(f"cannot write the folder of runs {folder}: {error.strerror}") from error
    try:
        give_up = time.monotonic() + PATIENCE_SECONDS
        while not _lock(descriptor, fcntl.LOCK_EX):
            if time.monotonic() > give_up:
                raise Busy(f"run {name!r}: another process is busy with it in {folder}")
            time.sleep(PATIENCE_SECONDS / 10)
        yield
    finally:
        os.close(descriptor)


def is_claimed(folder: Path) -> bool:
    """Whether a process holds a run's folder."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        return not _lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
