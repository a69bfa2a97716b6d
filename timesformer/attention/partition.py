"""Splits of one axis and partitions of the token grid.

The words of a split are `all`, `each`, `blocks(k)`, `stride(k)` and `windows(n, shift=s)`.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Literal

import torch
from torch import Tensor

from timesformer.errors import InputError
from timesformer_kernels import AxisTile, Tile

Grid = tuple[int, int, int]
"""Numbers of frames, patch rows and patch columns (t, h, w)."""


@dataclass(frozen=True)
class Split:
    """Split of one axis into parts.

    - `all`: one part spans the axis.
    - `each`: every index is a part of its own.
    - `blocks` k: k contiguous parts; where k does not divide the length, the first parts are one longer
      (`numpy.array_split`); an axis shorter than k has as many parts as indices.
    - `stride` k: part p holds the indices p, p + k, p + 2k, … (the parities for k = 2).
    - `windows` k, `shift` s: contiguous parts of k indices; the first one begins at index s, what lies before it is a
      part of its own, and the last part is shorter where the axis ends before it.  An axis of at most k indices is one
      part, whatever the shift.
    """

    word: Literal["all", "each", "blocks", "stride", "windows"]
    k: int = 1
    shift: int = 0

    def __post_init__(self) -> None:
        if self.word not in ("all", "each", "blocks", "stride", "windows"):
            raise InputError(f"Split.word: expected 'all', 'each', 'blocks', 'stride' or 'windows', got {self.word!r}")
        if not isinstance(self.k, int) or isinstance(self.k, bool) or self.k < 1:
            raise InputError(f"Split.k: expected a positive integer, got {self.k!r}")
        if type(self.shift) is not int or not 0 <= self.shift < (self.k if self.word == "windows" else 1):
            raise InputError(
                f"Split.shift of {self.word!r}: expected 0 or, for windows of {self.k}, an integer less than {self.k}, "
                f"got {self.shift!r}"
            )

    def count(self, length: int) -> int:
        """Number of parts of an axis of this length."""
        if self.word == "windows":
            before = self._before(length)
            return (before > 0) + -(-(length - before) // self.k)
        return {"all": 1, "each": length}.get(self.word, min(self.k, length))

    def _before(self, length: int) -> int:
        """Number of indices before the first whole window."""
        return self.shift if length > self.k else 0

    def tiles(self, length: int) -> tuple[AxisTile, ...]:
        """Parts of the axis, those of one size together: one tile, or two where k does not divide the length.

        Shifted windows have up to three: the part before the first whole one, the whole ones, and the rest.
        """
        if self.word == "windows":
            return self._windows(length)
        if self.word == "all":
            return (AxisTile(first=0, count=1, start=0, jump=length, size=length, stride=1),)
        if self.word == "each":
            return (AxisTile(first=0, count=length, start=0, jump=1, size=1, stride=1),)
        count = self.count(length)
        size = length // count  # no divmod: a length may be a symbol while torch traces
        longer = length - size * count
        if self.word == "stride":
            tiles = (
                AxisTile(first=0, count=longer, start=0, jump=1, size=size + 1, stride=count),
                AxisTile(longer, count - longer, start=longer, jump=1, size=size, stride=count if size > 1 else 1),
            )
        else:
            rest = longer * (size + 1)
            tiles = (
                AxisTile(first=0, count=longer, start=0, jump=size + 1, size=size + 1, stride=1),
                AxisTile(first=longer, count=count - longer, start=rest, jump=size, size=size, stride=1),
            )
        return tuple(tile for tile in tiles if tile.count)

    def _windows(self, length: int) -> tuple[AxisTile, ...]:
        before = self._before(length)
        whole = (length - before) // self.k
        rest = length - before - whole * self.k
        first = int(before > 0)
        tiles = (
            AxisTile(first=0, count=first, start=0, jump=before, size=before, stride=1),
            AxisTile(first=first, count=whole, start=before, jump=self.k, size=self.k, stride=1),
            AxisTile(first=first + whole, count=int(rest > 0), start=length - rest, jump=rest, size=rest, stride=1),
        )
        return tuple(tile for tile in tiles if tile.count)

    def part_of(self, index: Tensor, length: int) -> Tensor:
        """Number of the part that holds each index, in closed form; the oracle uses this form of the declaration."""
        if self.word == "windows":
            before = self._before(length)
            return (index - before).div(self.k, rounding_mode="floor") + (before > 0)
        count = self.count(length)
        if self.word == "all":
            return torch.zeros_like(index)
        if self.word == "each":
            return index
        if self.word == "stride":
            return index % count
        size = length // count
        longer = length - size * count
        border = longer * (size + 1)
        return torch.where(index < border, index // (size + 1), longer + (index - border) // size)


ALL, EACH = Split("all"), Split("each")


def blocks(k: int) -> Split:
    """Split an axis into k contiguous parts."""
    return Split("blocks", k)


def stride(k: int) -> Split:
    """Split an axis into k interleaved parts, each with every k-th index."""
    return Split("stride", k)


def windows(n: int, shift: int = 0) -> Split:
    """Split an axis into contiguous parts of n indices, the first whole one beginning at index `shift`."""
    return Split("windows", n, shift)


@dataclass(frozen=True)
class Partition:
    """Partition of the token grid into groups, each a product of one part per axis; attention stays inside a group."""

    t: Split
    h: Split
    w: Split

    def __post_init__(self) -> None:
        for axis, split in zip("thw", self.splits, strict=True):
            if not isinstance(split, Split):
                meant = f"; {split} parts are blocks({split}) or stride({split})" if isinstance(split, int) else ""
                raise InputError(
                    f"Partition.{axis}: expected ALL, EACH, blocks(k), stride(k) or windows(n), got {split!r}{meant}"
                )

    def counts(self, grid: Grid) -> Grid:
        """Numbers of parts along t, h and w; their product is the number of groups."""
        return self.t.count(grid[0]), self.h.count(grid[1]), self.w.count(grid[2])

    def tiles(self, grid: Grid) -> tuple[Tile, ...]:
        """All groups, those of one shape in one tile: one where every split is even, at most eight without windows."""
        return _tiles(self, grid) if all(type(length) is int for length in grid) else _made_tiles(self, grid)

    def boxes(self, grid: Grid) -> Iterator[tuple[slice, slice, slice]]:
        """Every group as slices along t, h and w, ordered by group number."""
        axes = [
            [s for tile in split.tiles(n) for s in tile.slices()] for split, n in zip(self.splits, grid, strict=True)
        ]
        yield from product(*axes)

    def group_ids(self, grid: Grid) -> Tensor:
        """Group number of every token, int64 (t, h, w), in closed form."""
        t, h, w = (split.part_of(torch.arange(n), n) for split, n in zip(self.splits, grid, strict=True))
        counts = self.counts(grid)
        return (t[:, None, None] * counts[1] + h[None, :, None]) * counts[2] + w[None, None, :]

    @property
    def splits(self) -> tuple[Split, Split, Split]:
        return self.t, self.h, self.w

    def visible(self, query: Grid, grid: Grid) -> Tensor:
        """Keys of one query, bool (t, h, w)."""
        ids = self.group_ids(grid)
        return ids == ids[query]


def _made_tiles(over: Partition, grid: Grid) -> tuple[Tile, ...]:
    axes = (split.tiles(length) for split, length in zip(over.splits, grid, strict=True))
    return tuple(Tile(*parts) for parts in product(*axes))


_tiles = lru_cache(maxsize=4096)(_made_tiles)


def grid_of(x: Tensor) -> Grid:
    """Return the (t, h, w) of tokens (b, t, h, w, …), as numbers also where torch.jit traces sizes as tensors."""
    t, h, w = x.shape[1:4]
    if torch.jit.is_tracing():
        with warnings.catch_warnings():  # groups follow from the sizes: the trace holds for this grid alone
            warnings.simplefilter("ignore", torch.jit.TracerWarning)
            return int(t), int(h), int(w)
    return t, h, w
