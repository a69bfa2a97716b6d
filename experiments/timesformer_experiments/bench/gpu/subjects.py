"""Models and blocks that are compared: ours by backend, eager, compiled and fused, and those of transformers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from timesformer import TimeSformer, TimeSformerConfig
from timesformer.attention import BackendError
from timesformer.attention import build as declaration
from timesformer.config.counting import macs_per_view
from timesformer_experiments.bench.gpu.bench import Bench
from timesformer_experiments.bench.gpu.machine import Unsupported
from timesformer_experiments.bench.gpu.sizes import STEPS
from timesformer_kernels import why_unusable

HUGGING_FACE = {"divided": "divided_space_time", "joint": "joint_space_time"}
"""Names of our schemes in transformers; its `space_only` does not average the frames and is a different model."""


@dataclass(frozen=True)
class Variant:
    """A way to run a model. `backend`: backend of our model; empty for transformers."""

    name: str
    backend: str = ""
    compiled: bool = False
    fused: bool = False

    @property
    def kernels(self) -> bool:
        return self.backend == "triton"

    @property
    def seconds(self) -> float:
        """Expected duration of the measurement of a whole model."""
        return 60.0 if self.compiled else 10.0


VARIANTS: dict[str, Variant] = {
    variant.name: variant
    for variant in (
        Variant("ours_triton", "triton"),
        Variant("ours_sdpa", "sdpa"),
        Variant("transformers"),
        Variant("ours_triton_fused", "triton", fused=True),
        Variant("ours_sdpa_compiled", "sdpa", compiled=True),
        Variant("ours_triton_compiled", "triton", compiled=True),
        Variant("transformers_compiled", compiled=True),
        Variant("ours_triton_fused_compiled", "triton", compiled=True, fused=True),
        Variant("ours_auto", "auto"),
        Variant("ours_sdpa_fused", "sdpa", fused=True),
    )
}
"""Variants in the order of measurement: those that the targets need come first."""


def serves(bench: Bench, variant: Variant, scheme: str, slice_name: str) -> bool:
    """Return True if a variant can run a scheme here; otherwise the reason is printed and recorded."""
    reason = None
    if bench.device.type == "cpu" and (variant.compiled or variant.backend == "auto"):
        reason = "measured on a GPU only"
    elif variant.kernels:
        reason = why_unusable(bench.device)
    elif not variant.backend and not bench.environment["transformers"]:
        reason = "transformers is not installed"
    if reason is not None:
        bench.skip(slice_name, variant.name, reason)
        return False
    if variant.backend in ("triton", "auto"):
        reason = bench.refused("add_norm", *kinds_of(scheme))
        if reason is not None:
            bench.skip(slice_name, f"{variant.name}, {scheme}", reason)
            return False
    return bool(variant.backend) or scheme in HUGGING_FACE


def kinds_of(scheme: str) -> tuple[str, ...]:
    """Return the kinds of steps that a scheme runs; all kinds, if one of its steps is not checked under its name."""
    names = {step.name for encoder in declaration(scheme).encoders for step in encoder.steps}
    return tuple(sorted(names)) if names <= set(STEPS) else tuple(STEPS)


def config_of(bench: Bench, scheme: str, frames: int, crop: int, backend: str, depth: int = 0) -> TimeSformerConfig:
    """Return our configuration at the profile's sizes."""
    sizes = bench.sizes
    values: dict[str, Any] = {
        "attention": scheme,
        "num_frames": frames,
        "image_size": crop,
        "patch_size": sizes.patch,
        "num_classes": sizes.classes,
        "embed_dim": sizes.width,
        "depth": depth or sizes.depth,
        "num_heads": sizes.heads,
        "backend": backend,
    }
    return TimeSformerConfig(**values)


def build(bench: Bench, variant: Variant, scheme: str, frames: int, crop: int, depth: int = 0) -> nn.Module:
    """Build a model with random weights in fp32 on the device, neither fused nor compiled.

    Raises:
        Unsupported: our backend does not support the scheme.
    """
    torch.manual_seed(0)
    with bench.device:
        if variant.backend:
            try:
                return _without_zeros(TimeSformer(config_of(bench, scheme, frames, crop, variant.backend, depth)))
            except BackendError as error:
                raise Unsupported(str(error)) from error
        from transformers import TimesformerConfig, TimesformerForVideoClassification

        sizes = bench.sizes
        values: dict[str, Any] = {
            "attention_type": HUGGING_FACE[scheme],
            "num_frames": frames,
            "image_size": crop,
            "patch_size": sizes.patch,
            "hidden_size": sizes.width,
            "num_hidden_layers": depth or sizes.depth,
            "num_attention_heads": sizes.heads,
            "intermediate_size": 4 * sizes.width,
            "num_labels": sizes.classes,
        }
        return TimesformerForVideoClassification(TimesformerConfig(**values))


def _without_zeros(model: TimeSformer) -> TimeSformer:
    """Give random weights to layers that start at zero, which would hide errors in the layers before them."""
    for parameter in model.parameters():
        if parameter.dim() > 1 and not bool(parameter.any()):
            nn.init.trunc_normal_(parameter, std=0.02)
    return model


def compiled(bench: Bench, variant: Variant, module: nn.Module) -> Callable[..., Any]:
    """Return the module, compiled if the variant says so."""
    if not variant.compiled or bench.device.type == "cpu":
        return module
    torch._dynamo.reset()
    out: Callable[..., Any] = torch.compile(module, dynamic=False)
    return out


def tensor_of(output: Any) -> Tensor:
    """Return logits or tokens, unwrapped from the output objects of transformers."""
    while not isinstance(output, Tensor):
        output = output.logits if hasattr(output, "logits") else output[0]
    return output


def step_flops(config: TimeSformerConfig, batch: int, training: bool) -> int:
    """Return the floating-point operations of a batch, two per multiply–accumulate; backward has twice as many as
    forward."""
    return 2 * macs_per_view(config, "needed") * batch * (3 if training else 1)


def block_flops(config_of_depth: Callable[[int], TimeSformerConfig], batch: int, training: bool) -> int:
    """Return the floating-point operations of one block: those that a second block adds to a model."""
    two, one = (step_flops(config_of_depth(depth), batch, training) for depth in (2, 1))
    return two - one
