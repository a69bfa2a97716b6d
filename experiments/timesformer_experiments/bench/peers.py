"""Speed on CPU, compared with transformers and with inference engines on an export of its model.

ViT-B, one clip, inference and training steps, fp32 and bf16. All sides of a case hold the same weights, get the same
clip and the same number of threads, and take turns, so that other load on the machine affects all of them. None is
timed before its outputs agree with ours. Matrix products of the model's size take turns with them: their rate gives the
time that the model's products alone would take.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from timesformer import TimeSformerConfig
from timesformer.config.counting import macs_per_view
from timesformer.errors import InputError
from timesformer.evaluation.forward import fast_bf16
from timesformer.training.recipe import Precision
from timesformer_experiments.bench.engines import Direction, NotInstalled, Run, Sizes, Workbench, macs_of
from timesformer_experiments.bench.gpu.machine import MODEL_SOURCES, code_of
from timesformer_experiments.records.log import environment, now_utc

SIDES: dict[Direction, tuple[str, ...]] = {
    "inference": ("ours", "fused", "transformers", "transformers_compiled", "onnxruntime", "openvino"),
    "training": ("ours", "transformers"),
}
OURS: dict[Direction, str] = {"inference": "fused", "training": "ours"}
"""Side of ours that is compared with the peers."""
VIT_B = Sizes()
LIMIT = "matrix products alone"
ALLOWED: dict[Precision, float] = {"fp32": 1e-4, "bf16": 0.05}
"""Largest difference from our outputs in fp32, relative to the largest of them, with which a side is timed."""
PACKAGES = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime", "openvino")
CODE = (*MODEL_SOURCES, "timesformer_experiments.bench.engines", "timesformer_experiments.bench.peers")
EMULATED = "the processor has neither AVX512-BF16 nor AMX, so that bf16 would be emulated"
BACKWARD = 3
"""Products of a training step, as a multiple of those of a forward pass."""
PREPARATION_SECONDS: dict[Direction, float] = {"inference": 60.0, "training": 10.0}
SLOWER = {("divided", "inference"): 1.6, ("joint", "inference"): 2.4}
"""For the plan only: time of a side as a multiple of its products' time."""


@dataclass(frozen=True)
class Case:
    """One comparison. `rounds_share`: share of the rounds that it gets, smaller for long ones."""

    attention: str
    num_frames: int
    direction: Direction
    precision: Precision
    rounds_share: float = 1.0

    def label(self, image_size: int) -> str:
        """Short text, such as `joint 16x224`."""
        return f"{self.attention} {self.num_frames}x{image_size}"

    def rounds(self, repetitions: int) -> int:
        """Return the number of rounds, at least two."""
        return max(2, math.ceil(repetitions * self.rounds_share))

    @property
    def goal(self) -> tuple[float, tuple[str, ...]] | None:
        """Factor by which ours is to be faster, and than which of these sides (the fastest); None: no goal is set."""
        peers = tuple(side for side in SIDES[self.direction] if side not in ("ours", "fused"))
        if self.direction == "training":
            wanted = {("divided", 8): 1.05, ("divided", 16): 1.05, ("joint", 16): 2.0}
            found = wanted.get((self.attention, self.num_frames)) if self.precision == "fp32" else None
            return None if found is None else (found, peers)
        if self.precision == "bf16":
            return 1.1, peers
        if self.attention == "divided":
            return 1.15, peers
        return {8: 1.8, 16: 2.5}[self.num_frames], ("transformers",)


CASES = tuple(
    Case(attention, frames, direction, precision, 1.0 if frames == 8 else 0.5)
    for precision in ("fp32", "bf16")
    for frames in (8, 16)
    for direction in ("inference", "training")
    for attention in ("divided", "joint")
)


