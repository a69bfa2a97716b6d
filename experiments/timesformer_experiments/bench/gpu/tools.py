"""The slice `tools`: capture of CUDA graphs, compute-sanitizer and Nsight Compute on the kernels; a GPU is needed.

Without a GPU or without a tool each of them is a row that says 'not measured' and why.
"""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial

import torch

from timesformer.files import write_atomic
from timesformer_experiments.bench.gpu.accuracy import Problem, same_bits
from timesformer_experiments.bench.gpu.bench import DTYPES, Bench
from timesformer_experiments.bench.gpu.providers import ours
from timesformer_experiments.bench.gpu.record import Row
from timesformer_experiments.bench.gpu.sizes import SIZES, STEPS, Sizes, step_of
from timesformer_kernels import why_unusable

SANITIZERS = ("memcheck", "racecheck")
METRICS = (
    "gpu__time_duration.sum",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed",
    "lts__throughput.avg.pct_of_peak_sustained_elapsed",
    "sm__inst_issued.avg.pct_of_peak_sustained_active",
)
"""Duration, throughput of memory and of the L2 cache, and share of active issue slots."""
PROFILED = ("time", "space")
SECONDS = {"graph": 3.0, "memcheck": 120.0, "racecheck": 120.0, "ncu": 60.0}
"""Expected durations."""


def tools(bench: Bench) -> None:
    """Capture a graph of every kind of step, then call the tools; rows of the slice `tools`."""
    for kind in STEPS:
        reason = bench.refused(kind)
        _one(bench, "graph", kind, partial(capture, bench, kind), reason)
    for name in SANITIZERS:
        _one(bench, name, "checks", partial(sanitize, bench, name), _without("compute-sanitizer"))
    for kind in PROFILED:
        _one(bench, "ncu", kind, partial(profile, bench, kind), bench.refused(kind) or _without("ncu"))


def _one(bench: Bench, provider: str, what: str, action: Callable[[], Row], reason: str | None) -> None:
    """Run a tool, or record why it is not run."""
    if bench.device.type != "cuda":
        reason = "not measured: needs a GPU"
    else:
        reason = why_unusable(bench.device) or reason
    if reason is not None:
        bench.skip("tools", f"{provider}, {what}", reason)
        return
    grid = "x".join(map(str, bench.sizes.grids[0]))
    row = bench.row("tools", provider, what, grid, batch=bench.sizes.batches[0], code=bench.kernels_code)
    bench.measure(row, SECONDS[provider], action)


def _without(program: str) -> str | None:
    return None if shutil.which(program) else f"not measured: {program} is not on the PATH"


def capture(bench: Bench, kind: str) -> Row:
    """Capture a step's kernels, forward, in a CUDA graph, replay it on other inputs, and compare with a plain call.

    Raises:
        RuntimeError: the kernels cannot be captured, or a replay gives other bits.
    """
    step, grid, sizes = step_of(kind), bench.sizes.grids[0], bench.sizes
    first, second = (
        Problem.draw(step, grid, 1, sizes.heads, sizes.head_width, bench.dtype, bench.device, seed) for seed in (5, 6)
    )
    compute = ours(step, grid, (first.qkv, first.cls))
    with torch.no_grad():
        side = torch.cuda.Stream(bench.device)
        with torch.cuda.stream(side):  # kernels are compiled before the capture
            first.forward(compute)
        side.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = first.forward(compute)
        expected = second.forward(compute)
        first.qkv.copy_(second.qkv)
        if first.cls is not None and second.cls is not None:
            first.cls.copy_(second.cls)
        graph.replay()
        torch.cuda.synchronize(bench.device)
    if not same_bits(found, expected):
        raise RuntimeError("the replay of a CUDA graph gives other bits than a plain call")
    return {"note": "captured, and replayed with the same bits"}


def sanitize(bench: Bench, tool: str) -> Row:
    """Run the checks, tiny, under compute-sanitizer, with a record of their own; its report is kept as
    `tools/memcheck.txt` and the like.

    Raises:
        RuntimeError: it found an error.
    """
    folder = bench.options.out / "tools"
    shutil.rmtree(folder / tool, ignore_errors=True)  # checks that passed before would not be made again
    tested = [sys.executable, "-m", "timesformer_experiments.bench.gpu", "--only", "checks", "--size", "tiny"]
    tested += ["--device", "cuda", "--dtype", bench.dtype_name, "--out", str(folder / tool), "--worker"]
    command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "99", *tested, "--run", tool]
    done = subprocess.run(command, capture_output=True, text=True, timeout=4 * SECONDS[tool])
    text = done.stdout + done.stderr
    write_atomic(folder / f"{tool}.txt", text)
    if done.returncode:
        raise RuntimeError(f"{tool}: exit code {done.returncode}; {_summary(text)}")
    return {"note": _summary(text)}


def _summary(text: str) -> str:
    """Return the line of compute-sanitizer that sums up."""
    return next((line.strip("= ") for line in reversed(text.splitlines()) if "SUMMARY" in line), "no summary")


def profile(bench: Bench, kind: str) -> Row:
    """Profile our kernels of a step with Nsight Compute; its table is kept as `tools/ncu_time.csv` and the like.

    Returns the largest value of every metric over the kernels of the step.

    Raises:
        RuntimeError: the profiler failed, as where counters are reserved for administrators.
    """
    profiled = [sys.executable, "-m", "timesformer_experiments.bench.gpu.tools", kind, bench.sizes.name]
    command = ["ncu", "--clock-control", "none", "--csv", "--metrics", ",".join(METRICS)]
    command += ["--kernel-name", "regex:short_|long_", *profiled, bench.dtype_name, "cuda"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=4 * SECONDS["ncu"])
    if done.returncode:
        raise RuntimeError(f"ncu: exit code {done.returncode}; {(done.stderr or done.stdout).strip()[-200:]}")
    lines = [line for line in done.stdout.splitlines() if line.startswith('"')]
    write_atomic(bench.options.out / "tools" / f"ncu_{kind}.csv", "\n".join([*lines, ""]))
    largest: dict[str, float] = {}
    for row in csv.DictReader(lines):
        value = float(row["Metric Value"].replace(",", ""))
        largest[row["Metric Name"]] = max(value, largest.get(row["Metric Name"], value))
    if not largest:
        raise RuntimeError("ncu: no kernel of ours was profiled")
    return {"note": ", ".join(f"{name} {value:g}" for name, value in sorted(largest.items()))}


def step_once(kind: str, sizes: Sizes, dtype: torch.dtype, device: torch.device) -> None:
    """Run our kernels of a step once, forward and backward, at the first grid and batch: what is profiled."""
    step, grid = step_of(kind), sizes.grids[0]
    problem = Problem.draw(step, grid, sizes.batches[0], sizes.heads, sizes.head_width, dtype, device)
    leaves = problem.requiring_gradients()
    leaves.forward_backward(ours(step, grid, (leaves.qkv, leaves.cls)))


if __name__ == "__main__":
    step_once(sys.argv[1], SIZES[sys.argv[2]], DTYPES[sys.argv[3]], torch.device(sys.argv[4]))
