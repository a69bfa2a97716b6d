"""Speed and memory of sparse attention on this CPU, compared with joint attention: the attention core alone.

The core is what lies between the qkv projection and the output projection, for the steps of one block, forward and
backward, one clip, sizes of ViT-B. Cases take turns, so that ratios come from one run. Peak memory is the growth of the
resident set in a process of its own, with malloc set to return freed blocks.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from timesformer.attention import Grid, attend, build
from timesformer.config.counting import step_pairs
from timesformer_experiments.bench.fresh import figure_of
from timesformer_experiments.bench.memory import MALLOC, resident_bytes
from timesformer_experiments.bench.transformers import peak_resident_bytes
from timesformer_experiments.records.log import environment, now_utc
from timesformer_experiments.report.tables import Column, Table

HEADS, WIDTH = 12, 64
GRID: Grid = (32, 14, 14)
"""ViT-B/16 at 32 frames of 224 pixels."""
BASE = "joint"
EIGHTH = "sliding_tile(tile=[2,7,7],window=[2,2,2])"
"""Scheme with an eighth of the pairs of this grid."""
SCHEMES = (
    BASE,
    "divided",
    "local_global",
    "local_global_window",
    EIGHTH,
    "sliding_tile",
    "swin",
    "neighbourhood",
    "radial",
    "dilated",
)
WANTED_SPEEDUP, WANTED_MEMORY = 3.0, 1.2


@dataclass(frozen=True)
class Core:
    """Attention core of a scheme's block with random inputs."""

    attention: str
    grid: Grid = GRID

    def inputs(self) -> tuple[Tensor, Tensor]:
        """Return qkv (1, t, h, w, 3, k, e) and the class token's (1, 3, k, e)."""
        generator = torch.Generator().manual_seed(0)
        qkv = torch.randn(1, *self.grid, 3, HEADS, WIDTH, generator=generator)
        return qkv.requires_grad_(), torch.randn(1, 3, HEADS, WIDTH, generator=generator).requires_grad_()

    def run(self, qkv: Tensor, cls: Tensor) -> None:
        """Run every step of the first block forward and backward."""
        for step in build(self.attention).encoders[0].at(0).steps:
            outputs = [out for out in attend(step, qkv, cls, backend="sdpa") if out is not None]
            torch.autograd.grad(outputs, [qkv, cls], [torch.ones_like(out) for out in outputs], allow_unused=True)

    def pairs(self, kind: Any) -> int:
        """Count the pairs of patches."""
        tokens = self.grid[0] * self.grid[1] * self.grid[2]
        total = 0
        for step in build(self.attention).encoders[0].at(0).steps:
            for found in step_pairs(step, self.grid, kind=kind):
                total += 0 if found is None else found.patches - tokens * (step.cls != "absent")
        return total


def peak_bytes(core: Core) -> int:
    """Return the growth of this process's resident set to its peak in one forward and backward pass."""
    Core(core.attention, (2, 4, 4)).run(*Core(core.attention, (2, 4, 4)).inputs())  # loads the libraries
    for step in build(core.attention).encoders[0].at(0).steps:
        step_pairs(step, core.grid, kind="executed")  # makes the plans
    qkv, cls = core.inputs()
    before = resident_bytes()
    core.run(qkv, cls)
    return peak_resident_bytes() - before


