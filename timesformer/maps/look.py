"""Outputs of `timesformer attend` for one model and one clip: arrays, pictures, films, a side of the explorer page."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from timesformer.attention.operator import Query
from timesformer.errors import InputError
from timesformer.evaluation.prediction import Guess, top_classes
from timesformer.files import write_atomic
from timesformer.heads import Labels
from timesformer.maps import METHODS, AttentionMap, AttentionMaps, Saliency, TopKeys
from timesformer.maps.attention import as_queries, chosen_heads, chosen_sites, map_of
from timesformer.maps.capture import Call, as_input, evaluating, grid_of, watching
from timesformer.maps.difference import difference, draw_difference, not_comparable, save_difference
from timesformer.maps.explorer import Side, explorer_side, keys_that_fit
from timesformer.maps.films import side_by_side, write_film
from timesformer.maps.overlay import shares
from timesformer.maps.pictures import draw_heads, draw_overlays, draw_time
from timesformer.maps.seen import Seen
from timesformer.maps.top_keys import keys_of
from timesformer.models.timesformer import TimeSformer

MOST_LAYERS = 6
"""Most rows of a picture of layers."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Choice:
    """Selection of what is shown; None stands for all layers, steps or heads.

    target: a column of the logits, or None for the predicted class
    """

    query: Query = "class"
    layers: list[int] | None = None
    steps: list[str] | None = None
    heads: list[int] | None = None
    methods: tuple[str, ...] = ("rollout",)
    target: int | None = None
    smooth: bool = False


@dataclass
class Look:
    """Results for one model and one clip.

    explained: requested class, None if it is the predicted one; files: written files; left_out: empty pictures that
    were not drawn, with the reason
    """

    name: str
    guesses: tuple[Guess, ...]
    keys: list[TopKeys]
    explained: str | None = None
    methods: dict[str, Saliency] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def look(
    model: TimeSformer,
    seen: Seen,
    labels: Labels,
    name: str,
    choice: Choice,
    out: Path,
    say: Say,
    sides: int = 1,
    checkpoint: str = "",
) -> Look:
    """Write attention.npz, methods.npz, the pictures and the films to a folder, in place of an earlier look's.

    checkpoint: name of the model in the arrays' headers, beside the video

    sides: number of models on the explorer page, for which the strongest keys are collected; 0: no page

    Raises:
        InputError: a layer, step, head, query or target that the model does not have.
    """
    maps, times, result = _one_pass(model, seen, labels, name, choice, sides)
    if choice.target is not None and isinstance(labels, list):
        result.explained = labels[choice.target]
    say(f"{name}: attention")
    for method in choice.methods:
        result.methods[method] = METHODS[method](model, seen.clip, choice.target)
        say(f"{name}: {method}")
    clear(out)
    made_from = {"checkpoint": checkpoint or name, "video": seen.path}
    _write(result, out / "attention.npz", lambda path: maps.save(path, made_from))
    _write(result, out / "methods.npz", lambda path: _save_methods(path, result, seen, made_from))
    _layer_pictures(result, maps, seen, choice, out)
    for found in times:
        if _crosses_time(found):
            _picture(result, out / f"time-{found.step}.png", draw_time(found))
    shown = {method: shares(found.weights[0, 0]) for method, found in result.methods.items()}
    _picture(
        result,
        out / "methods.png",
        draw_overlays(seen.frames, shown, seconds=seen.seconds, title=_methods_title(result), smooth=choice.smooth),
    )
    first, weights = next(iter(shown.items()))
    film = side_by_side(seen, weights, smooth=choice.smooth)
    for suffix in (".mp4", ".gif"):
        result.files.append(write_film(out / f"{first}{suffix}", film, seen.film_fps))
    say(f"{name}: pictures and films")
    return result


def write_difference(
    looks: tuple[Look, Look], clips: tuple[Seen, Seen], checkpoints: tuple[str, str], out: Path, smooth: bool = False
) -> tuple[list[Path], dict[str, Any]]:
    """Write difference.npz and difference.png: the first model's maps of the whole model minus the second's.

    Return the files and what they hold as plain data; without files and with the reason in `left_out` where the clips
    do not show the same.
    """
    if why := not_comparable(*clips):
        return [], {"left_out": why}
    one, other = ({name: found.weights[0, 0] for name, found in each.methods.items()} for each in looks)
    found = difference(one, other, (looks[0].name, looks[1].name))
    save_difference(out / "difference.npz", found, clips[0], checkpoints)
    try:
        figure = draw_difference(clips[0], found, smooth=smooth)
    except InputError as error:
        return [out / "difference.npz"], {**found.described(), "left_out": f"no picture: {error}"}
    write_atomic(out / "difference.png", lambda to: figure.savefig(to, dpi=96, pil_kwargs={"compress_level": 1}))
    return [out / "difference.npz", out / "difference.png"], found.described()


def side(model: TimeSformer, seen: Seen, found: Look, note: str) -> Side:
    """Make the model's side of the explorer page."""
    guesses = [
        (f"{guess.head}: {guess.label}" if guess.head else guess.label, guess.probability) for guess in found.guesses
    ]
    return explorer_side(
        model, seen, name=found.name, note=note, guesses=guesses, methods=found.methods, keys=found.keys
    )


