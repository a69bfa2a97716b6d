"""A second count of multiply-accumulates, by fvcore over the traced model, independent of the schemes' declarations.

Only matrix products are counted: linear layers, q.k, attention.v. By default, fvcore counts
scaled_dot_product_attention as 0, adds norms, and fails on broadcast products; the handles below read only the shapes
of the operands.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import torch
from fvcore.nn import FlopCountAnalysis
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from timesformer_kernels import attention_pairs

Handle = Callable[[list[Any], list[Any]], int]


class UncountedOperator(RuntimeError):
    """The traced model contains a matrix product without a handle, so that the count would be too low."""


def _shape(value: Any) -> list[int]:
    """Sizes of a value of the traced graph."""
    return value.type().sizes()


def _product(inputs: list[Any], outputs: list[Any]) -> int:
    """Count (..., i, j) @ (..., j, k), broadcast or not: every output element is a sum of j products."""
    return prod(_shape(outputs[0])) * _shape(inputs[0])[-1]


def _biased_product(inputs: list[Any], outputs: list[Any]) -> int:
    """Count addmm and baddbmm, with operands (bias, left, right)."""
    return _product(inputs[1:], outputs)


def _convolution(inputs: list[Any], outputs: list[Any]) -> int:
    """Count a convolution with weight (out, in / groups, kernel...).

    Every output element is a sum of in / groups * kernel products.
    """
    return prod(_shape(outputs[0])) * prod(_shape(inputs[1])[1:])


def _attention(inputs: list[Any], outputs: list[Any]) -> int:
    """Count attention of q (..., i, e), k (..., j, e), v (..., j, f).

    There are i * j * (e + f) products in each group and head, masked or not.
    """
    query, key, value = (_shape(x) for x in inputs[:3])
    return prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _einsum(inputs: list[Any], outputs: list[Any]) -> int:
    """Count an einsum of two operands: one product for each combination of the letters' indices."""
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
    """Count our operator on packed qkv (b, t, h, w, 3, k, e): two products of width e for each pair of its groups."""
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
    """Mode that returns sizes as integers; the tracer gives tensors, from which a model cannot compute its groups."""

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


def fvcore_macs(model: nn.Module, inputs: Sequence[Tensor], repeats: Mapping[str, int] | None = None) -> int:
    """Count the multiply-accumulates of one call of `model(*inputs)` from its traced graph; the meta device suffices.

    `repeats`: modules of the model, by name, that are counted so many times more.

    Operations that no output depends on are dead code and missing from the graph, so the model must return everything
    that is to be counted. Raises `UncountedOperator` if the graph contains a product without a handle.
    """
    analysis = FlopCountAnalysis(_Traced(model), tuple(inputs))
    analysis.clear_op_handles()
    analysis.set_op_handle(**HANDLES)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    silenced = logging.getLogger("fvcore.nn.jit_analysis")
    level = silenced.level
    silenced.setLevel(logging.ERROR)
    try:
        counts = analysis.by_module()
        total = int(counts[""]) + sum(int(counts[f"model.{name}"]) * more for name, more in (repeats or {}).items())
        missed = [name for name in analysis.unsupported_ops() if _looks_like_a_product(name)]
    finally:
        silenced.setLevel(level)
    if missed:
        raise UncountedOperator(f"no handle to count {', '.join(sorted(missed))}")
    return total


def _looks_like_a_product(name: str) -> bool:
    """Return True for an operator that may contain products: any outside aten, and those of aten with such a name."""
    namespace, _, operator = name.partition("::")
    words = operator.split("_")
    return namespace not in ("aten", "prim") or any(word in _PRODUCTS or word.startswith("conv") for word in words)
