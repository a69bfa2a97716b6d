"""The slices `blocks` and `models`: clips per second and peak memory, inference and training, for every scheme."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from timesformer import TimeSformer
from timesformer.attention import names
from timesformer_experiments.bench.gpu.accuracy import relative_error
from timesformer_experiments.bench.gpu.bench import Bench
from timesformer_experiments.bench.gpu.machine import free_memory, peak_bytes, synchronise, wall_ms
from timesformer_experiments.bench.gpu.record import Row
from timesformer_experiments.bench.gpu.subjects import (
    VARIANTS,
    Variant,
    block_flops,
    build,
    compiled,
    config_of,
    serves,
    step_flops,
    tensor_of,
)
from timesformer_kernels.device import interpreted

FIRST = "divided"


def ordered(bench: Bench) -> Iterator[tuple[str, Variant]]:
    """Yield the default scheme in all variants, then the others, with slow compiled variants last."""
    schemes = bench.options.schemes or (FIRST, *(name for name in names() if name != FIRST))
    chosen = [v for v in VARIANTS.values() if not bench.options.providers or v.name in bench.options.providers]
    yield from ((scheme, variant) for scheme in schemes if scheme == FIRST for variant in chosen)
    others = [scheme for scheme in schemes if scheme != FIRST]
    for slow in (False, True):
        yield from ((scheme, variant) for scheme in others for variant in chosen if variant.compiled == slow)


def models(bench: Bench) -> None:
    """Measure whole models on the profile's first clip."""
    for scheme, variant in ordered(bench):
        measure_scheme(bench, scheme, variant)


def measure_scheme(bench: Bench, scheme: str, variant: Variant) -> None:
    """Measure a variant of a scheme on the profile's first clip, inference and, unless it is fused, training."""
    frames, crop = bench.sizes.clips[0]
    shape = f"{frames}x{crop}"
    for training in (False, True):
        if training and variant.fused:
            continue
        batch = bench.sizes.training_batch if training else bench.sizes.inference_batch
        batch = (bench.options.batches or (batch,))[0]
        flops = step_flops(config_of(bench, scheme, frames, crop, "auto"), batch, training)
        row = _row(bench, "models", variant, scheme, shape, batch, training, flops)
        action = partial(measure_model, bench, variant, scheme, frames, crop, batch, training)
        _one(bench, variant, scheme, row, action, variant.seconds)


def blocks(bench: Bench) -> None:
    """Measure one block from tokens to tokens, at every grid of the options or the profile's first."""
    for grid in bench.options.grids or bench.sizes.grids[:1]:
        for scheme, variant in ordered(bench):
            if variant.fused:  # fusing changes only the projections of a block; the whole models show its effect
                continue
            for training in (False, True):
                batch = (bench.options.batches or bench.sizes.batches)[0]
                crop = grid[1] * bench.sizes.patch
                flops = block_flops(partial(config_of, bench, scheme, grid[0], crop, "auto"), batch, training)
                shape = "x".join(map(str, grid))
                row = _row(bench, "blocks", variant, scheme, shape, batch, training, flops)
                action = partial(measure_block, bench, variant, scheme, grid, batch, training)
                _one(bench, variant, scheme, row, action, variant.seconds / 3)


def _one(bench: Bench, variant: Variant, scheme: str, row: Row, action: Callable[[], Row], seconds: float) -> None:
    if serves(bench, variant, scheme, row["slice"]):
        bench.measure(row, seconds, action, kernels=variant.kernels)


def _row(
    bench: Bench, slice_name: str, variant: Variant, scheme: str, shape: str, batch: int, training: bool, flops: int
) -> Row:
    code = bench.models_code if variant.backend else ""
    row = bench.row(slice_name, variant.name, scheme, shape, batch=batch, code=code, flops_needed=flops)
    return {
        **row,
        "heads": bench.sizes.heads,
        "head_width": bench.sizes.head_width,
        "direction": "training" if training else "inference",
        "dtype": f"{bench.dtype_name} autocast" if training and bench.dtype_name != "fp32" else bench.dtype_name,
    }


def autocast(bench: Bench) -> AbstractContextManager[Any]:
    """Return the autocast of training, which keeps weights in fp32 and computes in the timed precision."""
    return nullcontext() if bench.dtype == torch.float32 else torch.autocast(bench.device.type, bench.dtype)


