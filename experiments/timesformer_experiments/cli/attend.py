"""`timesformer attend`: attention maps of a model on a video."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from timesformer_experiments.cli.options import (
    Checkpoint,
    Device,
    Json,
    Runs,
    SchemeFile,
    Trust,
    bad_input,
    chosen_device,
    model_source,
    run_name,
)
from timesformer_experiments.report.terminal import print_json, progress

if TYPE_CHECKING:
    from timesformer.attention.operator import Query
    from timesformer.data import Preprocessing
    from timesformer.maps.look import Choice, Look
    from timesformer.maps.seen import Seen
    from timesformer.models.timesformer import TimeSformer

Numbers = Annotated[str | None, typer.Option(help="Numbers and ranges, such as 0,3-5,-1. Default: all.")]


def attend(
    video: Annotated[Path, typer.Argument(help="A video, or a folder of images.", show_default=False)],
    checkpoint: Checkpoint,
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    query: Annotated[str, typer.Option(help="Query token: class, or a patch as time,row,column.")] = "class",
    layers: Numbers = None,
    steps: Annotated[
        str | None, typer.Option(help="Names of attention steps, separated by commas. Default: all.")
    ] = None,
    heads: Numbers = None,
    method: Annotated[
        str,
        typer.Option(
            help="Methods for maps of the whole model, separated by commas, or `all`; the first is also a film."
        ),
    ] = "rollout",
    target: Annotated[
        str | None, typer.Option(help="Class to explain, by name or number. Default: the predicted class.")
    ] = None,
    compare: Annotated[str | None, typer.Option(help="Second model, shown beside the first.")] = None,
    start: Annotated[float | None, typer.Option(help="Start of the part of the video to use, in seconds.")] = None,
    end: Annotated[float | None, typer.Option(help="End of the part of the video to use, in seconds.")] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Frames per clip, overriding the checkpoint's.")] = None,
    smooth: Annotated[
        bool, typer.Option("--smooth", help="Interpolate maps in pictures and films instead of showing patches.")
    ] = False,
    no_explorer: Annotated[bool, typer.Option("--no-explorer", help="Do not write the interactive page.")] = False,
    device: Device = None,
    scheme_file: SchemeFile = None,
    trust: Trust = False,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Show where and when a model attends in a video.

    Uses the middle clip of the video and its centre crop, with the checkpoint's preprocessing. Files in the folder:

    explorer.html: interactive page with all maps.

    layers-STEP.png, heads-STEP.png: attention of a step from the query, by layer and by head.

    time-STEP.png: attention between frames at the query's patch.

    methods.png, METHOD.mp4, METHOD.gif: maps of the whole model.

    attention.npz, methods.npz: the same as arrays.

    With --compare, the files of the second model are in the subfolder `compare`, and difference.npz and difference.png
    are the maps of the whole model of the first minus those of the second.
    """
    from timesformer.maps.explorer import write_explorer
    from timesformer.maps.look import Choice, described, write_difference
    from timesformer.text import path_text
    from timesformer_experiments.report.report import require_writable

    began = perf_counter()
    choice = Choice(
        query=_query(query),
        layers=_numbers("--layers", layers),
        steps=None if steps is None else [name.strip() for name in steps.split(",")],
        heads=_numbers("--heads", heads),
        methods=_methods(method),
        smooth=smooth,
    )
    require_writable(out)
    sources = [checkpoint] if compare is None else [checkpoint, compare]
    sides, models, files, looks, clips = [], [], [], [], []
    names = _names(sources, runs)
    for number, source in enumerate(sources):
        model, record, labels = _loaded(source, runs, chosen_device(device), frames, trust, scheme_file)
        mine = replace(choice, target=_target(target, labels))
        if number:
            mine = _fitted(mine, model)
        seen = _seen(video, record, start, end)
        if seen.repeated:
            _say_repeated(seen, frames)
        shown = 0 if no_explorer else len(sources)
        found = _look(model, seen, labels, names[number], mine, out / "compare" if number else out, shown, source)
        files += found.files
        looks.append(found)
        clips.append(seen)
        models.append(described(found, model, seen) | {"checkpoint": source})
        if not no_explorer:
            sides.append(_side(model, seen, found))
        del model
    if sides:
        files.append(write_explorer(out / "explorer.html", sides, title=video.name))
    stated: dict[str, Any] = {}
    if compare is not None:
        made, stated["difference"] = write_difference(
            (looks[0], looks[1]), (clips[0], clips[1]), (checkpoint, compare), out, smooth
        )
        files += made
    seconds = perf_counter() - began
    if as_json:
        written = [str(path) for path in files]
        print_json({"video": path_text(video), "models": models, **stated, "files": written, "seconds": seconds})
        return
    if why := stated.get("difference", {}).get("left_out"):
        progress(f"no map of differences: {why}")
    for model_found in models:
        for said in model_found["left_out"]:
            progress(f"no picture of {said}")
    for path in files:
        print(path)


