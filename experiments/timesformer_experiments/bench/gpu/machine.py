"""The measured device: name and versions, timing, memory, and errors."""

import gc
import hashlib
import importlib.util
import math
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from timesformer_kernels.device import interpreted

KERNEL_SOURCES = ("timesformer_kernels",)
MODEL_SOURCES = (
    *KERNEL_SOURCES,
    "timesformer.attention",
    "timesformer.config",
    "timesformer.models",
)
"""Modules, and packages with all their modules, on which a measurement of kernels or of models depends."""
CLOCK_HZ = 2e9
"""Approximate clock of torch.cuda._sleep; sleeping slightly too long does no harm."""


class Unsupported(RuntimeError):
    """A provider does not support the requested step; the message states why."""


class ContextLost(RuntimeError):
    """The device no longer responds to this process; a new process may continue."""


def environment(device: torch.device) -> dict[str, Any]:
    """Return the fields of every row: device, driver, versions (empty if not installed)."""
    cuda = device.type == "cuda"
    return {
        "device": device.type,
        "device_name": torch.cuda.get_device_name(device) if cuda else _cpu(),
        "driver": _driver() if cuda else "",
        "cuda": str(torch.version.cuda or ""),
        "cudnn": str(torch.backends.cudnn.version() or "") if cuda else "",
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{name: installed(name) for name in ("torch", "triton", "transformers")},
    }


def installed(name: str) -> str:
    """Return the version of a package; empty if it is not installed."""
    try:
        return version(name) if importlib.util.find_spec(name) is not None else ""
    except ImportError:
        return ""


def _driver() -> str:
    try:
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return "unknown"


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (FileNotFoundError, StopIteration):
        return platform.processor() or platform.machine()


def code_of(modules: tuple[str, ...]) -> str:
    """Return a digest of the sources of modules and packages, so that changed code is measured anew.

    Files are identified by import name, so that the digest does not depend on where the packages are installed.
    Raises ModuleNotFoundError for a module that does not exist.
    """
    digest = hashlib.sha256()
    for name in sorted(modules):
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(f"{name}: no source found for the digest")
        file = Path(spec.origin)
        for path in sorted(file.parent.rglob("*.py")) if spec.submodule_search_locations else [file]:
            digest.update(f"{name}/{path.relative_to(file.parent).as_posix()}".encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def synchronise(device: torch.device) -> None:
    """Wait until the device has finished all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def free_memory(device: torch.device) -> None:
    """Release memory that no tensor uses, and reset the peak."""
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int | None:
    """Return the peak bytes of tensors since `free_memory`; None on a CPU, where they are not counted."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def still_answers(device: torch.device) -> bool:
    """Return True if this process can still use the device; after an illegal memory access it cannot."""
    try:
        synchronise(device)
        return bool(torch.ones(1, device=device).item() == 1)
    except RuntimeError:
        return False


def cache_bytes(device: torch.device) -> int:
    """Return the size of the last-level cache; on a CPU, a size larger than most."""
    return int(torch.cuda.get_device_properties(device).L2_cache_size) if device.type == "cuda" else 64 << 20


def input_sets(device: torch.device, bytes_each: int) -> int:
    """Return the number of input sets to alternate, so that no call finds its inputs in the cache.

    There are at least two, together at least four times the size of the cache; with the interpreter, whose times are
    not used, only one.
    """
    if interpreted():
        return 1
    return min(64, max(2, math.ceil(4 * cache_bytes(device) / max(1, bytes_each))))


def kernel_ms(device: torch.device, call: Callable[[int], object], sets: int) -> float:
    """Measure the median milliseconds of `call(number of the input set)`.

    On a GPU, this is the time between two events with a full queue (the device sleeps while the host fills it), so that
    the host's time is not included.  On a CPU, it is wall time.
    """
    return statistics.median(_gpu_times(call, sets) if device.type == "cuda" else _cpu_times(call, sets))


def _cpu_times(call: Callable[[int], object], sets: int) -> list[float]:
    times: list[float] = []
    fewest, most = (1, 1) if interpreted() else (3, 30)
    call(0)
    begin = time.perf_counter()
    while len(times) < fewest or (len(times) < most and time.perf_counter() - begin < 0.5):
        start = time.perf_counter()
        call(len(times) % sets)
        times.append(1e3 * (time.perf_counter() - start))
    return times


def _gpu_times(call: Callable[[int], object], sets: int) -> list[float]:
    for number in range(max(3, sets)):
        call(number % sets)
    torch.cuda.synchronize()
    start = time.perf_counter()
    for number in range(3):
        call(number % sets)
    host = (time.perf_counter() - start) / 3
    torch.cuda.synchronize()
    seconds = (time.perf_counter() - start) / 3
    repetitions = min(100, max(5 if seconds < 0.5 else 3, int(0.15 / seconds)))
    times: list[float] = []
    while len(times) < repetitions:
        burst = min(20, repetitions - len(times))
        events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(burst)]
        torch.cuda._sleep(int(min(0.3, 1.5 * host * burst + 1e-4) * CLOCK_HZ))
        for number, (before, after) in enumerate(events):
            before.record()
            call((len(times) + number) % sets)
            after.record()
        torch.cuda.synchronize()
        times += [before.elapsed_time(after) for before, after in events]
    return times


def wall_ms(device: torch.device, call: Callable[[], object]) -> float:
    """Measure the median milliseconds from the start of a call to the end of the device's work, host time included."""
    times: list[float] = []
    warm_up, fewest, most = (0, 1, 1) if interpreted() else (3, 5, 30)
    for _ in range(warm_up):
        call()
    synchronise(device)
    begin = time.perf_counter()
    while len(times) < fewest or (len(times) < most and time.perf_counter() - begin < 2):
        start = time.perf_counter()
        call()
        synchronise(device)
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)
