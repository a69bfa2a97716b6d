"""Linear layers packed for oneDNN, for inference on a CPU in fp32."""

import torch
from torch import Tensor, nn

from timesformer.errors import InputError
from timesformer.models.layers import PartlyBiased


class PackedLinear(nn.Module):
    """Linear layer whose weight is packed for oneDNN in advance, followed by an activation; for inference only.

    activation: "none", "gelu", "gelu_tanh" or "relu".
    """

    def __init__(self, linear: nn.Linear, activation: str = "none") -> None:
        super().__init__()
        self.activation, _, self.algorithm = activation.partition("_")
        if self.activation == "gelu":
            self.algorithm = self.algorithm or "none"
        self.in_features, self.out_features = linear.in_features, linear.out_features
        bias = linear.full_bias() if isinstance(linear, PartlyBiased) else linear.bias
        self.bias = None if bias is None else bias.detach()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer: (…, in) -> (…, out).

        Raises:
            InputError: the input requires a gradient.
        """
        if x.requires_grad:
            raise InputError("model: fused for inference, it has no backward pass; use the model it was made from")
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, self.activation, [], self.algorithm)
        return out

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, {self.activation}"
