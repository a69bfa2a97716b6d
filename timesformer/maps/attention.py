"""Attention maps: the weights of a query on all tokens, in any layer, step and head of any scheme."""

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, overload
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from timesformer.attention import Grid
from timesformer.attention.operator import Query, StepOperator
from timesformer.errors import InputError
from timesformer.maps.capture import Call, Site, as_input, grid_of, run, sites, watching
from timesformer.models.timesformer import TimeSformer

FORMAT = "timesformer attention maps 1"


@dataclass(frozen=True)
class AttentionMap:
    """Attention maps of one step of one block.

    layer: number of the block, counted from 0 over all encoders
    encoder: number of the encoder, counted from 0
    step: name of the step
    heads: numbers of the heads along axis `head`; queries: queries along axis `query`
    weights: (clip, head, query, t, h, w), float32; t counts tokens in time (tubelets); in an encoder after the first,
        which has one token per frame, h = w = 1
    on_class: (clip, head, query), weight on the class token, 0 where there is none
    on_registers: (clip, head, query, register), weight on each register, none where the model has none.  For a softmax,
        and for a mixer whose rows sum to 1, all weights of a query, its `on_class` and `on_registers` sum to 1.

    The query `class` is the class token.  In a step that copies it into groups, its row is the mean of its copies'
    softmaxes; in a step that leaves it out, its weight is on itself.  With a class token for each frame, the row is
    their mean, as the model averages them.  In an encoder without a class token, it is the mean over the patches.
    """

    DIMS: ClassVar[tuple[str, ...]] = ("clip", "head", "query", "t", "h", "w")

    layer: int
    encoder: int
    step: str
    heads: tuple[int, ...]
    queries: tuple[Query, ...]
    weights: np.ndarray
    on_class: np.ndarray
    on_registers: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))

    def __post_init__(self) -> None:
        if self.on_registers.ndim != self.on_class.ndim + 1:
            object.__setattr__(self, "on_registers", np.zeros((*self.on_class.shape, 0), np.float32))


class AttentionMaps(Sequence[AttentionMap]):
    """Sequence of the requested maps, in the order in which the steps run."""

    def __init__(self, maps: Iterable[AttentionMap]) -> None:
        self._maps = list(maps)

    @overload
    def __getitem__(self, index: int) -> AttentionMap: ...
    @overload
    def __getitem__(self, index: slice) -> "AttentionMaps": ...
    def __getitem__(self, index: int | slice) -> "AttentionMap | AttentionMaps":
        return AttentionMaps(self._maps[index]) if isinstance(index, slice) else self._maps[index]

    def __len__(self) -> int:
        return len(self._maps)

    def get(self, layer: int, step: str) -> AttentionMap:
        """Return the map of a step of a layer.

        Raises:
            InputError: there is no map of this step; the message lists those there are.
        """
        for one in self:
            if (one.layer, one.step) == (layer, step):
                return one
        known = ", ".join(f"{one.layer} {one.step}" for one in self)
        raise InputError(f"attention maps: expected one of {known}, got layer {layer} with step {step!r}")

    def save(self, path: str | Path, made_from: Mapping[str, str] | None = None) -> Path:
        """Write an npz file: `header`, a JSON text, and the arrays weights_0, on_class_0, weights_1, …; with
        registers also on_registers_0, …

        made_from: model and video, for the header.
        """
        header = {
            "format": FORMAT,
            **(made_from or {}),
            "dims": AttentionMap.DIMS,
            "maps": [{name: getattr(one, name) for name in _PLAIN} for one in self],
        }
        arrays = {f"{name}_{i}": getattr(one, name) for i, one in enumerate(self) for name in ("weights", "on_class")}
        arrays |= {f"on_registers_{i}": one.on_registers for i, one in enumerate(self) if one.on_registers.size}
        path = Path(path)
        with path.open("wb") as file:
            np.savez_compressed(file, header=np.array(json.dumps(header)), **arrays)
        return path

    @classmethod
    def load(cls, path: str | Path) -> "AttentionMaps":
        """Read a file of `save`.

        Raises:
            InputError: the file is missing or of another kind.
        """
        try:
            with np.load(path, allow_pickle=False) as content:
                header = json.loads(str(content["header"]))
                if header["format"] != FORMAT:
                    raise ValueError(header["format"])
                return cls(
                    AttentionMap(
                        **{name: _plain(one[name]) for name in _PLAIN},
                        weights=content[f"weights_{i}"],
                        on_class=content[f"on_class_{i}"],
                        **{name: content[f"{name}_{i}"] for name in ("on_registers",) if f"{name}_{i}" in content},
                    )
                    for i, one in enumerate(header["maps"])
                )
        except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile, zlib.error) as error:
            raise InputError(f"{path}: expected a file of attention maps: {error}") from error


_PLAIN = ("layer", "encoder", "step", "heads", "queries")


