"""Long groups whose length is a whole number of blocks, one more, one less, or 1: the loop and what it leaves."""

from dataclasses import dataclass

import pytest
import torch

from tests.kernels.kernel_cases import STEPS, Case, random_inputs, run
from tests.kernels.test_grouped import check, kernels
from timesformer.attention import oracle
from timesformer.attention.scheme import Step
from timesformer_kernels import AxisTile, Tile
from timesformer_kernels.launch import LARGE

ONE = AxisTile(0, 1, 0, 1, 1, 1)
LENGTHS = (127, 128, 129)
"""Patches around a whole number of every kernel's blocks, of 16, 32 and 64 rows."""
POLICIES = ("absent", "weighted", "class_only", "global")


def line(patches: int, policy: str, dtype: torch.dtype, width: int = 16) -> Case:
    """One clip of one group, a row of patches."""
    return Case("joint", 1, policy, width, dtype, "contiguous", "random", (1, patches), batch=1)


CASES = [
    *(line(patches, policy, torch.float32) for patches in LENGTHS for policy in POLICIES),
    *(
        line(patches, policy, dtype)
        for number, policy in enumerate(POLICIES)
        for dtype, patches in ((torch.bfloat16, LENGTHS[number % 3]), (torch.float16, LENGTHS[(number + 1) % 3]))
    ),
    line(129, "global", torch.bfloat16, 20),  # a width that is no power of two
]
SLOW = [line(patches, "global", torch.bfloat16) for patches in (LARGE - 1, LARGE, LARGE + 1, LARGE + 127)]


@pytest.mark.parametrize("case", [*CASES, *(pytest.param(case, marks=pytest.mark.slow) for case in SLOW)], ids=str)
def test_values_and_gradients(case: Case) -> None:
    check(case)


@dataclass(frozen=True)
class Uneven(Case):
    """A long group beside a group of one patch."""

    @property
    def tiles(self) -> tuple[Tile, ...]:
        long = self.size[1] - 1
        return (
            Tile(ONE, ONE, AxisTile(0, 1, 0, long, long, 1)),
            Tile(ONE, ONE, AxisTile(1, 1, long, 1, 1, 1)),
        )


@pytest.mark.parametrize("policy", ["absent", "weighted"])
def test_a_group_of_one_patch_beside_a_long_one(policy: str) -> None:
    check(Uneven("joint", 1, policy, 16, torch.float32, "contiguous", "random", (1, 66), batch=1))


@pytest.mark.parametrize("policy", ["absent", "global"])
def test_the_dense_oracle_agrees(policy: str) -> None:
    case = line(129, policy, torch.float32)
    step = Step("joint", (STEPS["joint"],), cls=policy)  # type: ignore[arg-type]
    qkv, cls, _ = random_inputs(case)

    def dense(q: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        return oracle(step, q, None if policy == "absent" else c)

    ours = run(lambda q, c: kernels(case, q, c, None), qkv, cls, "random")
    exact = run(dense, qkv.double(), cls.double(), "random")
    for found, expected in zip(ours, exact, strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)
