"""Neighbourhoods that no partition expresses, given by a test on every pair of query and key."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from timesformer.attention.partition import Grid
from timesformer.attention.plan import Plan, place_of, plan_of_tokens
from timesformer.attention.rules import Coordinates, Size, required_bool
from timesformer.errors import InputError

TOGETHER: Size = (2, 4, 4)
"""Tile of queries that are computed together where each has keys of its own."""


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

    @property
    def name(self) -> str:
        """Name in messages."""
        return f"predicate {getattr(self.fn, '__name__', self.fn)}"

    def rows(self, grid: Grid, start: int, stop: int, device: torch.device | str = "cpu") -> Tensor:
        """Rows from `start` to before `stop` of the dense mask, bool (stop - start, t * h * w).

        Raises:
            InputError: a query sees no key.
        """
        queries = torch.arange(start, stop, device=device)
        seen = self.rows_of(queries, grid)
        empty = (~seen.any(1)).nonzero()
        if empty.numel():
            where = place_of(int(queries[int(empty[0])]), grid)
            raise InputError(f"{self.name}: the query at (t, h, w) = {where} sees no key on grid {grid}")
        return seen

    def rows_of(self, queries: Tensor, grid: Grid) -> Tensor:
        """Rows of the dense mask by the numbers of their queries, bool (queries, t * h * w)."""
        keys = torch.arange(grid[0] * grid[1] * grid[2], device=queries.device)
        seen = self.fn(coordinates(queries[:, None], grid), coordinates(keys[None, :], grid), grid)
        return required_bool(self.name, seen).expand(len(queries), len(keys))

    def chunks(self, grid: Grid, pairs: int = 1 << 25) -> Iterator[Tensor]:
        """Yield the dense mask in slices of rows with about `pairs` entries at most, for counting on large grids."""
        tokens = grid[0] * grid[1] * grid[2]
        step = max(1, pairs // tokens)
        for start in range(0, tokens, step):
            yield self.rows(grid, start, min(start + step, tokens))

    def mask(self, grid: Grid, device: torch.device | str = "cpu") -> Tensor:
        """Dense mask, bool (t * h * w, t * h * w); rows are queries."""
        return _mask(self, grid, str(device))

    def plan(self, grid: Grid, device: torch.device | str = "cpu") -> Plan:
        """Groups of queries that are computed together, with the keys that any of them sees.

        Raises:
            InputError: a query sees no key.
        """
        return _plan(self, grid, str(device))

    def make_plan(self, grid: Grid) -> Plan:
        """Make the plan; `plan` keeps it."""
        return plan_of_tokens(lambda queries: self.rows_of(queries, grid), grid, TOGETHER, self.name)

    def order(self, grid: Grid) -> Tensor | None:
        """Order of the tokens in which neighbours see alike, for backends that work in blocks; None for their own."""
        return None

    def pairs(self, grid: Grid) -> int:
        """Number of pairs that are seen."""
        return sum(batch.pairs if batch.mask is None else int(batch.mask.sum()) for batch in self.plan(grid))

    def visible(self, query: Grid, grid: Grid) -> Tensor:
        """Keys of one query, bool (t, h, w)."""
        row = (query[0] * grid[1] + query[1]) * grid[2] + query[2]
        return self.rows(grid, row, row + 1).view(grid)


@lru_cache(maxsize=4)
def _mask(predicate: Predicate, grid: Grid, device: str) -> Tensor:
    if device == "meta":  # shapes without values suffice for counting
        return torch.empty(2 * (grid[0] * grid[1] * grid[2],), dtype=torch.bool, device=device)
    return predicate.rows(grid, 0, grid[0] * grid[1] * grid[2], device)


@lru_cache(maxsize=16)
def _plan(predicate: Predicate, grid: Grid, device: str) -> Plan:
    if device != "cpu":
        return tuple(batch.to(device) for batch in _plan(predicate, grid, "cpu"))
    with _disable_current_modes():  # its tensors have values also where torch traces with tensors that have none
        return predicate.make_plan(grid)


def coordinates(token: Tensor, grid: Grid) -> Coordinates:
    """Coordinates (t, h, w) of tokens numbered with time slowest."""
    frame = grid[1] * grid[2]
    return token // frame, token % frame // grid[2], token % grid[2]
