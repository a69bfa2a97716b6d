"""Address arithmetic and loads shared by all kernels."""

import triton
import triton.language as tl

COUNTS = ("tokens", "heads", "groups", "first_group", "all_groups", "blocks", "size", "parts", "extra", "apart", "keys")
PLACES = ("og1", "og2", "og3", "os1", "os2", "os3", "o_base")
UNSPECIALISED = (*COUNTS, *PLACES)
"""Arguments whose values change no instruction of a loop, and no load's or store's width: places are multiplied by the
width of a head, which is a constant.  The compiler is not told about them, so that more launches share a kernel."""


@triton.jit
def lattice(i, N2: tl.constexpr, N3: tl.constexpr, step1, step2, step3):
    """Offset of point i in a lattice of (…, N2, N3) points with these strides; divisions by 1 are compiled away."""
    return i // (N2 * N3) * step1 + i // N3 % N2 * step2 + i % N3 * step3


@triton.jit
def operand(
    x, x_at, xe, cls, ce, e, patch, token,
    E: tl.constexpr, BLOCK_E: tl.constexpr, WITH_CLASS: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Load the rows of one operand (rows, BLOCK_E): patches from `x + x_at`, the class token from `cls`, other rows 0.

    A single load from selected addresses can go straight to shared memory.  UPCAST is for the interpreter, which stores
    bf16 as integers and cannot compute with it.
    """
    at = x + x_at[:, None] + e[None, :] * xe
    if WITH_CLASS:
        at = tl.where(token[:, None], cls + e[None, :] * ce, at)
        patch = patch | token
    if E == BLOCK_E:
        value = tl.load(at, patch[:, None], other=0.0)
    else:
        value = tl.load(at, patch[:, None] & (e[None, :] < E), other=0.0)
    if UPCAST:
        value = value.to(tl.float32)
    return value


@triton.jit
def patches(x, x_at, xe, e, E: tl.constexpr, BLOCK_E: tl.constexpr, UPCAST: tl.constexpr):
    """Load rows of one operand (rows, BLOCK_E) that are all patches, without a mask over the rows."""
    at = x + x_at[:, None] + e[None, :] * xe
    if E == BLOCK_E:
        value = tl.load(at)
    else:
        value = tl.load(at, e[None, :] < E, other=0.0)
    if UPCAST:
        value = value.to(tl.float32)
    return value