def run(
    cases: Sequence[Case] = CASES,
    *,
    sizes: Sizes = VIT_B,
    repetitions: int = 5,
    threads: int | None = None,
    minutes: float = 12.0,
    emulate: bool = False,
    retry: bool = False,
    previous: dict[str, Any] | None = None,
    keep: Callable[[dict[str, Any]], object] = lambda record: None,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Measure the cases that are still to be measured and that fit into the time; return a record with every round.

    minutes: time limit; no case begins whose planned time exceeds what is left.  emulate: measure bf16 also where the
    processor has no instructions for it.  retry: measure cases anew in which a side failed.  previous: an earlier
    record, whose cases are kept if code, versions, processor, threads and rounds are the same.  keep: called with the
    record after every case.
    """
    began, before = time.monotonic(), torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        record = _empty(sizes, repetitions)
        kept = _kept(record, previous, retry)
        can = emulate or fast_bf16(torch.device("cpu")) is not None
        rate = _rate(sizes)
        seconds = {case: _planned(case, sizes, repetitions, rate, can) for case in cases}
        left = [case for case in cases if asdict(case) not in [result["case"] for result in kept]]
        for line in _plan(left, sizes, seconds, len(kept)):
            progress(line)
        for case in left:
            if time.monotonic() - began + seconds[case] > 60 * minutes:
                progress(f"{_name(case, sizes)}: does not fit into {minutes:g} minutes; repeat the command to continue")
                continue
            kept.append(measure(case, sizes, case.rounds(repetitions), can, progress))
            order = {str(asdict(each)): number for number, each in enumerate(CASES)}
            kept.sort(key=lambda result: order.get(str(result["case"]), len(order)))
            record = {**record, "finished_utc": now_utc(), "results": kept}
            keep(record)
        return {**record, "finished_utc": record.get("finished_utc", now_utc()), "results": kept}
    finally:
        torch.set_num_threads(before)


def _empty(sizes: Sizes, repetitions: int) -> dict[str, Any]:
    return {
        "bench": "peers",
        "what": "one clip, random weights, the same on all sides; inference: evaluation mode without gradients; "
        "training: forward, cross-entropy, backward and plain SGD; seconds of interleaved rounds after a warm-up; "
        f"{LIMIT}: the multiply-accumulates of our model divided by the rate of its MLP's products in the same round",
        "identity": {
            "code": code_of(CODE),
            "versions": {name: _version(name) for name in PACKAGES},
            "cpu_model": environment()["cpu_model"],
            "threads": torch.get_num_threads(),
            "repetitions": repetitions,
            "sizes": asdict(sizes),
        },
        "environment": environment(),
    }


def read(path: Path) -> dict[str, Any] | None:
    """Return the record in a file; None if there is none.  Raises InputError if the file holds no such record."""
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: expected a record of timesformer bench --only peers, got no JSON: {error}") from None
    if not isinstance(record, dict) or not isinstance(record.get("results"), list):
        raise InputError(f"{path}: expected a record of timesformer bench --only peers, with results")
    return record


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _kept(record: dict[str, Any], previous: dict[str, Any] | None, retry: bool) -> list[dict[str, Any]]:
    """Return the results of an earlier record that stand."""
    if previous is None or previous.get("identity") != record["identity"]:
        return []
    failed = ("failed", "differs")
    results = previous["results"]
    return [each for each in results if not retry or all(side["status"] not in failed for side in each["sides"])]


def _name(case: Case, sizes: Sizes) -> str:
    return f"{case.label(sizes.image_size)} {case.precision} {case.direction}"


def _config(case: Case, sizes: Sizes) -> TimeSformerConfig:
    return TimeSformerConfig(attention=case.attention, num_frames=case.num_frames, **asdict(sizes))


def _rate(sizes: Sizes) -> float:
    """Return the multiply–accumulates per second of a quick trial in fp32, for the plan."""
    call, macs = Workbench("divided", 8, sizes, torch.get_num_threads()).products("fp32")["linear"]
    with torch.no_grad():
        return macs / min(_seconds(call) for _ in range(3))


def _planned(case: Case, sizes: Sizes, repetitions: int, rate: float, can: bool) -> float:
    """Return the seconds that a case is expected to take."""
    if case.precision == "bf16" and not can:
        return 0.0
    forward = macs_per_view(_config(case, sizes)) / rate * (0.5 if case.precision == "bf16" else 1.0)
    factor = SLOWER[case.attention, "inference"] * (BACKWARD if case.direction == "training" else 1)
    calls = (case.rounds(repetitions) + 1) * len(SIDES[case.direction])
    return PREPARATION_SECONDS[case.direction] + calls * forward * factor


def _plan(left: Sequence[Case], sizes: Sizes, seconds: dict[Case, float], kept: int) -> list[str]:
    """Return the plan in words: minutes of every case, and of all."""
    total = sum(seconds[case] for case in left) / 60
    lines = [f"plan: {len(left)} cases, about {total:.1f} minutes; {kept} cases are kept from the record"]
    return [*lines, *(f"  {_name(case, sizes)}: {seconds[case] / 60:.1f} minutes" for case in left)]


def measure(
    case: Case, sizes: Sizes, rounds: int, can: bool = True, progress: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Compare the outputs of all sides with ours, then measure their seconds in turns.

    can: the processor has instructions for bf16; without them, cases of bf16 are 'not measured'.
    """
    load, sides = os.getloadavg()[0], SIDES[case.direction]
    base = {"case": asdict(case), "label": case.label(sizes.image_size), "load_average_before": load}
    if case.precision == "bf16" and not can:
        rows = [{"side": side, "status": "not measured", "note": EMULATED} for side in sides]
        return {**base, "rounds": 0, "sides": rows, "limit": None, "finished_utc": now_utc()}
    bench = Workbench(case.attention, case.num_frames, sizes, torch.get_num_threads())
    try:
        with torch.set_grad_enabled(case.direction == "training"):
            rows, runs = [], {}
            for side in sides:
                progress(f"{_name(case, sizes)}: {side}, outputs")
                row, found = _prepared(bench, case, side)
                rows.append(row)
                if found is not None:
                    runs[side] = found
            seconds, rates = _rounds(bench, case, runs, rounds, lambda text: progress(f"{_name(case, sizes)}: {text}"))
        if case.direction == "inference":
            macs = macs_of(bench.ours.fuse_for_inference(), bench.clip)
        else:
            macs = macs_of(bench.ours, bench.clip) * BACKWARD
    finally:
        bench.close()
    for row in rows:
        row |= _summary(seconds[row["side"]]) if row["side"] in seconds else {}
    best = max(rates.values(), key=statistics.median)
    limit = {"macs": macs, "macs_per_second": rates, **_summary([macs / rate for rate in best])}
    return {**base, "rounds": rounds, "sides": rows, "limit": limit, "finished_utc": now_utc()}


def _prepared(bench: Workbench, case: Case, side: str) -> tuple[dict[str, Any], Run | None]:
    """Return the row of a side and, if it can be timed, the function that runs it."""
    row: dict[str, Any] = {"side": side, "status": "ok", "note": ""}
    try:
        run = bench.prepare(side, case.precision, case.direction)
        row["largest_difference"] = _difference(bench, case, side, run)
    except NotInstalled as error:
        return {**row, "status": "not installed", "note": f"needs {error}"}, None
    except Exception as error:
        line = (str(error).strip().splitlines() or [""])[0]
        return {**row, "status": "failed", "note": f"{type(error).__name__}: {line}"[:300]}, None
    if not row["largest_difference"] <= ALLOWED[case.precision]:
        return {**row, "status": "differs", "note": f"not timed: more than {ALLOWED[case.precision]:g}"}, None
    return row, run


def _difference(bench: Workbench, case: Case, side: str, run: Run) -> float:
    """Return the largest difference of logits and, in training, of the clip's gradient from ours in fp32, relative to
    the largest value of each."""
    with torch.no_grad():
        expected = bench.ours(bench.clip)
    found = _relative(run(), expected)
    if case.direction == "training":
        exact = bench.gradient("ours", "fp32")
        found = max(found, _relative(bench.gradient(side, case.precision), exact))
    return found


def _relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def _rounds(
    bench: Workbench, case: Case, runs: dict[str, Run], rounds: int, progress: Callable[[str], None]
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return the seconds of every side and the multiply–accumulates per second of the products, by round."""
    products = bench.products(case.precision)
    seconds: dict[str, list[float]] = {side: [] for side in runs}
    rates: dict[str, list[float]] = {way: [] for way in products}
    for number in range(rounds):
        progress(f"round {number + 1} of {rounds}")
        for side in runs if number % 2 else reversed(runs):
            seconds[side].append(_seconds(runs[side]))
        with torch.no_grad():
            for way, (call, macs) in products.items():
                call()
                rates[way].append(macs / statistics.median(_seconds(call) for _ in range(3)))
    return seconds, rates


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _summary(seconds: list[float]) -> dict[str, Any]:
    return {"seconds": seconds, "median_seconds": statistics.median(seconds)}
