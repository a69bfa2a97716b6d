"""Attention of a lone query, the class token, over all tokens of a group, whose keys several programs share.

Shapes in comments: N keys of a block, E channels of a head (padded to a power of two).  A group has its `size` patches
followed by the class token.

The keys of a group are cut into `parts`.  Each takes `keys` of them in whole blocks of patches, without a mask; then
comes one more block: a whole one in the first `extra` parts, what is left with the class token in the last part,
nothing in the others.  No part is empty (see `launch.split`).

One query is too few for tensor cores.  Each of the N rows of a block keeps a softmax of its own, so that no sum over
rows, and no barrier, is needed before the end of a part.  The parts write their output and log-sum-exp in fp32;
`lone_combine` adds them in a fixed order.  There are no atomics: results are the same, bit for bit, on every run.
"""

import triton
import triton.language as tl

from timesformer_kernels.address import UNSPECIALISED, lattice, operand, patches

LOG2E = tl.constexpr(1.4426950408889634)
LOWEST = tl.constexpr(-1e38)
"""Largest score of a row that has seen no key: finite, so that the difference of two of them is no NaN."""


@triton.jit
def _first_key(part, keys, extra, BLOCK_N: tl.constexpr):
    """Number of the first key of a part."""
    return part * keys + tl.minimum(part, extra) * BLOCK_N


@triton.jit
def _forward(q, k, v, top, total, o, masked, MASK: tl.constexpr):
    """Add a block of keys to the softmax of each row: largest score (N,), sum of weights (N,), o (N, E).

    q (E,) holds the scale, in units of log 2; the rows in `masked` (N,) are left out.
    """
    scores = tl.sum(k * q[None, :], 1)
    if MASK:
        scores = tl.where(masked, float("-inf"), scores)
    higher = tl.maximum(top, scores)
    shrink, p = tl.exp2(top - higher), tl.exp2(scores - higher)
    return higher, total * shrink + p, o * shrink[:, None] + p[:, None] * v


