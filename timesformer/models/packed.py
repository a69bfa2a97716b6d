"""Linear layers packed for oneDNN, for inference on a CPU in fp32 and bf16."""

import itertools
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from timesformer.errors import InputError
from timesformer.models.layers import PartlyBiased


def packable(device: torch.device, dtype: torch.dtype) -> bool:
    """Return True if oneDNN packs weights of this kind."""
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


class PackedLinear(nn.Module):
    """Linear layer whose weight is packed for oneDNN in advance, followed by an activation; for inference only.

    activation: "none", "gelu", "gelu_tanh" or "relu".
    dtype: precision of the layer, to which inputs are rounded; None: that of `linear`.

    Where oneDNN does not serve the precision or the device, the weight stays as it is.  A layer that is moved to
    another precision or device is packed anew.  torch.compile and torch.jit see one operator.
    """

    def __init__(self, linear: nn.Linear, activation: str = "none", dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.activation = activation
        self.in_features, self.out_features = linear.in_features, linear.out_features
        bias = linear.full_bias() if isinstance(linear, PartlyBiased) else linear.bias
        self._keep(linear.weight.detach().to(dtype), None if bias is None else bias.detach().to(dtype))

    def _keep(self, weight: Tensor, bias: Tensor | None) -> None:
        """Take other weights, packed if possible."""
        self.dtype, self.bias = weight.dtype, bias
        self.is_packed = packable(weight.device, weight.dtype)
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight) if self.is_packed else weight
        self.number = next(_numbers)
        _layers[self.number] = self

    def dense(self) -> Tensor:
        """Return the weight, (out, in)."""
        return self.weight.to_dense() if self.is_packed else self.weight

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer: (…, in) -> (…, out).

        Raises:
            InputError: the input requires a gradient.
        """
        if x.requires_grad:
            raise InputError("model: fused for inference, it has no backward pass; use the model it was made from")
        if self.is_packed and (torch.compiler.is_compiling() or torch.jit.is_tracing()):
            out: Tensor = _packed_linear(x, self.number)
            return out
        return self.compute(x)

    def compute(self, x: Tensor) -> Tensor:
        """Apply the layer, without a check."""
        x, (name, _, form) = x.to(self.dtype), self.activation.partition("_")
        if self.is_packed:
            form = form or "none" if name == "gelu" else ""
            out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, name, [], form)
            return out
        out = F.linear(x, self.weight, self.bias)
        if name == "gelu":
            return F.gelu(out, approximate=form or "none")
        return out.relu() if name == "relu" else out

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "PackedLinear":
        """Move the layer, as `Module.to` and its kin do with parameters."""
        self._keep(fn(self.dense()), None if self.bias is None else fn(self.bias))
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "weight": self.dense(), "is_packed": False}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._keep(self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, {self.activation}, {self.dtype}"


_numbers = itertools.count()
_layers: WeakValueDictionary[int, PackedLinear] = WeakValueDictionary()
"""Layers by number: a packed weight is no tensor that a graph could hold, its layer's number is a constant."""


@torch.library.custom_op("timesformer::packed_linear", mutates_args=())
def _packed_linear(x: Tensor, layer: int) -> Tensor:
    return _layers[layer].compute(x)


@_packed_linear.register_fake
def _packed_linear_fake(x: Tensor, layer: int) -> Tensor:
    made = _layers[layer]
    return x.new_empty((*x.shape[:-1], made.out_features), dtype=made.dtype)
