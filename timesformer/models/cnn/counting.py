"""Multiply–accumulates of a baseline, from the shapes of its layers' inputs; one MAC counts as one FLOP."""

from collections.abc import Callable
from functools import lru_cache, partial
from math import prod
from typing import Any

import torch
from torch import nn

from timesformer.config.cnn import CnnConfig
from timesformer.models.cnn.networks import build


def macs_per_view(config: CnnConfig) -> int:
    """Count the multiply–accumulates of one clip and crop: every convolution and the head."""
    return sum(_macs_of_weights(config).values())


def stem_macs(config: CnnConfig, blocks: int) -> int:
    """Count the multiply–accumulates of the stem and the first bottlenecks, for one clip and crop."""
    with torch.device("meta"):
        layers = build(config).layers()
    found = _macs_of_weights(config)
    return sum(found.get(name, 0) for layer in layers[: blocks + 1] for name in layer)


@lru_cache(maxsize=64)
def _macs_of_weights(config: CnnConfig) -> dict[str, int]:
    """Count the multiply–accumulates of each weight of a convolution or linear layer, for one clip and crop.

    The network runs on the meta device, without values.
    """
    with torch.device("meta"):
        model = build(config).eval()
    found: dict[str, int] = {}

    def count(name: str, module: nn.Module, output: torch.Tensor) -> None:
        weight = module.weight
        assert isinstance(weight, torch.Tensor)
        # For each output: input channels times kernel size.
        found[name] = found.get(name, 0) + output.numel() * prod(weight.shape[1:])

    for name, module in model.named_modules():
        if isinstance(module, nn.Conv3d | nn.Linear):
            module.register_forward_hook(partial(_counted, count, f"{name}.weight"))
    with torch.no_grad():
        model(torch.empty(1, config.num_frames, config.in_channels, *config.height_width, device="meta"))
    return found


def _counted(
    count: Callable[[str, nn.Module, torch.Tensor], None], name: str, module: nn.Module, _: Any, output: torch.Tensor
) -> None:
    count(name, module, output)
