"""Explorer page for a model's attention: one HTML file that needs no server and no network.

It holds the frames, the strongest keys of every patch in every layer, step and head (and their mean), and the maps of
methods that explain the whole model.  Values from outside are only data: JSON in a non-executable script element, shown
as text.
"""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from timesformer.attention import Grid
from timesformer.errors import InputError
from timesformer.files import write_atomic
from timesformer.maps.attention import chosen_heads, chosen_sites
from timesformer.maps.capture import grid_of
from timesformer.maps.overlay import shares
from timesformer.maps.packing import pack_keys, pack_map, what_fits
from timesformer.maps.seen import Seen
from timesformer.maps.top_keys import TopKeys, top_keys
from timesformer.maps.walk import Saliency
from timesformer.models.timesformer import TimeSformer
from timesformer.pages import render_page
from timesformer.text import printable

PAGE_BYTES = 20_000_000
"""Upper bound on the size of a page, in bytes."""
FIXED_BYTES = 250_000
"""Bytes reserved for style, script, names and methods."""
SMALL = 128
"""Longest side, in pixels, of frames that are stored without loss; larger ones are stored as JPEG."""


@dataclass(frozen=True)
class Side:
    """One model on the page.

    about: texts, frames and descriptions of the maps; chunks: packed arrays; size: approximate bytes on the page
    """

    about: dict[str, Any]
    chunks: list[bytes]
    size: int


