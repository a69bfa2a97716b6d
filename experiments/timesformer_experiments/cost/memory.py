"""Prediction of the peak memory of a training step and of inference, without running anything.

A model of two or three blocks makes one step on fake tensors, and a `Ledger` follows every storage. Further blocks
repeat the block before the last, so that each adds a known number of bytes to every phase of the step. A ViT-B of any
size takes a fraction of a second.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from timesformer import TimeSformer, TimeSformerConfig
from timesformer.attention import Grid, Predicate
from timesformer.config.counting import encoder_runs
from timesformer.config.registry import ModelConfig, build_model
from timesformer.errors import InputError
from timesformer.training.recipe import Optimiser, Precision
from timesformer_experiments.cost.memory_trace import (
    BlockPhases,
    Ledger,
    Phase,
    Softmax,
    Split,
    attention_without_values,
    kernels_anywhere,
    nothing,
    plus,
    without_values,
)

Device = Literal["cpu", "cuda"]
STATES: dict[Optimiser, int] = {"sgd": 1, "adamw": 2}
"""Tensors of a parameter's size that the optimiser keeps for it: momentum; first and second moment."""
CARDS_GIB = (16.0, 24.0, 40.0, 80.0)
RESERVE_BYTES = 2**30
"""GPU memory reserved for the context, the libraries' workspaces and fragmentation: an allowance, not a measurement."""


