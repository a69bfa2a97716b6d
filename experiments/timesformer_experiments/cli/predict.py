"""`timesformer predict` and `features`: a model at work on videos without labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from timesformer_experiments.cli.options import (
    Json,
    Runs,
    bad_input,
    chosen_device,
    console,
    model_source,
    plain_text,
    print_json,
    progress,
)

if TYPE_CHECKING:
    from timesformer.data import Preprocessing
    from timesformer.evaluation.evaluate import Protocol
    from timesformer.evaluation.prediction import Guess, Predictions, Timelines

MOST_ROWS = 12
"""Videos in one timeline picture."""

Checkpoint = Annotated[
    str, typer.Option(help="Folder, file or hub name of a model, or the .yaml file of a run that is finished.")
]
ProtocolName = Annotated[str | None, typer.Option(help="Views of a video: paper, fair-code, mmaction2, clip or 10x3.")]
Clips = Annotated[str | None, typer.Option(help="Clips of each video instead of the protocol's: a number or `cover`.")]
Crops = Annotated[int | None, typer.Option(min=1, help="Crops of each clip instead of the protocol's.")]
AllowUnreadable = Annotated[bool, typer.Option(help="Do not fail where a video cannot be read; it is still listed.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Views that the model sees at a time.")]
Workers = Annotated[int, typer.Option(min=0, help="Processes that read videos; 0: none beside this one.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, …; by default an accelerator if there is one.")]


def predict(
    videos: Annotated[list[str], typer.Argument(help="Videos, and folders with videos.", show_default=False)],
    checkpoint: Checkpoint,
    top: Annotated[int, typer.Option(min=1, help="Classes to show.")] = 5,
    protocol: ProtocolName = None,
    clips: Clips = None,
    crops: Crops = None,
    timeline: Annotated[bool, typer.Option("--timeline", help="Classes of each stretch of a long video.")] = False,
    stretch: Annotated[
        float | None,
        typer.Option(help="Seconds of a stretch; by default what a clip lasts (4 where clips have no length)."),
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Picture of the timeline: .png, .svg or .pdf.")] = None,
    allow_unreadable: AllowUnreadable = False,
    batch_size: BatchSize = 8,
    workers: Workers = 0,
    device: Device = None,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Class names with probabilities for videos, by a checkpoint of any known format.

    Videos are read as the checkpoint's preprocessing says. Those that cannot be read are listed; the command then ends
    with exit code 1, after the others.
    """
    from timesformer.data.video.find import find_videos
    from timesformer.evaluation.prediction import predict as classify
    from timesformer.evaluation.prediction import timelines

    if not timeline and (plot is not None or stretch is not None):
        raise bad_input("--plot, --stretch: they belong to --timeline")
    if timeline and clips is not None:
        raise bad_input("--clips: a timeline has one clip for each stretch; --stretch sets its length")
    if plot is not None and plot.suffix not in (".png", ".svg", ".pdf"):
        raise bad_input(f"--plot {plot}: expected a name that ends in .png, .svg or .pdf")
    chosen = _protocol(protocol or ("clip" if timeline else "paper"), clips, crops)
    found = list(map(str, find_videos(videos)))
    if plot is not None and len(set(found)) > MOST_ROWS:
        raise bad_input(f"--plot: at most {MOST_ROWS} videos go into one picture, got {len(set(found))}")
    model, record, labels = _load(checkpoint, runs)
    options: dict[str, Any] = {
        "protocol": chosen,
        "top": top,
        "batch_size": batch_size,
        "workers": workers,
        "device": chosen_device(device),
        "progress": not as_json,
    }
    result: Predictions | Timelines
    if timeline:
        result = timelines(model, found, record, labels, seconds=stretch, **options)
        shown = _show_timelines(result, plot, as_json)
    else:
        result = classify(model, found, record, labels, **options)
        shown = _show_predictions(result, as_json)
    if as_json:
        stated = {"checkpoint": checkpoint, **result.protocol.statement()}
        print_json({**stated, **shown, "unreadable": _listed(result.unreadable)})
    _finish(result.unreadable, bool(result.videos), allow_unreadable)


def _show_predictions(result: Predictions, as_json: bool) -> dict[str, Any]:
    if not as_json and result.videos:
        table = _table(f"protocol {result.protocol.name}", "Video")
        for video in result.videos:
            for number, guess in enumerate(video.top):
                table.add_row(plain_text(video.path if number == 0 else ""), *_cells(guess))
        console().print(table)
    return {"videos": [{"path": video.path, "top": _guesses(video.top)} for video in result.videos]}


