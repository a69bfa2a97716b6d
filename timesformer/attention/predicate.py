"""Neighbourhoods that no partition expresses, given by a test on every pair of query and key."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from timesformer.attention.partition import Grid
from timesformer.errors import InputError

Coordinates = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Predicate:
    """Neighbourhood given by `fn(query, key, grid)`, which is True where the query sees the key.

    `query` and `key` are (t, h, w) triples of integer tensors that broadcast against each other; `grid` holds the
    numbers of frames, rows and columns; the result is a bool tensor.  Every query must see at least one key.
    """

    fn: Callable[[Coordinates, Coordinates, Grid], Tensor]

    def __post_init__(self) -> None:
        if not callable(self.fn):
            raise InputError(f"Predicate.fn: expected a function of (query, key, grid), got {self.fn!r}")

    def rows(self, grid: Grid, start: int, stop: int, device: torch.device | str = "cpu") -> Tensor:
        """Rows from `start` to before `stop` of the dense mask, bool (stop - start, t * h * w).

        Raises:
            InputError: a query sees no key.
        """
        keys = torch.arange(grid[0] * grid[1] * grid[2], device=device)
        key = coordinates(keys[None, :], grid)
        query = coordinates(keys[start:stop, None], grid)
        seen = self.fn(query, key, grid).expand(stop - start, keys.numel())
        empty = (~seen.any(1)).nonzero()
        if empty.numel():
            where = tuple(int(c) for c in coordinates(keys[start + int(empty[0])], grid))
            raise InputError(
                f"predicate {self.fn.__name__}: the query at (t, h, w) = {where} sees no key on grid {grid}"
            )
        return seen

    def chunks(self, grid: Grid, pairs: int = 1 << 25) -> Iterator[Tensor]:
        """Yield the dense mask in slices of rows with about `pairs` entries at most, for counting on large grids."""
        tokens = grid[0] * grid[1] * grid[2]
        step = max(1, pairs // tokens)
        for start in range(0, tokens, step):
            yield self.rows(grid, start, min(start + step, tokens))

    def mask(self, grid: Grid, device: torch.device | str = "cpu") -> Tensor:
        """Dense mask, bool (t * h * w, t * h * w); rows are queries."""
        return _mask(self, grid, str(device))

    def visible(self, query: Grid, grid: Grid) -> Tensor:
        """Keys of one query, bool (t, h, w)."""
        row = (query[0] * grid[1] + query[1]) * grid[2] + query[2]
        return self.rows(grid, row, row + 1).view(grid)


@lru_cache(maxsize=4)
def _mask(predicate: Predicate, grid: Grid, device: str) -> Tensor:
    if device == "meta":  # shapes without values suffice for counting
        return torch.empty(2 * (grid[0] * grid[1] * grid[2],), dtype=torch.bool, device=device)
    return predicate.rows(grid, 0, grid[0] * grid[1] * grid[2], device)


def coordinates(token: Tensor, grid: Grid) -> Coordinates:
    """Coordinates (t, h, w) of tokens numbered with time slowest."""
    frame = grid[1] * grid[2]
    return token // frame, token % frame // grid[2], token % grid[2]
