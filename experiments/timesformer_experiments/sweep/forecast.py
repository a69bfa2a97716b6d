"""Forecast of a sweep before it runs: MACs, memory and time of the remaining runs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from rich.console import Group
from rich.table import Table
from rich.text import Text

from timesformer.config.registry import macs_per_view
from timesformer.evaluation.evaluate import protocol_named
from timesformer.progress import duration
from timesformer_experiments.cost.gpu_hours import Budget
from timesformer_experiments.cost.measures import predicted_memory, timed
from timesformer_experiments.cost.training import macs_per_trained_clip
from timesformer_experiments.jobs.plan import Plan
from timesformer_experiments.report.terminal import plain_text
from timesformer_experiments.specs.job import Job
from timesformer_experiments.specs.run import ProbeData, RunSpec

GEMM_SIDE, GEMM_SECONDS = 512, 0.3
EFFICIENCY = 0.2
"""Fraction of the rate of a large matrix product that training reaches; assumed before a run has been measured."""
START_SECONDS = 5.0
"""Time of a run in addition to its steps; assumed before a run has been measured."""
COUNT_SECONDS = 1.5
"""Time to count the cost of a cell; assumed before one has been measured."""
SHOWN = 40


@dataclass(frozen=True)
class RunForecast:
    """Forecast of one run: state ("done", "failed", "left"), MACs of training and test, and predicted memory if left.

    memory_bytes: peak of a training step in each of its processes, or of inference if nothing is trained, on a GPU if
    this machine has one; None if nothing is predicted.
    """

    hash: str
    name: str
    state: str
    train_macs: int
    test_macs: int
    memory_bytes: int | None
    seconds: float


@dataclass(frozen=True)
class Forecast:
    """Forecast of a whole sweep; MACs, memory and time are those of the remaining runs.

    equalised: for cells at equal cost, by name, what was solved (`specs.equalise`).  phases: runs in every state, for a
    sweep whose runs depend on one another; most_runs: their number if no claim is decided early.  budget: the GPU for
    which GPU-hours are estimated.
    """

    sweep: str
    cells: int
    runs: tuple[RunForecast, ...]
    slots: int
    how: str
    equalised: dict[str, dict[str, Any]] = field(default_factory=dict)
    phases: dict[str, dict[str, int]] = field(default_factory=dict)
    most_runs: int = 0
    budget: Budget | None = None

    @property
    def left(self) -> tuple[RunForecast, ...]:
        """Return the runs that have no outcome yet."""
        return tuple(run for run in self.runs if run.state == "left")

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        left = self.left
        memory = [run.memory_bytes for run in left if run.memory_bytes is not None]
        return {
            "sweep": self.sweep,
            "cells": self.cells,
            "runs": len(self.runs),
            "done": sum(run.state == "done" for run in self.runs),
            "failed": sum(run.state == "failed" for run in self.runs),
            "left": len(left),
            "train_macs": sum(run.train_macs for run in left),
            "test_macs": sum(run.test_macs for run in left),
            "largest_memory_bytes": max(memory, default=None),
            "jobs": self.slots,
            "seconds": sum(run.seconds for run in left) / self.slots,
            "seconds_how": self.how,
            "each": [
                asdict(run) | ({"gpu_hours": self.budget.hours(run.train_macs)} if self.budget else {})
                for run in self.runs
            ],
            **({"equalised": self.equalised} if self.equalised else {}),
            **({"gpu_hours": self.budget.to_dict(sum(run.train_macs for run in left))} if self.budget else {}),
            **({"phases": self.phases, "most_runs": self.most_runs} if self.phases else {}),
        }


def forecast(
    sweep: str,
    plan: Plan,
    slots: int,
    memory: bool = True,
    say: Callable[[str], None] = lambda text: None,
    most_runs: int = 0,
) -> Forecast:
    """Return the forecast of a plan whose records have been read.

    slots: number of runs in parallel.  memory: also predict memory, which takes a second or two per size of model.
    most_runs: for a sweep whose runs depend on one another.
    """
    left = [job for key, job in plan.jobs.items() if key not in plan.records and key not in plan.failures]
    macs = {key: _macs(job) for key, job in plan.jobs.items()}
    rate, start, count, how = _speed(plan, macs, left)
    peaks: dict[str, int] = {}
    if memory:
        needing = {job.cost.hash(): job for job in left if _needs_memory(job)}
        for number, (key, job) in enumerate(needing.items(), start=1):
            if number % 10 == 0:
                say(f"memory predicted for {number} of {len(needing)} sizes")
            trains = "accuracy" in job.measure
            found = predicted_memory(job.cost, "cuda" if torch.cuda.is_available() else "cpu")
            peaks[key] = int(found["train_peak_memory_bytes" if trains else "inference_peak_memory_bytes"])
    runs = []
    for key, job in plan.jobs.items():
        state = "done" if key in plan.records else "failed" if key in plan.failures else "left"
        train, test = macs[key]
        trains = "accuracy" in job.measure
        seconds = start + train / rate(job) if trains else count
        peak = peaks.get(job.cost.hash()) if state == "left" and _needs_memory(job) else None
        runs.append(RunForecast(key, job.name, state, train, test, peak, seconds if state == "left" else 0.0))
    cells = sum(job.cell is not None for job in plan.jobs.values())
    noted = {job.name: job.notes["equalised"] for job in plan.jobs.values() if "equalised" in job.notes}
    phases = _phases(plan, runs) if most_runs else {}
    return Forecast(sweep, cells, tuple(runs), slots, how, noted, phases, most_runs)


def _phases(plan: Plan, runs: Sequence[RunForecast]) -> dict[str, dict[str, int]]:
    found = {}
    for phase, role in (("tuning", "tuning"), ("final", "cell")):
        states = [run.state for run in runs if plan.jobs[run.hash].role == role]
        if states:
            found[phase] = {"runs": len(states)} | {s: states.count(s) for s in ("done", "failed", "left")}
    return found


def _needs_memory(job: Job) -> bool:
    """Return True if a job runs a model; counting alone does not."""
    return "accuracy" in job.measure or timed(job.measure)


def _macs(job: Job) -> tuple[int, int]:
    """Return the MACs of training and of the test of a run."""
    spec = job.spec
    if not isinstance(spec, RunSpec) or "accuracy" not in job.measure:
        return 0, 0
    if isinstance(spec.data, ProbeData):
        train = spec.data.num_train
        test = spec.data.num_test if spec.evaluate_on == "test" else spec.data.num_val
    else:
        train, test = (len(videos) for videos in spec.data.annotations(spec.evaluate_on))
    view = macs_per_view(spec.model, kind="executed")
    steps = spec.recipe.total_steps(train)
    views = protocol_named(spec.protocol).views.per_video or 1
    return macs_per_trained_clip(spec.model, spec.recipe) * spec.recipe.batch_size * steps, view * views * test


def _speed(
    plan: Plan, macs: dict[str, tuple[int, int]], left: Sequence[Job]
) -> tuple[Callable[[Job], float], float, float, str]:
    """Return MACs per second for a job, seconds in addition to its steps, seconds to count a cell, and their source."""
    rates: dict[str, list[float]] = {}
    starts, counts = [], []
    for key, record in plan.records.items():
        job, metrics = plan.jobs[key], record["metrics"]
        if "accuracy" not in job.measure:
            counts.append(record["wall_seconds"])
        elif metrics["train_seconds"] > 0:
            rates.setdefault(job.spec.model.attention, []).append(macs[key][0] / metrics["train_seconds"])
            starts.append(max(0.0, record["wall_seconds"] - metrics["train_seconds"]))
    count = statistics.median(counts) if counts else COUNT_SECONDS
    if all("accuracy" not in job.measure for job in left):
        source = f"measured over {len(counts)} finished cells" if counts else "assumed"
        return lambda job: 1.0, 0.0, count, f"{count:.2g} s per cell, {source}"
    if rates:
        overall = statistics.median([rate for found in rates.values() for rate in found])

        def rate(job: Job) -> float:
            return statistics.median(rates.get(job.spec.model.attention, [overall]))

        return rate, statistics.median(starts), count, f"from the speed of {len(starts)} finished runs"
    gemm = gemm_rate()
    how = (
        f"assuming {EFFICIENCY:.0%} of {gemm / 1e9:.1f} GMAC/s, the rate of a {GEMM_SIDE} x {GEMM_SIDE} matrix product "
        f"measured now, and {START_SECONDS:.0f} s per run in addition; more exact once a run is finished"
    )
    return lambda job: EFFICIENCY * gemm, START_SECONDS, count, how


def gemm_rate() -> float:
    """Measure MACs per second of a square fp32 matrix product on the training device, with one thread on a CPU."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        a = torch.randn(GEMM_SIDE, GEMM_SIDE, device=device)
        torch.mm(a, a)
        began, done = time.perf_counter(), 0
        while time.perf_counter() - began < GEMM_SECONDS:
            torch.mm(a, a)
            if device.type == "cuda":
                torch.cuda.synchronize()
            done += 1
        return float(done * GEMM_SIDE**3 / (time.perf_counter() - began))
    finally:
        torch.set_num_threads(before)