@triton.jit(do_not_specialize=UNSPECIALISED)
def lone_forward(
    qkv, cls, cls_out, cls_lse,
    xb, x3, xk, xe, xg1, xg2, xg3, xs1, xs2, xs3, x_base,
    cb, c3, ck, ce,
    og1, og2, og3, os1, os2, os3, o_base,
    tokens, heads, groups, first_group, all_groups, scale, parts, extra, apart, size, keys: tl.int32,
    E: tl.constexpr, BLOCK_E: tl.constexpr,
    G2: tl.constexpr, G3: tl.constexpr, S2: tl.constexpr, S3: tl.constexpr,
    BLOCK_N: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """Compute output and log-sum-exp over one part of the keys of a group per program, for one head and one clip."""
    head, clip = tl.program_id(0), tl.program_id(2).to(tl.int64)
    group, part = tl.program_id(1) // parts, tl.program_id(1) % parts
    e = tl.arange(0, BLOCK_E)
    x = qkv + clip * xb + head * xk + x_base + lattice(group, G2, G3, xg1, xg2, xg3)
    c = cls + clip * cb + head * ck
    q = tl.load(c + e * ce, e < E, other=0.0).to(tl.float32) * (scale * LOG2E)
    top = tl.full((BLOCK_N,), LOWEST, tl.float32)
    total = tl.zeros((BLOCK_N,), tl.float32)
    o = tl.zeros((BLOCK_N, BLOCK_E), tl.float32)
    first = _first_key(part, keys, extra, BLOCK_N)
    if WHOLE:
        tl.assume(keys >= BLOCK_N)
        for step in tl.range(0, keys, BLOCK_N, num_stages=3):
            x_at = lattice(first + step + tl.arange(0, BLOCK_N), S2, S3, xs1, xs2, xs3)
            k = patches(x + x3, x_at, xe, e, E, BLOCK_E, True)
            v = patches(x + 2 * x3, x_at, xe, e, E, BLOCK_E, True)
            top, total, o = _forward(q, k, v, top, total, o, e, False)
    column = first + keys + tl.arange(0, BLOCK_N)
    end = tl.where(part == parts - 1, size + 1, _first_key(part + 1, keys, extra, BLOCK_N))
    x_at = lattice(column, S2, S3, xs1, xs2, xs3)
    here, there = (column < size) & (column < end), (column == size) & (column < end)
    k = operand(x + x3, x_at, xe, c + c3, ce, e, here, there, E, BLOCK_E, True, True)
    v = operand(x + 2 * x3, x_at, xe, c + 2 * c3, ce, e, here, there, E, BLOCK_E, True, True)
    top, total, o = _forward(q, k, v, top, total, o, column >= end, True)
    highest = tl.max(top, 0)
    weight = tl.exp2(top - highest)
    sum_of_weights = tl.sum(total * weight, 0)
    o_all = tl.sum(o * weight[:, None], 0) / sum_of_weights
    at = ((clip * all_groups + first_group + group) * parts + part) * heads + head
    tl.store(cls_out + at * E + e, o_all, e < E)
    tl.store(cls_lse + at, highest + tl.log2(sum_of_weights))


@triton.jit(do_not_specialize=UNSPECIALISED)
def lone_combine(
    part_out, part_lse, cls_out, cls_lse,
    heads, groups, first_group, all_groups, parts,
    E: tl.constexpr, BLOCK_E: tl.constexpr, MOST: tl.constexpr,
):  # fmt: skip
    """Add the at most MOST parts of a group per program, for one head and one clip."""
    head, clip = tl.program_id(0), tl.program_id(2).to(tl.int64)
    at = (clip * all_groups + first_group + tl.program_id(1)) * heads
    part, e = tl.arange(0, MOST), tl.arange(0, BLOCK_E)
    here, inside = part < parts, e < E
    from_at = at * parts + part * heads + head
    logarithm = tl.load(part_lse + from_at, here, other=float("-inf"))
    o = tl.load(part_out + from_at[:, None] * E + e[None, :], here[:, None] & inside[None, :], other=0.0)
    highest = tl.max(logarithm, 0)
    weight = tl.exp2(logarithm - highest)
    total = tl.sum(weight, 0)
    tl.store(cls_out + (at + head) * E + e, tl.sum(o * weight[:, None], 0) / total, inside)
    tl.store(cls_lse + at + head, highest + tl.log2(total))


@triton.jit
def _backward(q, k, v, do, logarithm, difference, scale, masked, MASK: tl.constexpr):
    """dq, one part per row, still to be scaled, dk and dv, (N, E) each, of a block of keys."""
    p = tl.exp2(tl.sum(k * q[None, :], 1) * (scale * LOG2E) - logarithm)
    if MASK:
        p = tl.where(masked, 0.0, p)
    ds = p * (tl.sum(v * do[None, :], 1) - difference)
    return ds[:, None] * k, (ds * scale)[:, None] * q[None, :], p[:, None] * do[None, :]


@triton.jit(do_not_specialize=UNSPECIALISED)
def lone_backward(
    qkv, cls, cls_out, cls_lse, dcls_out, dqkv, dcls, dq,
    xb, x3, xk, xe, xg1, xg2, xg3, xs1, xs2, xs3, x_base,
    cb, c3, ck, ce,
    og1, og2, og3, os1, os2, os3, o_base,
    tokens, heads, groups, first_group, all_groups, scale, parts, extra, apart, size, keys: tl.int32,
    E: tl.constexpr, BLOCK_E: tl.constexpr,
    G2: tl.constexpr, G3: tl.constexpr, S2: tl.constexpr, S3: tl.constexpr,
    BLOCK_N: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """Compute dk and dv of one part of the keys of a group per program, and its part of dq; the query's rows in `dq`
    lie `apart` heads apart."""
    head, clip = tl.program_id(0), tl.program_id(2).to(tl.int64)
    group, part = tl.program_id(1) // parts, tl.program_id(1) % parts
    e = tl.arange(0, BLOCK_E)
    inside = e < E
    x = qkv + clip * xb + head * xk + x_base + lattice(group, G2, G3, xg1, xg2, xg3)
    c = cls + clip * cb + head * ck
    c_group = clip * all_groups + first_group + group
    c_at = c_group * heads + head
    q = tl.load(c + e * ce, inside, other=0.0).to(tl.float32)
    do = tl.load(dcls_out + c_at * E + e, inside, other=0.0).to(tl.float32)
    logarithm = tl.load(cls_lse + c_at)
    difference = tl.sum(tl.load(cls_out + c_at * E + e, inside, other=0.0) * do, 0)
    dx = dqkv + (clip * tokens * 3 * heads + head) * E
    o_group = o_base + lattice(group, G2, G3, og1, og2, og3)
    dq_rows = tl.zeros((BLOCK_N, BLOCK_E), tl.float32)
    first = _first_key(part, keys, extra, BLOCK_N)
    if WHOLE:
        tl.assume(keys >= BLOCK_N)
        for step in tl.range(0, keys, BLOCK_N, num_stages=3):
            row = first + step + tl.arange(0, BLOCK_N)
            x_at = lattice(row, S2, S3, xs1, xs2, xs3)
            k = patches(x + x3, x_at, xe, e, E, BLOCK_E, True)
            v = patches(x + 2 * x3, x_at, xe, e, E, BLOCK_E, True)
            more, dk, dv = _backward(q, k, v, do, logarithm, difference, scale, e, False)
            dq_rows += more
            to = dx + (o_group + lattice(row, S2, S3, os1, os2, os3))[:, None] * (3 * heads * E) + e[None, :]
            tl.store(to + heads * E, dk.to(dqkv.dtype.element_ty), inside[None, :])
            tl.store(to + 2 * heads * E, dv.to(dqkv.dtype.element_ty), inside[None, :])
    column = first + keys + tl.arange(0, BLOCK_N)
    end = tl.where(part == parts - 1, size + 1, _first_key(part + 1, keys, extra, BLOCK_N))
    x_at = lattice(column, S2, S3, xs1, xs2, xs3)
    here, there = (column < size) & (column < end), (column == size) & (column < end)
    k = operand(x + x3, x_at, xe, c + c3, ce, e, here, there, E, BLOCK_E, True, True)
    v = operand(x + 2 * x3, x_at, xe, c + 2 * c3, ce, e, here, there, E, BLOCK_E, True, True)
    more, dk, dv = _backward(q, k, v, do, logarithm, difference, scale, column >= end, True)
    dq_rows += more
    to = dx + (o_group + lattice(column, S2, S3, os1, os2, os3))[:, None] * (3 * heads * E) + e[None, :]
    tl.store(to + heads * E, dk.to(dqkv.dtype.element_ty), here[:, None] & inside[None, :])
    tl.store(to + 2 * heads * E, dv.to(dqkv.dtype.element_ty), here[:, None] & inside[None, :])
    dc = dcls + (c_group * 3 * heads + head) * E + column[:, None] * 0 + e[None, :]
    tl.store(dc + heads * E, dk, there[:, None] & inside[None, :])
    tl.store(dc + 2 * heads * E, dv, there[:, None] & inside[None, :])
    tl.store(dq + ((c_group * parts + part) * apart + head) * E + e, tl.sum(dq_rows, 0) * scale, inside)
