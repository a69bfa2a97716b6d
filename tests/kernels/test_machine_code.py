"""Loops in machine code: written out by hand, and those of the compiled kernels against committed ceilings."""

import csv

import pytest

from tests.kernels.test_aot import COMMITTED, compiled
from timesformer_kernels.aot import LONE, LONG, Case
from timesformer_kernels.machine_code import Loop, loops

CEILINGS = {
    "long_forward": {"sm_80": 360, "sm_89": 360, "sm_90": 285, "sm_100": 330, "sm_120": 350},
    "long_backward_q": {"sm_80": 210, "sm_89": 210, "sm_90": 155, "sm_100": 205, "sm_120": 205},
    "long_backward_kv": {"sm_80": 305, "sm_89": 310, "sm_90": 235, "sm_100": 280, "sm_120": 280},
    "lone_forward": {"sm_80": 310, "sm_90": 300, "sm_100": 275},
    "lone_backward": {"sm_80": 460, "sm_90": 450, "sm_100": 460},
}
"""Most instructions of a warp and iteration, in bf16 with heads of 64 channels, where a group has one axis."""
PRODUCT_WAITS = {"long_forward": 1, "long_backward_q": 2, "long_backward_kv": 2, "lone_forward": 0, "lone_backward": 0}
"""Waits for products in an iteration on Hopper; more of them mean that products run one by one."""
ONE_AXIS = ("time", "space", "joint")


def check(row: dict[str, str]) -> None:
    """What the loop of a long kernel must show."""
    where = ", ".join(str(row[name]) for name in ("kernel", "step", "grid", "mode", "dtype", "arch"))
    if row["kernel"] == "lone_combine":  # all parts at once: no loop
        assert int(row["loop_instructions"]) == 0, where
        return
    assert int(row["loop_in_flight"]) >= 2, where  # no wait for everything
    assert int(row["loop_product_waits"]) <= PRODUCT_WAITS[row["kernel"]], where
    assert int(row["loop_instructions"]) > 0, where
    if row["step"] in ONE_AXIS:
        assert int(row["loop_instructions"]) <= CEILINGS[row["kernel"]][row["arch"]], where


def line(number: int, text: str) -> str:
    return f"        /*{16 * number:04x}*/                   {text} ;    /* 0x0 */\n"


CODE = [
    "MOV R1, c[0x0][0x28]",
    "LDGSTS.E.BYPASS.128 [R2], desc[UR4][R4.64]",
    "DEPBAR.LE SB0, 0x2",  # 2: the loop begins
    "HGMMA.64x64x16.F32.BF16 R24, gdesc[UR8], R24",
    "WARPGROUP.DEPBAR.LE gsb0, 0x0",
    "@!P0 BRA 0x20",
    "@P1 BRA 0x10",  # 6: a loop around it, from 1 on
    "EXIT",
    "SYNCS.PHASECHK.TRANS64.TRYWAIT P1, [UR6], R3",
    "HGMMA.64x64x16.F32.BF16 R24, gdesc[UR8], R24",
    "@!P1 BRA 0x30",  # behind the last EXIT: waits again, no loop
    "BRA 0xb0",
]


def text(lines: list[str]) -> str:
    return "".join(line(number, text) for number, text in enumerate(lines))


def test_loops_by_hand() -> None:
    assert loops(text(CODE)) == [Loop(4, 2, 1), Loop(6, 2, 1)]
    everything = [instruction.replace("SB0, 0x2", "SB0, 0x0") for instruction in CODE]
    assert loops(text(everything)) == [Loop(4, 0, 1), Loop(6, 0, 1)]
    assert loops(text([instruction.replace("HGMMA", "IMAD") for instruction in CODE])) == []
    assert loops(text([*CODE[:5], "EXIT"])) == []
    annotated = [f"{instruction}        ?trans5" for instruction in CODE]  # an older disassembler, for Blackwell
    assert loops(text(annotated)) == [Loop(4, 2, 1), Loop(6, 2, 1)]


@pytest.mark.integration
def test_the_loop_of_a_compiled_kernel() -> None:
    (row,) = compiled([Case("long_backward_q", "space", (8, 14, 14), 1, "bf16", 90)])
    check({name: str(value) for name, value in row.items()})


def test_a_loop_that_waits_for_everything_is_found() -> None:
    """With two stages it began so; a loop that is too long or runs its products one by one is found as well."""
    good = {"kernel": "long_forward", "step": "space", "grid": "8x14x14", "mode": "1", "dtype": "bf16", "arch": "sm_90"}
    loop = {"loop_in_flight": "2", "loop_instructions": "285", "loop_product_waits": "1"}
    check(good | loop)
    for wrong in ({"loop_in_flight": "0"}, {"loop_instructions": "455"}, {"loop_product_waits": "8"}):
        with pytest.raises(AssertionError, match="long_forward, space"):
            check(good | loop | wrong)


def test_the_loops_of_the_committed_table() -> None:
    with COMMITTED.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["kernel"] in (*LONG, *LONE)]
    looped = {(row["kernel"], row["arch"]) for row in rows if row["kernel"] != "lone_combine"}
    assert looped == {(k, a) for k, some in CEILINGS.items() for a in some}
    for row in rows:
        check(row)
