"""Ahead-of-time compilation of the kernels, without a GPU: registers, shared memory, spills, instructions.

`python -m timesformer_kernels.aot --out FILE.csv` compiles every configuration that `launch.blocks_for` can choose at
the sizes below and writes one line each.
"""

import argparse
import csv
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from timesformer_kernels import launch
from timesformer_kernels.grouped import is_short
from timesformer_kernels.layout import AxisTile, Tile

ARCHITECTURES = (80, 90, 100)
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
GRIDS = ((8, 14, 14), (16, 28, 28), (32, 14, 14), (96, 14, 14))
HEADS, WIDTH = 12, 64

# A multiprocessor's 32-bit registers, shared memory in bytes, and threads.
MULTIPROCESSOR = {80: (65536, 163 * 1024, 2048), 90: (65536, 227 * 1024, 2048), 100: (65536, 227 * 1024, 2048)}


@dataclass(frozen=True)
class Case:
    """One kernel at one size; a group has `size` patches."""

    kernel: str
    step: str
    grid: tuple[int, int, int]
    mode: int
    dtype: str
    arch: int


@dataclass(frozen=True)
class Compiled:
    """What the compiler made of a case: registers a thread, shared memory a block in bytes, 32-bit spill stores and
    loads, blocks that fit on a multiprocessor, tensor-core instructions, and 128-bit loads from global memory."""

    kernel: str
    step: str
    grid: str
    mode: int
    dtype: str
    arch: str
    rows: int
    columns: int
    warps: int
    registers: int
    shared_bytes: int
    spill_stores: int
    spill_loads: int
    blocks_per_multiprocessor: int
    tensor_core_instructions: int
    wide_loads: int


