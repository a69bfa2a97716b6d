"""One step on tensors without values, with a ledger of every storage: what is alive, of which kind, and when.

A `Ledger` sees all operators below autograd and follows each storage from the operator that makes it to its release.
Time is cut into phases (each block's forward and backward pass, what lies between them); each phase keeps what was
alive at its start and at its peak. Storages are those of fake tensors: sizes without memory.
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
from torch.utils._python_dispatch import TorchDispatchMode

from timesformer.attention import Grid, Predicate
from timesformer.attention import attend as attention_call
from timesformer.attention.backends import softmax_attention

MemoryPart = Literal["params", "gradients", "optimiser", "activations", "attention"]
PARTS: tuple[MemoryPart, ...] = get_args(MemoryPart)
Split = dict[MemoryPart, int]
"""Bytes of each kind."""


def nothing() -> Split:
    """No bytes of any kind."""
    return dict.fromkeys(PARTS, 0)


def plus(split: Split, more: Split, times: int = 1) -> Split:
    """`split + times * more`, kind by kind."""
    return {kind: split[kind] + times * more[kind] for kind in PARTS}


@dataclass
class Phase:
    """A stretch of the step: what was alive at its start, and at its peak."""

    name: tuple[Any, ...]
    start: Split
    peak: Split

    @property
    def peak_bytes(self) -> int:
        """All kinds together."""
        return sum(self.peak.values())


SOFTMAX_BACKWARD = torch.ops.aten._softmax_backward_data.default


class Ledger(TorchDispatchMode):
    """The bytes alive of each kind, now and at the peak of each phase.

    `gpu`: the backward pass of a softmax takes as much again as its result for a moment, as on a GPU (torch's
    aten/src/ATen/native/cuda/SoftMax.cu multiplies gradient and output first); the operators do not show it.
    """

    def __init__(self, gpu: bool = False) -> None:
        super().__init__()
        self.gpu = gpu
        self.alive = nothing()
        self.phases: list[Phase] = []
        self._kinds: dict[int, MemoryPart] = {}
        self._references: dict[int, weakref.ref[Any]] = {}
        self._depth = 0  # of calls of attention that are under way
        self._nodes: list[range] = []  # sequence numbers of the autograd nodes that attention made
        self.phase("start")

    def phase(self, *name: Any) -> None:
        """A new phase begins."""
        self.phases.append(Phase(name, dict(self.alive), dict(self.alive)))

    def own(self, tensor: Tensor, kind: MemoryPart) -> None:
        """The tensor's storage is of this kind, from now on."""
        key = self._enter(tensor, kind)
        before = self._kinds[key]
        if before != kind:
            size = tensor.untyped_storage().nbytes()
            self.alive[before] -= size
            self.alive[kind] += size
            self._kinds[key] = kind

    @contextmanager
    def attention(self) -> Iterator[None]:
        """What is allocated in here, and in the backward pass of what is computed in here, is attention's."""
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
        """Registers a storage that was not seen before; the address of its data structure is its key."""
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
    """Replaces parameters and buffers of a model on the meta device by fake ones; for use inside a FakeTensorMode."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(torch.empty(parameter.shape, device=device))
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=device)


class KeepingSoftmax(torch.autograd.Function):
    """Softmax over the last dimension that keeps its input for the backward pass, though it does not need it: torch's
    own up to 1.10 (github pytorch/pytorch, issue 64000)."""

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
"""How a softmax that is written out is traced: as it is; with `KeepingSoftmax`; in fp32, whatever the scores are, as a
GPU's autocast does and a CPU's does not."""


def _attention_with(softmax: Softmax) -> Callable[..., Tensor]:
    """Attention written out, with another softmax."""

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
    """Inside, the kernels count as usable: their operators' sizes are known without a GPU, and nothing is run."""
    with (
        mock.patch("timesformer.attention.backends.why_unusable", return_value=None),
        mock.patch("timesformer_kernels.device.why_unusable", return_value=None),
    ):
        yield


@contextmanager
def attention_without_values(
    ledger: Ledger, device: str, predicates: Iterable[tuple[Predicate, Grid]], softmax: Softmax = "own"
) -> Iterator[None]:
    """Inside, `attend` of every model reports to the ledger and asks for no values.

    The masks of the predicates are there all the time, as in a loop that has been running. FlexAttention, which only
    exists compiled, is traced as attention without a mask, which keeps the same: output and log-sum-exp.
    """
    masks: dict[tuple[Predicate, Grid], Tensor] = {}
    for predicate, grid in predicates:
        tokens = grid[0] * grid[1] * grid[2]
        masks[predicate, grid] = torch.empty(tokens, tokens, dtype=torch.bool, device=device)
        ledger.own(masks[predicate, grid], "attention")

    def attend(*args: Any, **kwargs: Any) -> Any:
        with ledger.attention():
            return attention_call(*args, **kwargs)

    def mask(predicate: Predicate, grid: Grid, device: torch.device | str = "cpu") -> Tensor:
        return masks[predicate, grid]

    def flex(q: Tensor, k: Tensor, v: Tensor, predicate: Predicate, grid: Grid) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)

    with ExitStack() as patches:
        patches.enter_context(kernels_anywhere())
        patches.enter_context(mock.patch("timesformer.models.blocks.attend", attend))
        patches.enter_context(mock.patch("timesformer.attention.attend.flex_attention", flex))
        patches.enter_context(mock.patch.object(Predicate, "mask", mask))
        if softmax != "own":
            other = _attention_with(softmax)
            patches.enter_context(mock.patch("timesformer.attention.attend.softmax_attention", other))
        yield


class BlockPhases:
    """Marks the phases of a model that makes one step; `stacks` are its blocks, in the order in which they run.

    `("forward", stack, block)`, `("after", stack)`, and, by the gradients that arrive, `("backward", stack, block)`;
    `("before", stack)` is what follows the backward pass of a stack's first block.
    """

    def __init__(self, ledger: Ledger, stacks: list[list[nn.Module]]) -> None:
        self.ledger = ledger
        self.position = (len(stacks), 0)  # of the earliest block whose backward pass has begun
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
            last = block == blocks - 1  # of the last block's patches the head may read nothing: no gradient arrives
            self._at_gradient(outputs if last else outputs[:1], (stack, block))
            if last:
                self.ledger.phase("after", stack)

        return hook

    def _at_gradient(self, tensors: Any, position: tuple[int, int]) -> None:
        """A phase begins with the first gradient of these tensors."""

        def hook(gradient: Tensor) -> None:
            if position < self.position:
                self.position, self.backward_begun = position, True
                self.ledger.phase(*(("before", position[0]) if position[1] < 0 else ("backward", *position)))

        for tensor in tensors:
            if isinstance(tensor, Tensor) and tensor.requires_grad:
                tensor.register_hook(hook)
