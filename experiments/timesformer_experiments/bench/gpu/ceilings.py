"""The two ceilings of a device, measured in every run: bandwidth of a large copy and rate of a large matrix product."""

from __future__ import annotations

import torch

from timesformer_experiments.bench.gpu.bench import Bench
from timesformer_experiments.bench.gpu.machine import kernel_ms
from timesformer_experiments.bench.gpu.record import Row


def ensure(bench: Bench) -> None:
    """Measure both ceilings unless this run has already measured them."""
    sizes, run = bench.sizes, bench.options.run
    copy = bench.row("ceilings", "copy", "copy", f"{sizes.copy_bytes} bytes", direction="forward", run=run)
    product = bench.row("ceilings", "product", "product", f"{sizes.product}^3", direction="forward", run=run)
    bench.measure(copy, 5, lambda: _copy(bench))
    bench.measure(product, 5, lambda: _product(bench))


def _copy(bench: Bench) -> Row:
    """Measure the bytes per second read and written by a copy on the device."""
    source = torch.randn(bench.sizes.copy_bytes // 4, device=bench.device)
    target = torch.empty_like(source)
    ms = kernel_ms(bench.device, lambda _: target.copy_(source), 1)
    moved = 2 * bench.sizes.copy_bytes
    return {"ms": ms, "bytes_needed": moved, "bytes_per_second": 1e3 * moved / ms}


def _product(bench: Bench) -> Row:
    """Measure the operations per second of a square matrix product of random numbers, two per multiply–accumulate."""
    n = bench.sizes.product
    a, b = (torch.randn(n, n, device=bench.device, dtype=bench.dtype) for _ in range(2))
    ms = kernel_ms(bench.device, lambda _: a @ b, 1)
    return {"ms": ms, "flops_needed": 2 * n**3, "flops_per_second": 1e3 * 2 * n**3 / ms}