def _one_pass(
    model: TimeSformer, seen: Seen, labels: Labels, name: str, choice: Choice, sides: int
) -> tuple[AttentionMaps, list[AttentionMap], Look]:
    """Compute everything that comes from one forward pass.

    Return the maps of the query, the maps of one position at all times in the last layer of each step, and the model's
    predictions with the strongest keys.
    """
    clip = as_input(model, seen.clip)
    grid = grid_of(model, clip)
    queries = as_queries(choice.query, grid)
    wanted, heads = chosen_sites(model, choice.layers, choice.steps), chosen_heads(model, choice.heads)
    last = {site.step.name: site for site in wanted}
    place = (grid[1] // 2, grid[2] // 2) if choice.query == "class" else choice.query[1:]
    count, cell = 0, grid
    if sides:
        count, cell = keys_that_fit(
            model, seen, layers=choice.layers, steps=choice.steps, heads=choice.heads, sides=sides
        )
    maps: list[AttentionMap] = []
    times: list[AttentionMap] = []
    keys: list[TopKeys] = []

    def visit(call: Call) -> None:
        maps.append(map_of(call, queries, heads, grid[0]))
        if call.site is last[call.site.step.name] and grid[0] > 1:
            times.append(map_of(call, [(t, *place) for t in range(grid[0])], heads, grid[0]))
        if sides:
            keys.append(keys_of(call, grid, heads, count, cell))

    with watching(wanted, visit), evaluating(model), torch.no_grad():
        logits = model(clip)[0]
    return AttentionMaps(maps), times, Look(name, top_classes(model, logits, labels), keys)


def _layer_pictures(result: Look, maps: AttentionMaps, seen: Seen, choice: Choice, out: Path) -> None:
    """Draw, for each step, the layers as means over their heads, and the heads of the last layer."""
    for step in dict.fromkeys(one.step for one in maps):
        some = [one for one in maps if one.step == step]
        if not any(one.weights.any() for one in some):
            result.left_out.append(
                f"{step}: the class token takes no part in it; --query t,h,w shows the attention of a patch"
            )
            continue
        rows = [
            some[i] for i in np.unique(np.linspace(0, len(some) - 1, min(MOST_LAYERS, len(some))).round().astype(int))
        ]
        means = {f"layer {one.layer}": one.weights[0, :, 0].mean(0) for one in rows}
        marked = None if choice.query == "class" else choice.query
        title = f"{step}, mean of heads, from {_said(choice.query)}"
        figure = draw_overlays(
            seen.frames, means, seconds=seen.seconds, query=marked, title=title, smooth=choice.smooth
        )
        _picture(result, out / f"layers-{step}.png", figure)
        figure = draw_heads(seen.frames, some[-1], seconds=seen.seconds, smooth=choice.smooth)
        _picture(result, out / f"heads-{step}.png", figure)


def _crosses_time(found: AttentionMap) -> bool:
    weights = found.weights[0].sum((-2, -1))  # head, time of the query, time
    return bool((weights * (1 - np.eye(weights.shape[-1]))).any())


def _save_methods(path: Path, result: Look, seen: Seen, made_from: dict[str, str]) -> None:
    """Write each method's map (t, h, w) under its name, the frames' seconds, and their source as JSON in `header`."""
    header = json.dumps({**made_from, "explained": result.explained})
    with path.open("wb") as file:
        arrays: dict[str, Any] = {name: found.weights[0, 0] for name, found in result.methods.items()}
        np.savez_compressed(file, header=np.array(header), seconds=seen.seconds, **arrays)


def clear(out: Path) -> None:
    """Remove what an earlier look has left in a folder, and in `compare` inside it; other files stay.

    The arrays of a look say what it has written, and they are removed last.
    """
    for folder in (out / "compare", out):
        try:
            steps = {one.step for one in AttentionMaps.load(folder / "attention.npz")}
        except InputError:  # none of ours
            continue
        pictures = [f"{kind}-{step}.png" for step in steps for kind in ("layers", "heads", "time")]
        films = [f"{method}{suffix}" for method in METHODS for suffix in (".mp4", ".gif")]
        arrays = ("difference.npz", "methods.npz", "attention.npz")
        for name in (*pictures, *films, "methods.png", "difference.png", "explorer.html", *arrays):
            (folder / name).unlink(missing_ok=True)


def _write(result: Look, path: Path, write: Callable[[Path], object]) -> None:
    result.files.append(write_atomic(path, write))


def _picture(result: Look, path: Path, figure: Figure) -> None:
    _write(result, path, lambda to: figure.savefig(to, dpi=96, pil_kwargs={"compress_level": 1}))


def _title(result: Look) -> str:
    best = ", ".join(f"{guess.label} {100 * guess.probability:.0f} %" for guess in result.guesses[:1])
    return f"{result.name}: {best}"


def _methods_title(result: Look) -> str:
    explained = "" if result.explained is None else f"; explained: {result.explained}"
    return f"{_title(result)}{explained}"


def _said(query: Query) -> str:
    return "the class token" if query == "class" else f"the patch at time {query[0]}, row {query[1]}, column {query[2]}"


def described(found: Look, model: TimeSformer, seen: Seen) -> dict[str, Any]:
    """Return the results as plain data, for --json."""
    return {
        "name": found.name,
        "attention": model.config.label,
        "grid": list(grid_of(model, seen.clip)),
        "frames_seconds": seen.seconds.tolist(),
        "frames_repeated": seen.repeated,
        "top": [
            {"label": guess.label, "index": guess.index, "probability": guess.probability}
            | ({"head": guess.head} if guess.head else {})
            for guess in found.guesses
        ],
        "methods": list(found.methods),
        "explained": found.explained,
        "left_out": found.left_out,
    }


def some_of(wanted: Sequence[Any] | None, known: Sequence[Any]) -> list[Any] | None:
    """Return the selected items that a second model has too, or None (all of them) if it has none."""
    kept = [one for one in wanted or () if one in known]
    return kept or None
