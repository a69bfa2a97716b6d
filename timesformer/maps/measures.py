"""Measures of maps: entropy and distance of attention, and the share of a map that lies on the object.

A `VideoDataset(…, masks=True)` returns object masks with its clips, cropped in the same way: bool (views, frames,
height, width) for each video.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from timesformer.attention.operator import Piece, StepOperator
from timesformer.errors import InputError
from timesformer.heads import heads_of
from timesformer.maps.attention import AttentionMap, chosen_sites
from timesformer.maps.capture import Call, as_input, evaluating, grid_of, run, watching
from timesformer.maps.gradients import Target, target_columns
from timesformer.maps.walk import Saliency
from timesformer.models.timesformer import TimeSformer

if TYPE_CHECKING:
    import pandas as pd

Mask = np.ndarray | Tensor


def entropy(one: AttentionMap) -> np.ndarray:
    """Entropy of each row in nats, with class token and registers among its keys, (clip, head, query).

    It is 0 for a single key, and log n for n equal keys.
    """
    beside = np.concatenate([one.on_class[..., None], one.on_registers], -1)
    rows = np.concatenate([one.weights.reshape(*one.on_class.shape, -1), beside], -1)
    rows = rows.astype(np.float64)
    return -(rows * np.log(np.where(rows > 0, rows, 1))).sum(-1)


def distance(one: AttentionMap) -> tuple[np.ndarray, np.ndarray]:
    """Mean distance from the query to its keys, weighted by attention: in space and in time, both (clip, head, query).

    Distances in space are Euclidean, in patches; distances in time are in tokens.  Both are NaN for the class token,
    which has no position.
    """
    t, h, w = (np.arange(n, dtype=np.float64) for n in one.weights.shape[-3:])
    total = np.maximum(one.weights.sum((-3, -2, -1), dtype=np.float64), np.finfo(np.float64).tiny)
    space, time = np.full(total.shape, np.nan), np.full(total.shape, np.nan)
    for number, query in enumerate(one.queries):
        if query == "class":
            continue
        weights = one.weights[:, :, number]
        away = np.hypot(h[:, None] - query[1], w - query[2])
        space[..., number] = (weights * away).sum((-3, -2, -1)) / total[..., number]
        time[..., number] = (weights * abs(t - query[0])[:, None, None]).sum((-3, -2, -1)) / total[..., number]
    return space, time


def class_share(one: AttentionMap) -> np.ndarray:
    """Share of each row that lies on the class token, (clip, head, query)."""
    return one.on_class


def head_table(model: TimeSformer, clip: Tensor) -> "pd.DataFrame":
    """Measure every head of every step and layer, as means over query patches and clips, in one forward pass.

    Columns: layer, encoder, step, head, entropy_nats, distance_space (patches), distance_time (tokens), class_share;
    see `entropy`, `distance` and `class_share`.
    """
    clip = as_input(model, clip)
    rows: list[dict[str, object]] = []

    def visit(call: Call) -> None:
        matrix = call.operator()
        for head, values in enumerate(_head_means(matrix).tolist()):
            place = {"layer": call.site.layer, "encoder": call.site.encoder, "step": call.site.step.name, "head": head}
            rows.append({**place, **dict(zip(_COLUMNS, values, strict=True))})

    with watching(chosen_sites(model, None, None), visit):
        run(model, clip)
    import pandas as pd  # slow to import

    return pd.DataFrame(rows)


_COLUMNS = ("entropy_nats", "distance_space", "distance_time", "class_share")


def _head_means(matrix: StepOperator) -> Tensor:
    """Means of the columns above for each head, (heads, 4)."""
    out = matrix.q.new_zeros(matrix.heads, 4)
    for piece in matrix.pieces():
        if int(piece.rows[0, 0]) < matrix.patches:  # skips the class token's row
            out[piece.heads] += torch.stack(_sums(piece, matrix), -1)
    return out / (len(matrix.q) * matrix.patches)


def _sums(piece: Piece, matrix: StepOperator) -> list[Tensor]:
    """Sums over the rows of a piece for each head, in the order of the columns."""
    weights, is_class = piece.weights, (piece.keys == matrix.patches)[:, None]
    inside = weights.masked_fill(is_class, 0)
    inside = inside / inside.sum(-1, keepdim=True).clamp_min(torch.finfo(inside.dtype).tiny)
    frame, width = matrix.grid[1] * matrix.grid[2], matrix.grid[2]
    (query_t, query_h, query_w), (key_t, key_h, key_w) = (
        (x // frame, x % frame // width, x % width) for x in (piece.rows[:, :, None], piece.keys[:, None])
    )
    space = torch.hypot((query_h - key_h).to(inside.dtype), (query_w - key_w).to(inside.dtype))
    return [
        torch.special.entr(weights).sum((0, 2, 3, 4)),
        (inside * space).sum((0, 2, 3, 4)),
        (inside * (query_t - key_t).abs()).sum((0, 2, 3, 4)),
        weights.masked_fill(~is_class, 0).sum((0, 2, 3, 4)),
    ]


def energy_inside(saliency: Saliency, mask: Mask) -> np.ndarray:
    """Share of a map that lies on the object, 0 … 1, (clip, query).

    mask: bool (clip, frames, height, width) in pixels, as the model sees the frames, or (clip, t, h, w) in tokens

    A token that the object covers in part counts in part.  A uniform map gives chance, the object's share of the
    pixels.  A map of zeros counts as uniform; a clip without an object is NaN.

    Raises:
        InputError: the number of masks is not that of the clips, or their size is not a multiple of the grid.
    """
    weights, covered = _weights(saliency), _covered(saliency, mask)
    found = (weights * covered[:, None]).sum((2, 3, 4)) / weights.sum((2, 3, 4))
    return _without_object(found, covered)


def pointing_game(saliency: Saliency, mask: Mask) -> np.ndarray:
    """Pointing game: share of the highest token's pixels that the object covers, 0 … 1, (clip, query).

    If several tokens are equally high, it is their mean, so that a uniform map gives chance.  Masks, NaN and errors are
    as for `energy_inside`.
    """
    weights, covered = _weights(saliency), _covered(saliency, mask)
    highest = weights == weights.max((2, 3, 4), keepdims=True)
    found = (highest * covered[:, None]).sum((2, 3, 4)) / highest.sum((2, 3, 4))
    return _without_object(found, covered)


@dataclass(frozen=True)
class Curves:
    """Target's probability as tokens are deleted, or inserted, in decreasing order of their weight.

    fractions: (n,), share of the tokens that are deleted or inserted
    deleted, inserted: probabilities, (clip, n)
    deletion, insertion: areas under these curves, (clip,), 0 … 1; a good map has a low deletion and a high insertion
    """

    fractions: np.ndarray
    deleted: np.ndarray
    inserted: np.ndarray
    deletion: np.ndarray
    insertion: np.ndarray


def deletion_insertion(
    model: TimeSformer, clip: Tensor, saliency: Saliency, target: Target = None, *, steps: int = 10
) -> Curves:
    """Compute deletion and insertion curves (Petsiuk et al., arXiv 1806.07421) of a map with one query.

    A deleted token gets the mean colour of its clip.  The target, as for `relevance`, is chosen on the whole clip; with
    several heads, their probabilities are averaged.  Each curve has steps + 1 points, with one forward pass for each.

    Raises:
        InputError: a map of other clips or with several queries, or fewer than one step.
    """
    clip, grid = as_input(model, clip), grid_of(model, clip)
    if saliency.weights.shape != (len(clip), 1, *grid):
        raise InputError(f"saliency: expected weights {(len(clip), 1, *grid)}, got {saliency.weights.shape}")
    if steps < 1:
        raise InputError(f"steps: expected a positive integer, got {steps!r}")
    tokens = grid[0] * grid[1] * grid[2]
    weights = torch.from_numpy(np.asarray(saliency.weights, np.float32)).flatten(1)
    rank = weights.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1).to(clip.device)
    gone = clip.mean((1, 3, 4), keepdim=True)
    u, p = model.patch_embed.tubelet, model.patch_embed.patch
    curves: tuple[list[Tensor], list[Tensor]] = ([], [])
    with evaluating(model), torch.no_grad():
        logits = model(clip)
        columns = target_columns(model, logits, target)
        for step in range(steps + 1):
            chosen = (rank < round(tokens * step / steps)).view(-1, *grid)
            pixels = chosen.repeat_interleave(u, 1).repeat_interleave(p, 2).repeat_interleave(p, 3).unsqueeze(2)
            curves[0].append(_probability(model, torch.where(pixels, gone, clip), columns))
            curves[1].append(_probability(model, torch.where(pixels, clip, gone), columns))
    deleted, inserted = (torch.stack(curve, 1).double().cpu().numpy() for curve in curves)
    fractions = np.array([round(tokens * step / steps) / tokens for step in range(steps + 1)])
    return Curves(fractions, deleted, inserted, np.trapezoid(deleted, fractions), np.trapezoid(inserted, fractions))


def _probability(model: TimeSformer, clip: Tensor, columns: Tensor) -> Tensor:
    """Probability of the target columns, averaged over heads, (clips,)."""
    logits = model(clip)
    parts = logits.split(heads_of(model) or (logits.shape[1],), -1)
    return torch.cat([part.softmax(-1) for part in parts], -1).gather(1, columns).mean(1)


def _weights(saliency: Saliency) -> np.ndarray:
    """Weights in float64, replaced by ones where all are zero."""
    weights = np.asarray(saliency.weights, np.float64)
    empty = weights.sum((2, 3, 4), keepdims=True) <= 0
    return np.where(empty, 1.0, weights)


def _covered(saliency: Saliency, mask: Mask) -> np.ndarray:
    """Share of each token that the object covers, (clip, t, h, w)."""
    pixels = np.asarray(mask.cpu() if isinstance(mask, Tensor) else mask, np.float64)
    clips, grid = len(saliency.weights), saliency.weights.shape[2:]
    fits = pixels.ndim == 4 and all(size and size % n == 0 for size, n in zip(pixels.shape[1:], grid, strict=True))
    if not fits or len(pixels) != clips:
        raise InputError(f"mask: expected {clips} masks whose sizes are multiples of {grid}, got {pixels.shape}")
    (t, h, w), (frames, height, width) = grid, pixels.shape[1:]
    return pixels.reshape(clips, t, frames // t, h, height // h, w, width // w).mean((2, 4, 6))


def _without_object(found: np.ndarray, covered: np.ndarray) -> np.ndarray:
    return np.where(covered.sum((1, 2, 3))[:, None] > 0, found, np.nan)
