"""Trace of one step on tensors without values: which storages are alive, of which kind, and when.

A `Ledger` sees all operators below autograd and follows each storage from the operator that makes it to its release.
Time is divided into phases (each block's forward and backward pass, and the time between them); each phase records the
bytes alive at its start and at its peak. The storages are those of fake tensors, which have sizes but no memory.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from timesformer.attention import Grid, Predicate
from timesformer.attention import attend as attention_call
from timesformer.attention.backends import softmax_attention
from timesformer.attention.gather import spans
from timesformer.attention.plan import Batch, Plan

MemoryPart = Literal["params", "gradients", "optimiser", "activations", "attention"]
PARTS: tuple[MemoryPart, ...] = get_args(MemoryPart)
Split = dict[MemoryPart, int]
"""Bytes of each kind."""


def nothing() -> Split:
    """Return a split with no bytes of any kind."""
    return dict.fromkeys(PARTS, 0)


def plus(split: Split, more: Split, times: int = 1) -> Split:
    """Return `split + times * more`, kind by kind."""
    return {kind: split[kind] + times * more[kind] for kind in PARTS}


@dataclass
class Phase:
    """A part of the step, with the bytes alive at its start and at its peak."""

    name: tuple[Any, ...]
    start: Split
    peak: Split

    @property
    def peak_bytes(self) -> int:
        """Peak of all kinds together."""
        return sum(self.peak.values())


SOFTMAX_BACKWARD = torch.ops.aten._softmax_backward_data.default


class Ledger(TorchDispatchMode):
    """Bytes alive of each kind, now and at the peak of each phase.

    `gpu`: the backward pass of a softmax needs a temporary of the size of its result, as on a GPU (torch's
    aten/src/ATen/native/cuda/SoftMax.cu multiplies gradient and output first), which the operators do not show.
    """

    def __init__(self, gpu: bool = False) -> None:
        super().__init__()
        self.gpu = gpu
        self.alive = nothing()
        self.phases: list[Phase] = []
        self._kinds: dict[int, MemoryPart] = {}
        self._references: dict[int, weakref.ref[Any]] = {}
        self._depth = 0  # depth of nested calls of attention
        self._nodes: list[range] = []  # sequence numbers of the autograd nodes that attention made
        self.phase("start")

    def phase(self, *name: Any) -> None:
        """Begin a new phase."""
        self.phases.append(Phase(name, dict(self.alive), dict(self.alive)))

    def own(self, tensor: Tensor, kind: MemoryPart) -> None:
        """Assign the tensor's storage to a kind, from now on."""
        key = self._enter(tensor, kind)
        before = self._kinds[key]
        if before != kind:
            size = tensor.untyped_storage().nbytes()
            self.alive[before] -= size
            self.alive[kind] += size
            self._kinds[key] = kind

    @contextmanager
    def attention(self) -> Iterator[None]:
        """Count allocations inside, and in the backward pass of operations inside, as attention."""
        first = torch._C._autograd._get_sequence_nr()
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            self._nodes.append(range(first, torch._C._autograd._get_sequence_nr()))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor):
                self._enter(tensor, None)
        if self.gpu and func is SOFTMAX_BACKWARD:
            size = out.untyped_storage().nbytes()
            self._allocate(self._kind_now(), size)
            self.alive[self._kind_now()] -= size
        return out

    def _kind_now(self) -> MemoryPart:
        if self._depth:
            return "attention"
        node = torch._C._current_autograd_node()
        if node is None:
            return "activations"
        number = node._sequence_nr()
        return "attention" if any(number in numbers for numbers in self._nodes) else "activations"

    def _enter(self, tensor: Tensor, kind: MemoryPart | None) -> int:
        """Register a new storage; its key is the address of its data structure."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._kinds:
            return key
        size = storage.nbytes()
        self._kinds[key] = kind or self._kind_now()
        self._references[key] = weakref.ref(storage, self._release(key, size))
        self._allocate(self._kinds[key], size)
        return key

    def _allocate(self, kind: MemoryPart, size: int) -> None:
        self.alive[kind] += size
        current = self.phases[-1]
        if sum(self.alive.values()) > current.peak_bytes:
            current.peak = dict(self.alive)

    def _release(self, key: int, size: int) -> Callable[[Any], None]:
        def release(reference: Any) -> None:
            self.alive[self._kinds.pop(key)] -= size
            del self._references[key]

        return release


def without_values(model: nn.Module, device: str) -> None:
    """Replace parameters and buffers of a model on the meta device by fake ones, inside a FakeTensorMode."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(torch.empty(parameter.shape, device=device))
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=device)


class KeepingSoftmax(torch.autograd.Function):
    """Softmax over the last dimension that keeps its input for the backward pass without need.

    torch did so up to 1.10 (GitHub pytorch/pytorch, issue 64000).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        out = x.softmax(-1)
        ctx.save_for_backward(x, out)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        x, out = ctx.saved_tensors
        gradient: Tensor = SOFTMAX_BACKWARD(gradients[0], out, -1, x.dtype)
        return gradient


Softmax = Literal["own", "keeps_input", "fp32"]
"""Way in which the softmax of attention that is not fused is traced.

