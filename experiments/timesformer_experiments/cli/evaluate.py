"""`timesformer evaluate`: a checkpoint on an annotation file, or a trained run on its test set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from timesformer_experiments.cli.options import (
    DataDir,
    Json,
    PrecisionName,
    Runs,
    SchemeFile,
    SchemeOptions,
    Trust,
    attention_named,
    bad_input,
    chosen_precision,
)
from timesformer_experiments.cli.shared.evaluated import compared, counted, orders_named, tables_of
from timesformer_experiments.cli.shared.evaluations import ANY_CLASSES, Job, Overrides, of_annotations, runs_of
from timesformer_experiments.cli.shared.probed import ProbeJob, lists_named, of_files, of_probe, of_run
from timesformer_experiments.cli.shared.probed import measured as probed
from timesformer_experiments.report.terminal import console, print_json, print_text

if TYPE_CHECKING:
    from timesformer.evaluation.evaluate import EvalResult
    from timesformer.evaluation.frame_order import FrameOrder
    from timesformer_experiments.report.tables import Table

Data = Annotated[
    Path,
    typer.Argument(help="YAML file of runs, annotation file, or a folder with one folder of videos per class."),
]
Checkpoint = Annotated[
    str | None, typer.Option(help="Folder, file or hub name of a model. Default for a YAML file: the run's own model.")
]


def evaluate(
    data: Data,
    checkpoint: Checkpoint = None,
    attention: Annotated[
        str | None,
        typer.Option(help="Another scheme with the same projections, put in the place of the model's own."),
    ] = None,
    option: SchemeOptions = None,
    format: Annotated[
        str | None,
        typer.Option(help="Annotation format: kinetics (default for a file), folder (default for a folder), ssv2, …"),
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Folder of the videos. Default: the folder of the annotation file.")
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="Test protocol: paper (default), fair-code, mmaction2, clip, or clips x crops: 10x3, coverx1."
        ),
    ] = None,
    clips: Annotated[
        str | None,
        typer.Option(help="Clips per video, overriding the protocol: a number, or `cover` for the whole video."),
    ] = None,
    crops: Annotated[int | None, typer.Option(min=1, help="Crops per clip, overriding the protocol.")] = None,
    merge: Annotated[
        str | None, typer.Option(help="How views are combined: mean_softmax, sum_logits or mean_logits.")
    ] = None,
    scores: Annotated[
        Path | None, typer.Option(help="File for label, prediction and scores of each video: .csv or .parquet.")
    ] = None,
    frame_order: Annotated[
        str,
        typer.Option(
            help="Of each clip: normal, reversed, shuffled, first, middle, repeated; all: a table of all six."
        ),
    ] = "normal",
    order_seed: Annotated[int, typer.Option(min=0, help="Seed of shuffled frames.")] = 0,
    per_class: Annotated[
        bool, typer.Option("--per-class", help="Also show each class; in JSON the confusion.")
    ] = False,
    probe: Annotated[
        str | None,
        typer.Option(help="Test a classifier on the model's frozen features instead: linear, attentive or knn."),
    ] = None,
    train_list: Annotated[
        Path | None, typer.Option(help="With --probe: annotation file or folder on which the probe is trained.")
    ] = None,
    val_list: Annotated[
        Path | None, typer.Option(help="With --probe: annotation file on which its strength is chosen.")
    ] = None,
    val_fraction: Annotated[
        float | None,
        typer.Option(help="With --probe: share of the training list on which it is chosen instead (0.25)."),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            help="Test videos that belong together: `column=NAME` of the annotation file, or `pattern=REGEX` in the "
            "videos' names; intervals are then over these groups."
        ),
    ] = None,
    allow_unreadable: Annotated[
        bool, typer.Option("--allow-unreadable", help="Skip and list unreadable videos; evaluate the others.")
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Views per batch.")] = 32,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …; auto: a GPU if there is one.")] = "auto",
    precision: PrecisionName = "fp32",
    workers: Annotated[int, typer.Option(min=0, help="Number of processes that read videos; 0: the main process.")] = 0,
    num_frames: Annotated[int | None, typer.Option(min=1, help="Frames per clip, overriding the model's.")] = None,
    image_size: Annotated[int | None, typer.Option(min=1, help="Crop in pixels, overriding the model's.")] = None,
    sampling: Annotated[
        str | None, typer.Option(help="Frame sampling: uniform or dense, overriding the checkpoint's.")
    ] = None,
    frame_rate: Annotated[
        int | None, typer.Option(min=1, help="Stride of dense sampling, in frames at 30 per second.")
    ] = None,
    short_side: Annotated[int | None, typer.Option(min=1, help="Short side in pixels before cropping.")] = None,
    classes: Annotated[
        str,
        typer.Option(
            help="How the data's classes are found in the model: by `names`, by `number`, or by a YAML file "
            "`name in the data: name in the model`."
        ),
    ] = "names",
    scheme_file: SchemeFile = None,
    trust: Trust = False,
    runs: Runs = Path("runs"),
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Evaluate a model on a dataset with a test protocol.

    If a video cannot be read, the command lists all such videos and stops. Videos are never replaced by others.
    """
    from timesformer.evaluation.evaluate import MERGES
    from timesformer_experiments.records.folder import default_data_dir
    from timesformer_experiments.report.tables import to_rich

    if scores is not None and scores.suffix not in (".csv", ".parquet"):
        raise bad_input(f"--scores {scores}: expected a name that ends in .csv or .parquet")
    if merge is not None and merge not in MERGES:
        raise bad_input(f"--merge {merge}: expected one of {', '.join(MERGES)}")
    orders, in_yaml = orders_named(frame_order), data.suffix.lower() in (".yaml", ".yml")
    lists = lists_named(probe, train_list, val_list, val_fraction, in_yaml)
    if scores is not None and len(orders) > 1:
        raise bad_input("--scores: it is for one order of frames, --frame-order all has several")
    views = {"clips": clips, "crops": crops, "merge": merge}
    sizes = _given(num_frames=num_frames, image_size=image_size)
    record = _given(sampling=sampling, frame_rate=frame_rate, short_side=short_side)
    if option and attention is None:
        raise bad_input("--option: expected with --attention")
    if scheme_file is not None:  # --attention may name its schemes
        from timesformer.attention import load_file

        load_file(scheme_file)
    scheme = {} if attention is None else {"attention": attention_named(attention, option), "schedule": None}
    loading = {"trust": trust, "scheme_file": scheme_file}
    place = _device(device)
    numbers = chosen_precision(precision, place, quiet=as_json)
    probes: list[ProbeJob] = []
    if in_yaml:
        for name, given in (("format", format), ("root", root), ("group", group), *sizes.items(), *record.items()):
            if given is not None:
                flag = name.replace("_", "-")
                raise bad_input(f"--{flag}: expected only with an annotation file; for {data} set it in the YAML file")
        classes = classes if lists is None else ANY_CLASSES
        jobs = runs_of(
            data, checkpoint, protocol, views, allow_unreadable, scores, classes, loading, runs, data_dir, scheme
        )
        probes = [] if lists is None else [of_run(lists, jobs[0], data, data_dir or default_data_dir(runs))]
    elif lists is not None:
        probes = [
            of_files(
                lists,
                data,
                checkpoint,
                format,
                root,
                group,
                protocol,
                views,
                allow_unreadable,
                sizes | scheme | loading,
                record,
                runs,
            )
        ]
        jobs = [probes[0].job]
    else:
        job = of_annotations(
            data,
            checkpoint,
            format,
            root,
            group,
            protocol,
            views,
            allow_unreadable,
            sizes | scheme | loading,
            record,
            classes,
            runs,
        )
        jobs = [job]
    measured: list[dict[str, Any]] = []
    tables: list[Table] = []
    for number, job in enumerate(jobs):
        results: dict[FrameOrder, EvalResult] = {}
        for order in orders:
            result, found = _measure(
                job,
                scores,
                batch_size,
                workers,
                numbers,
                place,
                not as_json,
                order,
                order_seed,
                per_class,
                probes[number] if probes else None,
            )
            results[order] = result
            measured.append(found)
        if probes:
            job = of_probe(probes[number], next(iter(results.values())))
        tables += tables_of(job.name, results, job.model, job.labels, per_class)
    if as_json:
        print_json({"evaluations": measured, **compared(measured, tables, orders)})
    else:
        _show(measured)
        for table in tables:
            console().print(to_rich(table))


