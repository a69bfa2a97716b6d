"""A step as a sparse operator against the dense matrix written out from its declaration, in float64."""

from importlib import import_module
from itertools import product
from typing import get_args

import pytest
import torch

from tests.attention.custom import random_inputs
from tests.attention.test_oracle import STEPS, cases, modules_of
from tests.maps.dense import matrix, reduced
from timesformer import InputError
from timesformer.attention import Mixer, Step, StepOperator, attend, build, operator
from timesformer.attention.operator import Fusion, Query
from timesformer.attention.scheme import ClassPolicy
from timesformer.config.counting import step_pairs

MODULE = import_module("timesformer.attention.operator")  # the package's `operator` is the function
GRIDS = ((3, 2, 5), (2, 3, 1))
FUSIONS: tuple[Fusion, ...] = get_args(Fusion)


def make(step: Step, grid: tuple[int, int, int], has_class: bool = True) -> tuple[StepOperator, torch.Tensor]:
    """The operator and the dense matrix of a step."""
    qkv, cls = (x.detach() for x in random_inputs(grid))
    modules, given = modules_of(step, 4), None if step.cls == "absent" else cls
    with torch.no_grad():
        dense = matrix(step, qkv, given, has_class, modules)
    return operator(step, qkv, given, has_class=has_class, modules=modules), dense


def every_query(grid: tuple[int, int, int]) -> list[Query]:
    return [(t, h, w) for t, h, w in product(*(range(n) for n in grid))]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize(("name", "policy"), cases())
@torch.no_grad()
def test_equals_the_dense_matrix(
    name: str, policy: ClassPolicy, grid: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, dense = make(Step("step", STEPS[name].over, cls=policy), grid)
    assert ours.size == grid[0] * grid[1] * grid[2] + 1
    torch.testing.assert_close(dense.sum(-1), torch.ones_like(dense[..., 0]), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.rows([*every_query(grid), "class"]), dense, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(ours.mean_row(), dense[:, :, :-1].mean(2), rtol=1e-10, atol=1e-12)
    x = torch.randn(2, ours.size, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    for entries in (MODULE.ENTRIES, 50):  # whole groups, and pieces of a few rows
        monkeypatch.setattr(MODULE, "ENTRIES", entries)
        for fusion, discard in product(FUSIONS, (0.0, 0.6) if grid[2] == 1 else (0.0,)):
            one = reduced(dense, fusion, discard)
            torch.testing.assert_close(ours.matmul(x, fusion, discard), one @ x, rtol=1e-10, atol=1e-11)
            y = x.transpose(1, 2).contiguous()
            torch.testing.assert_close(ours.rmatmul(y, fusion, discard), y @ one, rtol=1e-10, atol=1e-11)


SOFTMAX = sorted(name for name, step in STEPS.items() if not any(isinstance(over, Mixer) for over in step.over))


@pytest.mark.parametrize("name", SOFTMAX)
@torch.no_grad()
def test_times_v_is_what_the_step_computes(name: str) -> None:
    step, grid = STEPS[name], (3, 4, 5)
    qkv, cls = (x.detach() for x in random_inputs(grid))
    ours = operator(step, qkv, None if step.cls == "absent" else cls, has_class=step.cls != "absent")
    patches, token = attend(step, qkv, cls)
    assert patches is not None
    mixed = ours.numbered_rows(torch.arange(ours.size)) @ ours.v
    torch.testing.assert_close(mixed[:, :, :60].transpose(1, 2), patches.flatten(1, 3), rtol=1e-10, atol=1e-12)
    if token is not None:
        torch.testing.assert_close(mixed[:, :, 60], token, rtol=1e-10, atol=1e-12)


@torch.no_grad()
def test_without_class_token() -> None:
    step = Step("time", build("divided").encoders[0].step("time").over, cls="absent")
    ours, dense = make(step, (3, 2, 4), has_class=False)
    assert ours.size == 24
    torch.testing.assert_close(ours.rows(every_query((3, 2, 4))), dense)
    with pytest.raises(InputError, match="has no class token"):
        ours.rows(["class"])


@torch.no_grad()
def test_half_precision_is_read_as_float32() -> None:
    step = build("joint").encoders[0].steps[0]
    qkv, cls = (x.detach().bfloat16() for x in random_inputs((2, 2, 3)))
    rows = operator(step, qkv, cls).rows(["class", (1, 1, 2)])
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows, operator(step, qkv.float(), cls.float()).rows(["class", (1, 1, 2)]))


@torch.no_grad()
def test_a_query_outside_the_grid() -> None:
    ours, _ = make(build("joint").encoders[0].steps[0], (2, 3, 4))
    for query in ((2, 0, 0), (0, -1, 0), (0, 0, 4)):
        with pytest.raises(InputError, match="expected a patch inside the grid"):
            ours.rows([query])


@pytest.mark.parametrize("name", ["time", "space", "joint", "local", "global"])
@torch.no_grad()
def test_pieces_are_bounded_and_hold_the_declared_pairs_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    step, grid = STEPS[name], (3, 4, 6)
    qkv, cls = (x.detach() for x in random_inputs(grid))
    ours = operator(step, qkv, None if step.cls == "absent" else cls, has_class=True)
    monkeypatch.setattr(MODULE, "ENTRIES", 600)
    pieces = [piece for piece in ours.pieces() if int(piece.rows[0, 0]) < ours.patches]
    assert max(piece.weights.numel() for piece in pieces) <= 600
    (pairs,) = step_pairs(step, grid)
    assert pairs is not None
    assert sum(piece.weights[0, 0].numel() for piece in pieces) == pairs.patches
    assert pairs.patches < 72 * 73 or name == "joint"
