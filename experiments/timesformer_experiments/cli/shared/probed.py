"""Probes of `timesformer evaluate --probe`: the lists that they are trained, chosen and tested on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timesformer_experiments.cli.options import bad_input, model_source
from timesformer_experiments.cli.shared.evaluated import loaded_with, with_groups
from timesformer_experiments.cli.shared.evaluations import Job, Overrides

if TYPE_CHECKING:
    from timesformer.data import Annotations, VideoDataset
    from timesformer.evaluation.evaluate import EvalResult
    from timesformer.evaluation.probing import ProbeKind

VAL_FRACTION = 0.25
"""Share of the training list on which a strength is chosen, where no list is given for it."""


@dataclass(frozen=True)
class Lists:
    """Where the videos of a probe come from, as the options say.

    train: annotation file on which it is trained; validation: on which its strength is chosen; fraction: share of the
    training list for that instead.
    """

    kind: ProbeKind
    train: Path | None
    validation: Path | None
    fraction: float | None


@dataclass(frozen=True)
class ProbeJob:
    """A probe: `job` has the model and the test videos; train and validation are those of the choice."""

    kind: ProbeKind
    job: Job
    train: VideoDataset
    validation: VideoDataset
    whole: VideoDataset


def lists_named(
    kind: str | None, train: Path | None, validation: Path | None, fraction: float | None, run: bool
) -> Lists | None:
    """Return what the options of a probe say, None without `--probe`; run: the data are a run's YAML file."""
    from timesformer.evaluation.probing import KINDS

    if kind is None:
        for flag, given in (("train-list", train), ("val-list", validation), ("val-fraction", fraction)):
            if given is not None:
                raise bad_input(f"--{flag}: expected with --probe")
        return None
    if kind not in KINDS:
        raise bad_input(f"--probe {kind}: expected one of {', '.join(KINDS)}")
    if run and (train is not None or validation is not None):
        raise bad_input("--train-list, --val-list: expected only with an annotation file; the run's file has its own")
    if not run and train is None:
        raise bad_input("--probe: expected --train-list, the annotation file on which the probe is trained")
    if validation is not None and fraction is not None:
        raise bad_input("--val-list, --val-fraction: expected one of them")
    return Lists(kind, train, validation, fraction)


def of_files(
    lists: Lists,
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
    runs: Path,
) -> ProbeJob:
    """Return a probe of a checkpoint on annotation files, whose classes need not be the checkpoint's.

    Raises InputError for a list that cannot be read, and for a video on two sides.
    """
    from timesformer.data import Preprocessing, VideoDataset, read_annotations
    from timesformer.data.splits import hold_out, require_apart
    from timesformer.evaluation.protocols import protocol_named

    if checkpoint is None:
        raise bad_input(f"{data}: expected --checkpoint (folder, file or hub name) for an annotation file")
    assert lists.train is not None
    chosen = protocol_named(protocol or "paper", **views)
    loaded = loaded_with(model_source(checkpoint, runs), sizes)
    preprocessing: Any = Preprocessing.from_dict(loaded.preprocessing | record)
    format = format or ("folder" if lists.train.is_dir() else "kinetics")
    names: Any = None

    def read(path: Path) -> Annotations:
        if not path.exists():
            raise bad_input(f"{path}: no such file or folder")
        found = read_annotations(format, path, root, labels=names)
        return found if group is None else with_groups(found, path, group)

    def dataset(samples: Any) -> VideoDataset:
        return VideoDataset(samples, preprocessing, train=False, views=chosen.views, allow_unreadable=True)

    whole = read(lists.train)
    names = whole.labels
    if lists.validation is not None:
        train, validation = whole, read(lists.validation)
    else:
        train, validation = hold_out(whole, lists.fraction or VAL_FRACTION)
    test = read(data)
    # Lists may share groups, as speakers that were heard before, but no video.
    sides = {"training list": train, "validation": validation, "test": test}
    require_apart({name: [replace(sample, group="") for sample in side] for name, side in sides.items()})
    name = f"{data.name}, protocol {chosen.name}"
    job = Job(name, checkpoint, loaded.model, dataset(test), chosen, allow_unreadable, "of the lists", names)
    return ProbeJob(lists.kind, job, dataset(train), dataset(validation), dataset(whole))


def of_run(lists: Lists, job: Job, file: Path, data_dir: Path) -> ProbeJob:
    """Return a probe of a run's model, or another checkpoint, on the run's own lists.

    Raises InputError for a file with several runs, and where the run has neither a validation set nor a share is given.
    """
    from timesformer.data import VideoDataset
    from timesformer.data.splits import hold_out
    from timesformer_experiments.run.inputs import datasets
    from timesformer_experiments.specs.run import load_specs

    specs = load_specs(file)
    if len(specs) != 1:
        raise bad_input(f"{file}: expected a file with one run for --probe, got {len(specs)}")
    (spec,) = specs
    whole: Any = datasets(spec, data_dir)[0]
    shown = job.dataset

    def dataset(samples: Any) -> VideoDataset:
        return VideoDataset(
            samples, shown.preprocessing, train=False, views=shown.views, cache=whole.cache, allow_unreadable=True
        )

    if lists.fraction is None and spec.data.has_validation:
        on_validation = spec.model_copy(update={"evaluate_on": "validation"})
        train, validation, _ = datasets(on_validation, data_dir)
        sides: Any = (train.samples, validation.samples)
    else:
        from timesformer.data import Annotations

        sides = hold_out(Annotations(tuple(whole.samples)), lists.fraction or VAL_FRACTION)
    return ProbeJob(lists.kind, job, dataset(sides[0]), dataset(sides[1]), dataset(whole.samples))


def measured(
    found: ProbeJob,
    batch_size: int,
    workers: int,
    precision: Any,
    device: Any,
    frame_order: Any,
    order_seed: int,
) -> tuple[Any, dict[str, Any]]:
    """Fit and test a probe; return its result and what is stated of it beside the result."""
    from timesformer.evaluation.probing import probe

    job = found.job
    probed = probe(
        found.kind,
        job.model,
        found.train,
        found.validation,
        found.whole,
        job.dataset,
        job.protocol,
        num_classes=_classes(job.labels),
        refuse_unreadable=not job.allow_unreadable,
        frame_order=frame_order,
        order_seed=order_seed,
        batch_size=batch_size,
        workers=workers,
        precision=precision,
        device=device,
    )
    return probed.result, probed.statement()


def _classes(labels: Any) -> int | None:
    return len(labels) if isinstance(labels, list) else None


def of_probe(found: ProbeJob, result: EvalResult) -> Job:
    """Return the job under the probe's name, without the model's head, with names of the classes: `class 0`, … if none
    are known."""
    classes = len(result.per_video["scores"].iloc[0])
    labels = found.job.labels or [f"class {number}" for number in range(classes)]
    return replace(found.job, name=f"{found.kind} probe, {found.job.name}", model=None, labels=labels)
