"""Strongest keys of every query, and the complete row of the class token.

A divided ViT-B at 8 frames has 46 million weights; a page can only hold the strongest keys of each query.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from timesformer.attention import Grid
from timesformer.attention.operator import Piece, StepOperator
from timesformer.errors import InputError
from timesformer.maps.attention import chosen_heads, chosen_sites
from timesformer.maps.capture import Call, as_input, grid_of, run, watching
from timesformer.models.timesformer import TimeSformer


@dataclass(frozen=True)
class TopKeys:
    """Strongest keys of every patch in one step of one block.

    heads: numbers of the heads; along axis `head`, the mean of these heads comes last
    grid: numbers of cells (t, h, w)
    cell: patches in a cell along t, h and w, (1, 1, 1) unless coarsened; the last cell of an axis may have fewer.
        Weights are summed over the keys of a cell and averaged over its queries.
    keys, weights: (head, query, count), numbers of the cells, t slowest, and their weights, the largest first; an
        unused slot has weight 0 and key 0
    on_class: (head, query), weight on the class token and the registers
    class_row: (head, t, h, w), complete row of the class token, or the mean over the patches where there is none
    class_on_class: (head,), weight of this row on the class token and the registers
    """

    layer: int
    encoder: int
    step: str
    heads: tuple[int, ...]
    grid: Grid
    cell: Grid
    keys: np.ndarray
    weights: np.ndarray
    on_class: np.ndarray
    class_row: np.ndarray
    class_on_class: np.ndarray

    @property
    def kept(self) -> np.ndarray:
        """Share of each query's weight that lies on the stored keys and the class token, (head, query)."""
        held: np.ndarray = self.weights.sum(-1) + self.on_class
        return held


def top_keys(
    model: TimeSformer,
    clip: Tensor,
    *,
    layers: Sequence[int] | None = None,
    steps: Sequence[str] | None = None,
    heads: Sequence[int] | None = None,
    count: int = 16,
    coarsen: Grid = (1, 1, 1),
) -> tuple[TopKeys, ...]:
    """Find the `count` strongest keys of every patch of one clip in one forward pass.

    clip: (1, frames, channels, height, width), normalised as for the model
    layers, steps, heads: as in `attention_maps`; coarsen: patches that are merged into a cell, along t, h and w

    The weights are computed piece by piece, never all at once.

    Raises:
        InputError: several clips, or an impossible layer, step, head, count or cell.
    """
    clip = as_input(model, clip)
    grid = grid_of(model, clip)
    if len(clip) != 1:
        raise InputError(f"top_keys: expected one clip, got {len(clip)}")
    if count < 1 or min(coarsen) < 1:
        raise InputError(f"top_keys: expected count and coarsen of at least 1, got {count} and {coarsen}")
    wanted, chosen = chosen_sites(model, layers, steps), chosen_heads(model, heads)
    found: list[TopKeys] = []

    def visit(call: Call) -> None:
        found.append(keys_of(call, grid, chosen, count, coarsen))

    with watching(wanted, visit):
        run(model, clip)
    return tuple(found)


def keys_of(call: Call, grid: Grid, heads: Sequence[int], count: int, coarsen: Grid = (1, 1, 1)) -> TopKeys:
    """Find the strongest keys in a recorded call with one clip, for callers that record several things in one pass.

    grid: grid of the clip; the other arguments are as in `top_keys`
    """
    shape = grid if call.site.encoder == 0 else (grid[0], 1, 1)
    cell: Grid = (min(coarsen[0], shape[0]), min(coarsen[1], shape[1]), min(coarsen[2], shape[2]))
    return _Gathered(call, shape, cell, list(heads), count).finished()


