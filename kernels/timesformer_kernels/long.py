"""Attention inside long groups: flash attention over the tokens of a group, read in place.

Shapes in comments: M queries and N keys of a block, E channels of a head (padded to a power of two).  A group has its
`size` patches followed, unless CLS is 0, by the class token.

CLS: 0 no class token · 1 the class token is a query and a key of every group · 2 it is only a key.
The class token as the only query is served by `lone.py`.

A loop passes over the whole blocks, which hold patches alone; what is left, with the class token, is one block of TAIL
rows after it (none if TAIL is 0).  So the loop has no mask and no choice of addresses, and its loads run ahead.  It is
left out unless WHOLE: a loop that might not run keeps the compiler from overlapping the products of Hopper.  It counts
to an expression of `size`: in the interpreter `size` is a constant, but a variable made from it a tensor, to which that
of Triton 3.6 cannot count with numpy 2.4.

Each sum over blocks is taken by one program in a fixed order.  There are no atomics, so results are the same, bit for
bit, on every run.
"""

import triton
import triton.language as tl

from timesformer_kernels.address import UNSPECIALISED, lattice, operand, patches

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _forward(q, k, v, top, total, o, scale, masked, MASK: tl.constexpr, PRECISION: tl.constexpr):
    """Add a block of keys to the online softmax: largest score (M,) in units of log 2, sum of weights (M,), o (M, E).

    `scale` is positive and in units of log 2; the keys in `masked` (N,) are left out.
    """
    scores = tl.dot(q, tl.trans(k), input_precision=PRECISION)
    if MASK:
        scores = tl.where(masked[None, :], float("-inf"), scores)
    higher = tl.maximum(top, tl.max(scores, 1) * scale)
    shrink = tl.exp2(top - higher)
    p = tl.exp2(scores * scale - higher[:, None])
    total = total * shrink + tl.sum(p, 1)
    o = o * shrink[:, None] + tl.dot(p.to(v.dtype), v, input_precision=PRECISION)
    return higher, total, o