def _amount(value: float, decimals: int) -> str:
    """Write a number with so many decimals, or with two digits where it is too small for them."""
    return f"{value:,.{decimals}f}" if value == 0 or value >= 10 * 0.1**decimals else f"{value:.2g}"


def summary(found: Forecast) -> str:
    """Return the forecast as one line."""
    facts = found.to_dict()
    words = [f"{found.sweep}: {found.cells} cells, {facts['runs']} runs"]
    words.append(f"{facts['done']} done, {facts['failed']} failed, {facts['left']} left")
    for phase, counts in found.phases.items():
        words.append(f"{phase}: {counts['runs']} runs, {counts['done']} done")
    if found.most_runs > len(found.runs):
        words.append(f"up to {found.most_runs} runs if claims stay undecided")
    if facts["train_macs"]:
        words.append(f"{facts['train_macs'] / 1e12:,.3g} TMACs to train, {facts['test_macs'] / 1e12:,.3g} to test")
    if facts["largest_memory_bytes"] is not None:
        words.append(f"at most {_amount(facts['largest_memory_bytes'] / 2**30, 2)} GiB predicted per run")
    if facts["left"]:
        words.append(f"about {duration(facts['seconds'])} with {found.slots} in parallel ({found.how})")
    return "; ".join(words)


