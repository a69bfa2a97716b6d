"""Residual addition with layer norm against float64: values and all gradients."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.kernels.kernel_cases import DEVICE, judge
from timesformer_kernels import add_norm

EPS = 1e-6
SHAPES = ((1, 1), (3, 16), (17, 24), (2, 3, 3, 96), (17, 768), (2, 3000))
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def inputs(shape: tuple[int, ...], dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = (shape, shape, shape[-1:], shape[-1:])
    x, more, weight, bias = (torch.randn(size, generator=generator).to(DEVICE, dtype) for size in sizes)
    return [x + 3, more, weight, bias]


def written_out(x: Tensor, more: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    total = x + more
    return total, torch.nn.functional.layer_norm(total, total.shape[-1:], weight, bias, EPS)


def outputs_and_gradients(function: Any, given: list[Tensor], *, zero_stride: bool = False) -> list[Tensor]:
    leaves = [x.detach().requires_grad_() for x in given]
    outputs = function(*leaves)
    generator = torch.Generator().manual_seed(1)
    incoming = [torch.randn(x.shape, generator=generator).to(x) for x in outputs]
    if zero_stride:
        incoming = [x.flatten()[0].expand(x.shape) for x in incoming]
    return [x.detach() for x in outputs] + list(torch.autograd.grad(outputs, leaves, incoming))


def ours(x: Tensor, more: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    return add_norm(x, more, weight, bias, EPS)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_gradients(shape: tuple[int, ...], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    given = inputs(shape, dtype)
    zero_stride = len(shape) == 4
    plain = outputs_and_gradients(written_out, given, zero_stride=zero_stride)
    exact = outputs_and_gradients(written_out, [x.double() for x in given], zero_stride=zero_stride)
    allocate = torch.Tensor.new_empty
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda *args, **options: allocate(*args, **options).fill_(math.nan))
    judge(outputs_and_gradients(ours, given, zero_stride=zero_stride), plain, exact, dtype)


@pytest.mark.parametrize("which", [0, 1], ids=["sum", "norm"])
def test_one_output_alone(which: int) -> None:
    given = inputs((5, 24), torch.float32)

    def alone(function: Any, values: list[Tensor]) -> list[Tensor]:
        leaves = [x.detach().requires_grad_() for x in values]
        found = torch.autograd.grad(function(*leaves)[which].square().sum(), leaves, allow_unused=True)
        return [torch.zeros_like(x) if g is None else g for g, x in zip(found, leaves, strict=True)]

    exact = alone(written_out, [x.double() for x in given])
    judge(alone(ours, given), alone(written_out, given), exact, torch.float32)


def test_strided_inputs() -> None:
    x, more, weight, bias = inputs((6, 24), torch.float32)
    wide = torch.full((6, 48), math.nan, device=DEVICE)[:, ::2]
    wide.copy_(x)
    for found, expected in zip(
        ours(wide, more.T.contiguous().T, weight, bias), ours(x, more, weight, bias), strict=True
    ):
        assert torch.equal(found, expected)


@pytest.mark.parametrize(("first", "second"), [(torch.float32, torch.bfloat16), (torch.bfloat16, torch.float32)])
def test_mixed_dtypes_are_promoted(first: torch.dtype, second: torch.dtype) -> None:
    x, more, weight, bias = inputs((5, 24), torch.float32)
    x, more = x.to(first), more.to(second)
    total, normed = ours(x.requires_grad_(), more.requires_grad_(), weight, bias)
    assert (total.dtype, normed.dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close((total, normed), written_out(x, more, weight, bias), rtol=1e-5, atol=1e-5)
    gradients = torch.autograd.grad(normed.sum(), [x, more])
    assert [gradient.dtype for gradient in gradients] == [first, second]


def test_autocast_stores_the_norm_in_its_dtype() -> None:
    x, more, weight, bias = inputs((5, 24), torch.float32)
    with torch.autocast(DEVICE, torch.bfloat16):
        total, normed = ours(x, more.bfloat16(), weight, bias)
    assert (total.dtype, normed.dtype) == (torch.float32, torch.bfloat16)


def test_no_rows() -> None:
    given = [
        torch.zeros(0, 3, 8, device=DEVICE),
        torch.zeros(0, 3, 8, device=DEVICE),
        *inputs((1, 8), torch.float32)[2:],
    ]
    found = outputs_and_gradients(ours, given)
    assert [x.shape for x in found] == [(0, 3, 8)] * 4 + [(8,)] * 2
    assert not found[4].any()


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((2, 8), (3, 8), (8,), (8,)), "expected equal shapes"),
        (((2, 8), (2, 8), (4,), (8,)), "expected equal shapes"),
        (((2, 8), (2, 8), (8,), (4,)), "expected equal shapes"),
        (((2, 9000), (2, 9000), (9000,), (9000,)), "at most 8192 channels"),
    ],
)
def test_what_it_does_not_serve_is_refused(shapes: tuple[tuple[int, ...], ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        add_norm(*(torch.zeros(shape, device=DEVICE) for shape in shapes), EPS)  # type: ignore[call-arg, misc]
