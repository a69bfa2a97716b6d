"""Ahead-of-time compilation for five kinds of GPU: no spills, tensor cores used, 128-bit loads, 64-bit offsets.

The compiler runs in processes of its own: here the kernels were imported for Triton's interpreter.
"""

import csv
import json
import os
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import triton

from timesformer_kernels import aot, launch
from timesformer_kernels.aot import (
    ALLOWED_SPILLS,
    ARCHITECTURES,
    DIVIDED,
    LONE,
    NORMS,
    WITH_SISTER,
    Case,
    cases,
    kernels_of,
    specialise,
)

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "results/kernels/aot.csv"
COMPILER = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}

SCRIPT = """
import json, sys
from dataclasses import asdict
from timesformer_kernels.aot import Case, compile_case, compile_kernel
found = []
for fields in json.load(sys.stdin):
    case = Case(**{**fields, "grid": tuple(fields["grid"])})
    found.append(asdict(compile_case(case)) | {"ttir": compile_kernel(case).asm["ttir"]})
json.dump(found, sys.stdout)
"""


def compiled(wanted: list[Case]) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=json.dumps([asdict(case) for case in wanted]),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=COMPILER,
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def check(row: dict[str, Any]) -> None:
    """What every configuration must show."""
    where = ", ".join(str(row[name]) for name in ("kernel", "step", "grid", "mode", "dtype", "arch", "width"))
    allowed = ALLOWED_SPILLS.get((row["arch"], row["kernel"], row["step"]), 0)
    assert max(int(row["spill_stores"]), int(row["spill_loads"])) <= allowed, where
    assert int(row["wide_loads"]) > 0, where
    assert int(row["blocks_per_multiprocessor"]) * int(row["warps"]) >= 8, where
    if row["kernel"] in LONE:  # one query is too few for tensor cores
        assert not row["tensor_core_instructions"], where
    elif row["kernel"] not in NORMS:
        # Hopper's instruction takes 64 rows; with fewer the compiler falls back to Ampere's.
        product = {"sm_90": "HGMMA", "sm_100": "UTCHMMA"}.get(row["arch"], "HMMA")
        assert re.fullmatch(rf"[1-9]\d* {product}", row["tensor_core_instructions"]), where


REPRESENTATIVE = [
    Case("short_forward", "time", (8, 14, 14), 0, "bf16", 90),
    Case("short_backward", "width", (8, 14, 14), 1, "bf16", 80),
    Case("long_forward", "space", (8, 14, 14), 1, "bf16", 100),
    Case("long_backward_kv", "space", (8, 14, 14), 1, "bf16", 90),
    Case("lone_backward", "joint", (8, 14, 14), 3, "bf16", 90),
    Case("add_norm_backward", "norm_autocast", (8, 14, 14), 0, "bf16", 90),
]


def committed() -> list[dict[str, str]]:
    with COMMITTED.open(newline="") as file:
        return list(csv.DictReader(file))


def key(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in ("kernel", "step", "grid", "mode", "dtype", "arch", "width"))


def same_compiler() -> bool:
    """Whether this is the tested version, with which the committed figures were made."""
    return f"triton=={triton.__version__}" in (ROOT / "constraints.txt").read_text().split()


@pytest.mark.integration
def test_representative_kernels_and_their_64_bit_offsets() -> None:
    known = {key(row): row for row in committed()}
    for row in compiled(REPRESENTATIVE):
        check(row)
        offsets_are_64_bits_wide(row.pop("ttir"), "x" if row["kernel"] in NORMS else "z")
        if same_compiler():
            assert {name: str(value) for name, value in row.items()} == known[key(row)]


def offsets_are_64_bits_wide(ttir: str, axis: str) -> None:
    """The number of the clip (or row) is used as 64 bits alone, and nothing is ever cut back to 32."""
    (clip,) = re.findall(rf"(%\w+) = tt\.get_program_id {axis} : i32", ttir)
    uses = [line for line in ttir.splitlines() if re.search(rf"{re.escape(clip)}\b", line.split("=", 1)[-1])]
    assert uses
    assert all(re.search(rf"arith\.extsi {re.escape(clip)} : i32 to i64", line) for line in uses)
    assert "arith.trunci" not in ttir


@pytest.mark.parametrize(
    ("ttir", "found"),
    [
        ("%a = tt.get_program_id z : i32\n%b = arith.extsi %a : i32 to i64\n", True),
        ("%a = tt.get_program_id z : i32\n%b = arith.muli %a, %c : i32\n", False),
        ("%a = tt.get_program_id z : i32\n%b = arith.extsi %a : i32 to i64\n%c = arith.trunci %b : i64 to i32", False),
    ],
)
def test_the_check_of_offsets_can_fail(ttir: str, found: bool) -> None:
    if found:
        offsets_are_64_bits_wide(ttir, "z")
    else:
        with pytest.raises(AssertionError):
            offsets_are_64_bits_wide(ttir, "z")


