"""What a launch is given: sound tiles, the tensors' own GPU; and that it is prepared only once."""

import ast
import inspect
import itertools
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from triton.runtime import interpreter

from tests.kernels.kernel_cases import DEVICE, STEPS
from timesformer_kernels import AxisTile, Tile, add_norm, grouped_attention, launch, lone, long, norm_kernels, short
from timesformer_kernels.address import PLACES
from timesformer_kernels.device import tf32_allowed
from timesformer_kernels.grouped import _backward_op as attention_backward
from timesformer_kernels.grouped import _op as attention_operator
from timesformer_kernels.layout import MOST, layout_numbers

ONE = AxisTile(0, 1, 0, 1, 1, 1)


def tile(first: int, count: int, start: int, jump: int, size: int, stride: int) -> Tile:
    """Groups along time, of one patch."""
    return Tile(AxisTile(first, count, start, jump, size, stride), ONE, ONE)


@pytest.mark.parametrize(
    ("tiles", "message"),
    [
        ([tile(0, 1, 8, 8, 8, 1)], r"tiles\[0\].t: expected indices of 0 to 7, got 15"),  # would read foreign memory
        ([tile(0, 1, -1, 8, 8, 1)], r"tiles\[0\].t: expected indices of 0 to 7, got -1"),
        ([tile(0, 2, 0, 0, 4, 1)], r"tiles\[0\].t: expected every index once, got 0 twice"),  # 4 to 7 stay unwritten
        ([tile(0, 1, 0, 8, 8, 0)], r"tiles\[0\].t: expected every index once, got 0 twice"),
        ([tile(0, 1, 0, 1, 0, 1)], r"tiles\[0\].t: expected at least one part and one element"),
        ([tile(0, 1, 0, 4, 4, 1), tile(1, 1, 3, 4, 4, 1)], r"got \(3, 0, 0\) in tiles 0 and 1"),
        ([tile(0, 1, 0, 4, 4, 1)], "expected to cover the 8 tokens of the grid once, got 4"),
    ],
)
def test_tiles_that_do_not_cover_the_grid_once_are_refused(tiles: list[Tile], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        grouped_attention(torch.zeros(1, 8, 1, 1, 3, 1, 16, device=DEVICE), None, tiles)


def test_the_operator_itself_checks_its_layout() -> None:
    """A compiled model calls it without `grouped_attention`."""
    layout = layout_numbers((tile(0, 1, 8, 8, 8, 1),))
    with pytest.raises(ValueError, match="expected indices of 0 to 7, got 15"):
        torch.ops.timesformer.grouped_attention(torch.zeros(1, 8, 1, 1, 3, 1, 16, device=DEVICE), None, layout, 0)


class Recorder:
    """Stands in for a kernel; keeps each launch's grid, and the device that was the current one."""

    def __init__(self) -> None:
        self.current: torch.device | None = None
        self.launches: list[tuple[tuple[int, ...], torch.device | None]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return lambda *arguments, **options: self.launches.append((grid, self.current))


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    found = Recorder()

    class Guard:
        def __init__(self, device: torch.device) -> None:
            self.device = device

        def __enter__(self) -> None:
            found.current = self.device

        def __exit__(self, *_: Any) -> None:
            found.current = None

    monkeypatch.setattr(torch.cuda, "device", Guard)
    monkeypatch.setattr(launch, "KERNELS", dict.fromkeys(launch.KERNELS, found))
    for name in ("add_norm_forward", "add_norm_backward"):
        monkeypatch.setattr(norm_kernels, name, found)
    return found


def test_launches_run_on_the_tensors_own_gpu(recorder: Recorder) -> None:
    norms: Any = inspect.getmodule(add_norm)  # the module has the name of its function
    grid, where = (8, 2, 3), torch.device("cuda:1")
    with FakeTensorMode():
        qkv = torch.empty(2, *grid, 3, 2, 64, device=where)
        for step in ("time", "joint"):
            layout = list(layout_numbers(STEPS[step].tiles(grid)))
            saved = attention_operator._init_fn(qkv, None, layout, 0)
            attention_backward._init_fn(saved[0], saved[1], qkv, None, *saved, layout, 0)
        x, weight = torch.empty(4, 64, device=where), torch.empty(64, device=where)
        total, normed, mean, scale = norms._op._init_fn(x, x, weight, weight, 1e-6, torch.float32)
        norms._backward_op._init_fn(total, normed, total, weight, mean, scale)
    assert [device for _, device in recorder.launches] == [where] * (2 + 2 + 2)


def test_a_call_with_the_same_sizes_prepares_nothing(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    qkv = torch.zeros(2, 2, 3, 5, 3, 2, 16, device=DEVICE)
    tiles = STEPS["time"].tiles((2, 3, 5))
    grouped_attention(qkv, None, tiles)
    made: list[Any] = []
    monkeypatch.setattr(launch, "blocks_for", lambda *given: made.append(given))
    monkeypatch.setattr(launch, "_merged", lambda *given: made.append(given))
    grouped_attention(torch.ones_like(qkv), None, tiles)
    assert len(recorder.launches) == 2
    assert not made


def test_clips_beyond_the_third_axis_of_a_grid_take_another_launch(recorder: Recorder) -> None:
    """CUDA has 65,535 programs there."""
    qkv = torch.zeros(1, 2, 1, 1, 3, 2, 16, device=DEVICE).expand(MOST + 2, -1, -1, -1, -1, -1, -1)
    grouped_attention(qkv, None, STEPS["time"].tiles((2, 1, 1)))
    assert [grid for grid, _ in recorder.launches] == [(2, 1, MOST), (2, 1, 2)]


def test_a_second_launch_continues_with_the_next_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    qkv, cls = torch.randn(3, 2, 2, 1, 3, 1, 16, device=DEVICE), torch.randn(3, 3, 1, 16, device=DEVICE)

    def found() -> list[Tensor]:
        leaves = qkv.clone().requires_grad_(), cls.clone().requires_grad_()
        both = grouped_attention(leaves[0], leaves[1], STEPS["time"].tiles((2, 2, 1)), "replicated")
        outputs = [x for x in both if x is not None]
        return [*outputs, *torch.autograd.grad([x.square().sum() for x in outputs], leaves)]

    expected = found()
    monkeypatch.setattr(launch, "MOST", 2)
    for x, y in zip(found(), expected, strict=True):
        assert torch.equal(x, y)


@pytest.mark.skipif(not launch.INTERPRETED, reason="addresses are seen in the interpreter")
@pytest.mark.parametrize("step", ["time", "joint"])
def test_programs_that_run_together_read_neighbouring_bytes(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU starts programs with the first axis of the grid fastest: the heads, which lie side by side."""
    builder, seen = interpreter.interpreter_builder, {}
    load = builder.create_masked_load

    def traced(ptrs: Any, mask: Any, *more: Any) -> Any:
        if builder.grid_idx not in seen:  # the first load of a program: its queries
            seen[builder.grid_idx] = set(ptrs.data[np.broadcast_to(mask.data, ptrs.data.shape)].tolist())
        return load(ptrs, mask, *more)

    monkeypatch.setattr(builder, "create_masked_load", traced, raising=False)
    heads, width = 3, 16
    qkv = torch.zeros(2, 5, 4, 5, 3, heads, width, device=DEVICE)
    grouped_attention(qkv, None, STEPS[step].tiles((5, 4, 5)))
    order = sorted(seen, key=lambda index: index[::-1])
    assert len(order) > 2 * heads
    for first in range(0, len(order), heads):
        rows = [seen[index] for index in order[first : first + heads]]
        for one, other in itertools.pairwise(rows):
            assert {address + width * qkv.element_size() for address in one} == other


@pytest.mark.skipif(not launch.INTERPRETED, reason="is about the interpreter; a GPU is here")
@pytest.mark.parametrize("policy", ["absent", "replicated", "global"])
def test_loops_of_the_interpreter_do_not_count_by_tensors(policy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of Triton 3.6 raises TypeError with numpy 2.4, where that of 3.7 takes a tensor of one number."""
    patched = interpreter._patch_lang_tensor

    def as_in_3_6(tensor: Any, scope: Any) -> None:
        def refuse(self: Any) -> int:
            raise TypeError("only 0-dimensional arrays can be converted to Python scalars")

        patched(tensor, scope)
        scope.set_attr(tensor, "__index__", refuse)

    monkeypatch.setattr(interpreter, "_patch_lang_tensor", as_in_3_6)
    qkv = torch.randn(1, 2, 8, 9, 3, 1, 16, device=DEVICE, requires_grad=True)  # 144 tokens: several blocks
    cls = None if policy == "absent" else torch.randn(1, 3, 1, 16, device=DEVICE, requires_grad=True)
    found = grouped_attention(qkv, cls, STEPS["joint"].tiles((2, 8, 9)), policy)
    sum(x.sum() for x in found if x is not None).backward()
    assert qkv.grad is not None


def test_counts_and_places_are_not_specialised() -> None:
    """Otherwise Triton would compile anew for a count of 1 or one divisible by 16."""
    for module in (long, lone, short):
        for function in ast.parse(inspect.getsource(module)).body:
            if isinstance(function, ast.FunctionDef) and not function.name.startswith("_"):
                (decorator,) = map(ast.unparse, function.decorator_list)
                assert decorator == "triton.jit(do_not_specialize=UNSPECIALISED)", function.name
                counts = {"heads", "groups", "first_group", "all_groups"}
                if function.name != "lone_combine":
                    counts |= {"tokens", *PLACES}
                assert {a.arg for a in function.args.args} >= counts


@pytest.fixture
def precision() -> Iterator[Any]:
    """PyTorch's setting for fp32 products, restored afterwards."""
    before = torch.backends.cuda.matmul.fp32_precision
    yield torch.backends.cuda.matmul
    torch.backends.cuda.matmul.fp32_precision = before


def test_tf32_is_asked_of_the_newer_setting(precision: Any) -> None:
    """After it was set, `allow_tf32` raises RuntimeError."""
    qkv = torch.zeros(1, 2, 1, 1, 3, 1, 16, device=DEVICE)
    for setting in ("tf32", "ieee"):
        precision.fp32_precision = setting
        assert tf32_allowed() == (setting == "tf32")
        buffers = launch.Buffers.of(qkv, None)
        (problem,) = launch.problems(buffers, layout_numbers(STEPS["time"].tiles((2, 1, 1))), 0)
        assert problem.call("short_forward").constants["PRECISION"] == setting
        grouped_attention(qkv, None, STEPS["time"].tiles((2, 1, 1)))
    assert not launch.Buffers.of(qkv.bfloat16(), None).tf32


def test_tf32_of_older_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    for allowed in (True, False):
        monkeypatch.setattr(torch.backends.cuda, "matmul", SimpleNamespace(allow_tf32=allowed))
        assert tf32_allowed() == allowed


def test_add_norm_with_strided_weights() -> None:
    torch.manual_seed(0)
    x, more = torch.randn(5, 24, device=DEVICE), torch.randn(5, 24, device=DEVICE)
    both = torch.randn(24, 2, device=DEVICE)

    def outputs(weight: Tensor, bias: Tensor) -> list[Tensor]:
        leaf = x.clone().requires_grad_()
        found = add_norm(leaf, more, weight, bias, 1e-6)
        return [*found, *torch.autograd.grad(found[1].square().sum(), leaf)]

    strided, plain = outputs(both[:, 0], both[:, 1]), outputs(both[:, 0].clone(), both[:, 1].clone())
    for found, expected in zip(strided, plain, strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("which", range(4), ids=["x", "more", "weight", "bias"])
def test_add_norm_refuses_float64(which: int) -> None:
    given = [torch.zeros(2, 8), torch.zeros(2, 8), torch.zeros(8), torch.zeros(8)]
    given[which] = given[which].double()
    with pytest.raises(ValueError, match="expected float16, bfloat16 or float32"):
        add_norm(*(x.to(DEVICE) for x in given), 1e-6)  # type: ignore[call-arg]
