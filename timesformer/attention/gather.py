"""Attention over the groups of a plan: keys are gathered group by group, so that no dense mask exists.

Time and memory follow the pairs of the plan.  The groups are taken in chunks of bounded size, and the backward pass
gathers them anew: what is kept between the passes is q, k, v and the output, as in fused attention over all tokens.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from timesformer._typing import Float
from timesformer.attention.plan import Batch, Plan

CHUNK_BYTES = 1 << 24
"""Approximate size of the queries, keys and values that are gathered at a time."""
_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default


def gathered_attention(
    q: Float[Tensor, "b p k e"], k: Float[Tensor, "b s k e"], v: Float[Tensor, "b s k e"], plan: Plan
) -> Float[Tensor, "b p k e"]:
    """Compute softmax attention of every query over its keys of the plan.

    Keys after the last query, such as the class token, are seen by every query.
    """
    more = tuple(range(q.shape[1], k.shape[1]))
    needs_gradient = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    if not needs_gradient or torch.jit.is_tracing():  # the tracer counts what it sees, and sees no backward pass
        return _compute(q, k, v, plan, more)
    out: Tensor = _Gathered.apply(q, k, v, plan, more)
    return out


def _compute(q: Tensor, k: Tensor, v: Tensor, plan: Plan, more: tuple[int, ...]) -> Tensor:
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    for clips, chunk in _chunks(q, plan, more):
        found = F.scaled_dot_product_attention(
            _take(q[clips], chunk.rows),
            _take(k[clips], chunk.keys),
            _take(v[clips], chunk.keys),
            _mask(chunk, q, clips),
        )
        out[clips].index_copy_(1, chunk.rows.flatten(), _put(found, chunk.rows))
    return out


class _Gathered(torch.autograd.Function):
    """`_compute` with a backward pass that gathers again instead of keeping the gathered keys and values."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, plan: Plan, more: tuple[int, ...]) -> Tensor:
        ctx.plan, ctx.more, ctx.fused = plan, more, q.device.type == "cpu"
        if not ctx.fused:
            out = _compute(q, k, v, plan, more)
            ctx.save_for_backward(q, k, v)
            return out
        out = torch.empty_like(q, memory_format=torch.contiguous_format)
        sums = []
        for clips, chunk in _chunks(q, plan, more):
            found, logsumexp = _forward(
                _take(q[clips], chunk.rows),
                _take(k[clips], chunk.keys),
                _take(v[clips], chunk.keys),
                attn_mask=_mask(chunk, q, clips),
            )
            out[clips].index_copy_(1, chunk.rows.flatten(), _put(found, chunk.rows))
            sums.append(logsumexp)
        ctx.save_for_backward(q, k, v, out, *sums)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        saved = ctx.saved_tensors  # read once: checkpointing recomputes them at each access
        q, k, v = saved[:3]
        found = [torch.zeros_like(x, memory_format=torch.contiguous_format) for x in (q, k, v)]
        for number, (clips, chunk) in enumerate(_chunks(q, ctx.plan, ctx.more)):
            given, rows, keys = gradient[clips], chunk.rows, chunk.keys
            inputs = [_take(q[clips], rows), _take(k[clips], keys), _take(v[clips], keys)]
            mask = _mask(chunk, q, clips)
            if ctx.fused:
                out, logsumexp = _take(saved[3][clips], rows), saved[4 + number]
                parts = _backward(_take(given, rows), *inputs, out, logsumexp, 0.0, False, attn_mask=mask)
            else:
                with torch.enable_grad():
                    inputs = [x.detach().requires_grad_() for x in inputs]
                    out = F.scaled_dot_product_attention(*inputs, mask)
                parts = torch.autograd.grad(out, inputs, _take(given, rows))
            for total, part, numbers in zip(found, parts, (rows, keys, keys), strict=True):
                total[clips].index_add_(1, numbers.flatten(), _put(part, numbers))
        return *found, None, None


def _chunks(q: Tensor, plan: Plan, more: tuple[int, ...]) -> Iterator[tuple[slice, Batch]]:
    """Yield clips and groups that are computed together, the keys of all queries among them."""
    row = q.shape[2] * q.shape[3] * q.element_size()
    for batch in plan:
        rows, keys, mask = batch.rows, batch.keys, batch.mask
        if more:
            every = torch.tensor(more, device=keys.device).expand(len(keys), -1)
            keys = torch.cat([keys, every], 1)
            mask = None if mask is None else F.pad(mask, (0, len(more)), value=True)
        size = row * (rows.shape[1] + 2 * keys.shape[1])
        clips = max(1, min(q.shape[0], CHUNK_BYTES // size))
        together = max(1, CHUNK_BYTES // (clips * size))
        for clip in range(0, q.shape[0], clips):
            for first in range(0, len(rows), together):
                part = slice(first, first + together)
                chunk = Batch(rows[part], keys[part], None if mask is None else mask[part])
                yield slice(clip, min(clip + clips, q.shape[0])), chunk


def _take(x: Tensor, numbers: Tensor) -> Tensor:
    """Gather tokens: (b, n, k, e) at (g, s) -> (b * g, k, s, e)."""
    found = x.index_select(1, numbers.flatten()).unflatten(1, numbers.shape)
    return found.transpose(2, 3).flatten(0, 1)


def _put(x: Tensor, numbers: Tensor) -> Tensor:
    """Lay the results of groups out by token: (b * g, k, r, e) -> (b, g * r, k, e)."""
    return x.unflatten(0, (-1, len(numbers))).transpose(2, 3).flatten(1, 2)


def _mask(chunk: Batch, q: Tensor, clips: slice) -> Tensor | None:
    """Mask to be added to the scores, (b * g, 1, r, s), minus infinity where a pair is hidden."""
    if chunk.mask is None:
        return None
    added = torch.zeros(chunk.mask.shape, dtype=q.dtype, device=q.device).masked_fill_(~chunk.mask, float("-inf"))
    return added.repeat(clips.stop - clips.start, 1, 1)[:, None]
