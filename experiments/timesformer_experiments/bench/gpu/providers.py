"""Providers that compute a step from packed qkv: our kernels, PyTorch's attention with each of its backends,
FlexAttention, and unfused attention as in the released code.

A provider takes qkv (b, t, h, w, 3, k, e) and that of the class token (b, 3, k, e) or None, and returns
(b, t, h, w, k, e) and (b, k, e) or None; all regrouping and copies that it needs are included.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange, repeat
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from timesformer.attention import BackendError, Grid, Partition, Step, attend
from timesformer_experiments.bench.gpu.machine import Unsupported
from timesformer_kernels import Tile, grouped_attention, why_unusable

Output = tuple[Tensor, Tensor | None]
Compute = Callable[[Tensor, Tensor | None], Output]
Inputs = tuple[Tensor, Tensor | None]

SDPA: dict[str, SDPBackend | None] = {
    "sdpa": None,
    "sdpa_flash": SDPBackend.FLASH_ATTENTION,
    "sdpa_cudnn": SDPBackend.CUDNN_ATTENTION,
    "sdpa_efficient": SDPBackend.EFFICIENT_ATTENTION,
    "sdpa_math": SDPBackend.MATH,
}
"""Backends of PyTorch's attention; `sdpa`: PyTorch's own choice among them."""


@dataclass(frozen=True)
class Provider:
    """A provider: `make(step, grid, inputs)` returns the function or raises `Unsupported`; `cpu`: also run on a CPU;
    `seconds`: expected duration of a measurement."""

    name: str
    make: Callable[[Step, Grid, Inputs], Compute]
    cpu: bool = True
    seconds: float = 3.0


def only_tile(step: Step, grid: Grid) -> Tile:
    """Return the tile of all groups of a step; raise Unsupported if the grid cannot be split evenly."""
    over = step.over[0]
    assert isinstance(over, Partition)
    tiles = over.tiles(grid)
    if len(tiles) != 1:
        raise Unsupported(f"the groups of {step.name!r} on the grid {grid} are not all of one shape")
    return tiles[0]


def _axes(tile: Tile) -> tuple[str, str, str, dict[str, int]]:
    """Return einops names of the token axes, of the groups and of a group's elements, and the lengths of the axes."""
    order = [("g{0} s{0}", "s{0} g{0}")[axis.stride > 1 and axis.count > 1] for axis in tile.axes]
    axes = " ".join(f"({pair.format(name)})" for pair, name in zip(order, "thw", strict=True))
    lengths = {f"g{name}": axis.count for name, axis in zip("thw", tile.axes, strict=True)}
    lengths |= {f"s{name}": axis.size for name, axis in zip("thw", tile.axes, strict=True)}
    return axes, "gt gh gw", "st sh sw", lengths


def to_groups(qkv: Tensor, tile: Tile) -> Tensor:
    """Return the packed tokens of every group, (b g, s, 3, k, e)."""
    axes, groups, elements, lengths = _axes(tile)
    return rearrange(qkv, f"b {axes} c k e -> (b {groups}) ({elements}) c k e", **lengths)


def from_groups(out: Tensor, tile: Tile) -> Tensor:
    """Return (b g, s, k, e) rearranged to (b, t, h, w, k, e)."""
    axes, groups, elements, lengths = _axes(tile)
    return rearrange(out, f"(b {groups}) ({elements}) k e -> b {axes} k e", **lengths)


def ours(step: Step, grid: Grid, inputs: Inputs) -> Compute:
    """Return our kernels, which read packed qkv in place."""
    reason = why_unusable(inputs[0].device)
    if reason is not None:
        raise Unsupported(reason)
    over = step.over[0]
    assert isinstance(over, Partition)
    tiles = over.tiles(grid)

    def compute(qkv: Tensor, cls: Tensor | None) -> Output:
        out, cls_out = grouped_attention(qkv, cls, tiles, step.cls)
        assert out is not None
        return out, cls_out

    return compute


