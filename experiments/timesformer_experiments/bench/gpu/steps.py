"""The slices `kernels` and `flex`: one attention step from packed qkv, by every provider, on every grid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch

from timesformer.attention import Grid, Step
from timesformer.config.counting import step_pairs
from timesformer_experiments.bench.gpu.accuracy import Problem, Values, judge, worst, written_out
from timesformer_experiments.bench.gpu.bench import Bench
from timesformer_experiments.bench.gpu.floors import DIRECTIONS, Direction, step_floor
from timesformer_experiments.bench.gpu.machine import Unsupported, free_memory, input_sets, kernel_ms
from timesformer_experiments.bench.gpu.providers import FLEX, PROVIDERS, Provider
from timesformer_experiments.bench.gpu.record import Row
from timesformer_experiments.bench.gpu.sizes import STEPS, step_of
from timesformer_kernels import why_unusable

CPU_PAIRS = 1 << 25
"""Largest number of pairs per head of a clip (268 MB of scores in float64) for unfused attention on a CPU.

Beyond it, no error is computed, and providers that keep all scores in memory are not timed.
"""


@dataclass(frozen=True)
class Case:
    """One step at one size."""

    kind: str
    grid: Grid
    batch: int

    @property
    def step(self) -> Step:
        return step_of(self.kind)


def cases(bench: Bench) -> Iterator[Case]:
    """Yield the cases, by batch with the largest first, then by step in the order of `STEPS`."""
    options, sizes = bench.options, bench.sizes
    for batch in options.batches or sizes.batches:
        for kind in options.steps or tuple(STEPS):
            for grid in options.grids or sizes.grids:
                yield Case(kind, grid, batch)


def kernels(bench: Bench) -> None:
    """Measure every provider except FlexAttention."""
    wanted = bench.options.providers
    providers = [provider for name, provider in PROVIDERS.items() if not wanted or name in wanted]
    for case in cases(bench):
        measure_case(bench, case, providers, "kernels")


def flex(bench: Bench) -> None:
    """Measure FlexAttention, at the first batch only, because its compilation takes longer than all the rest."""
    batch = (bench.options.batches or bench.sizes.batches)[0]
    for case in cases(bench):
        if case.batch == batch:
            measure_case(bench, case, [FLEX], "flex")


def measure_case(bench: Bench, case: Case, providers: list[Provider], slice_name: str) -> None:
    """Measure all directions with all providers; inputs and the float64 reference are made once, when first needed."""
    todo: list[tuple[Provider, Direction, Row]] = []
    for provider in providers:
        for direction in DIRECTIONS:
            row = _row(bench, case, provider, direction, slice_name)
            reason = why_unusable(bench.device) if provider.name == "ours" else None
            name = provider.name
            if reason is None and name == "ours" and (reason := bench.refused(case.kind)) is not None:
                name = f"ours, {case.kind}"
            if not provider.cpu and bench.device.type == "cpu":
                reason = "measured on a GPU only"
            if reason is not None:
                bench.skip(slice_name, name, reason)
            elif bench.wanted(row):
                todo.append((provider, direction, row))
    if not todo:
        return
    inputs = _Inputs(bench, case)
    for provider, direction, row in todo:
        action = partial(_measure, bench, case, inputs, provider, direction)
        bench.measure(row, provider.seconds, action, kernels=provider.name == "ours")
    del inputs
    if bench.planned is None:
        free_memory(bench.device)


def _row(bench: Bench, case: Case, provider: Provider, direction: Direction, slice_name: str) -> Row:
    sizes = bench.sizes
    floor = step_floor(case.step, case.grid, case.batch, sizes.heads, sizes.head_width, bench.dtype.itemsize, direction)
    return bench.row(
        slice_name,
        provider.name,
        case.kind,
        "x".join(map(str, case.grid)),
        batch=case.batch,
        heads=sizes.heads,
        head_width=sizes.head_width,
        direction=direction,
        code=bench.kernels_code if provider.name == "ours" else "",
        bytes_needed=floor.bytes,
        flops_needed=floor.flops,
    )


class _Inputs:
    """Alternating sets of inputs of a case, and the exact results for the last clip of the first set."""

    def __init__(self, bench: Bench, case: Case) -> None:
        self.bench, self.case = bench, case
        self._sets: list[Problem] = []
        self._exact: tuple[Values, Values] | None = None

    def _draw(self, seed: int) -> Problem:
        case, sizes, bench = self.case, self.bench.sizes, self.bench
        return Problem.draw(
            case.step, case.grid, case.batch, sizes.heads, sizes.head_width, bench.dtype, bench.device, seed
        )

    @property
    def sets(self) -> list[Problem]:
        if not self._sets:
            self._sets = [self._draw(0)]
            count = input_sets(self.bench.device, self._sets[0].bytes)
            self._sets += [self._draw(seed) for seed in range(1, count)]
        return self._sets

    def exact_and_low(self) -> tuple[Values, Values] | None:
        """Return outputs and gradients of unfused attention in float64 and in the timed precision."""
        problem, case = self.sets[0], self.case
        if self._exact is None and self.affordable():
            exact, low = (
                written_out(case.step, case.grid, problem, dtype) for dtype in (torch.float64, self.bench.dtype)
            )
            self._exact = exact, low
        return self._exact

    def affordable(self) -> bool:
        """Return True if memory suffices for unfused attention; on a GPU it does for all sizes of the benchmark."""
        if self.bench.device.type == "cuda":
            return True
        (pairs,) = step_pairs(self.case.step, self.case.grid)
        return pairs is not None and pairs.total <= CPU_PAIRS


def _measure(bench: Bench, case: Case, inputs: _Inputs, provider: Provider, direction: Direction) -> Row:
    """Measure the error, then the time; kernels that are wrong at this size are not timed."""
    backward = direction == "forward_backward"
    problems = [problem.requiring_gradients() for problem in inputs.sets] if backward else inputs.sets
    reference = inputs.exact_and_low()
    if provider.name in ("sdpa_math", "fair_eager") and not inputs.affordable():
        raise Unsupported("its scores are too large for this machine")
    compute = provider.make(case.step, case.grid, (problems[0].qkv, problems[0].cls))

    def call(number: int) -> Values:
        problem = problems[number]
        if backward:
            return problem.forward_backward(compute)
        with torch.no_grad():
            return problem.forward(compute)

    result: Row = {}
    found = call(0)
    if reference is not None:
        exact, low = (values[: len(found)] for values in reference)
        result["error_vs_float64"] = worst(found, exact)
        if provider.name == "ours":
            _, complaint = judge(found, exact, low, bench.dtype)
            if complaint:
                raise RuntimeError(f"not timed, because the result is wrong on this device: {complaint}")
    del found
    return {**result, "ms": kernel_ms(bench.device, call, len(problems))}
