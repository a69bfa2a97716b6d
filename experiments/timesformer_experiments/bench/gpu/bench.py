"""One run of the benchmark on one device: options, remaining measurements, and outcomes of a measurement."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from timesformer.attention import names
from timesformer.errors import InputError
from timesformer_experiments.bench.gpu import say
from timesformer_experiments.bench.gpu.machine import (
    KERNEL_SOURCES,
    MODEL_SOURCES,
    ContextLost,
    Unsupported,
    code_of,
    environment,
    free_memory,
    still_answers,
)
from timesformer_experiments.bench.gpu.record import Record, Row, key_of
from timesformer_experiments.bench.gpu.sizes import FULL, ON_A_CPU, STEPS, Sizes
from timesformer_kernels import why_unusable
from timesformer_kernels.device import interpreted

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
NOT_A_TIMING = "interpreter, not a timing"


@dataclass(frozen=True)
class Options:
    """Options of the benchmark.  An empty tuple means all values of the profile.

    `minutes`: time limit; no measurement is started that would probably exceed it. `retry`: repeat failed measurements.
    `run`: name of the run, the same in all of its processes.
    """

    only: tuple[str, ...]
    out: Path
    device: str = "auto"
    sizes: Sizes = FULL
    minutes: float = 9.0
    dtype: str = ""
    steps: tuple[str, ...] = ()
    grids: tuple[tuple[int, int, int], ...] = ()
    batches: tuple[int, ...] = ()
    providers: tuple[str, ...] = ()
    schemes: tuple[str, ...] = ()
    retry: bool = False
    run: str = ""


def device_of(name: str) -> torch.device:
    """Return the device that `--device` names.  Raises InputError if it is not available."""
    if name not in ("auto", "cpu", "cuda"):
        raise InputError(f"--device {name}: expected auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: PyTorch finds no GPU on this machine")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


@dataclass
class Bench:
    """State of a run: device, record and time left."""

    options: Options
    begin: float = field(default_factory=time.monotonic)
    left: int = 0
    skipped: set[tuple[str, str]] = field(default_factory=set)
    wrong: set[tuple[str, str]] = field(default_factory=set)
    """Kernels whose check failed: kind of step or `add_norm`, and dtype."""
    planned: list[tuple[str, float]] | None = None
    """While a plan is made: slice and expected seconds of every measurement; nothing is measured or recorded."""

    def __post_init__(self) -> None:
        self.device = device_of(self.options.device)
        self.sizes = ON_A_CPU if self.options.sizes is FULL and self.device.type == "cpu" else self.options.sizes
        self._known("--steps", self.options.steps, tuple(STEPS))
        self._known("--schemes", self.options.schemes, names())
        self.environment = environment(self.device)
        self.record = Record(record_path(self.options.out, self.device.type))
        self.dtype_name = self.options.dtype or ("bf16" if self.device.type == "cuda" else "fp32")
        self.dtype = DTYPES[self.dtype_name]
        self.kernels_code, self.models_code = code_of(KERNEL_SOURCES), code_of(MODEL_SOURCES)
        self.interpreted = interpreted() and self.device.type == "cpu"
        if self.interpreted and self.sizes.name == "full" and why_unusable(self.device) is None:
            raise InputError("--size full: expected tiny with TRITON_INTERPRET=1, which is for checks, not for timing")

    @staticmethod
    def _known(option: str, given: tuple[str, ...], known: tuple[str, ...]) -> None:
        for name in given:
            if name not in known:
                raise InputError(f"{option} {name}: expected some of {', '.join(known)}")

    def row(self, slice_name: str, provider: str, what: str, shape: str, **more: Any) -> Row:
        """Return the identity of a measurement, with device and versions."""
        base = {"slice": slice_name, "provider": provider, "what": what, "shape": shape, "dtype": self.dtype_name}
        return {**base, **more, "sizes": self.sizes.name, **self.environment}

    def wanted(self, row: Row) -> bool:
        """Return True if a measurement is still to be made."""
        return not self.record.done(row, self.options.retry)

    def seconds_left(self) -> float:
        return 60 * self.options.minutes - (time.monotonic() - self.begin)

    def status(self, row: Row) -> str:
        """Return the status of a measurement; empty if it was not made."""
        found = self.record.rows.get(key_of(row))
        return "" if found is None else str(found["status"])

    def refused(self, *kinds: str) -> str | None:
        """Return why kernels may not be timed: one of these kinds is wrong on this device in the timed precision."""
        found = [kind for kind in kinds if (kind, self.dtype_name) in self.wrong]
        return f"its check failed on this device in {self.dtype_name}: {', '.join(found)}" if found else None

    def measure(self, row: Row, seconds: float, action: Callable[[], Row], kernels: bool = False) -> None:
        """Make a measurement if it is still to be made and enough time is left, and record how it ended.

        `seconds`: expected duration. `kernels`: True if Triton computes (with the interpreter, its time is not
        recorded).

        Raises:
            ContextLost: the device no longer responds; the failure is recorded.
        """
        if not self.wanted(row):
            return
        if self.planned is not None:
            self.planned.append((row["slice"], seconds))
            return
        if self.seconds_left() < seconds:
            self.left += 1
            return
        self.measure_now(row, action, kernels)

    def measure_now(self, row: Row, action: Callable[[], Row], kernels: bool = False) -> None:
        """Make a measurement regardless of earlier results and of the time left; otherwise like `measure`."""
        self.record.append({**row, "run_name": self.options.run}, "started")
        status, result = "ok", Row()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result = action()
        except torch.OutOfMemoryError as error:
            status, result = "oom", {"note": _first_line(error)}
        except Unsupported as error:
            status, result = "unsupported", {"note": _first_line(error)}
        except Exception as error:
            status, result = "failed", {"note": f"{type(error).__name__}: {_first_line(error)}"}
        if status == "ok" and kernels and self.interpreted:
            result = {**result, "ms": None, "clips_per_second": None, "note": NOT_A_TIMING}
        self.record.append({**row, **result, **self._stamp()}, status)
        say(_told(row, status, result))
        if status == "failed" and not still_answers(self.device):
            raise ContextLost(str(result["note"]))
        free_memory(self.device)

    def skip(self, slice_name: str, provider: str, reason: str) -> None:
        """Print and record, once per slice, why a provider is skipped; it is tried again in every run."""
        if self.planned is not None:
            return
        row = self.row(slice_name, provider, "all", "all")
        found = self.record.rows.get(key_of(row))
        if found is None or found["note"] != reason:
            self.record.append({**row, "note": reason, **self._stamp()}, "skipped")
        if (slice_name, provider) not in self.skipped:
            self.skipped.add((slice_name, provider))
            say(f"{slice_name}: {provider} skipped: {reason}")

    def _stamp(self) -> Row:
        return {
            "run_name": self.options.run,
            "finished_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }


def record_path(out: Path, device: str) -> Path:
    """Return the path of the record for a kind of device."""
    return out / ("gpu.jsonl" if device == "cuda" else "cpu.jsonl")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _told(row: Row, status: str, result: Row) -> str:
    """Return a measurement as one line of progress."""
    name = f"{row['slice']}: {row['what']} {row['shape']} {row.get('direction', '')} {row['provider']}"
    figures = [
        f"{result[key]:.4g} {unit}"
        for key, unit in (("ms", "ms"), ("clips_per_second", "clips/s"), ("error_vs_float64", "error"))
        if result.get(key) is not None
    ]
    return f"{name}: {', '.join(figures) if figures and status == 'ok' else status} {result.get('note', '')}".rstrip()
