"""Grouped attention as a PyTorch operator: fake tensors, autograd, FLOPs, and the class token's three policies.

Letters: b clips, t frames, h w patch rows and columns, k heads, e width of a head, g groups.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from timesformer_kernels.device import on_device, require_usable
from timesformer_kernels.functions import differentiable, folded, last
from timesformer_kernels.layout import MOST, AxisTile, Tile, check_cover, is_short, layout_numbers, numbered_tiles

MODES = {"absent": 0, "replicated": 1, "global": 2, "class_query": 3}
"""Role of the class token in a call of the operator: none · query and key of every group · key only · key and the only
query."""

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
WIDTHS = (16, 128)
SMALLEST_BLOCK = 16
"""Fewest tokens of a group that a program takes."""


def grouped_attention(
    qkv: Tensor,
    cls_qkv: Tensor | None,
    tiles: Sequence[Tile],
    policy: Literal["absent", "replicated", "global"] = "absent",
    group_weights: Tensor | None = None,
    class_only: bool = False,
) -> tuple[Tensor | None, Tensor | None]:
    """Compute softmax attention inside the groups of a partition, straight from packed qkv.

    Nothing is copied, padded or gathered, and the same inputs give the same bits on every run.

    qkv: (b, t, h, w, 3, k, e) with any strides
    cls_qkv: (b, 3, k, e) or None
    tiles: all groups of the (t, h, w) grid, those of one shape in one tile; together they cover the grid once
    group_weights: (b, g), weights of each group's output of a replicated class token, applied before the mean over the
        groups, which is taken in a fixed order
    class_only: leave out the outputs of the patches

    Return the patches' outputs (b, t, h, w, k, e), None with `class_only`, and the class token's (b, k, e), None for
    `absent`.

    Raises:
        ValueError: a shape, dtype or policy that the kernels do not serve, or tiles that do not cover the grid once;
            the message says what was expected.
        KernelsUnavailable: no Triton, or no GPU that it can run on.
    """
    inputs = _Sizes.of(qkv), None if cls_qkv is None else _Sizes.of(cls_qkv), tuple(tiles), policy
    if torch.compiler.is_compiling():  # sizes may be symbols there; the operator checks the tiles when it runs
        _check(*inputs)
        layout = layout_numbers(inputs[2])
    else:
        layout = _checked(*inputs)
    require_usable(qkv.device)
    if policy == "absent":
        return (None if class_only else _call(qkv, None, layout, 0)[0]), None
    assert cls_qkv is not None
    if policy == "replicated":
        mode = MODES["class_query" if class_only else policy]
        out, groups = _call(qkv, cls_qkv, layout, mode)[:2]
        if group_weights is not None:
            groups = groups * group_weights[:, :, None, None]
        return None if class_only else out, groups.mean(1).to(qkv.dtype)
    _, t, h, w = qkv.shape[:4]
    clip = Tile(*(AxisTile(0, 1, 0, size, size, 1) for size in (t, h, w)))
    cls = _call(qkv, cls_qkv, layout_numbers((clip,)), MODES["class_query"])[1][:, 0].to(qkv.dtype)
    return None if class_only else _call(qkv, cls_qkv, layout, MODES[policy])[0], cls


class _Sizes(NamedTuple):
    """Shape, strides and dtype of a tensor."""

    shape: torch.Size
    strides: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, x: Tensor) -> "_Sizes":
        return cls(x.shape, x.stride(), x.dtype)


def unserved(qkv: Tensor, cls_qkv: Tensor | None, tiles: Sequence[Tile]) -> str | None:
    """Return what the kernels do not serve in these inputs of `grouped_attention`, or None."""
    return _unserved(_Sizes.of(qkv), None if cls_qkv is None else _Sizes.of(cls_qkv), tiles)


def _unserved(qkv: _Sizes, cls_qkv: _Sizes | None, tiles: Sequence[Tile]) -> str | None:
    heads, width = qkv.shape[-2:]
    if qkv.dtype not in DTYPES:
        return f"qkv: expected float16, bfloat16 or float32, got {qkv.dtype}"
    if not WIDTHS[0] <= width <= WIDTHS[1]:
        return f"qkv: expected heads of {WIDTHS[0]} to {WIDTHS[1]} channels, got {width}"
    if cls_qkv is not None and cls_qkv.dtype != qkv.dtype:
        return f"cls_qkv: expected {qkv.dtype} as qkv, got {cls_qkv.dtype}"
    tokens = qkv.shape[1] * qkv.shape[2] * qkv.shape[3]
    given = [x for x in (qkv, cls_qkv) if x is not None]
    spans = [sum((n - 1) * s for n, s in zip(x.shape[1:], x.strides[1:], strict=True)) for x in given]
    if max(*spans, 3 * tokens * heads * width) >= 2**31:
        return "qkv: expected clips that span fewer than 2^31 elements"
    blocks = max(tile.num_groups * (tile.group_size // SMALLEST_BLOCK + 1) for tile in tiles)
    if blocks > MOST:
        return f"tiles: expected at most {MOST} blocks of {SMALLEST_BLOCK} tokens in the groups of a clip, got {blocks}"
    return None


@lru_cache(maxsize=1024)
def _checked(qkv: _Sizes, cls_qkv: _Sizes | None, tiles: tuple[Tile, ...], policy: str) -> tuple[int, ...]:
    """Check inputs once for all calls of the same sizes, and return the numbers of their layout."""
    _check(qkv, cls_qkv, tiles, policy)
    check_cover(tiles, qkv.shape[1:4])
    return layout_numbers(tiles)


def _check(qkv: _Sizes, cls_qkv: _Sizes | None, tiles: Sequence[Tile], policy: str) -> None:
    if policy not in ("absent", "replicated", "global"):
        raise ValueError(f"policy: expected absent, replicated or global, got {policy!r}")
    if len(qkv.shape) != 7 or qkv.shape[4] != 3 or 0 in qkv.shape:
        raise ValueError(f"qkv: expected (b, t, h, w, 3, k, e), got {tuple(qkv.shape)}")
    b, *_, heads, width = qkv.shape
    if policy != "absent":
        if cls_qkv is None:
            raise ValueError(f"cls_qkv: expected the class token for policy {policy!r}, got None")
        if cls_qkv.shape != (b, 3, heads, width):
            raise ValueError(f"cls_qkv: expected {(b, 3, heads, width)}, got {tuple(cls_qkv.shape)}")
    reason = _unserved(qkv, None if policy == "absent" else cls_qkv, tiles)
    if reason is not None:
        raise ValueError(reason)


@torch.library.custom_op("timesformer::grouped_attention", mutates_args=())
def _op(qkv: Tensor, cls_qkv: Tensor | None, layout: Sequence[int], mode: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return out (b, t, h, w, k, e), the class token of each group (b, g, k, e) in fp32, and the log-sum-exp of both.

    The log-sum-exps are empty where the backward pass does not need them.
    """
    problems = _problems(qkv, cls_qkv, layout, mode)
    out, cls_out, lse, cls_lse = _outputs(qkv, problems[0].all_groups, problems[0].is_short, mode)
    with on_device(qkv):
        for problem in problems:
            problem.forward((qkv, cls_qkv), out, cls_out, lse, cls_lse)
    return out, cls_out, lse, cls_lse