def measure_model(
    bench: Bench, variant: Variant, scheme: str, frames: int, crop: int, batch: int, training: bool
) -> Row:
    """Measure a whole model: for our models in inference the error of the first clip's logits, then the time."""
    generator = torch.Generator(bench.device).manual_seed(0)
    clip = torch.randn(batch, frames, 3, crop, crop, generator=generator, device=bench.device)
    model = build(bench, variant, scheme, frames, crop)
    if training:
        call = training_step(bench, variant, model.train(), clip)
        return _timed(bench, call, batch)
    result: Row = {}
    model = model.eval()
    if isinstance(model, TimeSformer):
        result["error_vs_float64"] = logits_error(bench, variant, model, clip[:1])
    model = model.to(bench.dtype)
    model = model.fuse_for_inference() if isinstance(model, TimeSformer) and variant.fused else model
    run, clip = compiled(bench, variant, model), clip.to(bench.dtype)

    def inference() -> None:
        with torch.no_grad():
            tensor_of(run(clip))

    return {**result, **_timed(bench, inference, batch)}


def training_step(bench: Bench, variant: Variant, model: nn.Module, clip: Tensor) -> Callable[[], object]:
    """Return a function that runs forward, cross-entropy, backward and a step of plain SGD."""
    labels = torch.zeros(clip.shape[0], dtype=torch.long, device=bench.device)
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3)
    run = compiled(bench, variant, model)

    def step() -> None:
        with autocast(bench):
            loss = nn.functional.cross_entropy(tensor_of(run(clip)).float(), labels)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step


def logits_error(bench: Bench, variant: Variant, model: TimeSformer, clip: Tensor) -> float:
    """Return the relative error of our logits in the timed precision against float64 `sdpa` with the same weights.

    Raises:
        RuntimeError: the kernels' error is more than twice that of `sdpa` in the same precision plus rounding.
    """
    size = model.config.attention, model.config.num_frames, clip.shape[-1]
    plain = build(bench, VARIANTS["ours_sdpa"], *size).eval()
    plain.load_state_dict(model.state_dict())
    timed = copy.deepcopy(model).to(bench.dtype)
    timed = timed.fuse_for_inference() if variant.fused else timed
    with torch.no_grad():
        exact = plain.double()(clip.double())
        low = relative_error(plain.to(bench.dtype)(clip.to(bench.dtype)), exact)
        error = relative_error(timed(clip.to(bench.dtype)), exact)
    allowed = 2 * (low + torch.finfo(bench.dtype).eps / 2)
    if variant.kernels and not error <= allowed:
        raise RuntimeError(
            "not timed, because the result is wrong on this device: "
            f"error {error:.3g} of the logits, allowed {allowed:.3g}"
        )
    return error


def measure_block(
    bench: Bench, variant: Variant, scheme: str, grid: tuple[int, int, int], batch: int, training: bool
) -> Row:
    """Measure one block of a model, from tokens to tokens."""
    t, h, w = grid
    if h != w:
        raise ValueError(f"grid {grid}: expected as many rows as columns, because the crops are square")
    model = build(bench, variant, scheme, t, h * bench.sizes.patch, depth=1)
    model = model.train() if training else model.eval().to(bench.dtype)
    generator = torch.Generator(bench.device).manual_seed(0)
    dtype, width = torch.float32 if training else bench.dtype, bench.sizes.width

    def tokens(*shape: int) -> Tensor:
        values = torch.randn(*shape, width, generator=generator, device=bench.device, dtype=dtype)
        return values.requires_grad_(training)

    inputs: tuple[Tensor | None, ...]
    if isinstance(model, TimeSformer):
        stack: Any = model.encoders[0]
        block = stack.blocks[0]
        clips, frames = (batch * t, 1) if stack.encoder.class_tokens == "frame" else (batch, t)
        inputs = tokens(clips, frames, h, w), None if stack.cls_token is None else tokens(clips)
    else:
        peer: Any = model
        block = peer.timesformer.encoder.layer[0]
        inputs = (tokens(batch * t, 1 + h * w) if scheme == "space" else tokens(batch, 1 + t * h * w),)
    run = compiled(bench, variant, block)

    def forward() -> list[Tensor]:
        output = run(*inputs)
        return [x for x in (output if isinstance(output, tuple) else (output,)) if x is not None]

    def call() -> None:
        if not training:
            with torch.no_grad():
                forward()
            return
        with autocast(bench):
            outputs = forward()
        leaves = [x for x in (*inputs, *block.parameters()) if x is not None]
        torch.autograd.grad(outputs, leaves, [torch.ones_like(x) for x in outputs], allow_unused=True)

    return _timed(bench, call, batch)


def _timed(bench: Bench, call: Callable[[], object], batch: int) -> Row:
    """Measure the peak memory of a call after the first, which compiles and selects algorithms, and the median time."""
    for _ in range(0 if interpreted() else 2):
        free_memory(bench.device)
        call()
        synchronise(bench.device)
    peak = peak_bytes(bench.device)
    ms = wall_ms(bench.device, call)
    return {"ms": ms, "clips_per_second": 1e3 * batch / ms, "peak_bytes": peak}
