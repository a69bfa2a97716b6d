"""Models and datasets that `timesformer evaluate` puts together, from a file of runs or an annotation file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timesformer_experiments.cli.classes import classed_samples, fit_head
from timesformer_experiments.cli.options import bad_input, model_source
from timesformer_experiments.cli.shared.evaluated import loaded_with, with_groups

if TYPE_CHECKING:
    from timesformer.data import Preprocessing, VideoDataset
    from timesformer.evaluation.evaluate import Protocol
    from timesformer_experiments.specs.run import RunSpec

Overrides = dict[str, Any]
ANY_CLASSES = "any"
"""Word for a model whose own classifier is not used."""


@dataclass(frozen=True)
class Job:
    """Model and dataset to evaluate."""

    name: str
    source: str
    model: Any
    dataset: VideoDataset
    protocol: Protocol
    allow_unreadable: bool
    classes: str
    labels: Any


def runs_of(
    file: Path,
    checkpoint: str | None,
    protocol: str | None,
    views: Overrides,
    allow_unreadable: bool,
    scores: Path | None,
    classes: str,
    loading: Overrides,
    runs: Path,
    data_dir: Path | None,
    scheme: Overrides,
) -> list[Job]:
    """Return the runs of a YAML file, each with its own model unless `checkpoint` names another."""
    from timesformer.evaluation.evaluate import protocol_named
    from timesformer.heads import are_named
    from timesformer_experiments.records.folder import RunFolder, default_data_dir
    from timesformer_experiments.run.inputs import datasets
    from timesformer_experiments.specs.run import load_specs

    specs = load_specs(file)
    if len(specs) != 1 and (checkpoint is not None or scores is not None):
        raise bad_input(f"{file}: expected a file with one run for --checkpoint and --scores, got {len(specs)}")
    jobs = []
    for spec in specs:
        folder = checkpoint if checkpoint is not None else str(RunFolder(runs, spec.hash()).model)
        if checkpoint is None and not Path(folder).is_dir():
            raise bad_input(f"{folder}: no model in this folder; train it with `timesformer train {file}`")
        loaded = loaded_with(folder, scheme | loading)
        chosen = protocol_named(protocol or spec.protocol, **views)
        _require_fitting(loaded, spec, folder)
        _, test, labels = datasets(spec, data_dir or default_data_dir(runs))
        said = fit_head(loaded, labels, classes, folder) if classes != ANY_CLASSES else "of the lists"
        allow = allow_unreadable or test.allow_unreadable
        test.views, test.allow_unreadable = chosen.views, True
        test.views.require_fitting(test.preprocessing, test.stills)
        named = labels if are_named(labels) else loaded.labels
        name = f"{spec.name}, protocol {chosen.name}"
        jobs.append(Job(name, folder, loaded.model, test, chosen, allow, said, named))
    return jobs


def _require_fitting(loaded: Any, spec: RunSpec, folder: str) -> None:
    """Require the model's own preprocessing.

    Raises InputError where the run states another one, because the accuracy would not be the model's.
    """
    from timesformer.data import Preprocessing

    own, wanted = Preprocessing.from_dict(loaded.preprocessing).to_dict(), spec.preprocessing.to_dict()
    for field, value in own.items():
        if wanted[field] != value:
            raise bad_input(
                f"{folder}: the model's preprocessing has {field} = {value}, but the run states {wanted[field]}; "
                "set it under data: preprocessing: (frames and crop under model:)"
            )


def of_annotations(
    data: Path,
    checkpoint: str | None,
    format: str | None,
    root: Path | None,
    group: str | None,
    protocol: str | None,
    views: Overrides,
    allow_unreadable: bool,
    sizes: Overrides,
    record: Overrides,
    classes: str,
    runs: Path,
) -> Job:
    """Return the evaluation of a checkpoint on an annotation file, with the checkpoint's own preprocessing."""
    from timesformer.data import Preprocessing, VideoDataset
    from timesformer.evaluation.evaluate import protocol_named

    if checkpoint is None:
        raise bad_input(f"{data}: expected --checkpoint (folder, file or hub name) for an annotation file")
    if not data.exists():
        raise bad_input(f"{data}: no such file or folder")
    chosen = protocol_named(protocol or "paper", **views)
    loaded = loaded_with(model_source(checkpoint, runs), sizes)
    preprocessing: Preprocessing = Preprocessing.from_dict(loaded.preprocessing | record)
    format = format or ("folder" if data.is_dir() else "kinetics")
    samples, said = classed_samples(data, format, root, classes, checkpoint, loaded)
    if group is not None:
        samples = with_groups(samples, data, group)
    dataset = VideoDataset(samples, preprocessing, train=False, views=chosen.views, allow_unreadable=True)
    name = f"{data.name}, protocol {chosen.name}"
    return Job(name, checkpoint, loaded.model, dataset, chosen, allow_unreadable, said, loaded.labels)
