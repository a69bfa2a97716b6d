"""Ahead-of-time compilation of the kernels, without a GPU: registers, shared memory, spills, instructions.

`python -m timesformer_kernels.aot --out FILE.csv` compiles every configuration that `launch.blocks_for` can choose at
the sizes below, in two processes, and writes one line for each.
"""

import argparse
import csv
import multiprocessing
import re
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from timesformer_kernels import launch, norm_kernels
from timesformer_kernels.add_norm import ROWS, block
from timesformer_kernels.address import UNSPECIALISED
from timesformer_kernels.layout import AxisTile, Tile, is_short
from timesformer_kernels.machine_code import Loop, disassemble, loops

ARCHITECTURES = (80, 89, 90, 100, 120)
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
GRIDS = ((8, 14, 14), (16, 28, 28), (32, 14, 14), (96, 14, 14))
HEADS, WIDTH = 12, 64

STEPS = {"time": (0,), "space": (1,), "joint": (1, 2, 3), "width": (1,), "height": (1,), "local": (1,), "global": (1,)}
"""Steps of the shipped schemes, with the class-token modes that their default policies use."""
DIVIDED = ("time", "space")
WITH_SISTER = {89: 80, 120: 80}
"""GPUs that compute with the instructions of another one: for them only the steps of divided attention are compiled."""

NORMS = {"add_norm_forward": norm_kernels.add_norm_forward, "add_norm_backward": norm_kernels.add_norm_backward}
SHORT, LONG = ("short_forward", "short_backward"), ("long_forward", "long_backward_q", "long_backward_kv")
LONE = ("lone_forward", "lone_combine", "lone_backward")
FP32 = {"cls_out", "lse", "cls_lse", "delta", "cls_delta", "dcls", "mean", "scale", "dweight", "dbias"}
FP32 |= {"part_out", "part_lse", "dq"}
FP32_UNDER_AUTOCAST = {"x", "total", "weight", "bias", "dtotal", "dx"}

ALLOWED_SPILLS = {("sm_80", "add_norm_backward", "norm"): 2}
"""Exceptions to "no spills", in 32-bit words per thread.  Here the compiler stays at 48 registers, so that one more
block fits on a multiprocessor, at the price of one word in the first-level cache."""

RESERVED = 1024
"""Shared memory, in bytes, that the system takes from a multiprocessor for each block."""


@dataclass(frozen=True)
class Multiprocessor:
    """Resources of a multiprocessor: 32-bit registers, shared memory in bytes, threads, blocks at a time.

    `block_shared_bytes` is the most that one block may ask for.  Source: CUDA C++ programming guide, technical
    specifications by compute capability.
    """

    registers: int
    shared_bytes: int
    block_shared_bytes: int
    threads: int
    blocks: int


MULTIPROCESSORS = {
    80: Multiprocessor(65536, 164 * 1024, 163 * 1024, 2048, 32),
    89: Multiprocessor(65536, 100 * 1024, 99 * 1024, 1536, 24),
    90: Multiprocessor(65536, 228 * 1024, 227 * 1024, 2048, 32),
    100: Multiprocessor(65536, 228 * 1024, 227 * 1024, 2048, 32),
    120: Multiprocessor(65536, 100 * 1024, 99 * 1024, 1536, 24),
}


@dataclass(frozen=True)
class Case:
    """One kernel at one size, with heads of `width` channels.

    The steps `norm` and `norm_autocast` stand for the residual addition with layer norm, in one dtype or with an fp32
    residual under autocast.
    """

    kernel: str
    step: str
    grid: tuple[int, int, int]
    mode: int
    dtype: str
    arch: int
    width: int = WIDTH


@dataclass(frozen=True)
class Compiled:
    """Resources and instructions of a compiled case.

    Registers are per thread, shared memory is in bytes per block, spill stores and loads are 32-bit instructions,
    `blocks_per_multiprocessor` is the number of blocks that fit on a multiprocessor at a time, and `wide_loads` counts
    128-bit loads from global memory.  The last three are those of `machine_code.Loop`, 0 for a kernel without a loop
    over blocks.
    """

    kernel: str
    step: str
    grid: str
    mode: int
    dtype: str
    arch: str
    width: int
    rows: int
    columns: int
    warps: int
    registers: int
    shared_bytes: int
    spill_stores: int
    spill_loads: int
    blocks_per_multiprocessor: int
    tensor_core_instructions: str
    wide_loads: int
    loop_instructions: int
    loop_in_flight: int
    loop_product_waits: int


