"""Three schemes of a test's own: one new partition, one predicate, one mixer."""

import torch
from torch import Tensor, nn

from timesformer._typing import Float
from timesformer.attention import (
    ALL,
    EACH,
    Encoder,
    Grid,
    Mixer,
    MixerInputs,
    Partition,
    Predicate,
    Scheme,
    Step,
    blocks,
    build,
    names,
    register,
    stride,
)
from timesformer.attention.predicate import Coordinates

SHIPPED = names()  # before the tests' own are registered

TUBES = Partition(t=blocks(2), h=stride(3), w=EACH)


def causal_cross(query: Coordinates, key: Coordinates, grid: Grid) -> Tensor:
    """The same row or column of the same frame or an earlier one."""
    return (key[0] <= query[0]) & ((key[1] == query[1]) | (key[2] == query[2]))


class LinearAttention(Mixer):
    """Kernel attention with elu + 1 features (Katharopoulos et al. 2020), with a linear on v of its own."""

    def modules(self, width: int, heads: int) -> nn.ModuleDict:
        return nn.ModuleDict({"value": nn.Linear(width // heads, width // heads, bias=False)})

    def forward(self, inputs: MixerInputs) -> Float[Tensor, "b k p e"]:
        q, k = nn.functional.elu(inputs.q) + 1, nn.functional.elu(inputs.k) + 1
        out = q @ (k.transpose(-1, -2) @ inputs.modules["value"](inputs.v))
        return out / (q @ k.sum(-2, keepdim=True).transpose(-1, -2))

    def reference(self, inputs: MixerInputs) -> Float[Tensor, "b k p e"]:
        return self.operator(inputs) @ (inputs.v @ inputs.modules["value"].weight.T)

    def operator(self, inputs: MixerInputs) -> Float[Tensor, "b k p p"]:
        weights = (nn.functional.elu(inputs.q) + 1) @ (nn.functional.elu(inputs.k) + 1).transpose(-1, -2)
        return weights / weights.sum(-1, keepdim=True)

    def macs(self, grid: Grid, width: int, heads: int) -> int:
        tokens, e = grid[0] * grid[1] * grid[2], width // heads
        return heads * tokens * (3 * e * e + e)


OVERS = {"tubes": TUBES, "causal_cross": Predicate(causal_cross), "linear": LinearAttention()}

SCHEMES = [
    Scheme(
        name=f"test_{name}",
        encoders=(Encoder(block=((Step(name, (over,), cls="global", extra_linear=name == "tubes"),),)),),
        title=f"a test's own: {name}",
    )
    for name, over in OVERS.items()
]


# ViViT's model 2 with the means of the frames' patches in the place of class tokens.
MEAN_ENCODER = Scheme(
    name="test_mean_encoder",
    encoders=(
        Encoder(
            block=((Step("space", (Partition(EACH, ALL, ALL),), cls="absent"),),), class_tokens="none", pool="mean"
        ),
        Encoder(block=((Step("time", (Partition(ALL, EACH, EACH),)),),), depth="temporal_depth", pool="mean"),
    ),
    position="table",
)

for _scheme in (*SCHEMES, MEAN_ENCODER):
    register(_scheme)


def has_class_token(attention: str) -> bool:
    """Whether any encoder of the scheme has one; without, `cls_policy` is refused."""
    return any(encoder.class_tokens != "none" for encoder in build(attention).encoders)


def random_inputs(grid: Grid, heads: int = 2, width: int = 4, batch: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    """qkv and class-token qkv in float64, with gradients on."""
    generator = torch.Generator().manual_seed(seed)
    qkv = torch.randn(batch, *grid, 3, heads, width, dtype=torch.float64, generator=generator)
    cls = torch.randn(batch, 3, heads, width, dtype=torch.float64, generator=generator)
    return qkv.requires_grad_(), cls.requires_grad_()
