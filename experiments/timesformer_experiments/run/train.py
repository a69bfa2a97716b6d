"""One run from its description to its record: data, model, training, evaluation."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from timesformer import TimeSformer
from timesformer.checkpoints import save_model
from timesformer.config.registry import Model
from timesformer.data import VideoDataset
from timesformer.evaluation.confusion import confusions
from timesformer.evaluation.evaluate import EvalResult, evaluate
from timesformer.evaluation.scores import write_scores
from timesformer.files import write_atomic
from timesformer.heads import Labels, heads_of
from timesformer.parallel import loaders
from timesformer.progress import OnStep
from timesformer.training.loop import FitResult, fit
from timesformer_experiments.cost.training import macs_per_trained_clip
from timesformer_experiments.records.folder import RunFolder, default_data_dir
from timesformer_experiments.run.distributed import train_in_processes
from timesformer_experiments.run.identity import Identities
from timesformer_experiments.run.inputs import (
    after_stem,
    audit_of,
    check_annotations,
    datasets,
    initial_model,
    stem_of,
    validating,
)
from timesformer_experiments.run.recording import recorded
from timesformer_experiments.specs.run import RunSpec, load_scheme_file, resolve


def run_one(
    spec: RunSpec,
    runs_dir: str | Path,
    *,
    data_dir: str | Path | None = None,
    progress: bool | OnStep = True,
    threads: int | None = None,
) -> dict[str, Any]:
    """Train, evaluate and record a run, after the run that it starts from if that is not finished.

    For a finished run, the stored record is returned at once; an interrupted run resumes from its checkpoint.
    `threads`: number of torch threads if the run does not state it.  A failure is recorded with its reason and raised.

    Raises:
        InputError: bad input or an unwritable folder.
        OtherData: a stored result, or a checkpoint, belongs to other videos than today's.
        Busy: another process is working on the run.
    """
    (spec,) = resolve([spec])
    runs_dir = Path(runs_dir)
    data_dir = Path(data_dir) if data_dir is not None else default_data_dir(runs_dir)
    folder = RunFolder(runs_dir, spec.hash())
    record = folder.record()
    if record is not None:
        Identities(data_dir).require(spec, record, folder)
        return record
    if isinstance(spec.init_from, RunSpec):
        run_one(spec.init_from, runs_dir, data_dir=data_dir, progress=progress, threads=threads)
    check_annotations(spec)
    with folder.claimed(spec.name):
        record = folder.record()  # finished by another process meanwhile
        if record is not None:
            Identities(data_dir).require(spec, record, folder)
            return record
        return recorded(
            spec,
            runs_dir,
            data_dir,
            threads,
            lambda: train_and_evaluate(spec, folder, data_dir, progress),
        )


def train_and_evaluate(spec: RunSpec, folder: RunFolder, data_dir: Path, progress: bool | OnStep) -> dict[str, Any]:
    """Train and evaluate a run; return metrics and dataset, and leave model, scores and curve in `folder`."""
    if spec.scheme_file is not None:  # a worker process has not read this file yet
        load_scheme_file(spec.scheme_file)
    train_set, test_set, labels = datasets(spec, data_dir)
    identity = Identities(data_dir).of(spec)
    if spec.processes > 1:
        train_in_processes(spec, folder, data_dir, progress)  # leaves a finished checkpoint
    model, started_from, licence = initial_model(spec, folder.runs_dir, labels)
    recipe = replace(spec.recipe, seed=spec.seed)
    tracker = spec.tracker if spec.processes == 1 else None
    views = test_set.views.per_video or 1
    batch = max(views, recipe.batch_size // recipe.accumulate)
    blocks = stem_of(spec, model)
    train_set, test_set = (after_stem(spec, model, each, data_dir, progress is True) for each in (train_set, test_set))
    with model.after_stem(blocks) if isinstance(model, TimeSformer) and blocks is not None else nullcontext():
        trained = fit(
            model,
            train_set,
            recipe,
            folder.checkpoint,
            validation=validating(spec, data_dir, model),
            progress=progress,
            tracker=tracker,
            tracker_folder=folder.tracker,
            videos=identity.train,
        )
        tested = evaluate(
            model,
            test_set,
            spec.protocol,
            batch,
            workers=loaders(recipe.workers, next(model.parameters()).device),
            precision=recipe.precision,
            progress=False,
        )
    model.to("cpu")
    provenance = {"name": spec.name, "hash": spec.hash(), "definition": spec.definition(), "started_from": started_from}
    if licence is not None:  # the licence of the initial weights
        provenance["licence"] = licence
    save_model(folder.model, model, preprocessing=spec.preprocessing.to_dict(), labels=labels, provenance=provenance)
    stated = {**tested.statement(), "run": spec.hash(), "heads": list(heads_of(model))}
    write_atomic(folder.scores, lambda path: write_scores(path, tested.per_video, stated))
    rates = [recipe.learning_rate(step, len(train_set)) for step in range(trained.steps)]
    curve = pd.DataFrame(
        {"step": range(trained.steps), "loss": trained.losses, "accuracy": trained.accuracies, "learning_rate": rates}
    )
    if trained.validation:  # after so many steps, at the step that was the last before it
        measured = {found["step"] - 1: float(found["top1_percent"]) for found in trained.validation}
        curve["validation_percent"] = curve["step"].map(measured).astype(float)
    write_atomic(folder.curve, lambda path: curve.to_parquet(path, index=False))
    identity.require_unchanged(Identities(data_dir).of(spec), spec.name)
    identity.write(folder)
    audit = audit_of(train_set, trained.unreadable, identity.train, data_dir)
    if trained.enlarged:
        audit["num_enlarged"] = len(trained.enlarged)
    tested_audit = audit_of(test_set, tested.unreadable, identity.evaluated, data_dir)
    if tested.num_enlarged:
        tested_audit["num_enlarged"] = tested.num_enlarged
    return {
        "metrics": _metrics(model, trained, tested)
        | _frozen(spec, trained)
        | {"train_videos_unreadable": _left_out(train_set, trained)},
        "confusion": _confusion(model, labels, tested),
        **({"validation": trained.validation} if trained.validation else {}),
        "dataset": {
            "train": audit,
            spec.evaluate_on: tested_audit,
            "identity": identity.stated(),
        },
    }


def _confusion(model: Model, labels: Labels, tested: EvalResult) -> list[dict[str, Any]]:
    heads = heads_of(model)
    counted = confusions(tested.per_video, labels, heads, 0 if heads else len(labels))
    return [each.to_dict() for each in counted]


def _metrics(model: Model, trained: FitResult, tested: EvalResult) -> dict[str, Any]:
    return {
        **tested.metrics(),
        "params": sum(parameter.numel() for parameter in model.parameters()),
        "train_steps": trained.steps,
        **({} if trained.kept_step == trained.steps else {"kept_step": trained.kept_step}),
        "train_loss": trained.train_loss,
        "train_top1_percent": trained.train_top1_percent,
        "train_seconds": trained.seconds,
        "train_clips_per_second": trained.clips_per_second,
    }


def _frozen(spec: RunSpec, trained: FitResult) -> dict[str, Any]:
    """Return what is recorded of a run that freezes weights."""
    if spec.recipe.freeze is None:
        return {}
    return {
        "trained_params": trained.trained_params,
        "train_macs_per_clip": macs_per_trained_clip(spec.model, spec.recipe),
    }


def _left_out(dataset: VideoDataset, trained: FitResult) -> int:
    """Number of training samples that could not be read; a video that is listed twice counts twice."""
    places = {path for path, _ in trained.unreadable}
    return sum(sample.place in places for sample in dataset.samples)