@dataclass(frozen=True)
class Memory:
    """Peak memory in bytes and its parts at that moment, which add up to `peak_bytes`.

    `gradients_bytes`: gradients of the parameters that the backward pass has computed when the peak is reached.
    `attention_bytes`: memory that attention allocates forward and backward: q, k and v copied into groups, scores and
    probabilities or log-sum-exp, masks, outputs. `activations_bytes`: everything else, including the input clips and
    temporary values. `phase`: part of the step in which the peak is reached. `how`: how it was predicted.
    """

    params_bytes: int
    gradients_bytes: int
    optimiser_bytes: int
    activations_bytes: int
    attention_bytes: int
    peak_bytes: int
    phase: str
    how: str

    def to_dict(self) -> dict[str, Any]:
        """Return field names and plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Workload:
    """A step to predict; the fields are the arguments of `predict`.

    softmax_keeps_input: in attention that is not fused, softmax also keeps its input, as in torch up to 1.10.
    """

    config: ModelConfig
    batch: int
    train: bool
    precision: Precision = "fp32"
    optimiser: Optimiser = "sgd"
    gradient_checkpointing: bool = False
    device: Device = "cpu"
    softmax_keeps_input: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.batch, bool) or not isinstance(self.batch, int) or self.batch < 1:
            raise InputError(f"batch: expected a positive number of clips, got {self.batch!r}")
        for name, choices in (
            ("precision", get_args(Precision)),
            ("optimiser", tuple(STATES)),
            ("device", get_args(Device)),
        ):
            if getattr(self, name) not in choices:
                raise InputError(f"{name}: expected one of {choices}, got {getattr(self, name)!r}")

    @property
    def traced_on(self) -> str:
        """Device of the fake tensors: torch makes them for a GPU only if it finds one."""
        return "cuda" if self.device == "cuda" and torch.cuda.is_available() else "cpu"

    @property
    def softmax(self) -> Softmax:
        """Way in which the softmax of attention that is not fused is traced."""
        if self.softmax_keeps_input:
            return "keeps_input"
        return "fp32" if (self.device, self.traced_on, self.precision) == ("cuda", "cpu", "bf16") else "own"

    @property
    def how(self) -> str:
        """Sentence that states how the prediction is made."""
        where = {
            ("cpu", "cpu"): "fake tensors on CPU",
            ("cuda", "cuda"): "fake tensors on the GPU",
            ("cuda", "cpu"): "fake tensors on CPU (torch finds no GPU here), with softmax and optimiser as on a GPU",
        }[self.device, self.traced_on]
        blocks = "2 or 3 blocks of each encoder, extrapolated to all"
        if not isinstance(self.config, TimeSformerConfig) or _blocks_differ(self.config):
            blocks = "the whole network"
        return f"one step traced on {where}; {blocks}; nothing was run"


def predict(
    config: ModelConfig,
    *,
    batch: int,
    train: bool,
    precision: Precision = "fp32",
    optimiser: Optimiser = "sgd",
    gradient_checkpointing: bool = False,
    device: Device = "cpu",
) -> Memory:
    """Predict the peak memory of one step with `batch` clips after the first step, when the optimiser's state exists.

    `train`: forward pass, backward pass and optimiser, with the gradients of the previous step released; otherwise a
    forward pass without gradients. `precision`: bf16 means autocast, with weights and gradients in fp32. `device`:
    device whose memory is predicted; `Memory.how` states what was traced. The backend `auto` is resolved for the device
    of the fake tensors; `triton` and `flex` need no GPU here.

    Raises:
        InputError: an unknown value of an argument, or a backend that does not support the scheme.
    """
    step = Workload(config, batch, train, precision, optimiser, gradient_checkpointing, device)
    return highest(candidates(step), step.how)


def highest(phases: Sequence[Phase], how: str) -> Memory:
    """Return the memory of the phase with the highest peak."""
    phase = max(phases, key=lambda each: each.peak_bytes)
    parts = {f"{kind}_bytes": size for kind, size in phase.peak.items()}
    return Memory(**parts, peak_bytes=phase.peak_bytes, phase=_when(phase.name), how=how)


def _when(name: tuple[Any, ...]) -> str:
    """Return the name of a phase for readers; encoders and blocks are counted from 1."""
    word, *where = name
    if word in ("forward", "backward"):
        return f"{word} pass, encoder {where[0] + 1}, block {where[1] + 1}"
    return {
        "after": "after the forward pass of encoder {}",
        "before": "after the backward pass of encoder {}",
        "optimiser": "update of the parameters",
    }.get(word, "before the first block").format(*(number + 1 for number in where))


def candidates(step: Workload) -> list[Phase]:
    """Return the phases of the step at full depth; one of them holds the peak."""
    phases, stacks = traced(step)
    if not isinstance(step.config, TimeSformerConfig):
        return phases
    runs = encoder_runs(step.config)
    missing = [depth - len(blocks) for (_, depth, _, _), blocks in zip(runs, stacks, strict=True)]
    return deepen(phases, stacks, missing, step)


def traced(step: Workload) -> tuple[list[Phase], list[list[nn.Module]]]:
    """Trace a model with two or three blocks; return the phases of its step and the blocks of each encoder.

    A convolutional baseline is traced as a whole, and no blocks are returned.
    """
    config = step.config
    shape = (step.batch, config.num_frames, config.in_channels, *config.height_width)
    if not isinstance(config, TimeSformerConfig):
        with torch.device("meta"):
            network = build_model(config)
        if step.gradient_checkpointing:
            raise InputError(f"gradient_checkpointing: not available for {type(network).__name__}")
        return trace(network, [], shape, step), []
    depth = 3 if config.drop_path_rate else 2  # drop path leaves the first block alone
    made = config
    if not _blocks_differ(config):
        made = replace(config, depth=min(config.depth, depth), temporal_depth=min(config.temporal_depth, depth))
    with torch.device("meta"), kernels_anywhere():
        model = TimeSformer(made)
    model.gradient_checkpointing = step.gradient_checkpointing
    stacks = [list(stack.blocks) for stack in model.stacks()]
    predicates = [] if config.backend == "flex" else _predicates(config)
    return trace(model, stacks, shape, step, predicates, dense=config.backend == "reference"), stacks


def _blocks_differ(config: TimeSformerConfig) -> bool:
    """Return True for an encoder with blocks of several kinds, of which all are traced."""
    return any(len(encoder.pattern) > 1 for encoder in config.scheme.encoders)


def _predicates(config: TimeSformerConfig) -> list[tuple[Predicate, Grid]]:
    """Return the predicates for which the model makes plans or masks, each with its grid."""
    steps = ((step, grid) for encoder, _, _, grid in encoder_runs(config) for step in encoder.steps)
    return [(over, grid) for step, grid in steps for over in step.over if isinstance(over, Predicate)]


def trace(
    model: nn.Module,
    stacks: list[list[nn.Module]],
    shape: tuple[int, ...],
    step: Workload,
    predicates: Sequence[tuple[Predicate, Grid]] = (),
    gradients_stay: bool = False,
    dense: bool = False,
) -> list[Phase]:
    """Trace one step of a model made on the meta device and return its phases in order of time.

    `stacks`: blocks of the model; `shape`: shape of its input; `predicates`: those for which it makes plans or, with
    `dense`, masks; `gradients_stay`: the gradients of the previous step are set to zero, not released. The
    configuration and the batch of `step` are not read.
    """
    model.train(step.train)
    ledger = Ledger(gpu=step.device == "cuda")
    with FakeTensorMode():
        without_values(model, step.traced_on)
        parameters = list(model.parameters())
        for parameter in parameters:
            ledger.own(parameter, "params")
            if step.train and gradients_stay:
                parameter.grad = torch.empty_like(parameter)
                ledger.own(parameter.grad, "gradients")
        for buffer in model.buffers():
            ledger.own(buffer, "params")
        if step.train:
            ledger.alive["optimiser"] = sum(state_bytes(parameter, step.optimiser) for parameter in parameters)
        for parameter in parameters:
            parameter.register_post_accumulate_grad_hook(lambda owner: ledger.own(_gradient(owner), "gradients"))
        BlockPhases(ledger, stacks)
        with ledger, attention_without_values(ledger, step.traced_on, predicates, step.softmax, dense):
            _one_step(model, shape, step, ledger)
    return ledger.phases


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def _one_step(model: nn.Module, shape: tuple[int, ...], step: Workload, ledger: Ledger) -> None:
    clips = torch.empty(shape, device=step.traced_on)
    labels = torch.zeros(shape[0], dtype=torch.long, device=step.traced_on)
    autocast = torch.autocast(step.traced_on, torch.bfloat16, enabled=step.precision == "bf16")
    with nullcontext() if step.train else torch.no_grad(), autocast:
        logits: Tensor = model(clips)
    if step.train:
        nn.functional.cross_entropy(logits.float(), labels).backward()
        ledger.phase("optimiser")
        updated = [parameter for parameter in model.parameters() if parameter.grad is not None]
        ledger.phases[-1].peak["optimiser"] += temporary_bytes(updated, step.device)


def state_bytes(parameter: Tensor, optimiser: Optimiser) -> int:
    """Return the bytes that an optimiser of `timesformer.training.recipe.Recipe` keeps for a parameter.

    AdamW also keeps a step count of 4 bytes.
    """
    return STATES[optimiser] * parameter.nbytes + 4 * (optimiser == "adamw")


def temporary_bytes(parameters: Sequence[Tensor], device: Device) -> int:
    """Return the temporary bytes of the update.

    On a GPU, torch updates all parameters at once and needs one value for each; elsewhere twice the largest parameter.
    """
    sizes = [parameter.nbytes for parameter in parameters]
    return sum(sizes) if device == "cuda" else 2 * max(sizes)


def deepen(
    phases: list[Phase],
    stacks: list[list[nn.Module]],
    missing: Sequence[int],
    step: Workload,
    gradients_stay: bool = False,
) -> list[Phase]:
    """Return the phases of the model with `missing` more blocks in each stack, inserted before the last but one.

    An inserted block repeats the last but one: it keeps the same bytes from its forward to its backward pass and then
    leaves its gradients; its weights and their optimiser states exist all the time.
    """
    names = [phase.name for phase in phases]
    grown = [(time, Phase(phase.name, phase.start, phase.peak)) for time, phase in enumerate(phases)]
    for number, (blocks, more) in enumerate(zip(stacks, missing, strict=True)):
        if not more:
            continue
        index = len(blocks) - 2
        begin, end = names.index(("forward", number, index)), len(names)
        always = _weights(blocks[index], step)
        gradients = {**nothing(), "gradients": always["params"]}
        if gradients_stay:
            always = plus(always, gradients)
        kept = plus(always, kept_bytes(phases, number, index))
        left = always if gradients_stay else plus(always, gradients)
        added = len(grown)
        if step.train:  # in addition, the backward pass of the inserted block that comes last
            end = names.index(("backward", number, index)) + 1
            grown.append((end - 1, Phase(names[end - 1], {}, plus(grown[end - 1][1].peak, left, more))))
            if step.device == "cuda":
                update = grown[names.index(("optimiser",))][1]
                update.peak = plus(update.peak, {**nothing(), "optimiser": always["params"]}, more)
        for time, phase in grown[:added]:
            phase.peak = plus(phase.peak, always if time < begin else kept if time < end else left, more)
            if phase.name[:2] in (("forward", number), ("backward", number)) and phase.name[2] >= index:
                phase.name = (*phase.name[:2], phase.name[2] + more)
    return [phase for _, phase in grown]


def kept_bytes(phases: Sequence[Phase], stack: int, block: int) -> Split:
    """Bytes that a block, not the last of its stack, keeps from forward to backward pass, without its weights."""
    starts = {phase.name: phase.start for phase in phases}
    return plus(starts["forward", stack, block + 1], starts["forward", stack, block], -1)


def _weights(block: nn.Module, step: Workload) -> Split:
    """Return the bytes of a block's parameters and, in training, of their optimiser states."""
    parameters = list(block.parameters())
    states = sum(state_bytes(parameter, step.optimiser) for parameter in parameters) if step.train else 0
    return {**nothing(), "params": sum(parameter.nbytes for parameter in parameters), "optimiser": states}


