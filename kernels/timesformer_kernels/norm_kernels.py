"""Kernels for residual addition and layer norm in one pass over (rows, D), forward and backward."""

import triton
import triton.language as tl


@triton.jit
def _row(pointer, at, inside):
    """Load a row in fp32."""
    return tl.load(pointer + at, inside, other=0.0).to(tl.float32)


@triton.jit
def add_norm_forward(x, more, weight, bias, total, normed, mean, scale, D, eps, BLOCK_D: tl.constexpr):
    """Compute one row per program: total = x + more, and normed, the layer norm of total as rounded for storage."""
    row, d = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK_D)
    inside, at = d < D, row * D + d
    s = _row(x, at, inside) + _row(more, at, inside)
    s = s.to(total.dtype.element_ty)
    tl.store(total + at, s, inside)
    s = s.to(tl.float32)
    centre = tl.sum(s, 0) / D
    s = tl.where(inside, s - centre, 0.0)
    inverse = 1.0 / tl.sqrt(tl.sum(s * s, 0) / D + eps)
    y = s * inverse * _row(weight, d, inside) + _row(bias, d, inside)
    tl.store(normed + at, y.to(normed.dtype.element_ty), inside)
    tl.store(mean + row, centre)
    tl.store(scale + row, inverse)


@triton.jit
def add_norm_backward(
    total, weight, mean, scale, dtotal, dnormed, dx, dweight, dbias,
    rows, D, ROWS: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of ROWS rows per program.

    The rows come one after the other, so that the partial sums of dweight and dbias (programs, D) have a fixed order.
    """
    part, d = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK_D)
    inside = d < D
    w = _row(weight, d, inside)
    dw = tl.zeros((BLOCK_D,), tl.float32)
    db = tl.zeros((BLOCK_D,), tl.float32)
    for i in range(ROWS):
        row = part * ROWS + i
        here = inside & (row < rows)
        at = row * D + d
        inverse = tl.load(scale + row, row < rows, other=0.0)
        y = (_row(total, at, here) - tl.load(mean + row, row < rows, other=0.0)) * inverse
        y = tl.where(here, y, 0.0)
        dy = _row(dnormed, at, here)
        dw += dy * y
        db += dy
        dy *= w
        ds = (dy - tl.sum(dy, 0) / D - y * (tl.sum(dy * y, 0) / D)) * inverse
        ds += _row(dtotal, at, here)
        tl.store(dx + at, ds.to(dx.dtype.element_ty), here)
    tl.store(dweight + part * D + d, dw, inside)
    tl.store(dbias + part * D + d, db, inside)
