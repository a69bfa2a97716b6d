"""`timesformer predict`: class names for videos without labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from timesformer_experiments.cli.options import (
    AllowUnreadable,
    BatchSize,
    Checkpoint,
    Clips,
    Crops,
    Device,
    Json,
    PrecisionName,
    ProtocolName,
    Runs,
    SchemeFile,
    Trust,
    Workers,
    bad_input,
    chosen_device,
    chosen_precision,
    chosen_protocol,
    finish,
    listed,
    loaded_model,
)
from timesformer_experiments.report.terminal import console, plain_text, print_json, progress

if TYPE_CHECKING:
    from timesformer.evaluation.prediction import Guess, Predictions, Timelines

MOST_ROWS = 12
"""Largest number of videos in one timeline picture."""


def predict(
    videos: Annotated[list[str], typer.Argument(help="Videos and folders of videos.", show_default=False)],
    checkpoint: Checkpoint,
    top: Annotated[int, typer.Option(min=1, help="Number of classes to show.")] = 5,
    protocol: ProtocolName = None,
    clips: Clips = None,
    crops: Crops = None,
    timeline: Annotated[
        bool, typer.Option("--timeline", help="Classify each stretch of a long video separately.")
    ] = False,
    stretch: Annotated[
        float | None,
        typer.Option(
            help="With --timeline: seconds per stretch. Default: the duration of a clip (4 where it is not fixed), "
            "and at most a quarter of the video."
        ),
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="With --timeline: picture to write, .png, .svg or .pdf.")] = None,
    allow_unreadable: AllowUnreadable = False,
    batch_size: BatchSize = 8,
    workers: Workers = 0,
    device: Device = None,
    precision: PrecisionName = "fp32",
    scheme_file: SchemeFile = None,
    trust: Trust = False,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Classify videos: print class names with probabilities.

    The checkpoint may be in any supported format; its preprocessing is used. Unreadable videos are listed and the
    others classified; the exit code is then 1, unless --allow-unreadable is given.
    """
    from timesformer.data.video.find import find_videos
    from timesformer.evaluation.prediction import predict as classify
    from timesformer.evaluation.prediction import timelines

    if not timeline and (plot is not None or stretch is not None):
        raise bad_input("--plot, --stretch: expected only with --timeline")
    if timeline and clips is not None:
        raise bad_input("--clips: a timeline has one clip per stretch; set the length of a stretch with --stretch")
    if plot is not None and plot.suffix not in (".png", ".svg", ".pdf"):
        raise bad_input(f"--plot {plot}: expected a name that ends in .png, .svg or .pdf")
    chosen = chosen_protocol(protocol or ("clip" if timeline else "paper"), clips, crops)
    found = list(map(str, find_videos(videos)))
    if plot is not None and len(set(found)) > MOST_ROWS:
        raise bad_input(f"--plot: expected at most {MOST_ROWS} videos, got {len(set(found))}")
    model, record, labels = loaded_model(checkpoint, runs, trust, scheme_file)
    place = chosen_device(device)
    options: dict[str, Any] = {
        "protocol": chosen,
        "top": top,
        "batch_size": batch_size,
        "workers": workers,
        "device": place,
        "precision": chosen_precision(precision, place, quiet=as_json),
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
        print_json({**stated, **shown, "enlarged": result.enlarged, "unreadable": listed(result.unreadable)})
    finish(result.unreadable, bool(result.videos), allow_unreadable, result.enlarged)


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
                "stretch_seconds": video.stretch_seconds,
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


def _table(title: Any, first: str) -> Any:
    from rich.table import Table

    table = Table(title=title, title_justify="left", header_style="bold")
    table.add_column(first, overflow="fold")
    table.add_column("Class", overflow="fold")
    table.add_column("Probability", justify="right", no_wrap=True)
    return table


def _cells(guess: Guess) -> tuple[Any, str]:
    return plain_text(f"{guess.head}: {guess.label}" if guess.head else guess.label), f"{guess.probability:.3f}"


def _guesses(top: tuple[Guess, ...]) -> list[dict[str, Any]]:
    return [
        {"label": guess.label, "index": guess.index, "probability": guess.probability}
        | ({"head": guess.head} if guess.head else {})
        for guess in top
    ]
