"""Plain calls of the kernels pass by PyTorch's dispatch of operators; whoever listens to operators still hears them."""

import sys
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from tests.kernels.kernel_cases import DEVICE, STEPS
from timesformer_kernels import add_norm, grouped_attention
from timesformer_kernels.functions import overheard

GRID = (2, 2, 1)
ATTENTION, NORM = "timesformer::grouped_attention", "timesformer::add_norm"


def inputs(device: str = DEVICE, requires_grad: bool = False) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    qkv = torch.randn(1, *GRID, 3, 1, 16, device=device)
    cls = torch.randn(1, 3, 1, 16, device=device)
    return qkv.requires_grad_(requires_grad), cls.requires_grad_(requires_grad)


def attention(qkv: Tensor, cls: Tensor) -> tuple[Tensor, Tensor]:
    out, token = grouped_attention(qkv, cls, STEPS["time"].tiles(GRID), "replicated")
    assert out is not None
    assert token is not None
    return out, token


def norm(qkv: Tensor, cls: Tensor) -> tuple[Tensor, ...]:
    weight = cls[0, 0, 0]
    return add_norm(qkv, qkv, weight, weight, 1e-6)


CALLS: list[tuple[Callable[..., Any], str]] = [(attention, ATTENTION), (norm, NORM)]


class Listener(TorchDispatchMode):
    """Keeps the names of the operators that it hears."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.heard.append(func.name())
        return func(*args, **(kwargs or {}))


def values_and_gradients(call: Callable[..., Any]) -> list[Tensor]:
    given = inputs(requires_grad=True)
    outputs = call(*given)
    return [*outputs, *torch.autograd.grad([x.square().sum() for x in outputs], given)]


@pytest.mark.parametrize(("call", "name"), CALLS, ids=["attention", "norm"])
def test_a_mode_hears_the_operators_and_gets_the_same_bits(call: Callable[..., Any], name: str) -> None:
    plain = values_and_gradients(call)
    with Listener() as listener:
        found = values_and_gradients(call)
    assert {name, f"{name}_backward"} <= set(listener.heard)
    for x, y in zip(found, plain, strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("call", [call for call, _ in CALLS], ids=["attention", "norm"])
def test_a_plain_call_takes_no_detour(call: Callable[..., Any], requires_grad: bool) -> None:
    """`torch._library` is where PyTorch dispatches operators that are written in Python."""
    given = inputs(requires_grad=requires_grad)
    call(*given)
    entered = set()

    def seen(frame: FrameType, event: str, _: Any) -> None:
        entered.add(frame.f_code.co_filename.replace("\\", "/"))

    before = sys.getprofile()
    sys.setprofile(seen)
    try:
        outputs = call(*given)
    finally:
        sys.setprofile(before)
    assert any(file.endswith("timesformer_kernels/functions.py") for file in entered)
    assert not [file for file in entered if "torch/_library/" in file]
    assert all(x.requires_grad == requires_grad for x in outputs)


def test_a_profiler_names_the_operators() -> None:
    given = inputs()
    with profile(activities=[ProfilerActivity.CPU]) as found:
        attention(*given)
        norm(*given)
    assert {ATTENTION, NORM} <= {event.key for event in found.key_averages()}


def test_a_trace_holds_the_operator() -> None:
    qkv, cls = inputs("meta")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sizes become constants of the trace, which is deprecated itself
        traced = torch.jit.trace(attention, (qkv, cls), check_trace=False)
    assert ATTENTION in str(traced.graph)


def test_who_is_said_to_listen() -> None:
    class Special(Tensor):
        pass

    x = torch.zeros(1)
    assert not overheard([x, torch.nn.Parameter(x)])
    assert overheard([x, x.to("meta")])  # nothing can run there
    assert overheard([x.as_subclass(Special)])
    with Listener():
        assert overheard([x])