def _show_timelines(result: Timelines, plot: Path | None, as_json: bool) -> dict[str, Any]:
    from timesformer.files import write_atomic
    from timesformer.maps import draw_timelines

    if not as_json:
        for video in result.videos:
            table = _table(plain_text(video.path), "Seconds")
            for stretch in video.stretches:
                span = f"{stretch.start_seconds:.1f} – {stretch.end_seconds:.1f}"
                for number, guess in enumerate(stretch.top):
                    table.add_row(span if number == 0 else "", *_cells(guess))
            for number, guess in enumerate(video.top):
                table.add_row("all, on average" if number == 0 else "", *_cells(guess))
            console().print(table)
    if plot is not None and result.videos:
        figure = draw_timelines(result.videos)
        write_atomic(plot, lambda path: figure.savefig(path, dpi=150))
        progress(f"{plot}")
    return {
        "videos": [
            {
                "path": video.path,
                "seconds": video.seconds,
                "top": _guesses(video.top),
                "stretches": [
                    {"start_seconds": part.start_seconds, "end_seconds": part.end_seconds, "top": _guesses(part.top)}
                    for part in video.stretches
                ],
            }
            for video in result.videos
        ],
        "stretch_seconds": result.stretch_seconds,
        "plot": None if plot is None else str(plot),
    }


def features(
    sources: Annotated[
        list[str], typer.Argument(help="Videos and folders, or one annotation file (.csv, .json, .txt).")
    ],
    checkpoint: Checkpoint,
    out: Annotated[Path, typer.Option(help="File to write: .parquet, .npy or .npz; tokens .npy or .npz.")],
    tokens: Annotated[bool, typer.Option("--tokens", help="Every token of every view, not one vector.")] = False,
    per_view: Annotated[bool, typer.Option("--per-view", help="A vector for each view, not their mean.")] = False,
    format: Annotated[str | None, typer.Option(help="Format of the annotation file: kinetics, ssv2, folder, …")] = None,
    root: Annotated[Path | None, typer.Option(help="Folder of the videos that an annotation file names.")] = None,
    protocol: ProtocolName = None,
    clips: Clips = None,
    crops: Crops = None,
    allow_unreadable: AllowUnreadable = False,
    batch_size: BatchSize = 8,
    workers: Workers = 0,
    device: Device = None,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Write what a model makes of videos before its classifier: the pooled vector of each, or all tokens.

    The file says what it was made with: checkpoint, protocol, preprocessing, versions, unreadable videos.
    """
    from timesformer.evaluation.features import write_features

    chosen = _protocol(protocol or "paper", clips, crops)
    samples = _samples(sources, format, root)
    model, record, _ = _load(checkpoint, runs)
    result = write_features(
        out,
        model,
        samples,
        record,
        protocol=chosen,
        tokens=tokens,
        per_view=per_view,
        metadata={"checkpoint": checkpoint},
        batch_size=batch_size,
        workers=workers,
        device=chosen_device(device),
        progress=not as_json,
    )
    if as_json:
        files = [str(path) for path in result.files]
        print_json({"files": files, "rows": result.rows, **result.metadata, "unreadable": _listed(result.unreadable)})
    else:
        for path in result.files:
            print(path)
    _finish(result.unreadable, result.rows > 0, allow_unreadable)


def _samples(sources: list[str], format: str | None, root: Path | None) -> list[Any]:
    from timesformer.data import Sample, read_annotations
    from timesformer.data.video.find import find_videos

    listed = [source for source in sources if Path(source).suffix.lower() in (".csv", ".json", ".txt")]
    if format is None and not listed:
        if root is not None:
            raise bad_input("--root: it belongs to an annotation file")
        return [Sample(path, -1, str(path)) for path in find_videos(sources)]
    if len(sources) != 1:
        raise bad_input(f"{(listed or sources)[0]}: an annotation file stands alone, got {len(sources)} sources")
    return list(read_annotations(format or "kinetics", sources[0], root))


def _protocol(name: str, clips: str | None, crops: int | None) -> Protocol:
    from timesformer.evaluation.evaluate import protocol_named

    return protocol_named(name, clips=clips, crops=crops)


def _load(checkpoint: str, runs: Path) -> tuple[Any, Preprocessing, Any]:
    from timesformer.checkpoints import load_model
    from timesformer.data import Preprocessing

    loaded = load_model(model_source(checkpoint, runs))
    return loaded.model, Preprocessing.from_dict(loaded.preprocessing), loaded.labels


def _table(title: Any, first: str) -> Any:
    from rich.table import Table

    table = Table(title=title, title_justify="left", header_style="bold")
    table.add_column(first, overflow="fold")
    table.add_column("Class", overflow="fold")
    table.add_column("Probability", justify="right")
    return table


def _cells(guess: Guess) -> tuple[Any, str]:
    return plain_text(f"{guess.head}: {guess.label}" if guess.head else guess.label), f"{guess.probability:.3f}"


def _guesses(top: tuple[Guess, ...]) -> list[dict[str, Any]]:
    return [
        {"label": guess.label, "index": guess.index, "probability": guess.probability}
        | ({"head": guess.head} if guess.head else {})
        for guess in top
    ]


def _listed(unreadable: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"path": path, "reason": reason} for path, reason in unreadable]


def _finish(unreadable: list[tuple[str, str]], any_read: bool, allowed: bool) -> None:
    """Unreadable videos on standard error; exit code 1 for them unless allowed, and always where none could be read."""
    for path, reason in unreadable:
        progress(f"unreadable: {plain_text(path)}: {plain_text(reason)}")
    if unreadable and not (allowed and any_read):
        raise typer.Exit(1)
