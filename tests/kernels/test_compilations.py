"""How many kernels are compiled for many sizes: equal specialisations share one."""

import pytest

from timesformer_kernels.aot import Case, kernels_of, specialise

SIZES = [(frames, side, side) for frames in (4, 8, 16, 32, 96) for side in range(7, 23)]
"""Clips of 4 to 96 frames of 112 to 352 pixels, in patches of 16."""
SCHEMES = {"divided": (("time", 0), ("space", 1)), "joint": (("joint", 1), ("joint", 2), ("joint", 3))}
MOST = {"divided": 50, "joint": 60}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_many_sizes_share_kernels(scheme: str) -> None:
    assert len(SIZES) == 80
    launches = [
        Case(kernel, step, grid, mode, "bf16", 90)
        for grid in SIZES
        for step, mode in SCHEMES[scheme]
        for kernel in kernels_of(step, grid, mode)
    ]
    made = {specialise(case) for case in launches}
    assert {case.kernel for case in launches} == {made_one.kernel for made_one in made}
    assert len(made) <= MOST[scheme]
    assert len(launches) > 5 * MOST[scheme]


def test_what_no_launch_can_tell_apart_is_left_out() -> None:
    """Kernels of clips that differ in their length alone are the same; with another rest after whole blocks, not."""
    of = {n: specialise(Case("long_forward", "joint", (1, n, 1), 1, "bf16", 90)) for n in (130, 194, 160)}
    assert of[130] == of[194] != of[160]
