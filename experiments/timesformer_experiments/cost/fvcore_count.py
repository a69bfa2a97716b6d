"""A second count of multiply-accumulates, by fvcore over the traced model: independent of the schemes' declarations.

Only matrix products count: linear layers, q.k, attention.v. fvcore by itself counts scaled_dot_product_attention as 0,
adds norms, and falls over broadcast products; the handles below read the shapes of the operands and nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from fvcore.nn import FlopCountAnalysis
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from timesformer_kernels import attention_pairs

Handle = Callable[[list[Any], list[Any]], int]


class UncountedOperator(RuntimeError):
    """The traced model holds a matrix product for which there is no handle: the count would be too low."""


def _shape(value: Any) -> list[int]:
    """Sizes of a value of the traced graph."""
    return value.type().sizes()


def _product(inputs: list[Any], outputs: list[Any]) -> int:
    """(..., i, j) @ (..., j, k), broadcast or not: every output element is a sum of j products."""
    return prod(_shape(outputs[0])) * _shape(inputs[0])[-1]


def _biased_product(inputs: list[Any], outputs: list[Any]) -> int:
    """addmm and baddbmm: (bias, left, right)."""
    return _product(inputs[1:], outputs)


def _convolution(inputs: list[Any], outputs: list[Any]) -> int:
    """Weight (out, in / groups, kernel...): every output element is a sum of in / groups * kernel products."""
    return prod(_shape(outputs[0])) * prod(_shape(inputs[1])[1:])


def _attention(inputs: list[Any], outputs: list[Any]) -> int:
    """q (..., i, e), k (..., j, e), v (..., j, f): i * j * (e + f) products in each group and head, masked or not."""
    query, key, value = (_shape(x) for x in inputs[:3])
    return prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _einsum(inputs: list[Any], outputs: list[Any]) -> int:
    """Two operands: one product for each combination of the letters' indices."""
    equation = inputs[0].toIValue().replace(" ", "")
    operands = [_shape(x) for x in inputs[1].node().inputs()]
    left = equation.split("->")[0].split(",")
    if len(operands) == 1:
        return 0
    if len(operands) > 2 or "." in equation:
        raise UncountedOperator(
            f"einsum {equation!r}: only products of two operands without an ellipsis can be counted"
        )
    sizes = {
        letter: size
        for letters, shape in zip(left, operands, strict=True)
        for letter, size in zip(letters, shape, strict=True)
    }
    return prod(sizes.values())


def _grouped(inputs: list[Any], outputs: list[Any]) -> int:
    """Our own operator on packed qkv (b, t, h, w, 3, k, e): the pairs of its groups, two products of e for each."""
    *_, heads, width = _shape(inputs[0])
    layout = [number.toIValue() for number in inputs[2].node().inputs()]
    return 2 * _shape(inputs[0])[0] * heads * width * attention_pairs(layout, inputs[3].toIValue())


def _nothing(inputs: list[Any], outputs: list[Any]) -> int:
    return 0


HANDLES: dict[str, Handle] = {
    "aten::linear": _product,
    "aten::matmul": _product,
    "aten::mm": _product,
    "aten::mv": _product,
    "aten::bmm": _product,
    "aten::addmm": _biased_product,
    "aten::baddbmm": _biased_product,
    "aten::_convolution": _convolution,
    "aten::einsum": _einsum,
    "aten::scaled_dot_product_attention": _attention,
    "timesformer::grouped_attention": _grouped,
    "timesformer::add_norm": _nothing,
    "aten::layer_norm": _nothing,
    "aten::batch_norm": _nothing,
    "aten::group_norm": _nothing,
}
_PRODUCTS = {"mm", "mv", "dot", "vdot", "bmm", "addmm", "addmv", "addbmm", "baddbmm", "addr"}
_PRODUCTS |= {"matmul", "linear", "einsum", "tensordot", "attention"}


class _PlainSizes(TorchFunctionMode):
    """Sizes as integers: the tracer hands them out as tensors, with which a model cannot calculate its groups."""

    GETTERS = frozenset({torch.Tensor.shape.__get__, torch.Tensor.size})  # type: ignore[attr-defined]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func not in self.GETTERS:
            return result
        return int(result) if isinstance(result, Tensor) else torch.Size(int(size) for size in result)


class _Traced(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> Any:
        with _PlainSizes():
            return self.model(*inputs)


def fvcore_macs(model: nn.Module, inputs: Sequence[Tensor]) -> int:
    """Multiply-accumulates of one call of `model(*inputs)`, from its traced graph; the meta device will do.

    What the outputs do not depend on is dead code and not in the graph: return all that is to be counted. Raises
    `UncountedOperator` where the graph holds a product without a handle.
    """
    analysis = FlopCountAnalysis(_Traced(model), tuple(inputs))
    analysis.clear_op_handles()
    analysis.set_op_handle(**HANDLES)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    silenced = logging.getLogger("fvcore.nn.jit_analysis")
    level = silenced.level
    silenced.setLevel(logging.ERROR)
    try:
        total = int(analysis.total())
        missed = [name for name in analysis.unsupported_ops() if _looks_like_a_product(name)]
    finally:
        silenced.setLevel(level)
    if missed:
        raise UncountedOperator(f"no handle to count {', '.join(sorted(missed))}")
    return total


def _looks_like_a_product(name: str) -> bool:
    """Any operator from outside aten may hide products; those of aten are recognised by their name."""
    namespace, _, operator = name.partition("::")
    words = operator.split("_")
    return namespace not in ("aten", "prim") or any(word in _PRODUCTS or word.startswith("conv") for word in words)
