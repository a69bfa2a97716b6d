"""A trained model made ready for inference: the same outputs within rounding, fewer operations.

- An extra linear is folded into the projection before it: drop path, which stands between them, is off in inference.
- In the last block only the class token is computed, where the head reads nothing else.
- On a CPU in fp32, the blocks' linear layers are packed for oneDNN, the MLP's activation with them.
"""

import copy

import torch
from torch import Tensor, nn

from timesformer.errors import InputError
from timesformer.models.timesformer import Attention, Mlp, TimeSformer


class PackedLinear(nn.Module):
    """A linear layer with its weight laid out for oneDNN once and for all, followed by an activation: inference only.

    activation: "none", "gelu", "gelu_tanh" or "relu".
    """

    def __init__(self, linear: nn.Linear, activation: str = "none") -> None:
        super().__init__()
        self.activation, _, self.algorithm = activation.partition("_")
        if self.activation == "gelu":
            self.algorithm = self.algorithm or "none"
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bias = None if linear.bias is None else linear.bias.detach()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) to (…, out); raises InputError where a gradient is wanted."""
        if x.requires_grad:
            raise InputError("this model was fused for inference and has no backward: use the one it was made from")
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, self.activation, [], self.algorithm)
        return out

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, {self.activation}"


def fuse_for_inference(model: TimeSformer) -> TimeSformer:
    """A fused copy of `model` in evaluation mode; the model itself is unchanged.

    The copy has no gradients, cannot be trained or saved, and stays on the device and in the precision that it was
    made in.  `forward_features` still gives every token.

    Raises:
        InputError: the model was fused before.
    """
    if model.fused:
        raise InputError("this model was fused for inference before")
    fused = copy.deepcopy(model).eval().requires_grad_(False)
    fused.fused = True
    for module in list(fused.modules()):
        if isinstance(module, Attention) and module.fc is not None:
            module.proj = _folded(module.proj, module.fc)
            module.fc = None
    weight = fused.head.weight
    if weight.device.type == "cpu" and weight.dtype == torch.float32 and torch.backends.mkldnn.is_available():
        for module in list(fused.modules()):
            if isinstance(module, Attention):
                if module.qkv is not None:
                    module.register_module("qkv", PackedLinear(module.qkv))
                module.register_module("proj", PackedLinear(module.proj))
            elif isinstance(module, Mlp):
                module.register_module("fc1", PackedLinear(module.fc1, _activation(module.act)))
                module.register_module("act", nn.Identity())
                module.register_module("fc2", PackedLinear(module.fc2))
    return fused


def _folded(first: nn.Linear, second: nn.Linear) -> nn.Linear:
    """One linear layer for two in a row; multiplied in float64, so that only the last rounding is lost."""
    out = copy.deepcopy(first)
    weight, bias = second.weight.double() @ first.weight.double(), second.weight.double() @ first.bias.double()
    out.weight.copy_(weight)
    out.bias.copy_(bias + second.bias.double())
    return out


def _activation(module: nn.Module) -> str:
    if isinstance(module, nn.GELU):
        return "gelu" if module.approximate == "none" else "gelu_tanh"
    return "relu"