@dataclass(frozen=True)
class Specialisation:
    """Everything that determines the binary of a launch: equal specialisations share one.

    `signature` is in the order of the kernel's arguments.
    """

    kernel: str
    signature: tuple[tuple[str, str], ...]
    constants: tuple[tuple[str, Any], ...]
    aligned: tuple[str, ...]
    rows: int
    columns: int
    warps: int
    stages: int


def step_tile(step: str, grid: tuple[int, int, int]) -> Tile:
    """Return the groups of a step on a grid that its splits divide evenly."""
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


def kernels_of(step: str, grid: tuple[int, int, int], mode: int) -> tuple[str, ...]:
    """Names of the kernels that serve a step, forward and backward."""
    return LONE if mode == 3 else SHORT if is_short([step_tile(step, grid)], mode) else LONG


def cases(arches: tuple[int, ...] = ARCHITECTURES, dtypes: tuple[str, ...] = ("bf16",)) -> Iterator[Case]:
    """Yield every kernel that runs at the benchmark's sizes; sizes that compile to the same code occur once."""
    for arch in arches:
        for dtype in dtypes:
            seen = set()
            for step, modes in STEPS.items():
                if arch in WITH_SISTER and step not in DIVIDED:
                    continue
                for grid in GRIDS:
                    for mode in modes:
                        for kernel in kernels_of(step, grid, mode):
                            case = Case(kernel, step, grid, mode, dtype, arch)
                            if (made := specialise(case)) not in seen:
                                seen.add(made)
                                yield case
            for step in ("norm", "norm_autocast"):
                yield from (Case(kernel, step, GRIDS[0], 0, dtype, arch) for kernel in NORMS)


def specialise(case: Case) -> Specialisation:
    """Return the specialisation that a launch of this case would get.

    Triton specialises on integers equal to 1 and on those divisible by 16; the allocator's addresses are multiples
    of 16.
    """
    columns, stages = 0, 2
    numbers: tuple[int | float, ...]
    if case.kernel in NORMS:
        kernel, channels = NORMS[case.kernel], HEADS * case.width
        options = block(channels)
        rows, warps = ROWS if case.kernel == "add_norm_backward" else 1, options["num_warps"]
        constants: dict[str, Any] = {"BLOCK_D": options["BLOCK_D"]} | ({"ROWS": rows} if rows > 1 else {})
        tokens = case.grid[0] * case.grid[1] * case.grid[2]
        numbers = (channels, 1e-6) if rows == 1 else (tokens, channels)
    else:
        kernel, call = launch.KERNELS[case.kernel], _problem(case).call(case.kernel)
        constants, numbers, blocks = dict(call.constants), call.numbers, call.blocks
        rows, columns, warps, stages = blocks.rows, blocks.columns, blocks.warps, blocks.stages
    names = [name for name in kernel.arg_names if name not in constants]
    tensors, scalars = names[: len(names) - len(numbers)], names[len(names) - len(numbers) :]
    full = FP32 | (FP32_UNDER_AUTOCAST if case.step == "norm_autocast" else set())
    signature = {name: "*fp32" if name in full else f"*{case.dtype}" for name in tensors}
    aligned = list(tensors)
    for name, value in zip(scalars, numbers, strict=True):
        if isinstance(value, float):
            signature[name] = "fp32"
        elif name in UNSPECIALISED:
            signature[name] = "i32"
        elif value == 1:
            constants[name] = 1
        else:
            signature[name] = "i32"
            if value % 16 == 0:
                aligned.append(name)
    signature |= dict.fromkeys(constants, "constexpr")
    return Specialisation(
        case.kernel,
        tuple((name, signature[name]) for name in kernel.arg_names),
        tuple(sorted(constants.items())),
        tuple(aligned),
        rows,
        columns,
        warps,
        stages,
    )


def _problem(case: Case) -> launch.Problem:
    qkv = torch.empty(1, *case.grid, 3, HEADS, case.width, dtype=DTYPES[case.dtype], device="meta")
    cls = torch.empty(1, 3, HEADS, case.width, dtype=DTYPES[case.dtype], device="meta") if case.mode else None
    tile = step_tile(case.step, case.grid)
    return launch.Problem(launch.Buffers.of(qkv, cls), tile, case.mode, is_short([tile], case.mode))