class _Gathered:
    """Accumulator of one step's strongest keys over its pieces."""

    def __init__(self, call: Call, grid: Grid, cell: Grid, heads: list[int], count: int) -> None:
        self.site, self.cell, self.heads = call.site, cell, heads
        self.grid: Grid = (-(-grid[0] // cell[0]), -(-grid[1] // cell[1]), -(-grid[2] // cell[2]))
        self.cells = self.grid[0] * self.grid[1] * self.grid[2]
        self.coarse = cell != (1, 1, 1)
        matrix = call.operator()
        device = matrix.q.device
        t, h, w = (torch.arange(n, device=device) // side for n, side in zip(grid, cell, strict=True))
        place = (t[:, None, None] * self.grid[1] + h[None, :, None]) * self.grid[2] + w[None, None, :]
        self.cell_of = place.flatten()
        self.share = 1 / torch.bincount(self.cell_of, minlength=self.cells)  # of each patch in its cell
        lines = len(heads) + 1
        self.count = min(count, self.cells)
        self.on_class = torch.zeros(lines, self.cells, device=device)
        self.class_row = torch.zeros(lines, self.cells, device=device)
        self.class_on_class = torch.zeros(lines, device=device)
        self.keys = torch.zeros(lines, self.cells, self.count, dtype=torch.int64, device=device)
        self.weights = torch.zeros(lines, self.cells, self.count, device=device)
        self.whole = torch.zeros(lines, self.cells * self.cells, device=device) if self.coarse else None
        self.streams = matrix.q.shape[0]
        for piece in matrix.pieces(together=True):
            for stream in range(self.streams):
                self._add(piece, matrix, stream)
        if not matrix.has_class:
            for stream, row in enumerate(matrix.mean_row().float()):
                self._class(self._with_mean(row), matrix, stream)
        if self.whole is not None:
            whole = self.whole.unflatten(1, (self.cells, self.cells))
            self.weights, self.keys = whole.topk(self.count, -1)

    def _with_mean(self, weights: Tensor) -> Tensor:
        """Select the chosen heads and append their mean."""
        some = weights[self.heads]
        return torch.cat([some, some.mean(0, keepdim=True)])

    def _add(self, piece: Piece, matrix: StepOperator, stream: int) -> None:
        weights = self._with_mean(piece.weights[stream].float())  # head g r s
        is_class = piece.keys >= matrix.patches  # g s
        rows, keys = piece.rows, piece.keys
        if matrix.has_class and bool((rows >= matrix.patches).any()):  # with the class token or registers, one group
            is_token, kept = (rows == matrix.patches)[0], (rows < matrix.patches)[0]
            if bool(is_token.any()):
                row = weights.new_zeros(len(weights), matrix.size)
                row[:, keys[0]] = weights[:, 0, is_token][:, 0]
                self._class(row, matrix, stream)
            rows, weights = rows[:, kept], weights[:, :, kept]
        if not rows.numel():
            return
        first = stream * matrix.patches
        cells = self.cell_of[rows + first]
        share = self.share[cells].flatten()
        on_class = (weights * is_class[:, None]).sum(-1).flatten(1)
        self.on_class.index_add_(1, cells.flatten(), on_class * share)
        weights = weights * ~is_class[:, None]
        safe = torch.where(is_class, 0, keys) + first
        if self.whole is not None:
            index = cells[:, :, None] * self.cells + self.cell_of[safe][:, None]
            self.whole.index_add_(1, index.flatten(), (weights * self.share[cells][..., None]).flatten(1))
            return
        best, at = weights.topk(min(self.count, weights.shape[-1]), -1)
        number = safe[:, None].expand(-1, weights.shape[2], -1).expand(len(weights), -1, -1, -1).gather(-1, at)
        used = best.shape[-1]
        self.weights[:, cells.flatten(), :used] = best.flatten(1, 2)
        self.keys[:, cells.flatten(), :used] = torch.where(best > 0, number, 0).flatten(1, 2)

    def _class(self, row: Tensor, matrix: StepOperator, stream: int) -> None:
        """Add a class token's row (head, tokens) of one stream; with several streams, the result is their mean."""
        row = row / self.streams
        first = stream * matrix.patches
        cells = self.cell_of[first : first + matrix.patches]
        self.class_row.index_add_(1, cells, row[:, : matrix.patches])
        self.class_on_class += row[:, matrix.patches :].sum(-1)

    def finished(self) -> TopKeys:
        keys = torch.where(self.weights > 0, self.keys, 0)
        used = max(1, int((self.weights > 0).any(0).any(0).sum()))  # the largest come first
        return TopKeys(
            layer=self.site.layer,
            encoder=self.site.encoder,
            step=self.site.step.name,
            heads=tuple(self.heads),
            grid=self.grid,
            cell=self.cell,
            keys=keys[..., :used].int().cpu().numpy(),
            weights=self.weights[..., :used].cpu().numpy(),
            on_class=self.on_class.cpu().numpy(),
            class_row=self.class_row.unflatten(1, self.grid).cpu().numpy(),
            class_on_class=self.class_on_class.cpu().numpy(),
        )
