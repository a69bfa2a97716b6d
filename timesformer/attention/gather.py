"""Attention over the groups of a plan: keys are gathered group by group, so that no dense mask exists.

Time and memory follow the pairs of the plan.  The groups are taken in chunks of bounded size, and the backward pass
gathers them anew: what is kept between the passes is q, k, v and the output, as in fused attention over all tokens.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from timesformer._typing import Float
from timesformer.attention.plan import Plan

CHUNK_BYTES = 1 << 22
"""Approximate size of the queries, keys and values that are gathered at a time."""
_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default


class Chunk(NamedTuple):
    """Some groups of one batch of a plan: which batch, and which of its groups, counted through the clips.

    rows, keys, mask: as in `Batch`, with tokens counted through the clips.
    """

    batch: int
    groups: slice
    rows: Tensor
    keys: Tensor
    mask: Tensor | None


def gathered_attention(
    q: Float[Tensor, "b p k e"], k: Float[Tensor, "b s k e"], v: Float[Tensor, "b s k e"], plan: Plan
) -> Float[Tensor, "b p k e"]:
    """Compute softmax attention of every query over its keys of the plan.

    Keys after the last query, such as the class token, are seen by every query.
    """
    if type(q.shape[0]) is not int:  # a symbol of torch.export, or a tensor of torch.jit
        return _compute_for_any_batch(q, k, v, plan)
    needs_gradient = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    if not needs_gradient or torch.jit.is_tracing():  # the tracer counts what it sees, and sees no backward pass
        return _compute(q, k, v, plan)
    out: Tensor = _Gathered.apply(q, k, v, plan)
    return out


def _compute(q: Tensor, k: Tensor, v: Tensor, plan: Plan) -> Tensor:
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    for chunk in _chunks(q, k, plan):
        inputs = _take(q, chunk.rows), _take(k, chunk.keys), _take(v, chunk.keys)
        found = F.scaled_dot_product_attention(*inputs, _added(chunk, q))
        _lines(out).index_copy_(0, chunk.rows.flatten(), _put(found))
    return out


def _compute_for_any_batch(q: Tensor, k: Tensor, v: Tensor, plan: Plan) -> Tensor:
    """Compute all groups of a batch of the plan at once, so that a graph of it holds for any number of clips."""
    queries, tokens = sum(batch.rows.numel() for batch in plan), int(k.shape[1])
    every = torch.arange(queries, tokens, device=q.device)
    parts = []
    for rows, keys, mask in ((batch.rows, batch.keys, batch.mask) for batch in plan):
        keys = torch.cat([keys, every.expand(len(keys), -1)], 1)
        queried, seen, read = (_of_every_clip(x, numbers) for x, numbers in ((q, rows), (k, keys), (v, keys)))
        added = None
        if mask is not None:
            mask = F.pad(mask, (0, len(every)), value=True)
            added = torch.zeros(mask.shape, dtype=q.dtype, device=q.device).masked_fill(~mask, float("-inf"))
            added = added[None, :, None].expand(q.shape[0], -1, -1, -1, -1).flatten(0, 1)
        found = F.scaled_dot_product_attention(queried, seen, read, added).transpose(1, 2)  # b*g r k e
        parts.append(found.unflatten(0, (-1, len(rows))).flatten(1, 2))
    order = torch.cat([batch.rows.flatten() for batch in plan]).argsort()
    return torch.cat(parts, 1).index_select(1, order)


def _of_every_clip(x: Tensor, numbers: Tensor) -> Tensor:
    """Gather tokens of each clip: (b, n, k, e) at (g, s) -> (b * g, k, s, e)."""
    return x.index_select(1, numbers.flatten()).unflatten(1, numbers.shape).flatten(0, 1).transpose(1, 2)


class _Gathered(torch.autograd.Function):
    """`_compute` with a backward pass that gathers again instead of keeping the gathered keys and values."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, plan: Plan) -> Tensor:
        ctx.plan, ctx.fused = plan, q.device.type == "cpu"
        if not ctx.fused:
            out = _compute(q, k, v, plan)
            ctx.save_for_backward(q, k, v)
            return out
        out = torch.empty_like(q, memory_format=torch.contiguous_format)
        kind = torch.promote_types(q.dtype, torch.float32)
        shapes = [(q.shape[0] * batch.rows.shape[0], batch.rows.shape[1], q.shape[2]) for batch in plan]
        sums = [torch.empty(shape, dtype=kind, device=q.device) for shape in shapes]  # log-sum-exp, (g, r, k)
        for chunk in _chunks(q, k, plan):
            inputs = _take(q, chunk.rows), _take(k, chunk.keys), _take(v, chunk.keys)
            found, logsumexp = _forward(*inputs, attn_mask=_added(chunk, q))
            _lines(out).index_copy_(0, chunk.rows.flatten(), _put(found))
            sums[chunk.batch][chunk.groups] = logsumexp.transpose(1, 2)
        ctx.save_for_backward(q, k, v, out, *sums)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        given = gradients[0]
        q, k, v, *kept = ctx.saved_tensors  # read once: checkpointing recomputes them at each access
        kind = torch.promote_types(q.dtype, torch.float32)  # sums over chunks: in bf16 small summands would vanish
        found = [torch.zeros_like(x, dtype=kind, memory_format=torch.contiguous_format) for x in (q, k, v)]
        for chunk in _chunks(q, k, ctx.plan):
            inputs = [_take(q, chunk.rows), _take(k, chunk.keys), _take(v, chunk.keys)]
            wanted, mask = _take(given, chunk.rows), _added(chunk, q)
            if ctx.fused:
                out, logsumexp = _take(kept[0], chunk.rows), kept[1 + chunk.batch][chunk.groups].transpose(1, 2)
                parts = _backward(wanted, *inputs, out, logsumexp, 0.0, False, attn_mask=mask)
            else:
                with torch.enable_grad():
                    tq, tk, tv = inputs = [x.detach().requires_grad_() for x in inputs]
                    out = F.scaled_dot_product_attention(tq, tk, tv, mask)
                parts = torch.autograd.grad(out, inputs, wanted)
            for total, part, numbers in zip(found, parts, (chunk.rows, chunk.keys, chunk.keys), strict=True):
                _lines(total).index_add_(0, numbers.flatten(), _put(part).to(kind))
        return *(total.to(q.dtype) for total in found), None


