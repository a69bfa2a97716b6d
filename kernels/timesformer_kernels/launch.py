"""Kernel launches from tensors and tiles: strides, merged axes, block sizes.  Importing this module needs Triton."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from timesformer_kernels import lone, long, short
from timesformer_kernels.device import tf32_allowed
from timesformer_kernels.layout import MOST, SHORT, Tile, check_cover, is_short, numbered_tiles

KERNELS: dict[str, Any] = {
    "short_forward": short.short_forward,
    "short_backward": short.short_backward,
    "long_forward": long.long_forward,
    "long_backward_q": long.long_backward_q,
    "long_backward_kv": long.long_backward_kv,
    "lone_forward": lone.lone_forward,
    "lone_combine": lone.lone_combine,
    "lone_backward": lone.lone_backward,
}
LARGE = 512
"""Shortest group, in tokens, whose forward blocks hold 128 queries: they halve the reading of keys and values, and
of shorter groups too many rows would be padding."""
SPLIT = 1024
"""Shortest group, in patches, whose keys several programs may share for a lone query: the second launch that adds their
parts takes about as long as ten blocks of keys."""
PART = 128
"""Fewest keys of a part."""
ENOUGH = 256
"""Programs that keep a GPU busy, about two for each multiprocessor: parts add no more than are missing to that."""
MOST_PARTS = 32
"""Most parts of a group, which one program adds."""
INTERPRETED = bool(triton.knobs.runtime.interpret)


@dataclass(frozen=True)
class Blocks:
    """Block sizes and warps of a kernel.

    `rows` counts queries, the rows of a tile of short groups, or the parts that are added; `columns` counts keys.
    """

    rows: int
    columns: int
    warps: int
    stages: int = 3


def blocks_for(kernel: str, length: int, width: int, dtype: torch.dtype) -> Blocks:
    """Return block sizes at which a kernel does not spill registers.

    Tensor cores need 64 rows for full use, and Hopper's take no fewer.  Wide heads, and fp32, which tensor cores do not
    serve in full precision, need smaller blocks or more warps.  `timesformer_kernels.aot` compiles every choice.
    """
    full, wide = dtype == torch.float32, width > 64
    if kernel.startswith("short"):
        if (full or wide) and length <= 32:
            return Blocks(32, 0, 4, 1)
        return Blocks(SHORT, 0, 8 if full or wide else 4, 1)
    if kernel == "lone_combine":
        return Blocks(MOST_PARTS, 0, 4, 1)
    if kernel.startswith("lone"):
        return Blocks(1, 64 // (1 + full) // (1 + wide), 4)
    if kernel == "long_backward_kv":
        return Blocks(16, 32, 8) if full else Blocks(32, 64, 8 if wide else 4)
    if full:
        return Blocks(32, 32, 8)
    if kernel == "long_backward_q":
        return Blocks(64, 32, 4)
    if length >= LARGE and not wide:
        return Blocks(128, 64, 8)
    return Blocks(64, 64, 4)


class Keys(NamedTuple):
    """Keys of a lone query: `parts` that share them, of `keys` keys in whole blocks each.

    The first `extra` parts take a block more; the last part takes what whole blocks leave, with the class token.
    """

    parts: int
    extra: int
    keys: int


def split(size: int, block: int, programs: int) -> Keys:
    """Split the patches of a group for a lone query, where a launch has so many programs without.

    Groups from `SPLIT` patches have as many parts as bring the launch to `ENOUGH` programs, of at least `PART` keys.
    """
    parts = max(1, min(size // PART, ENOUGH // programs, MOST_PARTS)) if size >= SPLIT else 1
    blocks = size // block
    return Keys(parts, blocks % parts, blocks // parts * block)


Inputs = tuple[Tensor, Tensor | None]
"""Packed qkv, and that of the class token."""


@dataclass(frozen=True)
class Call:
    """Arguments of a launch: grid of programs, scalar arguments after the tensors, constants, block sizes.

    The grid of a clip has the heads first, which are fastest on a GPU: the heads of a token lie side by side, so that
    programs that run together read and write neighbouring bytes.  `options` holds the constants, the warps and the
    stages.
    """

    grid: tuple[int, int]
    numbers: tuple[int | float, ...]
    constants: dict[str, int | str | bool]
    blocks: Blocks
    options: dict[str, int | str | bool]


@dataclass(frozen=True)
class _Axes:
    """Up to three nested axes that remain after contiguous ones were merged."""

    sizes: tuple[int, int, int]
    steps: tuple[int, int, int]
    token_steps: tuple[int, int, int]


def _tail(rest: int) -> int:
    """Rows of a block for what whole blocks leave: a power of two, at least the 16 that products take."""
    return max(16, triton.next_power_of_2(rest)) if rest else 0


def _merged(sizes: tuple[int, ...], steps: tuple[int, ...], token_steps: tuple[int, ...]) -> _Axes:
    axes: list[tuple[int, int, int]] = []
    for size, step, token_step in zip(sizes, steps, token_steps, strict=True):
        if size == 1:
            continue
        if axes and axes[-1][1] == step * size and axes[-1][2] == token_step * size:
            axes[-1] = (axes[-1][0] * size, step, token_step)
        else:
            axes.append((size, step, token_step))
    axes += [(1, 0, 0)] * (3 - len(axes))  # inner axes of size 1: divisions by them are compiled away
    first, second, third = zip(*axes, strict=True)
    return _Axes(first, second, third)


class Buffers(NamedTuple):
    """Sizes, strides and dtype of packed qkv and of the class token's qkv, from which every launch follows."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    class_strides: tuple[int, ...] | None
    dtype: torch.dtype
    tf32: bool

    @classmethod
    def of(cls, qkv: Tensor, cls_qkv: Tensor | None) -> "Buffers":
        tf32 = qkv.dtype == torch.float32 and tf32_allowed()
        strides = None if cls_qkv is None else cls_qkv.stride()
        return cls(qkv.shape, qkv.stride(), strides, qkv.dtype, tf32)