def test_the_committed_table_holds_every_configuration() -> None:
    rows = committed()
    wanted = [
        (c.kernel, c.step, "x".join(map(str, c.grid)), str(c.mode), c.dtype, f"sm_{c.arch}", "64") for c in cases()
    ]
    assert [key(row) for row in rows] == wanted
    for row in rows:
        check(row)
    for row, case in zip(rows, cases(), strict=True):
        made = specialise(case)
        assert (row["rows"], row["columns"], row["warps"]) == (str(made.rows), str(made.columns), str(made.warps))


def test_cases_cover_the_steps_and_every_kernel() -> None:
    """Left out are sizes alone that compile to the same code."""
    wanted = {
        specialise(Case(kernel, step, grid, mode, "bf16", arch))
        for arch in ARCHITECTURES
        for step, modes in aot.STEPS.items()
        if arch not in WITH_SISTER or step in DIVIDED
        for grid in aot.GRIDS
        for mode in modes
        for kernel in kernels_of(step, grid, mode)
    }
    found = {specialise(case) for case in cases() if case.kernel not in NORMS}
    assert found == wanted
    assert {case.kernel for case in cases()} == {*launch.KERNELS, *NORMS}


@pytest.mark.slow
def test_every_configuration_compiles_well(tmp_path: Path) -> None:
    """The command that writes the committed table."""
    out = tmp_path / "aot.csv"
    subprocess.run(
        [sys.executable, "-m", "timesformer_kernels.aot", "--out", str(out)], check=True, cwd=ROOT, env=COMPILER
    )
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [key(row) for row in rows] == [key(row) for row in committed()]
    for row in rows:
        check(row)
    if same_compiler():
        assert rows == committed()


OTHERS = [
    *(
        ("bf16", width, step, mode)
        for width in (16, 80, 128)
        for step, mode in (("time", 0), ("width", 2), ("space", 1))
    ),
    *(("fp16", 64, step, mode) for step, mode in (("space", 3), ("width", 3), ("space", 2))),
    *(("fp32", 64, step, mode) for step, mode in (("time", 0), ("width", 1), ("space", 1), ("joint", 3))),
    *((dtype, 128, "joint", 3) for dtype in ("bf16", "fp32")),
]


@pytest.mark.slow
def test_other_head_widths_class_modes_and_fp32_compile() -> None:
    grid = aot.GRIDS[0]
    wanted = [
        Case(kernel, step, grid, mode, dtype, 90, width)
        for dtype, width, step, mode in OTHERS
        for kernel in kernels_of(step, grid, mode)
    ]
    for row in compiled(wanted):
        assert row["wide_loads"] > 0, row
        if (row["dtype"], row["kernel"]) == ("fp32", "long_backward_kv"):
            assert 0 < max(row["spill_stores"], row["spill_loads"]) < 64, row  # the README says so
        else:
            assert row["spill_stores"] == row["spill_loads"] == 0, row
        assert row["blocks_per_multiprocessor"] >= 1, row
        assert row["dtype"] == "fp32" or row["kernel"] in LONE or row["tensor_core_instructions"], row


@pytest.mark.skipif(torch.cuda.is_available(), reason="here the kernels are imported for the GPU")
def test_the_interpreter_cannot_compile() -> None:
    with pytest.raises(RuntimeError, match="unset TRITON_INTERPRET"):
        aot.compile_kernel(REPRESENTATIVE[0])


def test_blocks_that_fit_on_a_multiprocessor_by_hand() -> None:
    """65536 registers: 80 of 128 threads fit 6 times; 228 KiB of shared memory hold 9 blocks of 24 + 1 KiB."""
    assert aot._occupancy(90, 79, 24 * 1024, 128) == 6
    assert aot._occupancy(90, 16, 24 * 1024, 128) == 9
    assert aot._occupancy(80, 16, 0, 128) == 16
    assert aot._occupancy(80, 16, 0, 32) == 32


def test_shared_memory_of_a_multiprocessor_is_more_than_a_block_may_have() -> None:
    """Ampere: 164 KiB, of which a block may ask for 163; four blocks of 40 + 1 KiB fill it."""
    assert aot._occupancy(80, 16, 40 * 1024, 128) == 4
    assert aot._occupancy(80, 16, 163 * 1024, 128) == 1
    assert aot._occupancy(80, 16, 163 * 1024 + 1, 128) == 0
    assert aot._occupancy(90, 16, 227 * 1024, 128) == 1