def compile_kernel(case: Case) -> Any:
    """Return Triton's compiled kernel for a case.

    Raises:
        RuntimeError: the kernels were imported for the interpreter.
    """
    if launch.INTERPRETED:
        raise RuntimeError("the kernels were imported for Triton's interpreter: unset TRITON_INTERPRET")
    made = specialise(case)
    kernel = {**launch.KERNELS, **NORMS}[case.kernel]
    places = {name: index for index, name in enumerate(kernel.arg_names)}
    return triton.compile(
        ASTSource(
            fn=kernel,
            signature=dict(made.signature),
            constexprs={(places[name],): value for name, value in made.constants},
            attrs={(places[name],): [["tt.divisibility", 16]] for name in made.aligned},
        ),
        target=GPUTarget("cuda", case.arch, 32),
        options={"num_warps": made.warps, "num_stages": made.stages},
    )


def compile_case(case: Case) -> Compiled:
    """Compile one case and read its resources and instructions from the binary."""
    binary, made = compile_kernel(case), specialise(case)
    resources, code = disassemble(binary.asm["cubin"])
    found = max(loops(code), key=lambda loop: loop.instructions, default=Loop(0, 0, 0))
    registers, shared = resources["REG"], binary.metadata.shared
    products = re.findall(r"\b(HMMA|HGMMA|UTC\w*MMA)\b", code)
    return Compiled(
        kernel=case.kernel,
        step=case.step,
        grid="x".join(map(str, case.grid)),
        mode=case.mode,
        dtype=case.dtype,
        arch=f"sm_{case.arch}",
        width=case.width,
        rows=made.rows,
        columns=made.columns,
        warps=made.warps,
        registers=registers,
        shared_bytes=shared,
        spill_stores=len(re.findall(r"\bSTL\b", code)),
        spill_loads=len(re.findall(r"\bLDL\b", code)),
        blocks_per_multiprocessor=_occupancy(case.arch, registers, shared, made.warps * 32),
        tensor_core_instructions=" + ".join(f"{products.count(kind)} {kind}" for kind in sorted(set(products))),
        wide_loads=len(re.findall(r"\b(?:LDG|LDGSTS)\.E[\w.]*\.128", code)),
        loop_instructions=found.instructions,
        loop_in_flight=found.in_flight,
        loop_product_waits=found.product_waits,
    )


def _occupancy(arch: int, registers: int, shared: int, threads: int) -> int:
    """Number of blocks of a kernel that fit on a multiprocessor; 0 if a block asks for more than it may have.

    Registers are allocated in units of 256 per warp.  All blocks share the multiprocessor's memory, of which each takes
    `RESERVED` bytes beyond what the kernel asks for.
    """
    has = MULTIPROCESSORS[arch]
    if shared > has.block_shared_bytes:
        return 0
    per_block = -(-registers // 8) * 8 * threads
    return min(has.registers // per_block, has.shared_bytes // (shared + RESERVED), has.threads // threads, has.blocks)


def compile_all(wanted: list[Case], processes: int = 2) -> list[Compiled]:
    """Compile cases in parallel processes; the results are in the order of the cases."""
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(compile_case, wanted))


def write(rows: list[Compiled], path: Path) -> None:
    """Write a csv file with a header and one line per row."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Compiled)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(asdict, rows))


def to_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Return the rows of a csv as a Markdown table: one line per kernel and GPU, over all steps, sizes and dtypes."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["kernel"], row["arch"]), []).append(row)

    def span(some: list[dict[str, Any]], name: str, unit: int = 1) -> str:
        values = [int(row[name]) // unit for row in some]
        return f"{min(values)}–{max(values)}" if min(values) < max(values) else str(values[0])

    lines = [
        "| kernel | GPU | rows × columns | warps | registers | shared, KiB | blocks per multiprocessor | spills |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (kernel, arch), some in found.items():
        cells = [kernel, arch, f"{span(some, 'rows')} × {span(some, 'columns')}", span(some, "warps")]
        cells += [span(some, "registers"), span(some, "shared_bytes", 1024), span(some, "blocks_per_multiprocessor")]
        lines.append(f"| {' | '.join([*cells, span(some, 'spill_stores')])} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Compile everything, write the csv and print the table of the README."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--arch", type=int, action="append", choices=ARCHITECTURES, help="default: all")
    parser.add_argument("--dtype", action="append", choices=list(DTYPES), help="default: bf16")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args(arguments)
    wanted = list(cases(tuple(options.arch or ARCHITECTURES), tuple(options.dtype or ("bf16",))))
    print(f"{len(wanted)} kernels", file=sys.stderr)
    rows = compile_all(wanted, options.processes)
    write(rows, options.out)
    print(to_markdown([asdict(row) for row in rows]), end="")


if __name__ == "__main__":
    main()
