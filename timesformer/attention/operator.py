"""One attention step as a sparse matrix: row i holds the weight of every token in the output of token i.

Tokens are the patches, time slowest, then the class token where there is one, then the registers.  The whole matrix is
never built.  It comes in pieces, each some rows of some groups with a bounded number of entries; single rows are
computed on their own.

The rows follow the step's declaration, as in `attend`.  A row is a softmax over the keys that the query sees.  For a
replicated class token or register it is the mean of its softmaxes over the groups.  A token that the step leaves out
has a row that is 1 on itself and 0 elsewhere.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from timesformer._typing import Float, Int
from timesformer.attention.attend import split_heads
from timesformer.attention.mixer import Mixer, MixerInputs
from timesformer.attention.partition import Grid, Partition
from timesformer.attention.predicate import Predicate
from timesformer.attention.scheme import Step
from timesformer.errors import InputError
from timesformer_kernels import Tile

Query = tuple[int, int, int] | Literal["class"]
Fusion = Literal["mean", "max", "min"]
FUSIONS: tuple[Fusion, ...] = ("mean", "max", "min")
ENTRIES = 1 << 23
"""Approximate limit on the number of entries of a piece: 32 MiB in float32."""


@dataclass(frozen=True)
class Piece:
    """Rows of g groups, for the heads in `heads`.

    rows: token numbers of the queries, (g, r); keys: token numbers of the keys, (g, s); weights: (b, k, g, r, s).
    Weights of keys that are not listed are zero.
    """

    heads: slice
    rows: Int[Tensor, "g r"]
    keys: Int[Tensor, "g s"]
    weights: Float[Tensor, "b k g r s"]


Fuse = Callable[[Piece], Tensor]
"""Function from a piece to its weights as one matrix for all its heads, (b, g, r, s)."""


class StepOperator:
    """Sparse matrix of one attention step; see the description of the module.

    grid: (t, h, w); heads: number of heads; has_class: True if token t * h * w is a class token
    specials: number of tokens after the patches: class token and registers; size: number of all tokens
    """

    def __init__(
        self,
        step: Step,
        qkv: Float[Tensor, "b t h w 3 k e"],
        cls_qkv: Float[Tensor, "b *s 3 k e"] | None,
        specials: int,
        modules: nn.ModuleDict,
    ) -> None:
        self.step, self.modules, self.specials, self.has_class = step, modules, specials, specials > 0
        self.grid: Grid = (qkv.shape[1], qkv.shape[2], qkv.shape[3])
        self.patches = self.grid[0] * self.grid[1] * self.grid[2]
        self.size, self.heads = self.patches + specials, qkv.shape[5]
        self.sees_class = cls_qkv is not None and step.cls != "absent"
        self.seen = specials if self.sees_class else 0
        tokens = qkv.flatten(1, 3)
        if cls_qkv is not None and self.sees_class:
            tokens = torch.cat([tokens, cls_qkv.reshape(len(cls_qkv), -1, *cls_qkv.shape[-3:])], 1)
        tokens = tokens if tokens.dtype == torch.float64 else tokens.float()
        self.q, self.k, self.v = tokens.permute(2, 0, 3, 1, 4).unbind()  # b k p e, patches first
        self.parts = list(zip(step.over, split_heads(step, self.heads), strict=True))

    def number(self, query: Query) -> int:
        """Return the number of a token.

        Raises:
            InputError: the grid has no such token.
        """
        if query == "class":
            if not self.has_class:
                raise InputError(f"query: expected a patch (t, h, w), step {self.step.name!r} has no class token")
            return self.patches
        if len(query) != 3 or any(not 0 <= at < length for at, length in zip(query, self.grid, strict=True)):
            raise InputError(f"query: expected a patch inside the grid (t, h, w) = {self.grid}, got {query}")
        return (query[0] * self.grid[1] + query[1]) * self.grid[2] + query[2]

    def rows(self, queries: Sequence[Query]) -> Float[Tensor, "b k q p"]:
        """Rows of these queries, for each head; p counts all tokens."""
        return self.numbered_rows(torch.tensor([self.number(query) for query in queries], device=self.q.device))

    def numbered_rows(self, numbers: Int[Tensor, " q"]) -> Float[Tensor, "b k q p"]:
        """Rows of the tokens with these numbers, for each head."""
        out = self.q.new_zeros(self.q.shape[0], self.heads, len(numbers), self.size)
        token = numbers >= self.patches
        if token.any():
            out[:, :, token] = self._special_rows()[:, :, numbers[token] - self.patches]
        if not token.all():
            patches = numbers[~token]
            rows = [self._patch_rows(over, heads, patches) for over, heads in self.parts]
            found = torch.cat(rows, 1)
            out[:, :, ~token, : found.shape[-1]] = found
        return out

    def mean_row(self) -> Float[Tensor, "b k p"]:
        """Mean over the rows of all patches, for each head."""
        out = self.q.new_zeros(self.q.shape[0], self.heads, self.size)
        for piece in self.pieces():
            is_patch = (piece.rows < self.patches).to(piece.weights.dtype)
            column = torch.einsum("gr,bkgrs->bkgs", is_patch, piece.weights)
            out[:, piece.heads].index_add_(2, piece.keys.flatten(), column.flatten(2))
        return out / self.patches

    def matmul(
        self, x: Float[Tensor, "b p c"], fusion: Fusion = "mean", discard: float = 0.0, fuse: Fuse | None = None
    ) -> Float[Tensor, "b p c"]:
        """Compute matrix @ x, with the heads fused.

        `fusion` and `discard` are those of `fused`.  A `fuse` function replaces them; if the step divides its heads
        between parts, its results are averaged over the parts.
        """
        out = torch.zeros_like(x)
        for piece, weights in self._fused(fusion, discard, fuse):
            found = weights @ x[:, piece.keys]
            out.index_add_(1, piece.rows.flatten(), found.flatten(1, 2))
        return out

    def rmatmul(
        self, y: Float[Tensor, "b q p"], fusion: Fusion = "mean", discard: float = 0.0, fuse: Fuse | None = None
    ) -> Float[Tensor, "b q p"]:
        """Compute y @ matrix, with the heads fused; the arguments are those of `matmul`."""
        out = torch.zeros_like(y)
        for piece, weights in self._fused(fusion, discard, fuse):
            found = torch.einsum("bqgr,bgrs->bqgs", y[:, :, piece.rows], weights)
            out.index_add_(2, piece.keys.flatten(), found.flatten(2))
        return out

    def pieces(self, together: bool = False) -> Iterator[Piece]:
        """Yield every row of every head, in pieces.

        With `together`, all heads of a row are in one piece, even where the step divides its heads between parts.
        """
        if together and len(self.parts) > 1:
            yield from self._joined_pieces()
            return
        for over, heads in self.parts:
            if isinstance(over, Partition):
                yield from self._group_pieces(over, heads)
            elif isinstance(over, Predicate):
                yield from self._planned_pieces(over, heads)
            else:
                yield from self._row_pieces(over, heads)
        if self.has_class:
            every = torch.arange(self.size, device=self.q.device)
            weights = self._special_rows()[:, :, None]
            for _, heads in self.parts:
                yield Piece(heads, every[None, self.patches :], every[None], weights[:, heads])

    def _fused(self, fusion: Fusion, discard: float, fuse: Fuse | None) -> Iterator[tuple[Piece, Tensor]]:
        if fuse is not None or (fusion == "mean" and discard == 0):
            for piece in self.pieces():
                weights = piece.weights.mean(1) if fuse is None else fuse(piece)
                yield piece, weights * ((piece.heads.stop - piece.heads.start) / self.heads)
            return
        for piece in self.pieces(together=True):
            yield piece, fused(piece.weights, piece.keys >= self.patches, fusion, discard)

    def _group_pieces(self, over: Partition, heads: slice) -> Iterator[Piece]:
        q, k = self.q[:, heads], self.k[:, heads]
        lines = q.shape[0] * q.shape[1]
        for tile in over.tiles(self.grid):
            tokens = tile_tokens(tile, self.grid).to(q.device)
            number, size = tokens.shape
            every = tokens
            if self.sees_class:
                beside = torch.arange(self.patches, self.size, device=q.device)
                every = torch.cat([tokens, beside.expand(number, -1)], 1)
            together = max(1, ENTRIES // (lines * size * every.shape[1]))
            at_once = max(1, ENTRIES // (lines * together * every.shape[1]))
            for first in range(0, number, together):
                keys = every[first : first + together]
                group_k = k[:, :, keys].transpose(-1, -2)
                for row in range(0, size, at_once):
                    rows = tokens[first : first + together, row : row + at_once]
                    yield Piece(heads, rows, keys, _softmax(q[:, :, rows] @ group_k, q.shape[-1]))

    def _planned_pieces(self, over: Predicate, heads: slice) -> Iterator[Piece]:
        q, k = self.q[:, heads], self.k[:, heads]
        lines = q.shape[0] * q.shape[1]
        for batch in over.plan(self.grid, q.device):
            number, size = batch.rows.shape
            every, mask = batch.keys, batch.mask
            if self.sees_class:
                beside = torch.arange(self.patches, self.size, device=q.device)
                every = torch.cat([every, beside.expand(number, -1)], 1)
                mask = None if mask is None else nn.functional.pad(mask, (0, self.seen), value=True)
            together = max(1, ENTRIES // (lines * size * every.shape[1]))
            at_once = max(1, ENTRIES // (lines * together * every.shape[1]))
            for first in range(0, number, together):
                groups = slice(first, first + together)
                group_k = k[:, :, every[groups]].transpose(-1, -2)
                for row in range(0, size, at_once):
                    rows = batch.rows[groups, row : row + at_once]
                    scores = q[:, :, rows] @ group_k
                    if mask is not None:
                        scores = scores.masked_fill(~mask[groups, row : row + at_once], float("-inf"))
                    yield Piece(heads, rows, every[groups], _softmax(scores, q.shape[-1]))

    def _row_pieces(self, over: Mixer, heads: slice) -> Iterator[Piece]:
        rows = torch.arange(self.patches, device=self.q.device)
        weights = self._patch_rows(over, heads, rows)
        keys = torch.arange(weights.shape[-1], device=self.q.device)
        yield Piece(heads, rows[None], keys[None], weights[:, :, None])

    def _joined_pieces(self) -> Iterator[Piece]:
        every = torch.arange(self.size, device=self.q.device)
        at_once = max(1, ENTRIES // (self.q.shape[0] * self.heads * self.size))
        for rows in every.split(at_once):
            yield Piece(slice(0, self.heads), rows[None], every[None], self.numbered_rows(rows)[:, :, None])

    def _patch_rows(self, over: Partition | Predicate | Mixer, heads: slice, rows: Tensor) -> Tensor:
        """Rows of patches over the tokens that the step sees: (b, k, q, p), p with the class token where it is seen."""
        q, k = self.q[:, heads], self.k[:, heads]
        if isinstance(over, Mixer):
            q, k, v = (x[:, :, : self.patches] for x in (q, k, self.v[:, heads]))
            weights = over.operator(MixerInputs(q, k, v, self.grid, self.modules))[:, :, rows]
            return nn.functional.pad(weights, (0, self.seen))
        if isinstance(over, Predicate):
            seen = over.rows_of(rows, self.grid)
        else:
            ids = over.group_ids(self.grid).flatten().to(q.device)
            seen = ids[rows][:, None] == ids[None, :]
        seen = nn.functional.pad(seen, (0, self.seen), value=True)
        scores = q[:, :, rows] @ k.transpose(-1, -2)
        return _softmax(scores.masked_fill(~seen, float("-inf")), q.shape[-1])

    def _special_rows(self) -> Float[Tensor, "b k s p"]:
        out = self.q.new_zeros(self.q.shape[0], self.heads, self.specials, self.size)
        if not self.sees_class:
            out[..., self.patches :] = torch.eye(self.specials, dtype=out.dtype, device=out.device)
            return out
        scores = torch.einsum("bkse,bkpe->bksp", self.q[:, :, self.patches :], self.k)
        if self.step.cls == "global":
            return _softmax(scores, self.q.shape[-1])
        for over, heads in self.parts:
            assert isinstance(over, Partition)
            counts = over.counts(self.grid)
            groups = counts[0] * counts[1] * counts[2]
            for tile in over.tiles(self.grid):
                tokens = tile_tokens(tile, self.grid).to(self.q.device)  # g n
                own = scores[:, heads, :, None, self.patches :].expand(-1, -1, -1, len(tokens), -1)
                row = _softmax(torch.cat([scores[:, heads][..., tokens], own], -1), self.q.shape[-1]) / groups
                out[:, heads, :, tokens.flatten()] = row[..., : -self.specials].flatten(3)
                out[:, heads, :, self.patches :] += row[..., -self.specials :].sum(-2)
        return out


def operator(
    step: Step,
    qkv: Float[Tensor, "b t h w 3 k e"],
    cls_qkv: Float[Tensor, "b *s 3 k e"] | None,
    *,
    has_class: bool | None = None,
    specials: int | None = None,
    modules: nn.ModuleDict | None = None,
) -> StepOperator:
    """Return the matrix of a step, from the arguments of `attend`.

    Pass `has_class=True`, or with registers the number of tokens in `specials`, where the model has a class token that
    the step leaves out, so that `cls_qkv` is None.  By default they are those of `cls_qkv`.  Half precision is
    converted to float32.

    Raises:
        InputError: the heads cannot be divided evenly between the parts of the step.
    """
    if specials is None and (has_class is None or (has_class and cls_qkv is not None)):
        specials = 0 if cls_qkv is None else cls_qkv.shape[1] if cls_qkv.dim() == 5 else 1
    elif specials is None:
        specials = int(bool(has_class))
    return StepOperator(step, qkv, cls_qkv, specials, nn.ModuleDict() if modules is None else modules)


def fused(
    weights: Float[Tensor, "b k g r s"], is_class: Tensor, fusion: Fusion = "mean", discard: float = 0.0
) -> Float[Tensor, "b g r s"]:
    """Fuse the heads into one matrix: their mean, maximum or minimum.

    Of the patches that each query sees, the fraction `discard` (0 … 1) with the smallest weights is then set to zero.
    The class token, where `is_class` (g, s) is True, is never discarded.  Unless the fusion is a plain mean, each row
    is divided by its sum; a row of zeros stays zero.
    """
    one = weights.mean(1) if fusion == "mean" else weights.amax(1) if fusion == "max" else weights.amin(1)
    if discard:
        seen = (weights > 0).any(1) & ~is_class[:, None]
        dropped = (seen.sum(-1) * discard).long()  # rounded down, so that at least one patch is kept
        rank = one.masked_fill(~seen, float("inf")).argsort(dim=-1, stable=True).argsort(-1)
        one = one.masked_fill(seen & (rank < dropped[..., None]), 0.0)
    if fusion != "mean" or discard:
        one = one / one.sum(-1, keepdim=True).clamp_min(torch.finfo(one.dtype).tiny)
    return one


def tile_tokens(tile: Tile, grid: Grid) -> Int[Tensor, "g s"]:
    """Token numbers of every group of a tile."""
    t, h, w = (
        axis.start + torch.arange(axis.count)[:, None] * axis.jump + torch.arange(axis.size)[None] * axis.stride
        for axis in tile.axes
    )  # part, element
    frame, row = t[:, None, None, :, None, None], h[None, :, None, None, :, None]
    numbers = (frame * grid[1] + row) * grid[2] + w[None, None, :, None, None, :]
    return numbers.flatten(3).flatten(0, 2)


def _softmax(scores: Tensor, width: int) -> Tensor:
    return (scores * width**-0.5).softmax(-1)
