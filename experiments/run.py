"""One run from its description to its record: data, model, training, evaluation.

runs/<hash>/spec.json          name and everything that decides the result
            checkpoint/        while it trains: from here it resumes
            model/             the trained model (`timesformer.checkpoints.load_model`)
            scores.parquet     per test video: path, label, prediction, scores
            curve.parquet      per step: loss, accuracy, learning rate
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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from experiments.records import LOG, append_record, make_record, now_utc, read_records
from experiments.spec import ProbeData, RunSpec, load_scheme_file, resolve
from timesformer import TimeSformer
from timesformer.checkpoints import save_model, transfer, write_atomic
from timesformer.data import FrameCache, Sample, VideoDataset, read_annotations, read_kinetics_csv
from timesformer.data.probes import make_probe
from timesformer.errors import InputError
from timesformer.evaluation import EvalResult, evaluate, protocol_named
from timesformer.progress import OnStep
from timesformer.seeding import seed_all
from timesformer.training import FitResult, fit

RECORD = "record.json"


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
        InputError: bad input, an unwritable folder, or a run that another process is busy with.
    """
    (spec,) = resolve([spec])
    runs_dir = Path(runs_dir)
    data_dir = Path(data_dir) if data_dir is not None else default_data_dir(runs_dir)
    record = stored_record(spec, runs_dir)
    if record is not None:
        return record
    if isinstance(spec.init_from, RunSpec):
        run_one(spec.init_from, runs_dir, data_dir=data_dir, progress=progress, threads=threads)
    with _claimed(runs_dir / spec.hash(), spec):
        record = stored_record(spec, runs_dir)  # finished by another process meanwhile
        return record if record is not None else _run(spec, runs_dir, data_dir, progress, threads)


def stored_record(spec: RunSpec, runs_dir: Path) -> dict[str, Any] | None:
    """The record of a finished run, None for any other.  Completes the log if a crash kept the record out of it."""
    path = runs_dir / spec.hash() / RECORD
    if not path.is_file():
        return None
    record: dict[str, Any] = json.loads(path.read_text())
    log = runs_dir / LOG
    known = read_records(log) if log.exists() else []
    if not any(other["hash"] == record["hash"] and other["outcome"] == "done" for other in known):
        append_record(log, record)
    return record


def record_failure(
    spec: RunSpec, runs_dir: Path, data_dir: Path, reason: str, started_utc: str, seconds: float
) -> None:
    """Appends the record of a run that failed; the reason is cleared of this machine's folders."""
    for folder, name in ((data_dir, "<data>"), (runs_dir, "<runs>"), (Path.home(), "~")):
        for form in {str(folder.resolve()), str(folder)} - {".", "/"}:
            reason = reason.replace(form, name)
    record = make_record(spec, started_utc=started_utc, wall_seconds=seconds, outcome="failed", reason=reason)
    append_record(runs_dir / LOG, record)


def reason_of(error: BaseException) -> str:
    """Why a run failed, in one line."""
    text = " ".join(str(error).split())
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"


def _run(spec: RunSpec, runs_dir: Path, data_dir: Path, progress: bool | OnStep, threads: int | None) -> dict[str, Any]:
    folder, started_utc, began = runs_dir / spec.hash(), now_utc(), time.perf_counter()
    write_atomic(folder / "spec.json", json.dumps({"name": spec.name, **spec.definition()}, indent=2) + "\n")
    before = torch.get_num_threads()
    torch.set_num_threads(spec.threads or threads or before)
    try:
        details = _train_and_evaluate(spec, folder, runs_dir, data_dir, progress)
        record = make_record(spec, started_utc=started_utc, wall_seconds=time.perf_counter() - began, **details)
    except Exception as error:
        write_atomic(folder / "error.txt", traceback.format_exc())
        record_failure(spec, runs_dir, data_dir, reason_of(error), started_utc, time.perf_counter() - began)
        raise
    finally:
        torch.set_num_threads(before)
    write_atomic(folder / RECORD, json.dumps(record, indent=2, allow_nan=False) + "\n")
    append_record(runs_dir / LOG, record)
    shutil.rmtree(folder / "checkpoint")  # the optimiser's state is of no more use
    return record


