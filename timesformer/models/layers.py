"""Layers that the switches of a configuration choose: norms, biases of q, k and v, the MLP's activation."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from timesformer.config.transformer import TimeSformerConfig

Norm = nn.LayerNorm | nn.RMSNorm


def make_norm(config: TimeSformerConfig, width: int, eps: float | None = None) -> Norm:
    """Make the configuration's norm over `width` channels."""
    kind = nn.RMSNorm if config.norm == "rms" else nn.LayerNorm
    return kind(width, eps=config.norm_eps if eps is None else eps)


class PartlyBiased(nn.Linear):
    """Projection to q, k and v, of which only `parts` have a bias; `bias` holds those parts one after the other."""

    def __init__(self, width: int, parts: str) -> None:
        super().__init__(width, 3 * width, bias=False)
        self.parts = parts
        self.bias = nn.Parameter(torch.zeros(len(parts) * width))

    def full_bias(self) -> Tensor:
        """Return the bias of q, k and v, (3 d), with zeros for the parts that have none."""
        width = self.in_features
        given = dict(zip(self.parts, self.bias.split(width), strict=True))
        return torch.cat([given[part] if part in given else self.bias.new_zeros(width) for part in "qkv"])

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.full_bias())


def make_qkv(config: TimeSformerConfig) -> nn.Linear:
    """Make the projection to q, k and v, with the configuration's biases."""
    d = config.embed_dim
    if config.qkv_bias in ("qkv", ""):
        return nn.Linear(d, 3 * d, bias=config.qkv_bias == "qkv")
    return PartlyBiased(d, config.qkv_bias)


class Standardise(nn.Module):
    """Standardisation of each channel over the batch in training, and by running means otherwise, without weights.

    The running means are plain means of the first batches, and forget older ones later.

    Source: the batch norm without affine parameters before the classifier of MAE's linear probe, arXiv 2111.06377,
    appendix A.1.
    """

    mean: Tensor
    variance: Tensor
    batches: Tensor

    def __init__(self, width: int, momentum: float = 0.1, eps: float = 1e-6) -> None:
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))
        self.register_buffer("batches", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Standardise vectors (b, d); a batch of one is standardised by the running means."""
        mean, variance = self.mean, self.variance
        if self.training and len(x) > 1:
            mean, variance = x.float().mean(0), x.float().var(0, unbiased=False)
            with torch.no_grad():
                self.batches += 1
                share = (1 / self.batches).clamp(min=self.momentum)
                self.mean.lerp_(mean.detach(), share)
                self.variance.lerp_(variance.detach() * len(x) / (len(x) - 1), share)
        return (x - mean) * (variance + self.eps).rsqrt()


class SwiGlu(nn.Module):
    """Product of the second half of the channels with the SiLU of the first half."""

    def forward(self, x: Tensor) -> Tensor:
        """Gate the channels: (…, 2 n) -> (…, n)."""
        gate, value = x.chunk(2, -1)
        return F.silu(gate) * value


def make_activation(config: TimeSformerConfig) -> nn.Module:
    """Make the activation between the linears of an MLP."""
    if config.mlp == "swiglu":
        return SwiGlu()
    if config.activation == "relu":
        return nn.ReLU()
    return nn.GELU(approximate="none" if config.activation == "gelu" else "tanh")