@_op.register_fake
def _op_fake(
    qkv: Tensor, cls_qkv: Tensor | None, layout: Sequence[int], mode: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    tiles = numbered_tiles(layout)
    return _outputs(qkv, sum(tile.num_groups for tile in tiles), is_short(tiles, mode), mode)


def _outputs(qkv: Tensor, groups: int, short: bool, mode: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    b, t, h, w, _, heads, width = qkv.shape
    groups *= mode % 2
    patches = (t, h, w, heads)
    clips = b if mode != 3 else 0
    kept = 0 if short else 1  # short groups keep no statistics
    return (
        qkv.new_empty((clips, *patches, width)),
        qkv.new_empty((b, groups, heads, width), dtype=torch.float32),
        qkv.new_empty((clips * kept, *patches), dtype=torch.float32),
        qkv.new_empty((b * kept, groups, heads), dtype=torch.float32),
    )


@torch.library.custom_op("timesformer::grouped_attention_backward", mutates_args=())
def _backward_op(
    dout: Tensor,
    dcls_out: Tensor,
    qkv: Tensor,
    cls_qkv: Tensor | None,
    out: Tensor,
    cls_out: Tensor,
    lse: Tensor,
    cls_lse: Tensor,
    layout: Sequence[int],
    mode: int,
) -> tuple[Tensor, Tensor]:
    """Return dqkv (b, t, h, w, 3, k, e) and the class token's gradient as one fp32 part per group (b, g, 3, k, e)."""
    problems = _problems(qkv, cls_qkv, layout, mode)
    dqkv, dcls = _gradients(qkv, problems[0].all_groups, mode)
    if mode == 3:
        dqkv.select(4, 0).zero_()  # the patches are not queries
    if mode == 2:
        dcls.zero_()  # the class token is not a query
    saved = (out, cls_out, lse, cls_lse)
    dout, dcls_out = dout.contiguous(), dcls_out.to(dout.dtype).contiguous()  # a gradient may have strides of 0
    with on_device(qkv):
        for problem in problems:
            problem.backward((qkv, cls_qkv), saved, dout, dcls_out, dqkv, dcls)
    return dqkv, dcls


@_backward_op.register_fake
def _backward_fake(
    dout: Tensor,
    dcls_out: Tensor,
    qkv: Tensor,
    cls_qkv: Tensor | None,
    out: Tensor,
    cls_out: Tensor,
    lse: Tensor,
    cls_lse: Tensor,
    layout: Sequence[int],
    mode: int,
) -> tuple[Tensor, Tensor]:
    return _gradients(qkv, sum(tile.num_groups for tile in numbered_tiles(layout)), mode)


def _gradients(qkv: Tensor, groups: int, mode: int) -> tuple[Tensor, Tensor]:
    b, heads, width = qkv.shape[0], qkv.shape[5], qkv.shape[6]
    groups = groups if mode else 0
    return qkv.new_empty(qkv.shape), qkv.new_empty((b, groups, 3, heads, width), dtype=torch.float32)


def _problems(qkv: Tensor, cls_qkv: Tensor | None, layout: Sequence[int], mode: int) -> tuple[Any, ...]:
    launch = _launch()
    found: tuple[Any, ...] = launch.problems(launch.Buffers.of(qkv, cls_qkv), tuple(layout), mode)
    return found


@lru_cache(maxsize=1)
def _launch() -> Any:
    """Import what needs Triton."""
    from timesformer_kernels import launch

    return launch


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    qkv, cls_qkv, ctx.layout, ctx.mode = inputs
    ctx.has_cls = cls_qkv is not None
    ctx.save_for_backward(qkv, *([cls_qkv] if ctx.has_cls else []), *output)
    ctx.mark_non_differentiable(*output[2:])
    ctx.set_materialize_grads(False)


def _backward(
    ctx: Any, dout: Tensor | None, dcls_out: Tensor | None, *_: Any
) -> tuple[Tensor, Tensor | None, None, None]:
    qkv, *rest = ctx.saved_tensors
    cls_qkv = rest.pop(0) if ctx.has_cls else None
    dout, dcls_out = (torch.zeros_like(x) if d is None else d for d, x in zip((dout, dcls_out), rest[:2], strict=True))
    dqkv, parts = _call_backward(dout, dcls_out, qkv, cls_qkv, *rest, ctx.layout, ctx.mode)
    dcls = parts.sum(1).to(qkv.dtype) if ctx.has_cls else None  # in a fixed order: no atomics
    return dqkv, dcls, None, None


_call = differentiable(_op, _setup_context, _backward)
_call_backward = last(_backward_op)
_op.register_vmap(folded(_op))
_backward_op.register_vmap(folded(_backward_op))
FORWARD, BACKWARD = torch.ops.timesformer.grouped_attention, torch.ops.timesformer.grouped_attention_backward