def explorer_side(
    model: TimeSformer,
    seen: Seen,
    *,
    name: str,
    note: str = "",
    guesses: Sequence[tuple[str, float]] = (),
    methods: Mapping[str, Saliency] | None = None,
    keys: Sequence[TopKeys] | None = None,
) -> Side:
    """Collect the content of one model and clip for `write_explorer`.

    name, note: texts about the model; guesses: (class, probability); methods: maps of the whole model
    keys: result of `top_keys`; None: all layers, steps and heads, with as many keys as fit on a page

    Raises:
        InputError: frames or maps that do not fit the model.
    """
    grid = grid_of(model, seen.clip)
    if keys is None:
        count, cell = keys_that_fit(model, seen)
        keys = top_keys(model, seen.clip, count=count, coarsen=cell)
    frames, film = [_picture(frame) for frame in seen.frames], [_picture(frame) for frame in seen.film]
    chunks: list[bytes] = []
    maps = [_about_keys(one, chunks, grid) for one in keys]
    has_class = model.scheme.encoders[-1].class_tokens != "none"
    about = {
        "name": printable(name),
        "note": " ".join([printable(note), *_kept(keys)]).strip(),
        "top": [{"label": printable(label), "probability": float(share)} for label, share in guesses],
        "grid": grid,
        "size": seen.frames.shape[1:3],
        "seconds": seen.seconds.tolist(),
        "filmSeconds": seen.film_seconds.tolist(),
        "filmFrames": seen.film_frames.tolist(),
        "frames": frames,
        "film": film,
        "heads": [*(f"head {head}" for head in keys[0].heads), "mean of heads"],
        "beside": "the class token and the registers" if model.config.registers else "the class token",
        "query": "the class token" if has_class else "the mean of all patches",
        "maps": maps,
        "methods": [_about_method(name, one, chunks, grid) for name, one in (methods or {}).items()],
    }
    taken = sum(map(len, [*frames, *film])) + sum(len(chunk) * 4 // 3 + 80 for chunk in chunks)
    return Side(about, chunks, taken)


def keys_that_fit(
    model: TimeSformer,
    seen: Seen,
    *,
    layers: Sequence[int] | None = None,
    steps: Sequence[str] | None = None,
    heads: Sequence[int] | None = None,
    sides: int = 1,
) -> tuple[int, Grid]:
    """Return the arguments `count` and `coarsen` of `top_keys` with which the keys fit on a page beside the pictures.

    Patches are merged into cells only if not even eight keys of each query fit.  sides: number of models on the page
    """
    pictures = (len(seen.frames) + len(seen.film)) * seen.frames[0].size // 8  # approximate size of JPEG in base64
    lines = len(chosen_heads(model, heads)) + 1
    room = PAGE_BYTES / sides - pictures - FIXED_BYTES
    return what_fits(chosen_sites(model, layers, steps), grid_of(model, seen.clip), lines, room)


def write_explorer(path: Path | str, sides: Sequence[Side], *, title: str) -> Path:
    """Write the page with one model, or two side by side.

    Raises:
        InputError: no model or more than two, or a folder that cannot be written.
    """
    if not 1 <= len(sides) <= 2:
        raise InputError(f"explorer: expected one or two models, got {len(sides)}")
    return write_atomic(path, explorer_page(sides, title=title))


def explorer_page(sides: Sequence[Side], *, title: str) -> str:
    """Return the HTML text of the page."""
    models: list[dict[str, Any]] = []
    chunks: list[bytes] = []
    for side in sides:
        numbered = {
            key: [{**one, "chunk": len(chunks) + one["chunk"]} for one in side.about[key]]
            for key in ("maps", "methods")
        }
        models.append(side.about | numbered)
        chunks += side.chunks
    return render_page(
        "timesformer.maps",
        "explorer.html",
        title=printable(title),
        style="explorer.css",
        scripts=("explorer_data.js", "explorer.js"),
        has_class=sides[0].about["query"] == "the class token",
        models=models,
        chunks=chunks,
    )


def _about_keys(found: TopKeys, chunks: list[bytes], grid: Grid) -> dict[str, Any]:
    chunks.append(pack_keys(found))
    cell = found.cell if found.encoder == 0 else (found.cell[0], *grid[1:])  # a later encoder has one token per frame
    return {
        "chunk": len(chunks) - 1,
        "layer": found.layer,
        "step": found.step,
        "grid": found.grid,
        "cell": cell,
        "shape": found.keys.shape,
        "coarse": found.cell != (1, 1, 1),
    }


def _about_method(name: str, found: Saliency, chunks: list[bytes], grid: Grid) -> dict[str, Any]:
    weights = shares(found.weights[0, 0])
    if weights.shape != grid:
        raise InputError(f"explorer: expected a map of {grid} patches for {name}, got {weights.shape}")
    chunks.append(pack_map(weights))
    return {
        "chunk": len(chunks) - 1,
        "method": printable(name),
        "grid": weights.shape,
        "cell": (1, 1, 1),
        "top": float(weights.max()),
        "onClass": _rest(found, weights),
        "coarse": False,
    }


def _rest(found: Saliency, weights: np.ndarray) -> float:
    """Weight that remains on class tokens, if it and the weights of the patches sum to 1, otherwise 0."""
    rest = 0.0 if found.on_class is None else float(found.on_class[0, 0])
    return rest if abs(rest + float(weights.sum()) - 1) < 1e-3 else 0.0


def _kept(found: Sequence[TopKeys]) -> Iterable[str]:
    """Yield notes for the page on the share of weight in the stored keys, and on merged patches."""
    most = max(one.keys.shape[-1] for one in found)
    kept = np.concatenate([one.kept.ravel() for one in found])
    if kept.min() < 0.9995:
        yield (
            f"Only the {most} strongest keys of each patch are stored for every layer, step and head; with the class "
            f"token they hold {100 * kept.mean():.0f} % of the weight on average, {100 * kept.min():.0f} % at least."
        )
    cell = found[0].cell
    if cell != (1, 1, 1):
        yield (
            f"The grid is too large for a page: patches are merged into cells of {cell[0]} x {cell[1]} x {cell[2]} "
            "(time x rows x columns); weights are summed over keys and averaged over queries."
        )


def _picture(pixels: np.ndarray) -> str:
    """Encode a frame as a data URL."""
    kind = "PNG" if max(pixels.shape[:2]) <= SMALL else "JPEG"
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **({"quality": 85} if kind == "JPEG" else {"optimize": True}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(out.getvalue()).decode()}"