def _given(**options: Any) -> Overrides:
    """Return the options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def _device(name: str) -> Any:
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(name)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        raise bad_input(f"--device {name}: not available on this machine ({str(error).splitlines()[0]})") from error
    return place


def _measure(
    job: Job,
    scores: Path | None,
    batch_size: int,
    workers: int,
    precision: Any,
    device: Any,
    progress: bool,
    frame_order: FrameOrder,
    order_seed: int,
    per_class: bool,
    probe: ProbeJob | None = None,
) -> tuple[EvalResult, dict[str, Any]]:
    """Evaluate a model, or a probe of it, write the scores, and return the result and the values to print."""
    from timesformer.errors import InputError
    from timesformer.evaluation.evaluate import UnreadableVideos
    from timesformer.evaluation.evaluate import evaluate as measure
    from timesformer.heads import heads_of
    from timesformer_experiments.analysis.grouped import grouped_accuracy

    # Headers first: they show unreadable videos within minutes, not at the end of a long evaluation.
    found = job.dataset.audit()
    try:
        if found["unreadable"] and not job.allow_unreadable:
            raise UnreadableVideos(
                [(video["path"], video["reason"]) for video in found["unreadable"]], found["num_videos"]
            )
        said: dict[str, Any] = {}
        if probe is not None:
            result, said = probed(probe, batch_size, workers, precision, device, frame_order, order_seed)
            job = of_probe(probe, result)
        else:
            result = measure(
                job.model,
                job.dataset,
                job.protocol,
                batch_size,
                workers=workers,
                precision=precision,
                device=device,
                progress=progress,
                refuse_unreadable=not job.allow_unreadable,
                frame_order=frame_order,
                order_seed=order_seed,
            )
    except UnreadableVideos as error:
        raise InputError(f"{error}\nuse --allow-unreadable to list these and evaluate the others") from error
    stated = {
        **result.statement(),
        **said,
        "checkpoint": job.source,
        "heads": list(heads_of(job.model)),
        "classes": job.classes,
        "fingerprint": found["fingerprint"],
        "preprocessing": job.dataset.preprocessing.to_dict(),
    }
    if scores is not None:
        _write_scores(result, scores, stated)
    metrics = {name: value for name, value in result.metrics().items() if value is not None}
    unreadable = [{"path": path, "reason": reason} for path, reason in result.unreadable]
    name = job.name if frame_order == "normal" else f"{job.name}, frames {frame_order}"
    metrics |= grouped_accuracy(result.per_video)
    printed = {"name": name, "model": job.source, **stated, **metrics, "unreadable": unreadable}
    if per_class:
        printed["confusion"] = [each.to_dict() for each in counted(result, job.model, job.labels)]
    return result, printed


def _write_scores(result: EvalResult, path: Path, stated: dict[str, Any]) -> None:
    from timesformer.evaluation.scores import write_scores
    from timesformer.files import write_atomic

    if path.suffix == ".csv":
        write_atomic(path, lambda target: result.per_video.to_csv(target, index=False))
    else:
        write_atomic(path, lambda target: write_scores(target, result.per_video, stated))


def _show(measured: list[dict[str, Any]]) -> None:
    import pandas as pd

    from timesformer_experiments.report.tables import Column, Table, to_rich

    rows = [
        {**found, "views_each": f"{found['clips']} x {found['crops']}", "top5_percent": found.get("top5_percent")}
        for found in measured
    ]
    averaged = (
        Column("groups", "Groups", "counted", decimals=0),
        Column(
            "group_top1_percent",
            "top-1, mean over groups [%]",
            "measured",
            bounds=("group_top1_low_percent", "group_top1_high_percent"),
        ),
    )
    grouped = any(found.get("groups", found["test_videos"]) < found["test_videos"] for found in measured)
    columns = (
        Column("name", "Run", "label"),
        Column("views_each", "Clips x crops", "label"),
        Column("merge", "Merged by", "label"),
        Column("top1_percent", "top-1 [%]", "measured", bounds=("top1_low_percent", "top1_high_percent")),
        Column("top5_percent", "top-5 [%]", "measured", bounds=("top5_low_percent", "top5_high_percent")),
        *(averaged if grouped else ()),
        Column("test_videos", "Videos", "counted", decimals=0),
        Column("test_videos_unreadable", "Unreadable", "counted", decimals=0),
        Column("test_videos_substituted", "Substituted", "counted", decimals=0),
    )
    caption = "Accuracy with its 95 % interval (Wilson)"
    if grouped:
        caption += "; where videos belong together: mean over their groups, 95 % interval for this very model"
    console().print(to_rich(Table(pd.DataFrame(rows), columns, caption, measured="measured here")))
    for name, said in dict.fromkeys((found["model"], found["classes"]) for found in measured):
        if said != "by name":
            print_text(f"{name}: classes compared {said}")
    few = [f"{found['name']}: {found['group_note']}" for found in measured if found.get("group_note")]
    print_text(*dict.fromkeys(few))
    for found in measured:
        for video in found["unreadable"]:
            print_text(f"unreadable, not evaluated: {video['path']}: {video['reason']}")