def _plain(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    return tuple(tuple(query) if isinstance(query, list) else query for query in value)


def attention_maps(
    model: TimeSformer,
    clip: Tensor,
    *,
    layers: Sequence[int] | None = None,
    steps: Sequence[str] | None = None,
    heads: Sequence[int] | None = None,
    query: Query | Sequence[Query] = "class",
) -> AttentionMaps:
    """Compute attention maps in one forward pass, from q and k of the requested layers, steps and heads only.

    clip: (clips, frames, channels, height, width), normalised as for the model
    layers, steps, heads: numbers and names, None for all; a layer may count from the end (-1)
    query: "class" or a patch (t, h, w), or several; in an encoder after the first, which has one token per frame, a
        patch stands for its frame's token (t, 0, 0)

    Raises:
        InputError: a layer, step, head or query that the model does not have for this clip.
    """
    clip = as_input(model, clip)
    grid = grid_of(model, clip)
    queries = as_queries(query, grid)
    wanted, chosen = chosen_sites(model, layers, steps), chosen_heads(model, heads)
    maps: list[AttentionMap] = []

    def visit(call: Call) -> None:
        maps.append(map_of(call, queries, chosen, grid[0]))

    with watching(wanted, visit):
        run(model, clip)
    return AttentionMaps(maps)


def as_queries(query: Query | Sequence[Query], grid: Grid) -> tuple[Query, ...]:
    """Return one query or several as a tuple.

    Raises:
        InputError: no query, an invalid one, or one outside the grid.
    """
    one_alone = query == "class" or (isinstance(query, tuple) and all(isinstance(at, int) for at in query))
    several: Sequence[Any] = [query] if one_alone else query
    found: list[Query] = []
    for one in several:
        if isinstance(one, str):
            if one != "class":
                raise InputError(f'query: expected "class" or (t, h, w), got {one!r}')
            found.append("class")
            continue
        at = tuple(one)
        if len(at) != 3 or any(not isinstance(i, int | np.integer) for i in at):
            raise InputError(f'query: expected "class" or (t, h, w), got {one!r}')
        if any(not 0 <= i < length for i, length in zip(at, grid, strict=True)):
            raise InputError(f"query: expected a patch inside the grid (t, h, w) = {grid}, got {at}")
        found.append((int(at[0]), int(at[1]), int(at[2])))
    if not found:
        raise InputError('query: expected "class" or (t, h, w), got none')
    return tuple(found)


def chosen_sites(model: TimeSformer, layers: Sequence[int] | None, steps: Sequence[str] | None) -> list[Site]:
    """Return the requested steps.

    Raises:
        InputError: a layer or step that the model does not have.
    """
    every = sites(model)
    depth, names = every[-1].layer + 1, list(dict.fromkeys(site.step.name for site in every))
    for layer in layers or ():
        if not -depth <= layer < depth:
            raise InputError(f"layers: expected numbers from 0 to {depth - 1}, got {layer}")
    for name in steps or ():
        if name not in names:
            raise InputError(f"steps: expected {', '.join(names)} for scheme {model.scheme.name!r}, got {name!r}")
    kept = None if layers is None else {layer % depth for layer in layers}
    found = [
        site for site in every if (kept is None or site.layer in kept) and (steps is None or site.step.name in steps)
    ]
    if not found:
        raise InputError(f"steps: layers {sorted(kept or ())} have none of the steps {list(steps or ())}")
    return found


def chosen_heads(model: TimeSformer, heads: Sequence[int] | None) -> list[int]:
    """Return the numbers of the requested heads.

    Raises:
        InputError: no head, or one that the model does not have.
    """
    count = model.config.num_heads
    found = list(range(count)) if heads is None else [int(head) for head in heads]
    if not found or any(not 0 <= head < count for head in found):
        raise InputError(f"heads: expected numbers from 0 to {count - 1}, got {found}")
    return found


def map_of(call: Call, queries: Sequence[Query], heads: Sequence[int], frames: int) -> AttentionMap:
    """Compute the map of a recorded call of a step, for callers that record several things in one forward pass.

    frames: number of tokens in time of the clip; the other arguments are as in `attention_maps`
    """
    site, matrix = call.site, call.operator()
    if site.encoder > 0:
        queries = [query if query == "class" else (query[0], 0, 0) for query in queries]
    rows = [
        _stream_row(matrix, query, frames) if site.streams else _row(matrix, query) for query in queries
    ]  # each (b, k, p) or, for frame streams, (b, k, t, p)
    row = torch.stack(rows, 2)[:, list(heads)]
    inside = matrix.patches
    on_class, on_registers = row[..., inside : inside + 1].sum(-1), row[..., inside + 1 :]
    grid = matrix.grid
    if site.streams:
        on_class, on_registers, grid = on_class.sum(-1), on_registers.sum(-2), (frames, *matrix.grid[1:])
    weights = row[..., :inside].reshape(*row.shape[:3], *grid)
    return AttentionMap(
        layer=site.layer,
        encoder=site.encoder,
        step=site.step.name,
        heads=tuple(heads),
        queries=tuple(queries),
        weights=weights.float().cpu().numpy(),
        on_class=on_class.float().cpu().numpy(),
        on_registers=on_registers.float().cpu().numpy(),
    )


def _row(matrix: StepOperator, query: Query) -> Tensor:
    """Row of a query, (b, k, p); p counts all tokens."""
    if query == "class" and not matrix.has_class:
        return matrix.mean_row()
    return matrix.rows([query])[:, :, 0]


def _stream_row(matrix: StepOperator, query: Query, frames: int) -> Tensor:
    """Row of a query over the streams of all frames, (b, k, t, p); a patch attends within its own frame."""
    at: Query = query if query == "class" else (0, query[1], query[2])
    streams = _row(matrix, at).unflatten(0, (-1, frames)).transpose(1, 2)
    if query == "class":
        return streams / frames
    out = torch.zeros_like(streams)
    out[:, :, query[0]] = streams[:, :, query[0]]
    return out