@triton.jit(do_not_specialize=UNSPECIALISED)
def long_forward(
    qkv, cls, out, cls_out, lse, cls_lse,
    xb, x3, xk, xe, xg1, xg2, xg3, xs1, xs2, xs3, x_base,
    cb, c3, ck, ce,
    og1, og2, og3, os1, os2, os3, o_base,
    tokens, heads, groups, first_group, all_groups, scale, blocks, size: tl.int32,
    E: tl.constexpr, BLOCK_E: tl.constexpr,
    G2: tl.constexpr, G3: tl.constexpr, S2: tl.constexpr, S3: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, WHOLE: tl.constexpr, TAIL: tl.constexpr,
    CLS: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Compute the output of one block of queries of a group per program, for one head and one clip."""
    head, group, clip = tl.program_id(0), tl.program_id(1) // blocks, tl.program_id(2).to(tl.int64)
    row = tl.program_id(1) % blocks * BLOCK_M + tl.arange(0, BLOCK_M)
    e = tl.arange(0, BLOCK_E)
    patch, token = row < size, row == size
    x = qkv + clip * xb + head * xk + x_base + lattice(group, G2, G3, xg1, xg2, xg3)
    c = cls + clip * cb + head * ck
    q = operand(x, lattice(row, S2, S3, xs1, xs2, xs3), xe, c, ce, e, patch, token, E, BLOCK_E, CLS == 1, UPCAST)
    top = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    o = tl.zeros((BLOCK_M, BLOCK_E), tl.float32)
    scale *= LOG2E
    whole = size // BLOCK_N * BLOCK_N
    if WHOLE:
        tl.assume(whole >= BLOCK_N)
        for start in range(0, size // BLOCK_N * BLOCK_N, BLOCK_N):
            x_at = lattice(start + tl.arange(0, BLOCK_N), S2, S3, xs1, xs2, xs3)
            k = patches(x + x3, x_at, xe, e, E, BLOCK_E, UPCAST)
            v = patches(x + 2 * x3, x_at, xe, e, E, BLOCK_E, UPCAST)
            top, total, o = _forward(q, k, v, top, total, o, scale, e, False, PRECISION)
    if TAIL:
        column = whole + tl.arange(0, TAIL)
        x_at = lattice(column, S2, S3, xs1, xs2, xs3)
        here, there = column < size, column == size
        k = operand(x + x3, x_at, xe, c + c3, ce, e, here, there, E, BLOCK_E, CLS != 0, UPCAST)
        v = operand(x + 2 * x3, x_at, xe, c + 2 * c3, ce, e, here, there, E, BLOCK_E, CLS != 0, UPCAST)
        top, total, o = _forward(q, k, v, top, total, o, scale, column >= size + (CLS != 0), True, PRECISION)
    o = o / total[:, None]
    logarithm = top + tl.log2(total)
    inside = e[None, :] < E
    o_at = o_base + lattice(group, G2, G3, og1, og2, og3) + lattice(row, S2, S3, os1, os2, os3)
    at = (clip * tokens + o_at) * heads + head
    tl.store(out + at[:, None] * E + e[None, :], o.to(out.dtype.element_ty), patch[:, None] & inside)
    tl.store(lse + at, logarithm, patch)
    if CLS == 1:
        c_at = (clip * all_groups + first_group + group) * heads + head
        tl.store(cls_out + c_at * E + row[:, None] * 0 + e[None, :], o, token[:, None] & inside)
        tl.store(cls_lse + c_at + row * 0, logarithm, token)


@triton.jit
def _backward_q(q, k, v, do, logarithm, difference, scale, masked, MASK: tl.constexpr, PRECISION: tl.constexpr):
    """dq (M, E) of a block of keys, still to be scaled; `scale` is in units of log 2, `masked` (N,) keys left out."""
    scores = tl.dot(q, tl.trans(k), input_precision=PRECISION)
    p = tl.exp2(scores * scale - logarithm[:, None])
    if MASK:
        p = tl.where(masked[None, :], 0.0, p)
    dp = tl.dot(do, tl.trans(v), input_precision=PRECISION)
    ds = p * (dp - difference[:, None])
    return tl.dot(ds.to(k.dtype), k, input_precision=PRECISION)


@triton.jit(do_not_specialize=UNSPECIALISED)
def long_backward_q(
    qkv, cls, out, cls_out, lse, cls_lse, dout, dcls_out, delta, cls_delta, dqkv, dcls,
    xb, x3, xk, xe, xg1, xg2, xg3, xs1, xs2, xs3, x_base,
    cb, c3, ck, ce,
    og1, og2, og3, os1, os2, os3, o_base,
    tokens, heads, groups, first_group, all_groups, scale, blocks, size: tl.int32,
    E: tl.constexpr, BLOCK_E: tl.constexpr,
    G2: tl.constexpr, G3: tl.constexpr, S2: tl.constexpr, S3: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, WHOLE: tl.constexpr, TAIL: tl.constexpr,
    CLS: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Compute dq of one block of queries, and store delta = sum(out * dout) for `long_backward_kv`, which runs next."""
    head, group, clip = tl.program_id(0), tl.program_id(1) // blocks, tl.program_id(2).to(tl.int64)
    row = tl.program_id(1) % blocks * BLOCK_M + tl.arange(0, BLOCK_M)
    e = tl.arange(0, BLOCK_E)
    patch, token = row < size, row == size
    x = qkv + clip * xb + head * xk + x_base + lattice(group, G2, G3, xg1, xg2, xg3)
    c = cls + clip * cb + head * ck
    q = operand(x, lattice(row, S2, S3, xs1, xs2, xs3), xe, c, ce, e, patch, token, E, BLOCK_E, CLS == 1, UPCAST)
    o_at = o_base + lattice(group, G2, G3, og1, og2, og3) + lattice(row, S2, S3, os1, os2, os3)
    at = (clip * tokens + o_at) * heads + head
    c_at = (clip * all_groups + first_group + group) * heads + head
    inside = e[None, :] < E
    o = tl.load(out + at[:, None] * E + e[None, :], patch[:, None] & inside, other=0.0).to(tl.float32)
    do = operand(dout, at * E, 1, dcls_out + c_at * E, 1, e, patch, token, E, BLOCK_E, CLS == 1, UPCAST)
    logarithm = tl.load(lse + at, patch, other=0.0)
    if CLS == 1:
        o += tl.load(cls_out + c_at * E + row[:, None] * 0 + e[None, :], token[:, None] & inside, other=0.0)
        logarithm += tl.load(cls_lse + c_at + row * 0, token, other=0.0)
    difference = tl.sum(o * do.to(tl.float32), 1)
    tl.store(delta + at, difference, patch)
    if CLS == 1:
        tl.store(cls_delta + c_at + row * 0, difference, token)
    dq = tl.zeros((BLOCK_M, BLOCK_E), tl.float32)
    whole = size // BLOCK_N * BLOCK_N
    if WHOLE:
        tl.assume(whole >= BLOCK_N)
        for start in range(0, size // BLOCK_N * BLOCK_N, BLOCK_N):
            x_at = lattice(start + tl.arange(0, BLOCK_N), S2, S3, xs1, xs2, xs3)
            k = patches(x + x3, x_at, xe, e, E, BLOCK_E, UPCAST)
            v = patches(x + 2 * x3, x_at, xe, e, E, BLOCK_E, UPCAST)
            dq += _backward_q(q, k, v, do, logarithm, difference, scale * LOG2E, e, False, PRECISION)
    if TAIL:
        column = whole + tl.arange(0, TAIL)
        x_at = lattice(column, S2, S3, xs1, xs2, xs3)
        here, there = column < size, column == size
        k = operand(x + x3, x_at, xe, c + c3, ce, e, here, there, E, BLOCK_E, CLS != 0, UPCAST)
        v = operand(x + 2 * x3, x_at, xe, c + 2 * c3, ce, e, here, there, E, BLOCK_E, CLS != 0, UPCAST)
        masked = column >= size + (CLS != 0)
        dq += _backward_q(q, k, v, do, logarithm, difference, scale * LOG2E, masked, True, PRECISION)
    dq *= scale
    dx = dqkv + ((clip * tokens + o_at) * 3 * heads + head)[:, None] * E + e[None, :]
    tl.store(dx, dq.to(dqkv.dtype.element_ty), patch[:, None] & inside)
    if CLS == 1:
        dc = dcls + ((clip * all_groups + first_group + group) * 3 * heads + head) * E
        tl.store(dc + row[:, None] * 0 + e[None, :], dq, token[:, None] & inside)


@triton.jit
def _backward_kv(
    q, k, v, do, logarithm, difference, dk, dv, scale, masked, MASK: tl.constexpr, PRECISION: tl.constexpr
):
    """Add the part of a block of queries to dk, which is still to be scaled, and dv (N, E); `masked` (M,) are left out.

    Everything is transposed, (N, M), so that sums over queries need no transposition in registers.  Keys beyond the
    group are zero and never stored.
    """
    scores = tl.dot(k, tl.trans(q), input_precision=PRECISION)
    p = tl.exp2(scores * scale - logarithm[None, :])
    if MASK:
        p = tl.where(masked[None, :], 0.0, p)
    dv += tl.dot(p.to(do.dtype), do, input_precision=PRECISION)
    dp = tl.dot(v, tl.trans(do), input_precision=PRECISION)
    ds = p * (dp - difference[None, :])
    dk += tl.dot(ds.to(q.dtype), q, input_precision=PRECISION)
    return dk, dv


@triton.jit(do_not_specialize=UNSPECIALISED)
def long_backward_kv(
    qkv, cls, lse, cls_lse, dout, dcls_out, delta, cls_delta, dqkv, dcls,
    xb, x3, xk, xe, xg1, xg2, xg3, xs1, xs2, xs3, x_base,
    cb, c3, ck, ce,
    og1, og2, og3, os1, os2, os3, o_base,
    tokens, heads, groups, first_group, all_groups, scale, blocks, size: tl.int32,
    E: tl.constexpr, BLOCK_E: tl.constexpr,
    G2: tl.constexpr, G3: tl.constexpr, S2: tl.constexpr, S3: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, WHOLE: tl.constexpr, TAIL: tl.constexpr,
    CLS: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Compute dk and dv of one block of keys per program, over the queries of its group."""
    head, group, clip = tl.program_id(0), tl.program_id(1) // blocks, tl.program_id(2).to(tl.int64)
    column = tl.program_id(1) % blocks * BLOCK_N + tl.arange(0, BLOCK_N)
    e = tl.arange(0, BLOCK_E)
    here, there = column < size, column == size
    x = qkv + clip * xb + head * xk + x_base + lattice(group, G2, G3, xg1, xg2, xg3)
    c = cls + clip * cb + head * ck
    x_at = lattice(column, S2, S3, xs1, xs2, xs3)
    k = operand(x + x3, x_at, xe, c + c3, ce, e, here, there, E, BLOCK_E, CLS != 0, UPCAST)
    v = operand(x + 2 * x3, x_at, xe, c + 2 * c3, ce, e, here, there, E, BLOCK_E, CLS != 0, UPCAST)
    o_group = o_base + lattice(group, G2, G3, og1, og2, og3)
    c_at = (clip * all_groups + first_group + group) * heads + head
    dk = tl.zeros((BLOCK_N, BLOCK_E), tl.float32)
    dv = tl.zeros((BLOCK_N, BLOCK_E), tl.float32)
    whole = size // BLOCK_M * BLOCK_M
    if WHOLE:
        tl.assume(whole >= BLOCK_M)
        for start in range(0, size // BLOCK_M * BLOCK_M, BLOCK_M):
            row = start + tl.arange(0, BLOCK_M)
            q = patches(x, lattice(row, S2, S3, xs1, xs2, xs3), xe, e, E, BLOCK_E, UPCAST)
            at = (clip * tokens + o_group + lattice(row, S2, S3, os1, os2, os3)) * heads + head
            do = patches(dout, at * E, 1, e, E, BLOCK_E, UPCAST)
            logarithm, difference = tl.load(lse + at), tl.load(delta + at)
            dk, dv = _backward_kv(q, k, v, do, logarithm, difference, dk, dv, scale * LOG2E, e, False, PRECISION)
    if TAIL:
        row = whole + tl.arange(0, TAIL)
        patch, token = row < size, row == size
        q = operand(x, lattice(row, S2, S3, xs1, xs2, xs3), xe, c, ce, e, patch, token, E, BLOCK_E, CLS == 1, UPCAST)
        at = (clip * tokens + o_group + lattice(row, S2, S3, os1, os2, os3)) * heads + head
        do = operand(dout, at * E, 1, dcls_out + c_at * E, 1, e, patch, token, E, BLOCK_E, CLS == 1, UPCAST)
        logarithm = tl.load(lse + at, patch, other=0.0)
        difference = tl.load(delta + at, patch, other=0.0)
        masked = patch == 0
        if CLS == 1:
            logarithm += tl.load(cls_lse + c_at + row * 0, token, other=0.0)
            difference += tl.load(cls_delta + c_at + row * 0, token, other=0.0)
            masked = (patch | token) == 0
        dk, dv = _backward_kv(q, k, v, do, logarithm, difference, dk, dv, scale * LOG2E, masked, True, PRECISION)
    dk *= scale
    inside = e[None, :] < E
    o_at = o_group + lattice(column, S2, S3, os1, os2, os3)
    dx = dqkv + ((clip * tokens + o_at) * 3 * heads + head)[:, None] * E + e[None, :]
    tl.store(dx + heads * E, dk.to(dqkv.dtype.element_ty), here[:, None] & inside)
    tl.store(dx + 2 * heads * E, dv.to(dqkv.dtype.element_ty), here[:, None] & inside)
    if CLS != 0:
        dc = dcls + ((clip * all_groups + first_group + group) * 3 * heads + head) * E + column[:, None] * 0
        tl.store(dc + heads * E + e[None, :], dk, there[:, None] & inside)
        tl.store(dc + 2 * heads * E + e[None, :], dv, there[:, None] & inside)