def step_tile(step: str, grid: tuple[int, int, int]) -> Tile:
    """The groups of a step on a grid that its splits divide evenly."""
    every = [AxisTile(0, 1, 0, n, n, 1) for n in grid]
    each = [AxisTile(0, n, 0, 1, 1, 1) for n in grid]
    parity = [AxisTile(0, 2, 0, 1, n // 2, 2) for n in grid]
    half = [AxisTile(0, 2, 0, n // 2, n // 2, 1) for n in grid]
    return {
        "time": Tile(every[0], each[1], each[2]),
        "space": Tile(each[0], every[1], every[2]),
        "joint": Tile(*every),
        "width": Tile(each[0], each[1], every[2]),
        "height": Tile(each[0], every[1], each[2]),
        "local": Tile(every[0], half[1], half[2]),
        "global": Tile(*parity),
    }[step]


STEPS = {"time": (0,), "space": (1,), "joint": (1, 2, 3), "width": (1,), "height": (1,), "local": (1,), "global": (1,)}
"""Steps of the shipped schemes with the class token's modes that their default policies use."""


def cases(arches: tuple[int, ...] = ARCHITECTURES, dtypes: tuple[str, ...] = tuple(DTYPES)) -> Iterator[Case]:
    """Every kernel that runs at the benchmark's sizes; sizes that compile to the same code occur once."""
    seen = set()
    for arch in arches:
        for dtype in dtypes:
            for step, modes in STEPS.items():
                for grid in GRIDS:
                    for mode in modes:
                        problem = _problem(Case("", step, grid, mode, dtype, arch))
                        kernels = ("short_forward", "short_backward") if problem.is_short else LONG
                        key = (arch, dtype, problem.length, mode, problem.inside.sizes, problem.across.sizes)
                        if key not in seen:
                            seen.add(key)
                            yield from (Case(kernel, step, grid, mode, dtype, arch) for kernel in kernels)


LONG = ("long_forward", "long_backward_q", "long_backward_kv")


def _problem(case: Case) -> launch.Problem:
    qkv = torch.empty(1, *case.grid, 3, HEADS, WIDTH, dtype=DTYPES[case.dtype], device="meta")
    cls = torch.empty(1, 3, HEADS, WIDTH, dtype=DTYPES[case.dtype], device="meta") if case.mode else None
    tile = step_tile(case.step, case.grid)
    return launch.Problem(qkv, cls, tile, case.mode, is_short([tile], case.mode))


FP32 = {"cls_out", "lse", "cls_lse", "dcls_out", "delta", "cls_delta", "dcls"}


def compile_case(case: Case) -> Compiled:
    """Compiles one case with the specialisation that a launch with these arguments would get."""
    call, kernel = _problem(case).call(case.kernel), launch.KERNELS[case.kernel]
    constants: dict[str, Any] = dict(call.constants)
    names = [name for name in kernel.arg_names if name not in constants]
    tensors, numbers = names[: len(names) - len(call.numbers)], names[len(names) - len(call.numbers) :]
    signature = {name: "*fp32" if name in FP32 else f"*{case.dtype}" for name in tensors}
    aligned = set(tensors)  # the allocator's addresses are multiples of 16
    for name, value in zip(numbers, call.numbers, strict=True):
        if isinstance(value, float):
            signature[name] = "fp32"
        elif value == 1:
            constants[name] = 1
        else:
            signature[name] = "i32"
            if value % 16 == 0:
                aligned.add(name)
    signature |= dict.fromkeys(constants, "constexpr")
    places = {name: index for index, name in enumerate(kernel.arg_names)}
    made = triton.compile(
        ASTSource(
            fn=kernel,
            signature={name: signature[name] for name in kernel.arg_names},
            constexprs={(places[name],): value for name, value in constants.items()},
            attrs={(places[name],): [["tt.divisibility", 16]] for name in aligned},
        ),
        target=GPUTarget("cuda", case.arch, 32),
        options={"num_warps": call.blocks.warps, "num_stages": call.blocks.stages},
    )
    resources, code = _resources(made.asm["cubin"])
    registers, shared = resources["REG"], made.metadata.shared
    return Compiled(
        kernel=case.kernel,
        step=case.step,
        grid="x".join(map(str, case.grid)),
        mode=case.mode,
        dtype=case.dtype,
        arch=f"sm_{case.arch}",
        rows=call.blocks.rows,
        columns=call.blocks.columns,
        warps=call.blocks.warps,
        registers=registers,
        shared_bytes=shared,
        spill_stores=len(re.findall(r"\bSTL\b", code)),
        spill_loads=len(re.findall(r"\bLDL\b", code)),
        blocks_per_multiprocessor=_occupancy(case.arch, registers, shared, call.blocks.warps * 32),
        tensor_core_instructions=len(re.findall(r"\b(?:HMMA|HGMMA|UTC\w*MMA)\b", code)),
        wide_loads=len(re.findall(r"\b(?:LDG|LDGSTS)\.E[\w.]*\.128", code)),
    )


def _resources(cubin: bytes) -> tuple[dict[str, int], str]:
    """What the kernel uses, and its machine code, by the disassembler that Triton ships."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        tool = triton.knobs.nvidia.cuobjdump.path
        usage = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
        code = subprocess.run([tool, "-sass", file.name], capture_output=True, text=True, check=True).stdout
    found = {name: int(value) for name, value in re.findall(r"\b(REG|STACK|SHARED|LOCAL):(\d+)", usage)}
    return found, code


def _occupancy(arch: int, registers: int, shared: int, threads: int) -> int:
    """Blocks of a kernel that fit on a multiprocessor: registers come in units of 8 a thread, shared memory has 1 KiB
    more a block than the kernel asks for."""
    all_registers, all_shared, all_threads = MULTIPROCESSOR[arch]
    per_block = -(-registers // 8) * 8 * threads
    return min(all_registers // per_block, all_shared // (shared + 1024), all_threads // threads)


def main() -> None:
    """Compiles everything and writes the csv."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--arch", type=int, action="append", choices=ARCHITECTURES)
    out = parser.parse_args()
    rows = []
    for case in cases(tuple(out.arch or ARCHITECTURES)):
        print(case, file=sys.stderr, flush=True)
        rows.append(asdict(compile_case(case)))
    with out.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Compiled)])
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
