"""Rules on coordinates: which keys a query sees, by the places of tiles or of tokens.

A rule is a function of query and key coordinates and of the grid, as `Predicate` takes it; `Tiles` gives it the
coordinates of tiles or of tokens.  Those here are plain data, so that equal rules are equal.  `a | b` keeps what one of
two rules keeps, `a & b` what both keep.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from timesformer.attention.partition import Grid
from timesformer.errors import InputError

Coordinates = tuple[Tensor, Tensor, Tensor]
Seen = Callable[[Coordinates, Coordinates, Grid], Tensor]
"""Function of the (t, h, w) coordinates of queries and keys, which broadcast, and of the grid; True where seen."""
Size = tuple[int, int, int]
"""Numbers along time, height and width."""
ONE: Size = (1, 1, 1)


def size_of(field: str, value: object) -> Size:
    """Return numbers along t, h and w as a tuple.

    Raises:
        InputError: not three positive integers; the message has `field`.
    """
    if not isinstance(value, list | tuple) or len(value) != 3 or any(type(n) is not int or n < 1 for n in value):
        raise InputError(f"{field}: expected three positive integers for t, h and w, got {value!r}")
    return value[0], value[1], value[2]


def required_bool(name: str, seen: object) -> Tensor:
    """Return the result of a rule.

    Raises:
        InputError: not a bool tensor; the message has `name`.
    """
    if not isinstance(seen, Tensor) or seen.dtype != torch.bool:
        kind = seen.dtype if isinstance(seen, Tensor) else type(seen).__name__
        raise InputError(f"{name}: expected a bool tensor, True where the query sees the key, got {kind}")
    return seen


class Rule(ABC):
    """Base class of rules that can be joined by `|` and `&`."""

    @abstractmethod
    def __call__(self, query: Coordinates, key: Coordinates, grid: Grid) -> Tensor:
        """Return True where the query sees the key."""

    def __or__(self, other: Seen) -> "Rule":
        return AnyOf((self, other))

    def __and__(self, other: Seen) -> "Rule":
        return AllOf((self, other))

    def __ror__(self, other: Seen) -> "Rule":  # a plain function on the left
        return AnyOf((other, self))

    def __rand__(self, other: Seen) -> "Rule":
        return AllOf((other, self))


@dataclass(frozen=True)
class AnyOf(Rule):
    """Pairs that one of the rules keeps."""

    rules: tuple[Seen, ...]

    def __call__(self, query: Coordinates, key: Coordinates, grid: Grid) -> Tensor:
        seen = self.rules[0](query, key, grid)
        for rule in self.rules[1:]:
            seen = seen | rule(query, key, grid)
        return seen


@dataclass(frozen=True)
class AllOf(Rule):
    """Pairs that all rules keep."""

    rules: tuple[Seen, ...]

    def __call__(self, query: Coordinates, key: Coordinates, grid: Grid) -> Tensor:
        seen = self.rules[0](query, key, grid)
        for rule in self.rules[1:]:
            seen = seen & rule(query, key, grid)
        return seen


@dataclass(frozen=True)
class Window(Rule):
    """A window of keys around the query, along each axis, as NATTEN defines neighbourhood attention.

    - `size`: keys along t, h and w.  A window of an even size reaches one further to the left.  At the edges it is
      moved inwards, so that every query sees as many keys; a window longer than the axis is the whole axis.
    - `stride`: queries that share the window of the one in their middle (of an even number, the one right of it).
    - `dilation`: distance of neighbouring keys; a query sees keys of its own residue alone.
    - `causal`: along time, the window ends at the query and is cut at the beginning of the clip.
    """

    size: Size
    stride: Size = ONE
    dilation: Size = ONE
    causal: bool = False

    def __post_init__(self) -> None:
        for name in ("size", "stride", "dilation"):
            object.__setattr__(self, name, size_of(f"Window.{name}", getattr(self, name)))
        if any(stride > size for stride, size in zip(self.stride, self.size, strict=True)):
            raise InputError(
                f"Window.stride: expected at most the size {self.size}, so that every query lies in its own window, "
                f"got {self.stride}"
            )

    def __call__(self, query: Coordinates, key: Coordinates, grid: Grid) -> Tensor:
        along = [self._axis(axis, query[axis], key[axis], grid[axis]) for axis in range(3)]
        return along[0] & along[1] & along[2]

    def rows(self, queries: Coordinates, grid: Grid) -> Tensor:
        """Return the rows of these queries (q,) over all places of the grid, bool (q, t * h * w), axis by axis."""
        t, h, w = (
            self._axis(axis, queries[axis][:, None], torch.arange(grid[axis], device=queries[axis].device), grid[axis])
            for axis in range(3)
        )
        return (t[:, :, None, None] & h[:, None, :, None] & w[:, None, None, :]).flatten(1)

    def _axis(self, axis: int, query: Tensor, key: Tensor, length: int) -> Tensor:
        dilation, stride = self.dilation[axis], self.stride[axis]
        residue, at, to = query % dilation, query // dilation, key // dilation
        last = (length - 1 - residue) // dilation  # number of the last index with this residue
        same = residue == key % dilation
        first = at // stride * stride
        if self.causal and axis == 0:
            leader = torch.minimum(first + stride - 1, last)
            return same & (to <= at) & (leader - to < self.size[axis])
        leader = torch.minimum(first + stride // 2, last)
        left = self.size[axis] // 2
        start = torch.minimum(leader - left, last + 1 - self.size[axis]).clamp_min(0)
        return same & (to >= start) & (to < start + self.size[axis])


@dataclass(frozen=True)
class Radial(Rule):
    """Fewer keys in a frame the further it is away in time, as in Radial Attention (arXiv 2506.19852, section 4).

    In the query's own frame every key is seen.  At a distance of d frames, b = d.bit_length(), the seen keys are those
    in a window around the query with about `decay` / 2^b of the frame's area, so that the share halves each time that
    the distance doubles.  Where that is less than one key, the query sees the key at its own place in every n-th frame
    alone, n = 2^b / (`decay` · keys of a frame).  With `sink`, every query sees the whole first frame.
    """

    decay: float = 2.0
    sink: bool = True

    def __post_init__(self) -> None:
        if not self.decay > 0:
            raise InputError(f"Radial.decay: expected a positive number, got {self.decay!r}")

    def __call__(self, query: Coordinates, key: Coordinates, grid: Grid) -> Tensor:
        distance = (query[0] - key[0]).abs()
        down, across = (query[1] - key[1]).abs(), (query[2] - key[2]).abs()
        seen = distance == 0
        for bits in range(1, (grid[0] - 1).bit_length() + 1):
            band = (distance >= 1 << bits - 1) & (distance < 1 << bits)
            share = self.decay / 2**bits
            if share < 1:
                near = (2 * down <= share**0.5 * grid[1] - 1) & (2 * across <= share**0.5 * grid[2] - 1)
                band = band & (near | (down + across == 0))
            every = max(1, int(1 / (share * grid[1] * grid[2])))
            seen = seen | (band & (distance % every == 0))
        return seen | (key[0] == 0) if self.sink else seen


@dataclass(frozen=True)
class Everywhere(Rule):
    """Global places, whose numbers along t, h and w are multiples of `every`: they are seen by all, and see all."""

    every: Size

    def __post_init__(self) -> None:
        object.__setattr__(self, "every", size_of("Everywhere.every", self.every))

    def __call__(self, query: Coordinates, key: Coordinates, grid: Grid) -> Tensor:
        return self._chosen(query) | self._chosen(key)

    def _chosen(self, place: Coordinates) -> Tensor:
        t, h, w = (at % n == 0 for at, n in zip(place, self.every, strict=True))
        return t & h & w


@dataclass(frozen=True)
class Earlier(Rule):
    """Keys at the same time or before."""

    def __call__(self, query: Coordinates, key: Coordinates, grid: Grid) -> Tensor:
        return key[0] <= query[0]
