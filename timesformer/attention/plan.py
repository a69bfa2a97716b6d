"""Rows of the mask that are computed together: groups of queries with the keys that any of them sees.

A plan is made once from a declaration and a grid.  Queries with the very same keys need no mask; where such groups are
small, as in a window around each token, the queries of a tile are taken together with the union of their keys, and a
mask of this union hides the rest.  The cheaper of the two is chosen by counting.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import product

import torch
from torch import Tensor

from timesformer.attention.partition import Grid
from timesformer.attention.rules import Size
from timesformer.errors import InputError

GATHERED = 16
"""Cost of fetching a key for a group, in pairs."""
Rows = Callable[[Tensor], Tensor]
"""Function from the numbers of some queries to their rows of the mask, bool (queries, keys)."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Groups of one shape: queries rows (g, r), keys (g, s), and mask (g, r, s), None where every pair is kept."""

    rows: Tensor
    keys: Tensor
    mask: Tensor | None

    @property
    def pairs(self) -> int:
        """Pairs that are computed, hidden ones included."""
        return self.rows.numel() * self.keys.shape[1]

    def to(self, device: torch.device | str) -> "Batch":
        return Batch(self.rows.to(device), self.keys.to(device), None if self.mask is None else self.mask.to(device))


Plan = tuple[Batch, ...]


@dataclass
class _Group:
    rows: Tensor
    keys: Tensor
    mask: Tensor | None = None

    @property
    def cost(self) -> int:
        return len(self.keys) * (len(self.rows) + GATHERED)


def plan_of_tokens(rows: Rows, grid: Grid, tile: Size, name: str) -> Plan:
    """Return the plan of a mask that is known token by token; `rows` gives some of its rows.

    Raises:
        InputError: a query sees no key; the message has `name` and the query's place.
    """
    tiled, same = [], dict[bytes, list[int]]()
    for queries in tiles_of(grid, tile):
        seen = rows(queries)
        _require_keys(seen, queries, grid, name)
        for query, digest in zip(queries.tolist(), _digests(seen), strict=True):
            same.setdefault(digest, []).append(query)
        keys = seen.any(0).nonzero().flatten()
        kept = seen[:, keys]
        tiled.append(_Group(queries, keys, None if kept.all() else kept))
    number, limit = len(same), sum(group.cost for group in tiled)
    if number * (1 + GATHERED) > limit:  # every query has its own keys, at least one
        return _batches(tiled)
    alike = []
    for members in same.values():
        queries = torch.tensor(members)
        alike.append(_Group(queries, rows(queries[:1])[0].nonzero().flatten()))
        limit -= alike[-1].cost
        if limit < 0:
            return _batches(tiled)
    return _batches(alike)


def plan_of_tiles(seen: Tensor, grid: Grid, tile: Size, name: str) -> Plan:
    """Return the plan of a mask that is known tile by tile: bool (tiles, tiles), rows are queries.

    Raises:
        InputError: a query sees no key; the message has `name` and the query's place.
    """
    tokens = list(tiles_of(grid, tile))
    same: dict[bytes, list[int]] = {}
    for number, (digest, row) in enumerate(zip(_digests(seen), seen, strict=True)):
        _require_keys(row[None], tokens[number][:1], grid, name)
        same.setdefault(digest, []).append(number)
    groups = []
    for members in same.values():
        keys = [tokens[key] for key in seen[members[0]].nonzero().flatten().tolist()]
        groups.append(_Group(torch.cat([tokens[number] for number in members]), torch.cat(keys)))
    return _batches(groups)


def tiles_of(grid: Grid, tile: Size) -> Iterator[Tensor]:
    """Yield the token numbers of every tile; the last along an axis is shorter where the axis ends before it."""
    number = torch.arange(grid[0] * grid[1] * grid[2]).view(grid)
    for t, h, w in product(*(range(0, length, side) for length, side in zip(grid, tile, strict=True))):
        yield number[t : t + tile[0], h : h + tile[1], w : w + tile[2]].flatten()


def place_of(token: int, grid: Grid) -> Grid:
    """Place (t, h, w) of a token, numbered with time slowest."""
    frame = grid[1] * grid[2]
    return token // frame, token % frame // grid[2], token % grid[2]


def _digests(seen: Tensor) -> list[bytes]:
    """Digest of each row, equal for equal rows."""
    return [blake2b(row.tobytes(), digest_size=16).digest() for row in seen.numpy()]


def _require_keys(seen: Tensor, queries: Tensor, grid: Grid, name: str) -> None:
    empty = (~seen.any(1)).nonzero()
    if empty.numel():
        where = place_of(int(queries[int(empty[0])]), grid)
        raise InputError(f"{name}: the query at (t, h, w) = {where} sees no key on grid {grid}")


def _batches(groups: list[_Group]) -> Plan:
    shapes: dict[tuple[int, int, bool], list[_Group]] = {}
    for group in groups:
        shapes.setdefault((len(group.rows), len(group.keys), group.mask is None), []).append(group)
    found = []
    for (_, _, plain), alike in shapes.items():
        mask = None if plain else torch.stack([group.mask for group in alike if group.mask is not None])
        found.append(
            Batch(torch.stack([group.rows for group in alike]), torch.stack([group.keys for group in alike]), mask)
        )
    return tuple(found)