def largest_batches(step: Workload, cards_gib: Sequence[float]) -> dict[float, int]:
    """Return the largest batch whose peak fits into each GPU memory (GiB) less `RESERVE_BYTES`; 0 if none does.

    The bytes alive at a moment are linear in the batch, so that the peak of a phase, their maximum, is convex: above
    both batches it lies on or above the line through them. That line gives an upper bound, which is then checked.

    Raises:
        InputError: a GPU memory that is not larger than the reserve.
    """
    for card in cards_gib:
        if not math.isfinite(card) or card * 2**30 <= RESERVE_BYTES:
            raise InputError(f"card_gib: expected more than the {RESERVE_BYTES / 2**30:g} GiB in reserve, got {card}")

    @cache
    def peaks(batch: int) -> list[int]:
        return [phase.peak_bytes for phase in candidates(replace(step, batch=batch))]

    found = {}
    for card in cards_gib:
        budget = card * 2**30 - RESERVE_BYTES
        pairs = zip(peaks(2), peaks(4), strict=True)
        batch = max(0, int(min(2 + 2 * (budget - two) / (four - two) for two, four in pairs if four > two)))
        while batch and max(peaks(batch)) > budget:
            batch -= 1
        found[card] = batch
    return found


def forecast(config: ModelConfig, train: bool, cards_gib: Sequence[float], settings: dict[str, Any]) -> dict[str, Any]:
    """Predict inference and, with `train`, training; return plain data, with the largest batch for each GPU memory.

    `settings`: fields of `Workload`.

    Raises:
        InputError: see `predict` and `largest_batches`.
    """
    found: dict[str, Any] = {
        **settings,
        "backend": getattr(config, "backend", "none"),
        "reserve_bytes": RESERVE_BYTES,
        "largest_batch": {},
    }
    for name in ("inference", "train") if train else ("inference",):
        step = Workload(config, train=name == "train", **settings)
        memory = highest(candidates(step), step.how).to_dict()
        found["how"] = memory.pop("how")
        found[name] = memory
        batches = largest_batches(step, cards_gib)
        found["largest_batch"][name] = {f"{card:g}": batch for card, batch in batches.items()}
    return found
