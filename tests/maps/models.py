"""Tiny models of every scheme in float64 with all weights awake, and clips with T, H and W different."""

from typing import Any

import torch

from tests.attention.custom import MEAN_ENCODER, SCHEMES, SHIPPED
from timesformer import TimeSformer, TimeSformerConfig
from timesformer.attention import Encoder, Partition, Scheme, Step, build, register
from timesformer.attention.partition import ALL, EACH

GRID = (3, 2, 4)
SIZES: dict[str, Any] = {"image_size": (8, 16), "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}

# Two that no shipped scheme has: frame streams pooled by the mean, and steps side by side that share the heads.
FRAME_MEANS = register(
    Scheme(
        name="test_frame_means",
        encoders=(
            Encoder(block=((Step("space", (Partition(EACH, ALL, ALL),)),),), class_tokens="frame", pool="mean"),
            Encoder(block=((Step("time", (Partition(ALL, EACH, EACH),), cls="global"),),), depth="temporal_depth"),
        ),
        position="table",
    )
)
SHARED = register(
    Scheme(
        name="test_shared_heads",
        encoders=(
            Encoder(
                block=(
                    (
                        Step("first", build("factorised_dot_product").encoders[0].steps[0].over, cls="replicated"),
                        Step("second", (Partition(EACH, EACH, ALL),), cls="absent", qkv_from="first"),
                    ),
                )
            ),
        ),
    )
)
EVERY = [*SHIPPED, *(scheme.name for scheme in SCHEMES), MEAN_ENCODER.name, FRAME_MEANS.name, SHARED.name]


def make(attention: str, *, double: bool = True, **fields: Any) -> TimeSformer:
    """A model in evaluation mode, no weight of which is zero."""
    torch.manual_seed(0)
    sizes = {"num_frames": GRID[0], "temporal_depth": 2, "num_classes": 5, **SIZES, **fields}
    config = TimeSformerConfig(attention=attention, **sizes)
    model = TimeSformer(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.double() if double else model


def clips(count: int = 2, frames: int = GRID[0], height: int = 8, width: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, frames, 3, height, width, generator=generator, dtype=torch.float64)
