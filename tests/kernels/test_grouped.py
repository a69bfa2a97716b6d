"""Grouped attention against float64: values and all gradients, of every step, policy, head width and dtype."""

import itertools
import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.kernels.kernel_cases import (
    DEAR,
    DEVICE,
    FRAMES,
    POLICIES,
    STEPS,
    WIDTHS,
    Case,
    covering,
    judge,
    laid_out,
    random_inputs,
    run,
    written_out,
)
from timesformer.attention import attend, build
from timesformer.attention.backends import BackendError
from timesformer.attention.scheme import Step
from timesformer_kernels import AxisTile, Tile, grouped_attention
from timesformer_kernels.grouped import is_short

CASES = covering()


@pytest.fixture
def empty_is_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that the kernels are given holds NaN: what is read or returned must have been written."""
    for name, owner in (("new_empty", torch.Tensor), ("empty_like", torch)):
        allocate = getattr(owner, name)

        def filled(*args: Any, _allocate: Any = allocate, **options: Any) -> Tensor:
            return _allocate(*args, **options).fill_(math.nan)

        monkeypatch.setattr(owner, name, filled)


def kernels(case: Case, qkv: Tensor, cls: Tensor, weights: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    given = None if case.class_policy == "absent" else cls
    return grouped_attention(qkv, given, case.tiles, case.class_policy, weights, case.class_only)


def check(case: Case) -> None:
    qkv, cls, weights = random_inputs(case)
    ours = run(lambda q, c: kernels(case, q, c, weights), qkv, cls, case.gradient)
    plain = run(lambda q, c: written_out(case, q, c, weights), qkv, cls, case.gradient)
    exact = run(lambda q, c: written_out(case, q, c, weights), qkv.double(), cls.double(), case.gradient)
    judge(ours, plain, exact, case.dtype)


@pytest.mark.usefixtures("empty_is_nan")
@pytest.mark.parametrize(
    "case", [pytest.param(c, id=str(c), marks=[pytest.mark.slow] if c.products() > DEAR else []) for c in CASES]
)
def test_values_and_gradients(case: Case) -> None:
    check(case)


def test_the_design_covers_every_pair() -> None:
    for pairs in (
        itertools.product(STEPS, FRAMES),
        itertools.product(STEPS, POLICIES),
        itertools.product(STEPS, WIDTHS),
        itertools.product(POLICIES, WIDTHS),
    ):
        wanted = set(pairs)
        for first, second in itertools.permutations(("step", "frames", "policy", "width"), 2):
            wanted -= {(getattr(case, first), getattr(case, second)) for case in CASES}
        assert not wanted
    uneven = [case for case in CASES if len({tile.group_size for tile in case.tiles}) > 1]
    assert {is_short(case.tiles, 3 * case.class_only) for case in uneven} == {True, False}


BITS = [
    Case("time", 8, "replicated", 32, torch.float32, "contiguous", "random", (3, 5)),
    Case("space", 2, "weighted", 16, torch.float16, "offset", "random", (5, 13), batch=1),
    Case("global", 4, "global", 16, torch.bfloat16, "contiguous", "random", (5, 5), batch=1),
]  # groups of 65 patches and of a clip of 100: more than one block


@lru_cache
def first_run(case: Case) -> list[Tensor]:
    """Outputs and gradients of a case; the tests run it again."""
    qkv, cls, weights = random_inputs(case)
    return run(lambda q, c: kernels(case, q, c, weights), qkv, cls, "random")


@pytest.mark.parametrize("case", BITS, ids=str)
def test_same_bits_on_every_run(case: Case) -> None:
    qkv, cls, weights = random_inputs(case)
    second = run(lambda q, c: kernels(case, q, c, weights), qkv, cls, "random")
    for x, y in zip(first_run(case), second, strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize(
    ("case", "layout"), list(zip(BITS, ("permuted", "every_second", "offset"), strict=True)), ids=str
)
def test_strides_do_not_change_a_bit(case: Case, layout: str) -> None:
    qkv, cls, weights = random_inputs(case)
    found = [x for x in kernels(case, laid_out(qkv, layout), laid_out(cls, layout), weights) if x is not None]
    assert len(found) == 2
    for x, y in zip(found, first_run(case), strict=False):  # gradients follow the outputs
        assert torch.equal(x, y)


@pytest.mark.skipif(DEVICE != "cpu", reason="a sparse file stands in for a large buffer, on a CPU")
@pytest.mark.parametrize("step", ["time", "joint"])
def test_clips_may_lie_more_than_two_to_the_31_elements_apart(step: str, tmp_path: Path) -> None:
    """Offsets of clips are 64 bits wide: the second clip lies 2^32 + 32 elements behind the first, in a sparse file."""
    apart = 2**32 + 32
    shape = (5, 3, 5, 3, 1, 16)
    size = math.prod(shape)
    buffer = torch.from_file(str(tmp_path / "buffer"), shared=True, size=apart + size, dtype=torch.float16)
    strides = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    qkv = buffer.as_strided((2, *shape), (apart, *strides))
    values = torch.randn(2, *shape).half()
    qkv.copy_(values)
    cls = buffer.as_strided((2, 3, 1, 16), (apart, 16, 16, 1))
    for x, y in zip(
        grouped_attention(qkv, cls, STEPS[step].tiles((5, 3, 5)), "replicated"),
        grouped_attention(values, cls.clone(), STEPS[step].tiles((5, 3, 5)), "replicated"),
        strict=True,
    ):
        assert x is not None
        assert y is not None
        assert torch.equal(x, y)


def qkv_of(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(shape, dtype=dtype, device=DEVICE)


ONE = STEPS["time"].tiles((2, 1, 1))
REFUSED: dict[str, tuple[str, tuple[Any, ...]]] = {
    "policy": ("policy: expected", (qkv_of(1, 2, 1, 1, 3, 1, 16), None, ONE, "some")),
    "dimensions": (r"qkv: expected \(b, t", (qkv_of(2, 1, 1, 3, 1, 16), None, ONE)),
    "not packed": (r"qkv: expected \(b, t", (qkv_of(1, 2, 1, 1, 2, 1, 16), None, ONE)),
    "no clips": (r"qkv: expected \(b, t", (qkv_of(0, 2, 1, 1, 3, 1, 16), None, ONE)),
    "dtype": ("qkv: expected float16", (qkv_of(1, 2, 1, 1, 3, 1, 16, dtype=torch.float64), None, ONE)),
    "narrow": ("heads of 16 to 128", (qkv_of(1, 2, 1, 1, 3, 1, 15), None, ONE)),
    "wide": ("heads of 16 to 128", (qkv_of(1, 2, 1, 1, 3, 1, 129), None, ONE)),
    "no class token": ("expected the class token", (qkv_of(1, 2, 1, 1, 3, 1, 16), None, ONE, "global")),
    "class shape": (
        "cls_qkv: expected",
        (qkv_of(1, 2, 1, 1, 3, 1, 16), qkv_of(1, 3, 2, 16), ONE, "replicated"),
    ),
    "class dtype": (
        "cls_qkv: expected",
        (qkv_of(1, 2, 1, 1, 3, 1, 16), qkv_of(1, 3, 1, 16, dtype=torch.float16), ONE, "global"),
    ),
    "tiles": ("tiles: expected to cover the 4 tokens", (qkv_of(1, 4, 1, 1, 3, 1, 16), None, ONE)),
    "blocks": (
        "at most 65535 blocks of 16 tokens in the groups of a clip, got 65536",
        (qkv_of(1, 1, 1, 1, 3, 1, 16).expand(-1, -1, 2**16, -1, -1, -1, -1), None, STEPS["time"].tiles((1, 2**16, 1))),
    ),
    "span": (
        "clips that span fewer",
        (
            torch.empty(1, 2**16, 2**10, 1, 3, 1, 16, device="meta"),
            None,
            (Tile(AxisTile(0, 1, 0, 2**16, 2**16, 1), AxisTile(0, 2**10, 0, 1, 1, 1), AxisTile(0, 1, 0, 1, 1, 1)),),
        ),
    ),
    "span of an expanded clip": (
        "clips that span fewer",
        (
            qkv_of(1, 1, 1, 1, 3, 1, 16).expand(1, 2**16, 2**10, 1, 3, 1, 16),
            None,
            (Tile(AxisTile(0, 1, 0, 2**16, 2**16, 1), AxisTile(0, 2**10, 0, 1, 1, 1), AxisTile(0, 1, 0, 1, 1, 1)),),
        ),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_kernels_do_not_serve_is_refused(name: str) -> None:
    message, arguments = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        grouped_attention(*arguments)


def test_a_step_passes_the_refusal_on() -> None:
    step = build("divided").encoders[0].step("time")
    with pytest.raises(BackendError, match="heads of 16 to 128 channels, got 8"):
        attend(step, qkv_of(1, 2, 1, 1, 3, 1, 8), None, backend="triton")


def test_heads_shared_between_two_steps_and_weights_of_uneven_groups() -> None:
    """Through `attend`, whose `sdpa` path the dense oracle checks."""
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(1, 3, 5, 3, 3, 2, 16, generator=generator).to(DEVICE)
    cls = torch.randn(1, 3, 2, 16, generator=generator).to(DEVICE)
    both = Step("both", (STEPS["time"], STEPS["global"]), cls="replicated")
    weights = torch.rand(1, 2, 2, 2, generator=generator).to(DEVICE)
    one = Step("one", (STEPS["global"],), cls="replicated")
    for step, given in ((both, None), (one, weights)):
        found, expected = (
            run(lambda q, c: attend(step, q, c, backend=backend, group_weights=given), qkv, cls, "random")  # noqa: B023
            for backend in ("triton", "sdpa")
        )
        for x, y in zip(found, expected, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)
