"""Multiply–accumulates of a baseline, from the shapes of its layers' inputs; one MAC counts as one FLOP."""

from functools import lru_cache
from math import prod
from typing import Any

import torch
from torch import nn

from timesformer.config.cnn import CnnConfig
from timesformer.models.cnn.networks import build


@lru_cache(maxsize=64)
def macs_per_view(config: CnnConfig) -> int:
    """Count the multiply–accumulates of one clip and crop: every convolution and the head.

    The network runs on the meta device, without values.
    """
    with torch.device("meta"):
        model = build(config).eval()
    total = 0

    def count(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        nonlocal total
        weight = module.weight
        assert isinstance(weight, torch.Tensor)
        total += output.numel() * prod(weight.shape[1:])  # for each output: input channels times kernel size

    for module in model.modules():
        if isinstance(module, nn.Conv3d | nn.Linear):
            module.register_forward_hook(count)
    with torch.no_grad():
        model(torch.empty(1, config.num_frames, config.in_channels, *config.height_width, device="meta"))
    return total
