"""The slice `targets`: what the targets are compared with and nothing else, to decide all within minutes."""

from __future__ import annotations

from timesformer_experiments.bench.gpu.bench import Bench
from timesformer_experiments.bench.gpu.largest import must_train
from timesformer_experiments.bench.gpu.models import FIRST, measure_scheme
from timesformer_experiments.bench.gpu.providers import FLEX, PROVIDERS
from timesformer_experiments.bench.gpu.steps import Case, measure_case
from timesformer_experiments.bench.gpu.subjects import VARIANTS

COMPARED = ("ours_triton", "ours_triton_fused", "ours_sdpa_compiled", "transformers", "transformers_compiled")
"""Variants of whole models that the targets name, and ours eager and fused."""


def measure_targets(bench: Bench) -> None:
    """Measure the time and space steps, the models and the clips of the targets, in bf16 where targets are judged.

    FlexAttention is a peer of the time step only and comes after the models, because it compiles for long.
    """
    batch = (bench.options.batches or bench.sizes.batches)[0]
    grids = bench.sizes.grids[:2]
    others = [provider for name, provider in PROVIDERS.items() if name.startswith(("ours", "sdpa"))]
    for grid in grids:
        measure_case(bench, Case("time", grid, batch), list(PROVIDERS.values()), "kernels")
        measure_case(bench, Case("space", grid, batch), others, "kernels")
    for name in COMPARED:
        measure_scheme(bench, FIRST, VARIANTS[name])
    for grid in grids:
        measure_case(bench, Case("time", grid, batch), [FLEX], "flex")
    if bench.device.type == "cuda":
        must_train(bench, VARIANTS["ours_triton"], FIRST, bench.sizes.clip_batch)
    else:
        bench.skip("largest", "all", "the largest clips are measured only on a GPU")