def sdpa(backend: SDPBackend | None) -> Callable[[Step, Grid, Inputs], Compute]:
    """Return our path through `scaled_dot_product_attention` with this backend forced.

    The class token's query is a separate call.  If the backend does not support it, the class token is appended to the
    queries of every group instead.
    """

    def forced() -> AbstractContextManager[Any]:
        return nullcontext() if backend is None else sdpa_kernel(backend)

    def make(step: Step, grid: Grid, inputs: Inputs) -> Compute:
        tile = only_tile(step, grid)

        def two_calls(qkv: Tensor, cls: Tensor | None) -> Output:
            with forced():
                out, cls_out = attend(step, qkv, cls, backend="sdpa")
            assert out is not None
            return out, cls_out

        def one_call(qkv: Tensor, cls: Tensor | None) -> Output:
            q, k, v = _with_class(to_groups(qkv, tile), cls, tile).permute(2, 0, 3, 1, 4)  # 3 (b g) k s e
            with forced():
                out = torch.nn.functional.scaled_dot_product_attention(q, k, v)
            return _split_class(out.transpose(1, 2), cls, tile)

        reasons = []
        for compute in (two_calls, one_call) if step.cls == "replicated" else (two_calls,):
            try:
                with warnings.catch_warnings():  # every backend that is not used warns why
                    warnings.simplefilter("ignore")
                    _try(compute, inputs)
                return compute
            except torch.OutOfMemoryError:
                raise
            except (RuntimeError, BackendError) as error:
                reasons.append(str(error).splitlines()[0])
        raise Unsupported(reasons[0])

    return make


def _try(compute: Compute, inputs: Inputs) -> None:
    """Try forward and, if gradients are needed, backward on the first clip; some backends support only forward."""
    qkv, cls = (None if x is None else x.detach()[:1].requires_grad_(x.requires_grad) for x in inputs)
    assert qkv is not None
    out = compute(qkv, cls)[0]
    if qkv.requires_grad:
        out.sum().backward()


def _with_class(groups: Tensor, cls: Tensor | None, tile: Tile) -> Tensor:
    """Append the class token to the tokens of every group, (b g, s + 1, 3, k, e)."""
    if cls is None:
        return groups
    copies = repeat(cls, "b c k e -> (b g) 1 c k e", g=tile.num_groups)
    return torch.cat([groups, copies], 1)


def _split_class(out: Tensor, cls: Tensor | None, tile: Tile) -> Output:
    """Split (b g, s + 1, k, e) into the patches and the mean of the class token's rows."""
    if cls is None:
        return from_groups(out, tile), None
    return from_groups(out[:, :-1], tile), out[:, -1].unflatten(0, (-1, tile.num_groups)).mean(1)


def eager(step: Step, grid: Grid, inputs: Inputs) -> Compute:
    """Return unfused attention as in the released code: tokens regrouped, the class token repeated and concatenated,
    qkv permuted and indexed, scores and probabilities in memory."""
    tile = only_tile(step, grid)
    if step.cls == "global":
        raise Unsupported("the released code has no global class token: it repeats the class token in every group")

    def compute(qkv: Tensor, cls: Tensor | None) -> Output:
        packed = _with_class(to_groups(qkv, tile), cls, tile).permute(2, 0, 3, 1, 4)  # 3 (b g) k s e
        q, k, v = packed[0], packed[1], packed[2]
        weights = ((q @ k.transpose(-2, -1)) * q.shape[-1] ** -0.5).softmax(-1)
        return _split_class((weights @ v).transpose(1, 2), cls, tile)

    return compute


def flex(step: Step, grid: Grid, inputs: Inputs) -> Compute:
    """Return compiled FlexAttention.

    The tokens of a group are contiguous, a block mask separates the groups, and the class token is a last key that all
    queries see.  The class token's own query, which a mask cannot express, is computed by SDPA.
    """
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    tile, tokens = only_tile(step, grid), grid[0] * grid[1] * grid[2]
    size, device = tile.group_size, inputs[0].device

    def seen(b: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key >= tokens) | (query // size == key // size)

    torch._dynamo.reset()  # the number of compilations of one function is limited
    mask = create_block_mask(seen, None, None, tokens, tokens + (step.cls != "absent"), device=str(device))
    compiled: Any = torch.compile(flex_attention, dynamic=False)
    axes, groups, elements, lengths = _axes(tile)
    there, back = f"b {axes} c k e -> c b k ({groups} {elements}) e", f"b k ({groups} {elements}) e -> b {axes} k e"

    def compute(qkv: Tensor, cls: Tensor | None) -> Output:
        q, k, v = rearrange(qkv, there, **lengths)
        if cls is not None:
            k, v = (torch.cat([x, cls[:, i, :, None]], 2) for i, x in ((1, k), (2, v)))
        out = rearrange(compiled(q, k, v, block_mask=mask), back, **lengths)
        return out, None if cls is None else attend(step, qkv, cls, backend="sdpa", class_only=True)[1]

    return compute


PROVIDERS: dict[str, Provider] = {
    provider.name: provider
    for provider in (
        Provider("ours", ours, seconds=6),
        *(
            Provider(name, sdpa(backend), cpu=name in ("sdpa", "sdpa_flash", "sdpa_math"))
            for name, backend in SDPA.items()
        ),
        Provider("fair_eager", eager),
    )
}
FLEX = Provider("flex", flex, cpu=False, seconds=25)
