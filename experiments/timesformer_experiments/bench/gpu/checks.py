"""Correctness checks on the measured device: no kernel is timed before its values and gradients are right on it.

Every kind of step in every precision is checked and gated by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from timesformer.attention import Grid, Step, oracle
from timesformer.attention.scheme import ClassPolicy
from timesformer_experiments.bench.gpu import say
from timesformer_experiments.bench.gpu.accuracy import Problem, by, judge, poisoned_outputs, same_bits, written_out
from timesformer_experiments.bench.gpu.bench import DTYPES, Bench
from timesformer_experiments.bench.gpu.machine import free_memory
from timesformer_experiments.bench.gpu.providers import Output, ours
from timesformer_experiments.bench.gpu.record import Row, key_of
from timesformer_experiments.bench.gpu.sizes import STEPS, step_of
from timesformer_kernels import add_norm, why_unusable

SECONDS = 2.5
"""Expected duration of a check, the kernels' compilation included."""


class WrongResult(RuntimeError):
    """A kernel's values or gradients are wrong on this device."""


def ensure(bench: Bench) -> bool:
    """Run the checks that have not passed on this device with this code; return False if one fails.

    A failure forbids to time the kernel that failed, in the precision in which it failed: `bench.wrong` holds it.
    Everything else is timed.  If the kernels cannot run here, return True and record the reason.
    """
    reason = why_unusable(bench.device)
    if reason is not None:
        bench.skip("checks", "ours", reason)
        return True
    passed = True
    for kind, step, grid, dtype in _cases(bench):
        shape = "x".join(map(str, grid))
        one = {**bench.row("checks", "ours", kind, shape, code=bench.kernels_code), "dtype": dtype}
        passed &= _check(bench, one, kind, partial(check_step, bench, step, grid, DTYPES[dtype]))
    one = bench.row("checks", "ours", "add_norm", f"37x{bench.sizes.width}", code=bench.kernels_code)
    passed &= _check(bench, one, "add_norm", lambda: check_add_norm(bench))
    if bench.device.type == "cuda" and bench.sizes.name == "full":
        one = bench.row("checks", "ours", "addresses beyond 2^31", "64 clips of 96x14x14", code=bench.kernels_code)
        passed &= _check(bench, one, "time", lambda: check_addresses(bench, (96, 14, 14), 64))
    if bench.wrong:
        found = ", ".join(f"{kind} {dtype}" for kind, dtype in sorted(bench.wrong))
        say(f"wrong on this device, and therefore not timed: {found}")
    return passed


def _check(bench: Bench, row: Row, kind: str, action: Callable[[], float]) -> bool:
    """Make a check unless it has passed; return True if it passes.

    A check that failed earlier in this run, or ended its process, is not repeated in the run.
    """
    if bench.status(row) == "ok":
        return True
    if bench.planned is not None:
        bench.planned.append(("checks", SECONDS))
        return True
    found = bench.record.rows.get(key_of(row))
    if found is None or not bench.options.run or found.get("run_name") != bench.options.run:
        bench.measure_now(row, lambda: {"error_share": action()})
    if bench.status(row) == "ok":
        return True
    bench.wrong.add((kind, row["dtype"]))
    return False


def _cases(bench: Bench) -> list[tuple[str, Step, Grid, str]]:
    """Return every kind of step on every grid in the timed precision, then other class policies and precisions."""
    cases = [(kind, step_of(kind), grid, bench.dtype_name) for grid in bench.sizes.check_grids for kind in STEPS]
    grid = bench.sizes.check_grids[-1]
    others: tuple[tuple[str, ClassPolicy], ...] = (
        ("time", "replicated"), ("time", "global"), ("space", "absent"), ("space", "global")
    )  # fmt: skip
    for kind, policy in others:
        cases.append((f"{kind}, class token {policy}", replace(step_of(kind), cls=policy), grid, bench.dtype_name))
    alone = replace(step_of("joint"), cls="global")  # the clip's keys are split for the class token's query
    cases.append(("joint, class token global", alone, bench.sizes.check_grids[0], bench.dtype_name))
    for dtype in DTYPES:
        if dtype != bench.dtype_name:
            cases += [(kind, step_of(kind), grid, dtype) for kind in ("time", "space")]
    return cases


def check_step(bench: Bench, step: Step, grid: Grid, dtype: torch.dtype) -> float:
    """Check values and gradients of the kernels against the dense oracle in float64, and that two runs are identical.

    Outputs hold NaN before.  Returns the largest error as a share of the allowed one; raises WrongResult.
    """
    problem = Problem.draw(step, grid, 2, bench.sizes.heads, bench.sizes.head_width, dtype, bench.device, seed=1)
    leaves = problem.requiring_gradients()
    compute = ours(step, grid, (leaves.qkv, leaves.cls))

    def dense(qkv: Tensor, cls: Tensor | None) -> Output:
        return oracle(step, qkv, cls)

    with poisoned_outputs():
        first, second = leaves.forward_backward(compute), leaves.forward_backward(compute)
    exact, low = by(dense, problem, torch.float64), by(dense, problem, dtype)
    share, complaint = judge(first, exact, low, dtype)
    if not same_bits(first, second):
        complaint = "; ".join(filter(None, (complaint, "two runs on the same inputs differ")))
    free_memory(bench.device)
    if complaint:
        raise WrongResult(complaint)
    return share


def check_addresses(bench: Bench, grid: Grid, batch: int) -> float:
    """Check the last clip of a batch whose qkv has more elements than 32 bits can count, like `check_step`."""
    step, sizes = step_of("time"), bench.sizes
    problem = Problem.draw(step, grid, batch, sizes.heads, sizes.head_width, bench.dtype, bench.device, seed=3)
    leaves = problem.requiring_gradients()
    found = leaves.forward_backward(ours(step, grid, (leaves.qkv, None)))
    exact, low = (written_out(step, grid, problem, dtype) for dtype in (torch.float64, bench.dtype))
    share, complaint = judge(found, exact, low, bench.dtype)
    if complaint:
        raise WrongResult(complaint)
    return share


def check_add_norm(bench: Bench) -> float:
    """Check sum, norm and gradients of the fused residual addition and layer norm, like `check_step`."""
    width, dtype, generator = bench.sizes.width, bench.dtype, torch.Generator(bench.device).manual_seed(2)
    x, more, weight, bias, dtotal, dnormed = (
        torch.randn(shape, generator=generator, device=bench.device, dtype=dtype)
        for shape in ((37, width), (37, width), (width,), (width,), (37, width), (37, width))
    )

    def results(fused: bool, precision: torch.dtype) -> tuple[Tensor, ...]:
        inputs = [tensor.detach().to(precision).requires_grad_() for tensor in (x, more, weight, bias)]
        if fused:
            total, normed = add_norm(inputs[0], inputs[1], inputs[2], inputs[3], 1e-6)
        else:
            total = inputs[0] + inputs[1]
            normed = torch.nn.functional.layer_norm(total, (width,), inputs[2], inputs[3], 1e-6)
        gradients = torch.autograd.grad((total, normed), inputs, (dtotal.to(precision), dnormed.to(precision)))
        return total.detach(), normed.detach(), *gradients

    exact, low = results(False, torch.float64), results(False, dtype)
    with poisoned_outputs():
        found = results(True, dtype)
    shares, complaints = zip(
        *(judge((a,), (b,), (c,), dtype) for a, b, c in zip(found, exact, low, strict=True)), strict=True
    )
    if any(complaints):
        raise WrongResult("; ".join(filter(None, complaints)))
    return max(shares)