def _seen(video: Path, record: Preprocessing, start: float | None, end: float | None) -> Seen:
    from timesformer.maps.seen import see

    return see(video, record, start=start, end=end)


def _say_repeated(seen: Seen, frames: int | None) -> None:
    """More frames than the video has are refused where they were asked for; other repeats are told."""
    if frames is not None and frames > seen.available:
        raise bad_input(f"--frames {frames}: {seen.path} has {seen.available} frames to look at")
    wanted = len(seen.seconds)
    progress(f"{seen.path}: of the clip's {wanted} frames {seen.repeated} are repeated, the video is too short for it")


def _look(
    model: TimeSformer, seen: Seen, labels: Any, name: str, choice: Choice, out: Path, sides: int, source: str
) -> Look:
    from timesformer.maps.look import look
    from timesformer.text import printable

    return look(model, seen, labels, name, choice, out, lambda text: progress(printable(text)), sides, source)


def _side(model: TimeSformer, seen: Seen, found: Look) -> Any:
    from timesformer.maps.look import side

    config, (t, _, height, width) = model.config, seen.clip.shape[1:]
    title = model.scheme.title or model.scheme.name
    note = f"{title}; {t} frames of {height} x {width} pixels (height x width), patches of {config.patch_size}."
    made = side(model, seen, found, note)
    progress(f"explorer page: {made.size / 1e6:.1f} MB")
    return made


def _loaded(
    source: str, runs: Path, device: Any, frames: int | None, trust: bool, scheme_file: Path | None
) -> tuple[TimeSformer, Preprocessing, Any]:
    from timesformer.checkpoints import load_model
    from timesformer.data import Preprocessing

    loaded = load_model(model_source(source, runs), trust=trust, scheme_file=scheme_file)
    record = Preprocessing.from_dict(loaded.preprocessing)
    return loaded.model.to(device), record if frames is None else replace(record, num_frames=frames), loaded.labels


def _fitted(choice: Choice, model: TimeSformer) -> Choice:
    """Restrict the choice made for the first model to what the second one has."""
    from timesformer.maps.capture import sites
    from timesformer.maps.look import some_of

    every = sites(model)
    depth = every[-1].layer + 1
    known: dict[str, list[Any]] = {
        "layers": list(range(-depth, depth)),
        "steps": [site.step.name for site in every],
        "heads": list(range(model.config.num_heads)),
    }
    kept = {name: some_of(getattr(choice, name), some) for name, some in known.items()}
    for name, some in kept.items():
        if some != getattr(choice, name):
            said = "all" if some is None else ", ".join(map(str, some))
            progress(f"--compare: the second model does not have all of the requested {name}; showing {said}")
    return replace(choice, **kept)  # type: ignore[arg-type]


def _names(sources: list[str], runs: Path) -> list[str]:
    """Short names of checkpoints, of runs the runs' own; full names where the short ones coincide."""
    short = [run_name(source, runs) or Path(source).name or source for source in sources]
    return short if len(set(short)) == len(short) else sources


def _query(text: str) -> Query:
    if text == "class":
        return "class"
    match = re.fullmatch(r"(\d+),(\d+),(\d+)", text.replace(" ", ""))
    if match is None:
        raise bad_input(f"--query {text}: expected `class`, or a patch as time,row,column")
    t, h, w = map(int, match.groups())
    return t, h, w


def _numbers(option: str, text: str | None) -> list[int] | None:
    if text is None:
        return None
    found: list[int] = []
    for word in text.split(","):
        match = re.fullmatch(r"\s*(-?\d+)(?:-(\d+))?\s*", word)
        if match is None:
            raise bad_input(f"{option} {text}: expected numbers and ranges, such as 0,3-5")
        first, last = int(match[1]), int(match[2] or match[1])
        if match[2] and not 0 <= first <= last < 10_000:
            raise bad_input(f"{option} {text}: expected a range first-last, such as 3-5, got {word.strip()}")
        found += range(first, last + 1)
    return list(dict.fromkeys(found))


def _methods(text: str) -> tuple[str, ...]:
    from timesformer.maps.methods import METHODS

    names = tuple(METHODS) if text == "all" else tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in METHODS:
            raise bad_input(f"--method {name}: expected some of {', '.join(METHODS)}, or all")
    return names


def _target(text: str | None, labels: Any) -> int | None:
    """Return the column of a class.  Raises InputError for an unknown class."""
    if text is None:
        return None
    if isinstance(labels, dict):
        raise bad_input(
            "--target: expected a model with one head; of a model with several, the predicted classes are explained"
        )
    if text in labels:
        return int(labels.index(text))
    if text.isdecimal() and int(text) < len(labels):
        return int(text)
    some = ", ".join(labels[:8]) + (", …" if len(labels) > 8 else "")
    raise bad_input(f"--target {text}: unknown class; expected a number below {len(labels)}, or one of {some}")
