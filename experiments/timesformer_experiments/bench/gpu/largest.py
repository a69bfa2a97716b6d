"""The slice `largest`: largest clips that train on the GPU, by frames and by crop, and two clips that must train."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch

from timesformer_experiments.bench.gpu import say
from timesformer_experiments.bench.gpu.bench import Bench
from timesformer_experiments.bench.gpu.machine import free_memory, peak_bytes, still_answers, synchronise
from timesformer_experiments.bench.gpu.models import training_step
from timesformer_experiments.bench.gpu.record import Row
from timesformer_experiments.bench.gpu.subjects import VARIANTS, Variant, build, serves

COMPARED = ("ours_triton", "ours_sdpa", "transformers")
SCHEMES = ("divided", "joint")
TRIAL_SECONDS = 40.0
"""Expected duration of two training steps on a large clip, the compilation of the kernels included."""
CLOSE = 1.06
"""Ratio between a size that trains and one that does not at which the search ends; it also ends at neighbours."""


def largest(bench: Bench) -> None:
    """Measure the clips that must train, then search over frames at the first crop and over crops at the first number
    of frames, with a batch of one clip."""
    if bench.device.type == "cpu" and bench.sizes.name != "tiny":
        bench.skip("largest", "all", "the largest clips are measured only on a GPU")
        return
    frames, crop = bench.sizes.clips[0]
    batch = (bench.options.batches or (bench.sizes.clip_batch,))[0]
    compared = bench.options.providers or COMPARED
    chosen = [variant for name, variant in VARIANTS.items() if name in compared and not variant.fused]
    schemes = bench.options.schemes or SCHEMES
    for variant in chosen:
        must_train(bench, variant, schemes[0], batch)
    for scheme in schemes:
        for variant in chosen:
            for axis, fixed in (("frames", f"at {crop}"), ("crop", f"at {frames} frames")):
                action = partial(_search, bench, variant, scheme, axis)
                _one(bench, variant, scheme, f"largest {axis} {fixed}", 1, action)


def must_train(bench: Bench, variant: Variant, scheme: str, batch: int) -> None:
    """Try the profile's larger clips in a training step."""
    for frames, crop in bench.sizes.clips[1:]:
        action = partial(trial, bench, variant, scheme, frames, crop, batch)
        _one(bench, variant, scheme, f"{frames}x{crop}", batch, action, TRIAL_SECONDS)


def _one(
    bench: Bench,
    variant: Variant,
    scheme: str,
    shape: str,
    batch: int,
    action: Callable[[], Row],
    seconds: float | None = None,
) -> None:
    code = bench.models_code if variant.backend else ""
    precision = bench.dtype_name if bench.dtype == torch.float32 else f"{bench.dtype_name} autocast"
    row = bench.row("largest", variant.name, scheme, shape, batch=batch, code=code, direction="training")
    row = {**row, "dtype": precision, "heads": bench.sizes.heads, "head_width": bench.sizes.head_width}
    if serves(bench, variant, scheme, "largest"):
        seconds = seconds or (150 if scheme == "joint" else 75)
        bench.measure(row, seconds, action, kernels=variant.kernels)


def trial(bench: Bench, variant: Variant, scheme: str, frames: int, crop: int, batch: int) -> Row:
    """Run two training steps and time the second.  Raises torch.OutOfMemoryError if they do not fit."""
    free_memory(bench.device)
    clip = torch.randn(batch, frames, 3, crop, crop, device=bench.device)
    step = training_step(bench, variant, build(bench, variant, scheme, frames, crop).train(), clip)
    step()
    synchronise(bench.device)
    start = time.perf_counter()
    step()
    synchronise(bench.device)
    seconds = time.perf_counter() - start
    return {"ms": 1e3 * seconds, "clips_per_second": batch / seconds, "peak_bytes": peak_bytes(bench.device)}


def _search(bench: Bench, variant: Variant, scheme: str, axis: str) -> Row:
    """Double the size from the profile's first clip until it does not train, then bisect between the last two sizes."""
    sizes, (frames, crop) = bench.sizes, bench.sizes.clips[0]
    unit, first, most = (1, frames, sizes.most_frames) if axis == "frames" else (sizes.patch, crop, sizes.most_crop)
    reasons: dict[int, str] = {}

    def attempt(size: int) -> Row | None:
        clip = (size, crop) if axis == "frames" else (frames, size)
        try:
            found = trial(bench, variant, scheme, *clip, 1)
        except torch.OutOfMemoryError:
            found, reasons[size] = None, "out of memory"
        except (RuntimeError, ValueError) as error:  # such as the limits of a kernel launch or of an index
            if not still_answers(bench.device):
                raise
            found, reasons[size] = None, str(error).splitlines()[0][:200]
        say(f"  {variant.name} {scheme}, {axis} {size}: {'trains' if found is not None else reasons[size]}")
        return found

    size, found = largest_that(attempt, unit, first, most)
    note = f"{min(reasons)}: {reasons[min(reasons)]}" if reasons else "the end of the search, not of the memory"
    return {**found, "largest": size, "note": note}


def largest_that(attempt: Callable[[int], Row | None], unit: int, first: int, most: int) -> tuple[int, Row]:
    """Return the largest multiple of `unit` up to `most` for which `attempt` returns a row, within the ratio `CLOSE`.

    Raises:
        torch.OutOfMemoryError: the first size does not fit.
    """
    good, row, bad = 0, None, 0
    size = first
    while not bad and good < most:
        found = attempt(size)
        if found is None:
            bad = size
        else:
            good, row, size = size, found, min(2 * size, most)
    if row is None:
        raise torch.OutOfMemoryError(f"not even {first} fits")
    while bad and bad - good > unit and bad / good > CLOSE:
        middle = min(max(round((good * bad) ** 0.5 / unit) * unit, good + unit), bad - unit)
        found = attempt(middle)
        if found is None:
            bad = middle
        else:
            good, row = middle, found
    return good, row