def show(found: Forecast) -> Group:
    """Return the forecast for a terminal: one line, then the remaining runs (the most expensive ones of many)."""
    parts: list[Any] = [Text(summary(found))]
    left = sorted(found.left, key=lambda run: -run.train_macs)
    if left:
        table = Table("run", box=None, pad_edge=False)
        headings = ("GMACs to train", "to test", "memory [GiB]", "time")
        for heading in (*headings, "GPU-hours") if found.budget else headings:
            table.add_column(heading, justify="right", no_wrap=True)
        for run in left[:SHOWN]:
            memory = "–" if run.memory_bytes is None else _amount(run.memory_bytes / 2**30, 2)
            macs = (_amount(value / 1e9, 1) for value in (run.train_macs, run.test_macs))
            hours = [f"{found.budget.hours(run.train_macs):,.3g}"] if found.budget else []
            table.add_row(plain_text(run.name), *macs, memory, duration(run.seconds), *hours)
        parts.append(table)
        if len(left) > SHOWN:
            parts.append(Text(f"… and {len(left) - SHOWN} more; see all with --json"))
    if found.budget:
        parts.append(Text(_total(found, found.budget)))
    if found.equalised:
        parts.append(_equal_cost(found.equalised))
    return Group(*parts)


def _total(found: Forecast, budget: Budget) -> str:
    hours = budget.hours(sum(run.train_macs for run in found.left))
    price = "" if budget.price is None else f", {hours * budget.price:,.0f} at {budget.price:g} an hour"
    return f"{hours:,.3g} GPU-hours in all{price}. {budget.statement()}."


def _equal_cost(notes: Mapping[str, dict[str, Any]]) -> Table:
    first = next(iter(notes.values()))
    table = Table("at equal cost", box=None, pad_edge=False)
    for heading in (first["vary"], first["by"], "wanted", "difference"):
        table.add_column(heading, justify="right", no_wrap=True)
    different: dict[str, str] = {}  # seeds and draws cost the same
    for name, note in notes.items():
        different.setdefault(str(note), name)
    for name in list(different.values())[:SHOWN]:
        note = notes[name]
        value = "–" if note["value"] is None else str(note["value"])
        numbers = (f"{note['cost']:,}", f"{note['target']:,}", f"{note['difference_percent']:+.2f} %")
        table.add_row(plain_text(name), value, *numbers)
    return table
