"""Softmax attention by name: `reference`, `sdpa`, `flex`, `triton`, `auto`.  No backend falls back silently."""

from functools import lru_cache
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from timesformer._typing import Bool, Float
from timesformer.attention.mixer import Mixer
from timesformer.attention.partition import Grid, Partition, grid_of
from timesformer.attention.predicate import Predicate, coordinates
from timesformer.errors import InputError
from timesformer_kernels import prefers_kernels, why_unusable

Backend = Literal["auto", "reference", "sdpa", "flex", "triton"]
BACKENDS: tuple[Backend, ...] = ("auto", "reference", "sdpa", "flex", "triton")


class BackendError(InputError):
    """Error of a backend that cannot serve a request; the message says what is missing."""


def choose(
    backend: Backend,
    over: object,
    device: torch.device | None,
    qkv: Tensor | None = None,
    cls_qkv: Tensor | None = None,
) -> Backend:
    """Return the backend that runs a partition, predicate or mixer on `device` (None: any device of this machine).

    `qkv`, `cls_qkv`: what is attended to, (b, t, h, w, 3, k, e) and (b, s, 3, k, e) or None; without it `auto` is not
    decided between kernels and `sdpa`.  Registers (s > 1) are served by torch alone.

    `auto` takes the kernels for a partition on CUDA where they serve it and are expected to be fastest
    (`timesformer_kernels.auto`), `flex` for a predicate on CUDA, where FlexAttention compiles to block-sparse kernels,
    and `sdpa` otherwise.

    Raises:
        BackendError: `triton` where the kernels cannot run, `triton` for a predicate, or `flex` for a partition.
        InputError: an unknown backend.
    """
    if backend not in BACKENDS:
        raise InputError(f"backend: expected one of {BACKENDS}, got {backend!r}")
    if backend == "triton":
        if isinstance(over, Predicate):
            raise BackendError(
                "backend 'triton': expected a partition, got a predicate; use 'flex' or 'sdpa', or 'auto' for a scheme "
                "that has both"
            )
        if cls_qkv is not None and cls_qkv.shape[1] > 1 and not isinstance(over, Mixer):
            raise BackendError("backend 'triton': does not serve registers yet; use 'sdpa' or 'auto'")
        reason = why_unusable(device)
        if reason is not None:
            raise BackendError(f"backend 'triton' cannot run: {reason}")
        return "sdpa" if isinstance(over, Mixer) else "triton"
    if backend == "flex" and isinstance(over, Partition):
        raise BackendError(
            "backend 'flex': expected a predicate, got a partition, whose groups need no mask; use 'sdpa', or 'auto' "
            "for a scheme that has both"
        )
    if backend != "auto":
        return backend
    if isinstance(over, Predicate) and device is not None and device.type == "cuda":
        return "flex"
    if isinstance(over, Partition) and qkv is not None and qkv.device.type == "cuda":
        alone = cls_qkv is None or cls_qkv.shape[1] == 1
        if alone and prefers_kernels(qkv, cls_qkv, over.tiles(grid_of(qkv))):
            return "triton"
    return "sdpa"


def softmax_attention(
    q: Float[Tensor, "*g k q e"],
    k: Float[Tensor, "*g k s e"],
    v: Float[Tensor, "*g k s e"],
    mask: Bool[Tensor, "q s"] | None,
    backend: str,
) -> Float[Tensor, "*g k q e"]:
    """Compute softmax(q k^T / sqrt(e)) v inside each group; `mask` is True where a query sees a key."""
    if backend == "reference":
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        return scores.softmax(-1) @ v
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def flex_attention(
    q: Float[Tensor, "b k p e"],
    k: Float[Tensor, "b k s e"],
    v: Float[Tensor, "b k s e"],
    predicate: Predicate,
    grid: Grid,
) -> Float[Tensor, "b k p e"]:
    """Run FlexAttention over a predicate; every query sees the keys after the last patch, class token and registers.

    Raises:
        BackendError: gradients are needed on a CPU, where FlexAttention has no backward pass.
    """
    if q.device.type == "cpu" and torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
        raise BackendError("backend 'flex' has no backward pass on a CPU: train with 'sdpa' or 'auto'")
    order = _order(predicate, grid, k.shape[2], str(q.device))
    if order is not None:
        patches = order[: q.shape[2]]
        q, k, v = q[:, :, patches], k[:, :, order], v[:, :, order]
    out: Tensor = _compiled_flex()(q, k, v, block_mask=block_mask(predicate, grid, k.shape[2], str(q.device)))
    return out if order is None else torch.empty_like(out).index_copy(2, patches, out)


@lru_cache(maxsize=1)
def _compiled_flex() -> Any:
    from torch.nn.attention.flex_attention import flex_attention as flex

    return torch.compile(flex, dynamic=False)


@lru_cache(maxsize=16)
def _order(predicate: Predicate, grid: Grid, keys: int, device: str) -> Tensor | None:
    """Order in which FlexAttention reads the keys, those after the last patch in their place."""
    order = predicate.order(grid)
    return None if order is None else torch.cat([order, torch.arange(len(order), keys)]).to(device)


@lru_cache(maxsize=8)
def block_mask(predicate: Predicate, grid: Grid, keys: int, device: str) -> Any:
    """Return the block mask that FlexAttention reads, of all patches as queries and so many keys.

    Raises:
        InputError: a query that sees no patch.
    """
    from torch.nn.attention.flex_attention import create_block_mask

    tokens = grid[0] * grid[1] * grid[2]
    order = _order(predicate, grid, keys, device)

    def seen(query: Tensor, key: Tensor) -> Tensor:
        if order is not None:  # tile by tile, so that most blocks are seen as a whole or not at all
            query, key = order[query], order[key]
        return (key >= tokens) | predicate.fn(coordinates(query, grid), coordinates(key, grid), grid)

    predicate.plan(grid)  # raises InputError for a query that sees no key
    return create_block_mask(lambda b, head, query, key: seen(query, key), None, None, tokens, keys, device=device)