def _train_and_evaluate(
    spec: RunSpec, folder: Path, runs_dir: Path, data_dir: Path, progress: bool | OnStep
) -> dict[str, Any]:
    if spec.scheme_file is not None:  # in a process of its own the file has not been read yet
        load_scheme_file(spec.scheme_file)
    train_set, test_set, labels = datasets(spec, data_dir)
    seed_all(spec.seed, "initialisation")
    model = TimeSformer(spec.model)
    started_from = None
    if spec.init_from is not None:
        from_run = isinstance(spec.init_from, RunSpec)
        source = runs_dir / spec.init_from.hash() / "model" if isinstance(spec.init_from, RunSpec) else spec.init_from
        counts = {kind: len(names) for kind, names in asdict(transfer(model, source)).items()}
        started_from = {"init_from": spec.definition()["init_from"], "run": from_run, "weights": counts}
    recipe = replace(spec.recipe, seed=spec.seed)
    trained = fit(model, train_set, recipe, folder / "checkpoint", progress=progress)
    views = test_set.views.clips * test_set.views.crops
    batch = max(views, recipe.batch_size // recipe.accumulate)
    tested = evaluate(
        model, test_set, spec.protocol, batch, workers=recipe.workers, precision=recipe.precision, progress=False
    )
    model.to("cpu")
    provenance = {"name": spec.name, "hash": spec.hash(), "definition": spec.definition(), "started_from": started_from}
    save_model(
        folder / "model", model, preprocessing=spec.preprocessing.to_dict(), labels=list(labels), provenance=provenance
    )
    write_atomic(folder / "scores.parquet", lambda path: tested.per_video.to_parquet(path, index=False))
    rates = [recipe.learning_rate(step, len(train_set)) for step in range(trained.steps)]
    curve = pd.DataFrame(
        {"step": range(trained.steps), "loss": trained.losses, "accuracy": trained.accuracies, "learning_rate": rates}
    )
    write_atomic(folder / "curve.parquet", lambda path: curve.to_parquet(path, index=False))
    return {
        "metrics": _metrics(model, trained, tested),
        "dataset": {"train": _audit(train_set, trained.unreadable), "test": _audit(test_set, tested.unreadable)},
    }


def _metrics(model: TimeSformer, trained: FitResult, tested: EvalResult) -> dict[str, Any]:
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


def datasets(spec: RunSpec, data_dir: Path) -> tuple[VideoDataset, VideoDataset, tuple[str, ...]]:
    """Training set, test set with the protocol's views, and the names of the classes."""
    data, record = spec.data, spec.preprocessing
    if isinstance(data, ProbeData):
        probe = prepare(data, data_dir)
        train, test, labels = read_kinetics_csv(probe.train_csv), read_kinetics_csv(probe.test_csv), probe.labels
    else:
        train = read_annotations(data.format, data.train_csv, data.root, data.num_classes)
        test = read_annotations(data.format, data.test_csv, data.root, data.num_classes)
        labels = data.labels or tuple(f"class {number}" for number in range(data.num_classes))
    frames = FrameCache(data_dir / "frames") if data.cache else None
    allow = data.allow_unreadable

    def dataset(samples: list[Sample], train: bool) -> VideoDataset:
        return VideoDataset(
            samples,
            record,
            train=train,
            jitter=data.jitter,
            flip=data.flip,
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
        workers=workers,
    )


def _audit(dataset: VideoDataset, unreadable: list[tuple[str, str]]) -> dict[str, Any]:
    """The dataset's audit with the videos that could not be read, by the names that the annotation file gives them."""
    names = {str(sample.path): sample.name for sample in dataset.samples}
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
def _claimed(folder: Path, spec: RunSpec) -> Iterator[None]:
    """Holds a run's folder against other processes; the system lets go of it however this one ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise InputError(f"cannot write the folder of runs {folder}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"run {spec.name!r}: another process is busy with it in {folder}") from error
        yield
    finally:
        os.close(descriptor)
