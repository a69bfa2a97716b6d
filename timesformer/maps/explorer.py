"""A page to look around in a model's attention: one HTML file that needs no server and no network.

It holds the frames, for every patch its strongest keys in every layer, step and head (and their mean), and what the
methods for the whole model say.  The page allows itself (Content-Security-Policy) its own style and script and
pictures within it, and nothing else.  What comes from outside is data to it: JSON in a script element that is no
script, shown as text.
"""

import base64
import hashlib
import html
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
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
from timesformer.text import printable

PAGE_BYTES = 20_000_000
"""A page is smaller than this."""
FIXED_BYTES = 250_000
"""For style, script, names and methods."""
SMALL = 128
"""Frames whose sides are at most so many pixels are kept without loss, larger ones as JPEG."""


@dataclass(frozen=True)
class Side:
    """One model on the page: what the page says about it, and its packed arrays."""

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
    """What a model sees in a clip, for `write_explorer`.

    name, note: what is shown about the model; guesses: (class, probability); methods: maps of the whole model
    keys: what `top_keys` has found; None: as much of all layers, steps and heads as fits into a page

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
    """For `top_keys`: how many keys of each query fit into a page beside the pictures, and, where not even eight do,
    the cells in which patches are to be taken together; sides: models on the page."""
    pictures = (len(seen.frames) + len(seen.film)) * seen.frames[0].size // 8  # JPEG in base64 takes about so much
    lines = len(chosen_heads(model, heads)) + 1
    room = PAGE_BYTES / sides - pictures - FIXED_BYTES
    return what_fits(chosen_sites(model, layers, steps), grid_of(model, seen.clip), lines, room)


def write_explorer(path: Path | str, sides: Sequence[Side], *, title: str) -> Path:
    """Writes the page with one model, or two side by side.

    Raises:
        InputError: no model or more than two, or a folder that cannot be written.
    """
    if not 1 <= len(sides) <= 2:
        raise InputError(f"explorer: expected one model or two, got {len(sides)}")
    return write_atomic(path, explorer_page(sides, title=title))


def explorer_page(sides: Sequence[Side], *, title: str) -> str:
    """The page's text."""
    script = _part("explorer_data.js") + _part("explorer.js")
    style = _part("explorer.css")
    policy = (
        f"default-src 'none'; img-src data:; style-src {_allowed(style)}; script-src {_allowed(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    body = _part("explorer.html")
    has_class = sides[0].about["query"] == "the class token"
    for name, text in (
        ("class_button", "Class token" if has_class else "Mean of all patches"),
        ("explained", _EXPLAINED),
        ("title", html.escape(printable(title))),  # last: what it holds is not filled in again
    ):
        body = body.replace("{" + name + "}", text)
    numbered = iter(range(sum(len(side.chunks) for side in sides)))
    models, chunks = [], []
    for side in sides:
        numbers = [next(numbered) for _ in side.chunks]
        renumbered = {key: [{**one, "chunk": numbers[one["chunk"]]} for one in side.about[key]] for key in _CHUNKED}
        models.append(side.about | renumbered)
        chunks += [
            f'<script type="text/plain" id="chunk-{number}">{base64.b64encode(chunk).decode()}</script>'
            for number, chunk in zip(numbers, side.chunks, strict=True)
        ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(policy)}">'
        f"<title>{html.escape(printable(title))}</title>"
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}</style></head>\n'
        f'<body>{body}<script type="application/json" id="data">{_json({"models": models})}</script>\n'
        + "\n".join(chunks)
        + f"\n<script>{script}</script></body></html>\n"
    )


_CHUNKED = ("maps", "methods")
_EXPLAINED = """<p>A map is what one query takes from every patch in one attention step: the softmax, the weights of
a row. Weights on patches and on the class token sum to one. The class token's row is whole; of the other rows the
strongest keys are kept, and the text above the frames says how much of the weight they hold. A step in which the
class token takes no part leaves it to itself: its row then shows no patch. A method for the whole model says what its
prediction draws on, as shares of the whole. Each map is as bright as its largest weight allows; the scale beside the
video says what that is.</p>"""


def _json(value: Any) -> str:
    """JSON that no end of a script element and no comment can be part of."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _about_keys(found: TopKeys, chunks: list[bytes], grid: Grid) -> dict[str, Any]:
    chunks.append(pack_keys(found))
    cell = found.cell if found.encoder == 0 else (found.cell[0], *grid[1:])  # a later encoder: one token a frame
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
        raise InputError(f"explorer: {name} has a map of {weights.shape} patches, expected {grid}")
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
    """What stays on class tokens, where that and the patches' weights make a whole."""
    rest = 0.0 if found.on_class is None else float(found.on_class[0, 0])
    return rest if abs(rest + float(weights.sum()) - 1) < 1e-3 else 0.0


def _kept(found: Sequence[TopKeys]) -> Iterable[str]:
    """How much of the weight the kept keys hold, and whether patches had to be taken together."""
    most = max(one.keys.shape[-1] for one in found)
    kept = np.concatenate([one.kept.ravel() for one in found])
    if kept.min() < 0.9995:
        yield (
            f"Of each patch's keys the {most} strongest are kept in every layer, step and head; with the class token "
            f"they hold {100 * kept.mean():.0f} % of the weight on average, {100 * kept.min():.0f} % at least."
        )
    cell = found[0].cell
    if cell != (1, 1, 1):
        yield (
            f"The grid is too large for a page: patches are taken together in cells of {cell[0]} x {cell[1]} x "
            f"{cell[2]} (time x rows x columns), the weights of keys added, those of queries averaged."
        )


def _picture(pixels: np.ndarray) -> str:
    """A frame as a data address."""
    kind = "PNG" if max(pixels.shape[:2]) <= SMALL else "JPEG"
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **({"quality": 85} if kind == "JPEG" else {"optimize": True}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(out.getvalue()).decode()}"


def _part(name: str) -> str:
    return files("timesformer.maps").joinpath(name).read_text(encoding="utf-8")


def _allowed(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
