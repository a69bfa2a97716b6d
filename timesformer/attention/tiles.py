"""Neighbourhoods given tile by tile: a rule on the places of tiles, and optionally one on the tokens inside them."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from timesformer.attention.partition import Grid
from timesformer.attention.plan import Plan, plan_of_tiles, plan_of_tokens, tiles_of
from timesformer.attention.predicate import Predicate, coordinates
from timesformer.attention.rules import Coordinates, Seen, Size, Window, required_bool, size_of
from timesformer.errors import InputError


@dataclass(frozen=True)
class Tiles(Predicate):
    """Neighbourhood in tiles of t x h x w tokens, the last of an axis shorter where the axis ends before it.

    - `tile`: frames, rows and columns of a tile.
    - `rule`: which key tiles a query tile sees: a function of their coordinates and of the numbers of tiles, such as
      `timesformer.attention.rules.Window`.  None: every one.
    - `tokens`: which keys inside these tiles a query sees: a function of the coordinates of tokens and of the grid.
      None: every one, so that whole tiles are seen and nothing is computed in vain.

    Every query must see at least one key.
    """

    fn: Any = field(init=False, repr=False, compare=False)
    tile: Size
    rule: Seen | None = None
    tokens: Seen | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "tile", size_of("Tiles.tile", self.tile))
        for field_name in ("rule", "tokens"):
            rule = getattr(self, field_name)
            if rule is not None and not callable(rule):
                raise InputError(f"Tiles.{field_name}: expected a function of (query, key, grid) or None, got {rule!r}")
        object.__setattr__(self, "fn", self._seen)

    @property
    def name(self) -> str:
        """Name in messages."""
        rule, tokens = (getattr(each, "__name__", each) for each in (self.rule, self.tokens))
        return f"tiles {self.tile} with rule {rule} and tokens {tokens}"

    def counts(self, grid: Grid) -> Grid:
        """Numbers of tiles along t, h and w."""
        t, h, w = (-(-length // side) for length, side in zip(grid, self.tile, strict=True))
        return t, h, w

    def order(self, grid: Grid) -> Tensor | None:
        """Order of the tokens, tile by tile."""
        return torch.cat(list(tiles_of(grid, self.tile)))

    def make_plan(self, grid: Grid) -> Plan:
        """Make the plan; where whole tiles are seen, from the tiles alone."""
        tokens = self.tokens
        if isinstance(tokens, Window) and self.rule is None:  # known axis by axis, which is quicker
            return plan_of_tokens(
                lambda queries: tokens.rows(coordinates(queries, grid), grid), grid, self.tile, self.name
            )
        if tokens is not None:
            return plan_of_tokens(lambda queries: self.rows_of(queries, grid), grid, self.tile, self.name)
        counts = self.counts(grid)
        number = torch.arange(counts[0] * counts[1] * counts[2])
        seen = torch.ones(len(number), len(number), dtype=torch.bool)
        if self.rule is not None:
            found = self.rule(coordinates(number[:, None], counts), coordinates(number[None, :], counts), counts)
            seen = required_bool(self.name, found).expand(len(number), len(number))
        return plan_of_tiles(seen, grid, self.tile, self.name)

    def _seen(self, query: Coordinates, key: Coordinates, grid: Grid) -> Tensor:
        """The declaration in closed form, token by token."""
        seen = None
        if self.rule is not None:
            seen = self.rule(self._tile_of(query), self._tile_of(key), self.counts(grid))
        if self.tokens is not None:
            inside = self.tokens(query, key, grid)
            seen = inside if seen is None else seen & inside
        if seen is None:
            seen = (query[0] >= 0) & (key[0] >= 0)
        return seen

    def _tile_of(self, place: Coordinates) -> Coordinates:
        t, h, w = (at // side for at, side in zip(place, self.tile, strict=True))
        return t, h, w
