"""Cost of a model, counted without weights: parameters, multiply-accumulates (MACs), comparisons per patch.

MACs are counted twice, from the declaration of the scheme and by fvcore over the traced model; the two must agree.
Everything runs on the meta device, and of equal blocks one is traced, so that a ViT-B of any size takes less than a
second.  A convolutional baseline is
counted from the shapes of its layers' inputs and by fvcore; tracing convolutions needs real tensors and takes seconds.

One multiply-accumulate counts as one FLOP, as in the paper.  Only matrix products are counted.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from timesformer import TimeSformer, TimeSformerConfig
from timesformer.attention import Grid, all_reached, first_meeting
from timesformer.attention.reach import small_grid
from timesformer.attention.scheme import Encoder
from timesformer.config.counting import comparisons_per_patch
from timesformer.config.registry import Model, ModelConfig, build_model, macs_per_view
from timesformer.errors import InputError
from timesformer_experiments.cost.flex_trace import blocks_of_flex
from timesformer_experiments.cost.fvcore_count import fvcore_macs

AGREEMENT = 1e-3


class CountsDisagree(RuntimeError):
    """The two counts of a model differ by more than `AGREEMENT`: it does not compute what the scheme declares."""


@dataclass(frozen=True)
class Cost:
    """Cost of one model.

    `attention`: name of the scheme or of the baseline. `params`: number of parameters. `macs_per_view`: MACs executed
    for one view (one clip, one crop), counted from the declaration; `macs_fvcore`: the same, counted by fvcore;
    `macs_needed`: without MACs that only the execution adds, such as the masked part of a window computed densely.
    `comparisons_per_patch`: number of keys that a patch is compared with, summed over the steps of one block; None for
    a baseline, which has no attention, and for a mixer. `tflops_total`: the paper's TFLOPs, `macs_per_view` x `views` /
    10^12.
    `steps_to_meet`: number of steps until every patch has been compared directly with a patch at another position in
    another frame; `steps_to_reach_all`: until every patch can depend on every patch; `_without_class_token`: the same
    without the class token as a bridge between patches. Blocks repeat as often as needed, even beyond the model's
    depth; None where it never happens, for a baseline, and for a scheme with several encoders. `reach_grid`: frames,
    rows and columns of patches of this count: the model's, or a smaller grid where the model's is large
    (`timesformer.attention.reach.small_grid`).
    """

    attention: str
    num_frames: int
    image_height: int
    image_width: int
    num_classes: int | tuple[int, ...]
    params: int
    macs_per_view: int
    macs_needed: int
    macs_fvcore: int
    comparisons_per_patch: float | None
    views: int
    tflops_total: float
    steps_to_meet: int | None
    steps_to_reach_all: int | None
    steps_to_reach_all_without_class_token: int | None
    reach_grid: Grid | None

    def to_dict(self) -> dict[str, Any]:
        """Return field names and plain values."""
        return asdict(self)


class _EveryOutput(nn.Module):
    """A model that returns every encoder's tokens in addition to the logits.

    Otherwise, operations that only the tokens depend on (the patches' MLP in the last block, if the head reads the
    class token alone) would be dead code and missing from the traced graph.
    """

    def __init__(self, model: TimeSformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, clip: Tensor) -> tuple[Tensor, ...]:
        tokens: list[Tensor] = []

        def keep(module: nn.Module, inputs: Any, output: tuple[Tensor | None, ...]) -> None:
            tokens.extend(tensor for tensor in output if tensor is not None)

        hooks = [encoder.register_forward_hook(keep) for encoder in self.model.encoders]
        try:
            logits = self.model(clip)
        finally:
            for hook in hooks:
                hook.remove()
        return logits, *tokens


def _traced(model: Model, shape: tuple[int, ...]) -> int:
    """Return the second count, for a model on the meta device; blocks that repeat others are removed from it."""
    if isinstance(model, TimeSformer):
        clip, repeats = torch.empty(shape, device="meta"), _one_of_each(model)
        with mock.patch("timesformer.attention.attend.flex_attention", blocks_of_flex), torch.no_grad():
            if model.config.backend == "flex":
                model(clip)  # makes the masks, which a trace cannot
            return fvcore_macs(_EveryOutput(model), [clip], {f"model.{name}": more for name, more in repeats.items()})
    model.to_empty(device="cpu")  # the tracer needs values for convolutions; zeros will do
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.zero_()
        return fvcore_macs(model, [torch.zeros(shape)])


def _one_of_each(model: TimeSformer) -> dict[str, int]:
    """Keep one block of each kind, and return the name of each and how many more there were.

    A trace of one block in place of twelve takes a fraction of the time; equal blocks compute the same.
    """
    repeats = {}
    for stack_number, stack in enumerate(model.stacks()):
        kinds: dict[Encoder, list[nn.Module]] = {}
        for number, block in enumerate(stack.blocks):
            kinds.setdefault(stack.encoder.at(number), []).append(block)
        stack.blocks = nn.ModuleList(blocks[0] for blocks in kinds.values())
        for number, blocks in enumerate(kinds.values()):
            repeats[f"encoders.{stack_number}.blocks.{number}"] = len(blocks) - 1
    return repeats


def cost(config: ModelConfig, views: int = 1) -> Cost:
    """Count the cost of the model of a configuration, for `views` views of each video.

    On the backend `flex`, the blocks that FlexAttention executes are counted, and the second count takes them from its
    own block mask.

    Raises `InputError` for a number of views below 1, and `CountsDisagree` if the two counts differ by more than 0.1 %.
    """
    if views < 1:
        raise InputError(f"views: expected at least 1, got {views}")
    with torch.device("meta"):
        model = build_model(config).eval()
    height, width = config.height_width
    params = sum(parameter.numel() for parameter in model.parameters())
    executed = macs_per_view(config, kind="executed")
    by_fvcore = _traced(model, (1, config.num_frames, config.in_channels, height, width))
    if abs(executed - by_fvcore) > AGREEMENT * by_fvcore:
        raise CountsDisagree(
            f"{config.attention} at {config.num_frames}x{height}x{width}: {executed:,} MACs by the declaration, "
            f"{by_fvcore:,} by fvcore over the traced model"
        )
    return Cost(
        attention=config.label if isinstance(config, TimeSformerConfig) else config.attention,
        num_frames=config.num_frames,
        image_height=height,
        image_width=width,
        num_classes=config.num_classes,
        params=params,
        macs_per_view=executed,
        macs_needed=macs_per_view(config, kind="needed"),
        macs_fvcore=by_fvcore,
        comparisons_per_patch=comparisons_per_patch(config) if isinstance(config, TimeSformerConfig) else None,
        views=views,
        tflops_total=executed * views / 1e12,
        **_reach(config),
    )


def _reach(config: ModelConfig) -> dict[str, Any]:
    """Return the step counts of `Cost` and the grid on which they were counted."""
    steps = dict.fromkeys(("steps_to_meet", "steps_to_reach_all", "steps_to_reach_all_without_class_token"))
    if not isinstance(config, TimeSformerConfig) or len(config.scheme.encoders) > 1:
        return {**steps, "reach_grid": None}
    scheme, grid = config.scheme, small_grid(config.scheme, config.grid)
    found = (first_meeting(scheme, grid), all_reached(scheme, grid), all_reached(scheme, grid, bridge=False))
    counted = (None if after is None else after.steps for after in found)
    return {**dict(zip(steps, counted, strict=True)), "reach_grid": grid}
