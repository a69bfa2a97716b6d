"""Forward passes for evaluation, prediction and feature extraction: models that are only asked for their outputs."""

from contextlib import AbstractContextManager

import torch
from torch import nn

from timesformer.models.timesformer import TimeSformer, fuse_for_inference
from timesformer.training.recipe import Precision


def forward_only(model: nn.Module, precision: Precision = "fp32") -> nn.Module:
    """Return what gives the model's outputs with the fewest operations, on the model's device.

    A `TimeSformer` is fused (`fuse_for_inference`): the outputs are equal up to rounding.  With bf16 its linear layers
    hold bf16 weights.  Another network, a fused model and one with hooks, which may watch layers that fusing removes,
    are returned as they are.
    """
    if not isinstance(model, TimeSformer) or model.fused or _hooked(model):
        return model
    return fuse_for_inference(model, torch.bfloat16 if precision == "bf16" else None)


def computing(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Compute in `precision` inside: bf16 products with norms, sums and residuals in fp32 (autocast)."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def fast_bf16(device: torch.device) -> str | None:
    """Return what makes bf16 faster than fp32 on the device, AVX512-BF16 or AMX on a CPU; None if nothing does."""
    if device.type == "cuda":
        return "tensor cores" if torch.cuda.is_bf16_supported(including_emulation=False) else None
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return None
    if _has("_is_amx_tile_supported"):
        return "AMX"
    return "AVX512-BF16" if _has("_is_avx512_bf16_supported") else None


def _has(query: str) -> bool:
    """Ask torch for a feature of the CPU; versions without the question know of none."""
    asked = getattr(torch.cpu, query, None)
    return asked is not None and bool(asked())


def _hooked(model: nn.Module) -> bool:
    return any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