def run(
    schemes: Sequence[str] = SCHEMES,
    grid: Grid = GRID,
    *,
    repetitions: int = 5,
    threads: int | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Measure the cores in turns, after a warm-up of each, then their memory; return a record with every repetition."""
    if threads:
        torch.set_num_threads(threads)
    cores = [Core(name, grid) for name in schemes]
    inputs, load = cores[0].inputs(), os.getloadavg()[0]
    seconds: dict[str, list[float]] = {core.attention: [] for core in cores}
    processor: dict[str, list[float]] = {core.attention: [] for core in cores}
    for number in range(repetitions + 1):
        for core in cores:
            progress(f"{core.attention}: {'warm-up' if number == 0 else f'repetition {number} of {repetitions}'}")
            began, used = time.perf_counter(), time.process_time()
            core.run(*inputs)
            if number:
                seconds[core.attention].append(time.perf_counter() - began)
                processor[core.attention].append(time.process_time() - used)
    size = "x".join(map(str, grid))
    peaks = {}
    for core in cores:
        progress(f"{core.attention}: memory")
        module = "timesformer_experiments.bench.sparse"
        given = {**MALLOC, "OMP_NUM_THREADS": str(torch.get_num_threads())}
        peaks[core.attention] = figure_of(core.attention, module, core.attention, size, environment=given)
    base = statistics.median(seconds[schemes[0]])
    tokens = grid[0] * grid[1] * grid[2]
    cases = [
        {
            "attention": core.attention,
            "declared_pairs_share": core.pairs("needed") / tokens**2,
            "executed_pairs_share": core.pairs("executed") / tokens**2,
            "seconds": seconds[core.attention],
            "processor_seconds": processor[core.attention],
            "median_seconds": statistics.median(seconds[core.attention]),
            "speedup": base / statistics.median(seconds[core.attention]),
            "peak_memory_bytes": peaks[core.attention],
            "memory_ratio": peaks[core.attention] / peaks[schemes[0]],
        }
        for core in cores
    ]
    return {
        "bench": "sparse",
        "what": "attention core of one block, forward and backward, one clip in fp32 on a CPU; speedup and memory "
        f"ratio compared with {schemes[0]} in the same run",
        "load_average_before": load,
        "environment": environment(),
        "threads": torch.get_num_threads(),
        "finished_utc": now_utc(),
        "grid": list(grid),
        "heads": HEADS,
        "head_width": WIDTH,
        "cases": cases,
        "wanted": {"attention": EIGHTH, "speedup": WANTED_SPEEDUP, "memory_ratio": WANTED_MEMORY},
        "reached": _reached(cases),
    }


def _reached(cases: Sequence[dict[str, Any]]) -> bool | None:
    """Return True if the case with a target reached it, None if it was not measured."""
    found = [case for case in cases if case["attention"] == EIGHTH]
    if not found:
        return None
    return bool(found[0]["speedup"] >= WANTED_SPEEDUP and found[0]["memory_ratio"] <= WANTED_MEMORY)


def table(record: dict[str, Any]) -> Table:
    """Return the record as a table, a row for each scheme."""
    rows = [
        {
            "attention": case["attention"],
            "declared": case["declared_pairs_share"],
            "executed": case["executed_pairs_share"],
            "measured_seconds": case["median_seconds"],
            "measured_speedup": case["speedup"],
            "measured_memory": case["peak_memory_bytes"],
            "measured_memory_ratio": case["memory_ratio"],
        }
        for case in record["cases"]
    ]
    base = record["cases"][0]["attention"]
    columns = (
        Column("attention", "Attention", "label"),
        Column("declared", "Pairs declared [%]", "counted", decimals=2, scale=0.01),
        Column("executed", "Pairs executed [%]", "counted", decimals=2, scale=0.01),
        Column("measured_seconds", "Forward and backward [s]", "measured", decimals=3),
        Column("measured_speedup", f"Times as fast as {base}", "measured", decimals=2),
        Column("measured_memory", "Peak memory [MiB]", "measured", decimals=0, scale=2**20),
        Column("measured_memory_ratio", f"Of {base}'s", "measured", decimals=2),
    )
    size = " x ".join(map(str, record["grid"]))
    caption = (
        f"Attention core of one block, forward and backward, {size} tokens, {record['heads']} heads of "
        f"{record['head_width']}, {record['threads']} thread{'s' if record['threads'] > 1 else ''}, "
        f"{record['environment']['cpu_model']}; pairs as shares of those of all patches with all"
    )
    return Table(pd.DataFrame(rows), columns, caption, measured="measured here")


if __name__ == "__main__":
    t, h, w = map(int, sys.argv[2].split("x"))
    print(peak_bytes(Core(sys.argv[1], (t, h, w))))