own: as it is; keeps_input: with `KeepingSoftmax`; fp32: in fp32 for scores of any type, as autocast does on a GPU but
not on a CPU.
"""


def _attention_with(softmax: Softmax) -> Callable[..., Tensor]:
    """Return attention that is not fused, with another softmax."""

    def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, backend: str) -> Tensor:
        if backend != "reference":
            return softmax_attention(q, k, v, mask, backend)
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        probabilities: Tensor = (
            KeepingSoftmax.apply(scores) if softmax == "keeps_input" else scores.softmax(-1, dtype=torch.float32)
        )
        return probabilities @ v

    return attention


@contextmanager
def kernels_anywhere() -> Iterator[None]:
    """Treat the kernels as usable inside: their operators' sizes are known without a GPU, and nothing is run."""
    with (
        mock.patch("timesformer.attention.backends.why_unusable", return_value=None),
        mock.patch("timesformer_kernels.device.why_unusable", return_value=None),
    ):
        yield


def _planned(predicate: Predicate, grid: Grid) -> Plan:
    """Return a predicate's plan, made of real tensors that no ledger sees."""
    with _disable_current_modes():
        return predicate.plan(grid)


def _without_values(batch: Batch, device: str) -> Batch:
    """Return a batch of the same shapes that is fake inside a FakeTensorMode."""
    made = (
        None if tensor is None else torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
        for tensor in (batch.rows, batch.keys, batch.mask)
    )
    rows, keys, mask = made
    assert rows is not None
    assert keys is not None
    return Batch(rows, keys, mask)


@contextmanager
def attention_without_values(
    ledger: Ledger,
    device: str,
    predicates: Iterable[tuple[Predicate, Grid]],
    softmax: Softmax = "own",
    dense: bool = False,
) -> Iterator[None]:
    """Make `attend` of every model report to the ledger inside, without values.

    The plans of the predicates, or with `dense` their masks, exist all the time, as after the first step of a loop.
    FlexAttention, which exists only compiled, is traced as attention without a mask, which keeps the same tensors:
    output and log-sum-exp.
    """
    masks: dict[tuple[Predicate, Grid], Tensor] = {}
    plans: dict[tuple[Predicate, Grid], Plan] = {}
    for predicate, grid in dict.fromkeys(predicates):
        tokens = grid[0] * grid[1] * grid[2]
        if dense:
            masks[predicate, grid] = torch.empty(tokens, tokens, dtype=torch.bool, device=device)
            ledger.own(masks[predicate, grid], "attention")
        else:
            plans[predicate, grid] = tuple(_without_values(batch, device) for batch in _planned(predicate, grid))
            for batch in plans[predicate, grid]:
                for tensor in (batch.rows, batch.keys, batch.mask):
                    if tensor is not None:
                        ledger.own(tensor, "attention")

    def attend(*args: Any, **kwargs: Any) -> Any:
        with ledger.attention():
            return attention_call(*args, **kwargs)

    def mask(predicate: Predicate, grid: Grid, device: torch.device | str = "cpu") -> Tensor:
        return masks[predicate, grid]

    def plan(predicate: Predicate, grid: Grid, device: torch.device | str = "cpu") -> Plan:
        return plans[predicate, grid]

    def first_and_last(groups: int, together: int) -> list[slice]:
        """Return two of the parts that follow one another: all but the last are of one size, and none stays."""
        parts = spans(groups, together)
        return parts if len(parts) < 3 else [parts[0], parts[-1]]

    def flex(q: Tensor, k: Tensor, v: Tensor, predicate: Predicate, grid: Grid) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)

    with ExitStack() as patches:
        patches.enter_context(kernels_anywhere())
        patches.enter_context(mock.patch("timesformer.models.blocks.attend", attend))
        patches.enter_context(mock.patch("timesformer.attention.attend.flex_attention", flex))
        patches.enter_context(mock.patch.object(Predicate, "mask", mask))
        patches.enter_context(mock.patch.object(Predicate, "plan", plan))
        patches.enter_context(mock.patch("timesformer.attention.gather.spans", first_and_last))
        if softmax != "own":
            other = _attention_with(softmax)
            patches.enter_context(mock.patch("timesformer.attention.attend.softmax_attention", other))
        yield


class BlockPhases:
    """Hooks that mark the phases of a step; `stacks`: blocks of the model in the order in which they run.

    Phases are `("forward", stack, block)`, `("after", stack)` and, as gradients arrive, `("backward", stack, block)`;
    `("before", stack)` follows the backward pass of a stack's first block.
    """

    def __init__(self, ledger: Ledger, stacks: list[list[nn.Module]]) -> None:
        self.ledger = ledger
        self.position = (len(stacks), 0)  # position of the earliest block whose backward pass has begun
        self.backward_begun = False
        for number, blocks in enumerate(stacks):
            for index, block in enumerate(blocks):
                block.register_forward_pre_hook(self._before(number, index))
                block.register_forward_hook(self._after(number, index, len(blocks)))

    def _before(self, stack: int, block: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            if self.backward_begun:  # recomputed
                return
            self.ledger.phase("forward", stack, block)
            if block == 0:
                self._at_gradient(args[:1], (stack, -1))

        return hook

    def _after(self, stack: int, block: int, blocks: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if self.backward_begun:
                return
            outputs = output if isinstance(output, tuple) else (output,)
            last = block == blocks - 1  # the head may not read the last block's patches: they get no gradient
            self._at_gradient(outputs if last else outputs[:1], (stack, block))
            if last:
                self.ledger.phase("after", stack)

        return hook

    def _at_gradient(self, tensors: Any, position: tuple[int, int]) -> None:
        """Begin a phase at the first gradient of these tensors."""

        def hook(gradient: Tensor) -> None:
            if position < self.position:
                self.position, self.backward_begun = position, True
                self.ledger.phase(*(("before", position[0]) if position[1] < 0 else ("backward", *position)))

        for tensor in tensors:
            if isinstance(tensor, Tensor) and tensor.requires_grad:
                tensor.register_hook(hook)