@lru_cache(maxsize=1024)
def problems(buffers: Buffers, layout: tuple[int, ...], mode: int) -> tuple["Problem", ...]:
    """Return the launches of a layout in buffers, made once for all calls with the same sizes and strides.

    Raises:
        ValueError: the layout does not cover the grid once.
    """
    tiles = numbered_tiles(layout)
    _, t, h, w, *_ = buffers.shape
    check_cover(tuple(tiles), (t, h, w))
    found, first, groups, short_groups = [], 0, sum(tile.num_groups for tile in tiles), is_short(tiles, mode)
    for tile in tiles:
        found.append(Problem(buffers, tile, mode, short_groups, first, groups))
        first += tile.num_groups
    return tuple(found)


class Problem:
    """One tile of groups in buffers of known strides, with the numbers that the kernels take."""

    def __init__(
        self,
        buffers: Buffers,
        tile: Tile,
        mode: int,
        is_short: bool,
        first_group: int = 0,
        all_groups: int | None = None,
    ) -> None:
        self.buffers, self.mode, self.is_short, self.is_lone = buffers, mode, is_short, mode == 3
        self.batch, t, h, w, _, self.heads, self.width = buffers.shape
        sb, st, sh, sw, s3, sk, se = buffers.strides
        steps, units = (st, sh, sw), (h * w, w, 1)
        jumps, strides = [axis.jump for axis in tile.axes], [axis.stride for axis in tile.axes]
        self.groups, self.size = tile.num_groups, tile.group_size
        self.length = self.size + (mode != 0)
        self.across = _merged(
            tuple(axis.count for axis in tile.axes),
            tuple(jump * step for jump, step in zip(jumps, steps, strict=True)),
            tuple(jump * unit for jump, unit in zip(jumps, units, strict=True)),
        )
        self.inside = _merged(
            tuple(axis.size for axis in tile.axes),
            tuple(stride * step for stride, step in zip(strides, steps, strict=True)),
            tuple(stride * unit for stride, unit in zip(strides, units, strict=True)),
        )
        base = sum(axis.start * step for axis, step in zip(tile.axes, steps, strict=True))
        token_base = sum(axis.start * unit for axis, unit in zip(tile.axes, units, strict=True))
        self.strides = (sb, s3, sk, se, *self.across.steps, *self.inside.steps, base)
        self.class_strides = buffers.class_strides or (0, 0, 0, 0)
        self.places = (*self.across.token_steps, *self.inside.token_steps, token_base)
        self.first_group, self.all_groups = first_group, all_groups or self.groups
        self.counts = (t * h * w, self.heads, self.groups, first_group, self.all_groups, self.width**-0.5)
        if self.is_lone:
            block = blocks_for("lone_forward", self.length, self.width, buffers.dtype).columns
            self.keys = split(self.size, block, self.batch * self.heads * self.groups)
        self._calls: dict[str, Call] = {}

    def call(self, kernel: str) -> Call:
        """Arguments for launching one of the kernels on this problem."""
        if kernel not in self._calls:
            self._calls[kernel] = self._make_call(kernel)
        return self._calls[kernel]

    def _make_call(self, kernel: str) -> Call:
        dtype, backward_kv = self.buffers.dtype, kernel == "long_backward_kv"
        blocks = blocks_for(kernel, self.length, self.width, dtype)
        constants: dict[str, int | str | bool] = {
            "E": self.width,
            "BLOCK_E": max(16, triton.next_power_of_2(self.width)),
        }
        numbers: tuple[int | float, ...] = (*self.strides, *self.class_strides, *self.places, *self.counts)
        if kernel == "lone_combine":
            programs, numbers = self.groups, (*self.counts[1:5], self.keys.parts)
            constants |= {"MOST": blocks.rows}
            return self._made(programs, numbers, constants, blocks)
        constants |= {"G2": self.across.sizes[1], "G3": self.across.sizes[2]}
        constants |= {"S2": self.inside.sizes[1], "S3": self.inside.sizes[2]}
        if self.is_lone:
            parts, extra, keys = self.keys
            apart = self.heads if parts > 1 else 3 * self.heads  # the whole dq goes beside dk and dv
            programs, numbers = self.groups * parts, (*numbers, parts, extra, apart, self.size, keys)
            constants |= {"BLOCK_N": blocks.columns, "WHOLE": keys > 0}
            return self._made(programs, numbers, constants, blocks)
        constants |= {
            "CLS": self.mode,
            "UPCAST": INTERPRETED and dtype != torch.float32,
            "PRECISION": "tf32" if self.buffers.tf32 else "ieee",
        }
        if self.is_short:
            programs = triton.cdiv(self.groups, blocks.rows // self.length)
            constants |= {"S": self.size, "L": self.length, "ROWS": blocks.rows}
        else:
            queries = triton.cdiv(self.size + self.mode % 2, blocks.rows)
            count = triton.cdiv(self.length, blocks.columns) if backward_kv else queries
            # The keys' gradients pass over queries, the other kernels over keys: in whole blocks, then what is left.
            step, cls = (blocks.rows, self.mode % 2) if backward_kv else (blocks.columns, self.length - self.size)
            programs, numbers = self.groups * count, (*numbers, count, self.size)
            constants |= {"BLOCK_M": blocks.rows, "BLOCK_N": blocks.columns}
            constants |= {"WHOLE": self.size >= step, "TAIL": _tail(self.size % step + cls)}
        return self._made(programs, numbers, constants, blocks)

    def _made(
        self,
        programs: int,
        numbers: tuple[int | float, ...],
        constants: dict[str, int | str | bool],
        blocks: Blocks,
    ) -> Call:
        options = {**constants, "num_warps": blocks.warps, "num_stages": blocks.stages}
        return Call((self.heads, programs), numbers, constants, blocks, options)

    def _launch(self, kernel: str, *tensors: Tensor) -> None:
        call = self.call(kernel)
        numbers = call.numbers
        if INTERPRETED and not self.is_short:  # Triton 3.6's interpreter cannot count to a tensor with numpy 2.4
            numbers = (*numbers[:-1], tl.constexpr(numbers[-1]))
        for first in range(0, self.batch, MOST):
            clips = min(MOST, self.batch - first)
            part = tensors if clips == self.batch else [x[first : first + clips] for x in tensors]
            KERNELS[kernel][*call.grid, clips](*part, *numbers, **call.options)

    def forward(self, inputs: Inputs, out: Tensor, cls_out: Tensor, lse: Tensor, cls_lse: Tensor) -> None:
        """Fill the outputs of this tile's tokens and groups; the log-sum-exps stay unset for short groups."""
        qkv, cls = inputs[0], inputs[0] if inputs[1] is None else inputs[1]
        if self.is_short:
            self._launch("short_forward", qkv, cls, out, cls_out)
        elif not self.is_lone:
            self._launch("long_forward", qkv, cls, out, cls_out, lse, cls_lse)
        elif self.keys.parts == 1:
            self._launch("lone_forward", qkv, cls, cls_out, cls_lse)
        else:
            parts = [x.new_empty(self._parts(x)) for x in (cls_out, cls_lse)]
            self._launch("lone_forward", qkv, cls, *parts)
            self._launch("lone_combine", *parts, cls_out, cls_lse)

    def _parts(self, whole: Tensor) -> tuple[int, ...]:
        """Shape (b, g, parts, k, ...) for the parts of something (b, g, k, ...)."""
        return (*whole.shape[:2], self.keys.parts, *whole.shape[2:])

    def backward(
        self, inputs: Inputs, saved: Sequence[Tensor], dout: Tensor, dcls_out: Tensor, dqkv: Tensor, dcls: Tensor
    ) -> None:
        """Fill the gradients of this tile; `saved` holds the outputs of `forward`, which short groups do not need."""
        qkv, cls = inputs[0], inputs[0] if inputs[1] is None else inputs[1]
        if self.is_short:
            self._launch("short_backward", qkv, cls, dout, dcls_out, dqkv, dcls)
            return
        out, cls_out, lse, cls_lse = saved
        if self.is_lone:
            split = self.keys.parts > 1
            dq = cls_out.new_empty(self._parts(cls_out)) if split else dcls
            self._launch("lone_backward", qkv, cls, cls_out, cls_lse, dcls_out, dqkv, dcls, dq)
            if split:  # in a fixed order: no atomics
                mine = slice(self.first_group, self.first_group + self.groups)
                torch.sum(dq[:, mine], 2, out=dcls[:, mine, 0])
            return
        delta, cls_delta = torch.empty_like(lse), torch.empty_like(cls_lse)
        gradients = (dout, dcls_out, delta, cls_delta, dqkv, dcls)
        self._launch("long_backward_q", qkv, cls, out, cls_out, lse, cls_lse, *gradients)
        self._launch("long_backward_kv", qkv, cls, lse, cls_lse, *gradients)
