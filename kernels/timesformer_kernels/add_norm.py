"""Residual addition and layer norm as one PyTorch operator: the sum is written and normalised in one pass."""

from typing import Any

import torch
from torch import Tensor

from timesformer_kernels.device import interpreted, on_device, require_usable, why_unusable
from timesformer_kernels.functions import differentiable, last, looped

ROWS = 16
"""Number of rows that one program of the backward pass sums over, one after the other."""

MAX_CHANNELS = 8192
DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def add_norm(x: Tensor, more: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return x + more and the layer norm of this sum over the last dimension: two tensors (…, d).

    The sum has the promoted dtype of both inputs.  The norm has the same dtype, or autocast's where autocast is on: the
    linear layer that follows would convert it anyway.

    Raises:
        ValueError: shapes or devices that differ, a dtype other than fp16, bf16 and fp32, or more than 8192 channels.
        KernelsUnavailable: no Triton, or no GPU that it can run on.
    """
    if x.shape != more.shape or weight.shape != x.shape[-1:] or bias.shape != x.shape[-1:]:
        raise ValueError(
            f"add_norm: expected equal shapes (…, d) and weights (d,), got {tuple(x.shape)}, {tuple(more.shape)}, "
            f"{tuple(weight.shape)} and {tuple(bias.shape)}"
        )
    given = (x, more, weight, bias)
    if x.shape[-1] > MAX_CHANNELS:
        raise ValueError(f"add_norm: expected at most {MAX_CHANNELS} channels, got {x.shape[-1]}")
    if any(tensor.dtype not in DTYPES for tensor in given):
        dtypes = ", ".join(str(tensor.dtype) for tensor in given)
        raise ValueError(f"add_norm: expected float16, bfloat16 or float32, got {dtypes}")
    if any(tensor.device != x.device for tensor in given):
        devices = ", ".join(str(tensor.device) for tensor in given)
        raise ValueError(f"add_norm: expected all on one device, got {devices}")
    require_usable(x.device)
    kind = x.device.type
    low = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    dtype = torch.get_autocast_dtype(kind) if low else torch.promote_types(x.dtype, more.dtype)
    total, normed, _, _ = _call(x, more, weight, bias, eps, dtype)
    return total, normed


def prefers_add_norm(x: Tensor, more: Tensor) -> bool:
    """Return True if `backend="auto"` takes `add_norm`, by a rule: nothing was measured.

    It does on a GPU in half precision, also under autocast, and never in the interpreter, which is slow, or while
    torch.compile traces, which fuses the same operations by itself.
    """
    if x.device.type != "cuda" or torch.compiler.is_compiling() or interpreted() or x.shape[-1] > MAX_CHANNELS:
        return False
    low = torch.is_autocast_enabled("cuda") or {x.dtype, more.dtype} & {torch.float16, torch.bfloat16}
    return bool(low) and {x.dtype, more.dtype} <= set(DTYPES) and why_unusable(x.device) is None


def block(width: int) -> dict[str, int]:
    """Constants of a launch for rows of `width` channels."""
    padded = 1 << (width - 1).bit_length()
    return {"BLOCK_D": padded, "num_warps": 4 if padded <= 2048 else 8}


@torch.library.custom_op("timesformer::add_norm", mutates_args=())
def _op(
    x: Tensor, more: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the sum, its norm, and each row's mean and inverse standard deviation in fp32."""
    from timesformer_kernels.norm_kernels import add_norm_forward

    out = _op_fake(x, more, weight, bias, eps, dtype)
    width = x.shape[-1]
    rows = x.numel() // width
    if rows:
        given = [tensor.contiguous() for tensor in (x, more, weight, bias)]
        with on_device(x):
            add_norm_forward[(rows,)](*given, *out, width, eps, **block(width))
    return out


@_op.register_fake
def _op_fake(
    x: Tensor, more: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    total = x.new_empty(x.shape, dtype=torch.promote_types(x.dtype, more.dtype))
    statistics = [x.new_empty(x.shape[:-1], dtype=torch.float32) for _ in range(2)]
    return total, x.new_empty(x.shape, dtype=dtype), statistics[0], statistics[1]


@torch.library.custom_op("timesformer::add_norm_backward", mutates_args=())
def _backward_op(
    dtotal: Tensor, dnormed: Tensor, total: Tensor, weight: Tensor, mean: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradient of the sum (…, d), and those of weight and bias as partial sums (programs, d) in fp32."""
    from timesformer_kernels.norm_kernels import add_norm_backward

    dx, dweight, dbias = _backward_fake(dtotal, dnormed, total, weight, mean, scale)
    width = total.shape[-1]
    rows = total.numel() // width
    if rows:
        saved = (total.contiguous(), weight.contiguous(), mean, scale)
        with on_device(total):
            add_norm_backward[(len(dweight),)](
                *saved, dtotal.contiguous(), dnormed.contiguous(), dx, dweight, dbias,
                rows, width, ROWS=ROWS, **block(width),
            )  # fmt: skip
    return dx, dweight, dbias


@_backward_op.register_fake
def _backward_fake(
    dtotal: Tensor, dnormed: Tensor, total: Tensor, weight: Tensor, mean: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    width = total.shape[-1]
    parts = -(-(total.numel() // width) // ROWS)
    return (
        total.new_empty(total.shape),
        total.new_empty((parts, width), dtype=torch.float32),
        total.new_empty((parts, width), dtype=torch.float32),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, more, weight, bias, _, _ = inputs
    total, normed, mean, scale = output
    ctx.dtypes = [tensor.dtype for tensor in (x, more, weight, bias)]
    ctx.save_for_backward(total, weight, mean, scale)
    ctx.normed = normed.dtype
    ctx.mark_non_differentiable(mean, scale)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, dtotal: Tensor | None, dnormed: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors  # read once: checkpointing recomputes them at each access
    total = saved[0]
    dtotal = torch.zeros_like(total) if dtotal is None else dtotal
    dnormed = torch.zeros_like(total, dtype=ctx.normed) if dnormed is None else dnormed
    dx, dweight, dbias = _call_backward(dtotal, dnormed, *saved)
    found = (dx, dx, dweight.sum(0), dbias.sum(0))
    return (*(value.to(dtype) for value, dtype in zip(found, ctx.dtypes, strict=True)), None, None)


_call = differentiable(_op, _setup_context, _backward)
_call_backward = last(_backward_op)
_op.register_vmap(looped(_op))
_backward_op.register_vmap(looped(_backward_op))