def spans(groups: int, together: int) -> list[slice]:
    """Return all groups in parts of so many."""
    return [slice(first, min(first + together, groups)) for first in range(0, groups, together)]


def _chunks(q: Tensor, k: Tensor, plan: Plan) -> Iterator[Chunk]:
    """Yield the groups of all clips, some at a time; on the meta device, which holds no values, all at once."""
    (clips, queries, *_), tokens = q.shape, k.shape[1]
    line = q.shape[2] * q.shape[3] * q.element_size()
    for place, batch in enumerate(plan):
        groups, size = batch.rows.shape[0], batch.rows.shape[1] + 2 * batch.keys.shape[1]
        together = clips * groups if q.device.type == "meta" else max(1, CHUNK_BYTES // (line * size))
        for span in spans(clips * groups, together):
            number = torch.arange(span.start, span.stop, device=q.device)
            clip, group = number[:, None] // groups, number % groups
            rows, keys = batch.rows[group] + clip * queries, batch.keys[group] + clip * tokens
            mask = None if batch.mask is None else batch.mask[group]
            if tokens > queries:
                every = torch.arange(queries, tokens, device=q.device) + clip * tokens
                keys = torch.cat([keys, every], 1)
                mask = None if mask is None else F.pad(mask, (0, tokens - queries), value=True)
            yield Chunk(place, span, rows, keys, mask)


def _lines(x: Tensor) -> Tensor:
    """Lay tokens out as lines of a matrix, (b, n, k, e) -> (b * n, k * e), which are fetched fastest."""
    return x.flatten(0, 1).flatten(1)


def _take(x: Tensor, numbers: Tensor) -> Tensor:
    """Gather tokens: (b, n, k, e) at (g, s) -> (g, k, s, e)."""
    found = _lines(x).index_select(0, numbers.flatten())
    return found.view(*numbers.shape, *x.shape[2:]).transpose(1, 2)


def _put(x: Tensor) -> Tensor:
    """Lay the results of groups out by token: (g, k, r, e) -> (g * r, k * e)."""
    return x.transpose(1, 2).flatten(0, 1).flatten(1)


def _added(chunk: Chunk, q: Tensor) -> Tensor | None:
    """Mask to be added to the scores, (g, 1, r, s), minus infinity where a pair is hidden."""
    if chunk.mask is None:
        return None
    zeros = torch.zeros(chunk.mask.shape, dtype=q.dtype, device=q.device)
    return zeros.masked_fill_(~chunk.mask, float("-inf"))[:, None]
