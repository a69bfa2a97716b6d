"""Attention inside short groups: several whole sequences share a tile, under a block-diagonal mask.

Shapes in comments: R rows of a tile, E channels of a head (padded to a power of two).  A tile holds R // L sequences
of L tokens: the S patches of a group followed, unless CLS is 0, by the class token.

CLS: 0 no class token · 1 the class token is a query and a key of every group · 2 it is only a key.

The backward pass needs neither the output nor any saved statistics: it recomputes the tile's probabilities.
"""

import triton
import triton.language as tl

from timesformer_kernels.address import UNSPECIALISED, lattice, operand


@triton.jit
def _rows(tile, groups, S: tl.constexpr, L: tl.constexpr, ROWS: tl.constexpr):
    """Sequence in the tile, group, position in the group, and use (True or False) of each row of a tile, (R,) each."""
    row = tl.arange(0, ROWS)
    sequence = row // L
    group = tile * (ROWS // L) + sequence
    live = (sequence < ROWS // L) & (group < groups)
    return sequence, group, row % L, live


@triton.jit
def _probabilities(q, k, sequence, scale, PRECISION: tl.constexpr):
    """softmax(q k^T * scale) inside each sequence, (R, R), fp32.

    Rows beyond the sequences have q = k = 0 and see each other: their weights are finite and never stored.
    """
    scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * (scale * 1.4426950408889634)
    scores = tl.where(sequence[:, None] == sequence[None, :], scores, float("-inf"))
    weights = tl.exp2(scores - tl.max(scores, 1)[:, None])
    return weights / tl.sum(weights, 1)[:, None]


@triton.jit(do_not_specialize=UNSPECIALISED)
def short_forward(
    qkv, cls, out, cls_out,
    xb, x3, xk, xe, xg1, xg2, xg3, xs1, xs2, xs3, x_base,
    cb, c3, ck, ce,
    og1, og2, og3, os1, os2, os3, o_base,
    tokens, heads, groups, first_group, all_groups, scale,
    S: tl.constexpr, L: tl.constexpr, E: tl.constexpr, BLOCK_E: tl.constexpr,
    G2: tl.constexpr, G3: tl.constexpr, S2: tl.constexpr, S3: tl.constexpr,
    ROWS: tl.constexpr, CLS: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Compute the outputs of one tile of sequences per program, for one head and one clip."""
    head, clip = tl.program_id(0), tl.program_id(2).to(tl.int64)
    sequence, group, element, live = _rows(tl.program_id(1), groups, S, L, ROWS)
    e = tl.arange(0, BLOCK_E)
    patch, token = live & (element < S), live & (element == S)
    x = qkv + clip * xb + head * xk + x_base
    x_at = lattice(group, G2, G3, xg1, xg2, xg3) + lattice(element, S2, S3, xs1, xs2, xs3)
    c = cls + clip * cb + head * ck
    q = operand(x, x_at, xe, c, ce, e, patch, token, E, BLOCK_E, CLS == 1, UPCAST)
    k = operand(x + x3, x_at, xe, c + c3, ce, e, patch, token, E, BLOCK_E, CLS != 0, UPCAST)
    v = operand(x + 2 * x3, x_at, xe, c + 2 * c3, ce, e, patch, token, E, BLOCK_E, CLS != 0, UPCAST)
    p = _probabilities(q, k, sequence, scale, PRECISION)
    o = tl.dot(p.to(v.dtype), v, input_precision=PRECISION)
    o_at = o_base + lattice(group, G2, G3, og1, og2, og3) + lattice(element, S2, S3, os1, os2, os3)
    o_row = out + (clip * tokens * heads + head) * E
    inside = e[None, :] < E
    tl.store(o_row + o_at[:, None] * (heads * E) + e[None, :], o.to(out.dtype.element_ty), patch[:, None] & inside)
    if CLS == 1:
        c_at = ((clip * all_groups + first_group + group) * heads + head) * E
        tl.store(cls_out + c_at[:, None] + e[None, :], o, token[:, None] & inside)


@triton.jit(do_not_specialize=UNSPECIALISED)
def short_backward(
    qkv, cls, dout, dcls_out, dqkv, dcls,
    xb, x3, xk, xe, xg1, xg2, xg3, xs1, xs2, xs3, x_base,
    cb, c3, ck, ce,
    og1, og2, og3, os1, os2, os3, o_base,
    tokens, heads, groups, first_group, all_groups, scale,
    S: tl.constexpr, L: tl.constexpr, E: tl.constexpr, BLOCK_E: tl.constexpr,
    G2: tl.constexpr, G3: tl.constexpr, S2: tl.constexpr, S3: tl.constexpr,
    ROWS: tl.constexpr, CLS: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of one tile of sequences per program, for one head and one clip.

    q, k, v and the output's gradient are read once, and packed dqkv is written once.  The class token's gradients are
    one fp32 part per group (b, groups, 3, heads, E).
    """
    head, clip = tl.program_id(0), tl.program_id(2).to(tl.int64)
    sequence, group, element, live = _rows(tl.program_id(1), groups, S, L, ROWS)
    e = tl.arange(0, BLOCK_E)
    patch, token = live & (element < S), live & (element == S)
    inside = e[None, :] < E
    x = qkv + clip * xb + head * xk + x_base
    x_at = lattice(group, G2, G3, xg1, xg2, xg3) + lattice(element, S2, S3, xs1, xs2, xs3)
    c = cls + clip * cb + head * ck
    q = operand(x, x_at, xe, c, ce, e, patch, token, E, BLOCK_E, CLS == 1, UPCAST)
    k = operand(x + x3, x_at, xe, c + c3, ce, e, patch, token, E, BLOCK_E, CLS != 0, UPCAST)
    v = operand(x + 2 * x3, x_at, xe, c + 2 * c3, ce, e, patch, token, E, BLOCK_E, CLS != 0, UPCAST)
    o_at = o_base + lattice(group, G2, G3, og1, og2, og3) + lattice(element, S2, S3, os1, os2, os3)
    c_at = clip * all_groups + first_group + group
    do = operand(
        dout + (clip * tokens * heads + head) * E, o_at * (heads * E), 1,
        dcls_out + head * E + c_at[:, None] * (heads * E), 1,
        e, patch, token, E, BLOCK_E, CLS == 1, UPCAST,
    )  # fmt: skip
    p = _probabilities(q, k, sequence, scale, PRECISION)
    dp = tl.dot(do, tl.trans(v), input_precision=PRECISION)
    ds = p * (dp - tl.sum(p * dp, 1)[:, None]) * scale
    ds, p = ds.to(q.dtype), p.to(q.dtype)
    dq = tl.dot(ds, k, input_precision=PRECISION)
    dk = tl.dot(tl.trans(ds), q, input_precision=PRECISION)
    dv = tl.dot(tl.trans(p), do, input_precision=PRECISION)
    dx = dqkv + (clip * tokens * 3 * heads + head) * E + o_at[:, None] * (3 * heads * E) + e[None, :]
    written = patch[:, None] & inside
    tl.store(dx, dq.to(dqkv.dtype.element_ty), written)
    tl.store(dx + heads * E, dk.to(dqkv.dtype.element_ty), written)
    tl.store(dx + 2 * heads * E, dv.to(dqkv.dtype.element_ty), written)
    if CLS != 0:
        dc = dcls + (c_at[:, None] * 3 * heads + head) * E + e[None, :]
        written = token[:, None] & inside
        tl.store(dc, dq, written)
        tl.store(dc + heads * E, dk, written)
        tl.store(dc + 2 * heads * E, dv, written)
