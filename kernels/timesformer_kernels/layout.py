"""Affine layouts: strides with which attention reads the tokens of a group in place.

A group of tokens is a product of slices along t, h and w, so the tokens of all groups of one shape lie at

    token(g, s) = base + sum_axis g_axis * group_stride_axis + s_axis * stride_axis

in a buffer of t * h * w tokens, time slowest.  Nothing needs a gather table, a mask or padding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import combinations

SHORT = 64
"""Longest group, in tokens with the class token, that shares a kernel tile with others; longer groups take several."""

MOST = 65535
"""Most blocks of a clip, and most clips of a launch: CUDA has no more programs along the second and third axis of a
grid."""


@dataclass(frozen=True)
class AxisTile:
    """Equal parts of one axis: element i of part g has the index `start + g * jump + i * stride`.

    There are `count` parts of `size` elements; the first of them is number `first` among all parts of the axis.
    """

    first: int
    count: int
    start: int
    jump: int
    size: int
    stride: int

    def index(self, part: int, element: int) -> int:
        return self.start + part * self.jump + element * self.stride

    def indices(self) -> list[int]:
        """Indices of all parts' elements; a sound tile has each of them once."""
        return [self.index(part, element) for part in range(self.count) for element in range(self.size)]

    def slices(self) -> tuple[slice, ...]:
        """Slices of the parts, in order."""
        last = (self.size - 1) * self.stride + 1
        return tuple(
            slice(self.index(g, 0), self.index(g, 0) + last, self.stride if self.size > 1 else 1)
            for g in range(self.count)
        )


@dataclass(frozen=True)
class AffineLayout:
    """Counts, sizes and strides along the axes (t, h, w); strides are in units of tokens."""

    base: int
    counts: tuple[int, int, int]
    group_strides: tuple[int, int, int]
    sizes: tuple[int, int, int]
    strides: tuple[int, int, int]


@dataclass(frozen=True)
class Tile:
    """All groups of one shape: the product of one `AxisTile` per axis."""

    t: AxisTile
    h: AxisTile
    w: AxisTile

    @cached_property
    def _hash(self) -> int:
        return hash((self.t, self.h, self.w))

    def __hash__(self) -> int:  # of 18 numbers; every call of the kernels looks its tiles up
        return self._hash

    @property
    def axes(self) -> tuple[AxisTile, AxisTile, AxisTile]:
        return self.t, self.h, self.w

    @property
    def num_groups(self) -> int:
        return self.t.count * self.h.count * self.w.count

    @property
    def group_size(self) -> int:
        return self.t.size * self.h.size * self.w.size

    def layout(self, grid: tuple[int, int, int]) -> AffineLayout:
        """Positions of each group's tokens in a (t, h, w) buffer of this grid."""
        units = (grid[1] * grid[2], grid[2], 1)
        pairs = list(zip(self.axes, units, strict=True))
        return AffineLayout(
            base=sum(axis.start * unit for axis, unit in pairs),
            counts=(self.t.count, self.h.count, self.w.count),
            group_strides=(pairs[0][0].jump * units[0], pairs[1][0].jump * units[1], pairs[2][0].jump * units[2]),
            sizes=(self.t.size, self.h.size, self.w.size),
            strides=(pairs[0][0].stride * units[0], pairs[1][0].stride * units[1], pairs[2][0].stride * units[2]),
        )


def tile_numbers(tile: Tile) -> tuple[int, ...]:
    """Flatten a tile to the 18 numbers that operators take."""
    return tuple(n for a in tile.axes for n in (a.first, a.count, a.start, a.jump, a.size, a.stride))


def numbered_tiles(numbers: Sequence[int]) -> list[Tile]:
    """Rebuild tiles from the concatenated numbers of `tile_numbers`."""
    axes = [AxisTile(*numbers[i : i + 6]) for i in range(0, len(numbers), 6)]
    return [Tile(*axes[i : i + 3]) for i in range(0, len(axes), 3)]


@lru_cache(maxsize=1024)
def layout_numbers(tiles: tuple[Tile, ...]) -> tuple[int, ...]:
    """Concatenate the numbers of the tiles."""
    return tuple(number for tile in tiles for number in tile_numbers(tile))


def is_short(tiles: Sequence[Tile], mode: int) -> bool:
    """Return True if several groups share a kernel tile: all are short, and patches are among the queries."""
    return mode != 3 and max(tile.group_size for tile in tiles) + (mode != 0) <= SHORT


@lru_cache(maxsize=1024)
def check_cover(tiles: tuple[Tile, ...], grid: tuple[int, int, int]) -> None:
    """Check that every token of the (t, h, w) grid lies in exactly one group.

    The kernels trust the tiles: a token outside the grid would be foreign memory, one in no group would stay unwritten.

    Raises:
        ValueError: an index beyond the grid, a token in two groups or in none; the message names tile and axis.
    """
    found = []
    for number, tile in enumerate(tiles):
        axes = []
        for name, axis, length in zip("thw", tile.axes, grid, strict=True):
            where, indices = f"tiles[{number}].{name}", axis.indices()
            if min(axis.count, axis.size) < 1:
                raise ValueError(f"{where}: expected at least one part and one element, got {axis.count}, {axis.size}")
            if min(indices) < 0 or max(indices) >= length:
                beyond = min(indices) if min(indices) < 0 else max(indices)
                raise ValueError(f"{where}: expected indices of 0 to {length - 1}, got {beyond}")
            if len(set(indices)) < len(indices):
                twice = next(index for index in indices if indices.count(index) > 1)
                raise ValueError(f"{where}: expected every index once, got {twice} twice")
            axes.append(frozenset(indices))
        found.append(axes)
    for (first, ours), (second, theirs) in combinations(enumerate(found), 2):
        shared = [mine & other for mine, other in zip(ours, theirs, strict=True)]
        if all(shared):
            token = tuple(min(indices) for indices in shared)
            raise ValueError(f"tiles: expected every token in one group, got {token} in tiles {first} and {second}")
    tokens, covered = grid[0] * grid[1] * grid[2], sum(tile.num_groups * tile.group_size for tile in tiles)
    if covered != tokens:
        raise ValueError(f"tiles: expected to cover the {tokens} tokens of the grid once, got {covered}")
