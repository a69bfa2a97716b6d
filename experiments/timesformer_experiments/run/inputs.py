"""Inputs of a run: its datasets and its initial model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from timesformer.checkpoints import transfer
from timesformer.config.registry import Model, build_model
from timesformer.data import Annotations, FrameCache, VideoDataset
from timesformer.data.audit import fingerprint
from timesformer.data.fingerprint import Digests, Fingerprint
from timesformer.data.probes import ProbeInfo, make_probe
from timesformer.data.probes.generate import Split
from timesformer.evaluation.evaluate import Validation, validation
from timesformer.evaluation.protocols import protocol_named
from timesformer.heads import Labels, default_labels
from timesformer.parallel import loaders
from timesformer.seeding import seed_all
from timesformer.training.stem import blocks_of_stem, tokens_of
from timesformer_experiments.records.folder import RunFolder
from timesformer_experiments.run.identity import STORE
from timesformer_experiments.specs.run import ProbeData, RunSpec
from timesformer_experiments.specs.splits import EvaluateOn

SPLITS: dict[EvaluateOn, Split] = {"test": "test", "validation": "val"}
"""Names of the splits in a probe's files."""
VALIDATION_PROTOCOL = "clip"
"""By which a run is validated while it trains: one clip and one crop of each video."""


def check_annotations(spec: RunSpec) -> None:
    """Raise InputError for a malformed annotation file, before the folder of the run is created."""
    if not isinstance(spec.data, ProbeData):
        spec.data.annotations(spec.evaluate_on)


def datasets(spec: RunSpec, data_dir: Path) -> tuple[VideoDataset, VideoDataset, Labels]:
    """Return training set, the evaluated set with the protocol's views, and the names of the classes."""
    data = spec.data
    if isinstance(data, ProbeData):
        probe = prepare(data, data_dir)
        train, evaluated = (probe.annotations(split) for split in ("train", SPLITS[spec.evaluate_on]))
        labels: Labels = list(probe.labels)
    else:
        train, evaluated = data.annotations(spec.evaluate_on)
        labels = train.labels or default_labels(data.heads, train.heads)
    trained, tested = (_dataset(spec, data_dir, each, spec.protocol, each is train) for each in (train, evaluated))
    return trained, tested, labels


def stem_of(spec: RunSpec, model: Model) -> int | None:
    """Return the number of frozen blocks whose tokens a run keeps, None if it keeps none."""
    return blocks_of_stem(model, spec.recipe) if spec.recipe.cache_stem else None


def after_stem(spec: RunSpec, model: Model, dataset: VideoDataset, data_dir: Path, progress: bool) -> VideoDataset:
    """Return the dataset, or if the run keeps tokens of frozen blocks, that of these; they are made if need be."""
    blocks, recipe = stem_of(spec, model), spec.recipe
    if blocks is None:
        return dataset
    return tokens_of(
        model,
        dataset,
        blocks,
        data_dir / "stems",
        videos=fingerprint(dataset.samples, Digests(data_dir / STORE)).sha256,
        precision=recipe.precision,
        workers=loaders(recipe.workers, "cuda" if torch.cuda.is_available() else "cpu", 1),
        progress=progress,
    )


def validating(spec: RunSpec, data_dir: Path, model: Model | None = None) -> Validation | None:
    """Return the function that validates a run while it trains, None if its recipe asks for none.

    Each validation video is seen once, by the clip and crop of protocol `VALIDATION_PROTOCOL`; with a model, which has
    the weights of the run's frozen blocks, by their tokens if the run keeps them.
    """
    recipe, data = spec.recipe, spec.data
    if recipe.validate_every is None:
        return None
    if isinstance(data, ProbeData):
        samples = prepare(data, data_dir).annotations("val")
    else:
        _, samples = data.annotations("validation")
    dataset = _dataset(spec, data_dir, samples, VALIDATION_PROTOCOL, train=False)
    if model is not None:
        dataset = after_stem(spec, model, dataset, data_dir, progress=False)
    batch = recipe.batch_size // recipe.accumulate
    workers = loaders(recipe.workers, "cuda" if torch.cuda.is_available() else "cpu", spec.processes)
    return validation(dataset, VALIDATION_PROTOCOL, batch, workers, recipe.precision)


def _dataset(spec: RunSpec, data_dir: Path, samples: Annotations, protocol: str, train: bool) -> VideoDataset:
    data = spec.data
    return VideoDataset(
        samples,
        spec.preprocessing,
        train=train,
        jitter=data.jitter,
        flip=data.flip,
        augment=data.augment,
        seed=spec.seed,
        views=protocol_named(protocol).views,
        cache=FrameCache(data_dir / "frames") if data.cache else None,
        allow_unreadable=data.allow_unreadable,
        stills=data.stills,
        copies=data.copies,
    )


def prepare(data: ProbeData, data_dir: Path, workers: int = 1) -> ProbeInfo:
    """Make a probe unless it exists, and return it."""
    return make_probe(
        data.probe,
        data_dir / "probes",
        num_train=data.num_train,
        num_test=data.num_test,
        num_val=data.num_val,
        seed=data.seed,
        difficulty=data.difficulty,
        dials=data.dials,
        workers=workers,
    )


def initial_model(spec: RunSpec, runs_dir: Path, labels: Labels) -> tuple[Model, dict[str, Any] | None, str | None]:
    """Return the initial model, a description of the weights that it started from, and the licence of those weights.

    labels: names of the data's classes, by which the classifier of what it starts from is kept or not.
    """
    seed_all(spec.seed, "initialisation")
    model = build_model(spec.model)
    if spec.init_from is None:
        return model, None, None
    from_run = isinstance(spec.init_from, RunSpec)
    source = RunFolder(runs_dir, spec.init_from.hash()).model if isinstance(spec.init_from, RunSpec) else spec.init_from
    report = transfer(model, source, labels=labels, init_head=spec.init_head)
    started_from = {
        "init_from": spec.definition()["init_from"],
        "run": from_run,
        "weights": report.counts(),
        "notes": report.notes,
    }
    return model, started_from, report.licence


def audit_of(
    dataset: VideoDataset, unreadable: list[tuple[str, str]], videos: Fingerprint, data_dir: Path
) -> dict[str, Any]:
    """Return the dataset's audit with the unreadable videos, under their names in the annotation file.

    videos: their state when the run began; of a probe, which has no files of its own, they are looked at now.
    """
    if not videos.files:
        videos = fingerprint(dataset.samples, Digests(data_dir / STORE))
    found = dataset.audit(videos) | {"fingerprint_seconds": round(videos.seconds, 4), "fingerprint_read": videos.read}
    reasons = {item["path"]: item["reason"] for item in found["unreadable"]} | dict(unreadable)
    listed = [  # a video that the file names twice is missing twice
        {"path": _relative(sample.name), "reason": reasons[sample.place].replace(sample.place, _relative(sample.name))}
        for sample in sorted(dataset.samples, key=lambda sample: sample.place)
        if sample.place in reasons
    ]
    return found | {"num_unreadable": len(listed), "unreadable": listed}


def _relative(name: str) -> str:
    """Remove folders of this machine from a name: an absolute path keeps its last two parts."""
    path = Path(name)
    return "/".join(path.parts[-2:]) if path.is_absolute() else name
