"""Errors against float64, and the tolerance for a kernel's error."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from timesformer.attention import Grid, Step
from timesformer_experiments.bench.gpu.providers import Compute, eager

Values = tuple[Tensor | None, ...]
NAMES = ("patches", "class token", "gradient of qkv", "gradient of the class token")


@dataclass(frozen=True)
class Problem:
    """Random inputs of a step and the gradients of its outputs: qkv (b, t, h, w, 3, k, e), cls (b, 3, k, e)."""

    qkv: Tensor
    cls: Tensor | None
    dout: Tensor
    dcls: Tensor | None

    @classmethod
    def draw(
        cls,
        step: Step,
        grid: Grid,
        batch: int,
        heads: int,
        width: int,
        dtype: torch.dtype,
        device: torch.device,
        seed: int = 0,
    ) -> Problem:
        """Draw inputs from the standard normal distribution."""
        generator = torch.Generator(device).manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, device=device, dtype=dtype)

        with_class = step.cls != "absent"
        return cls(
            normal(batch, *grid, 3, heads, width),
            normal(batch, 3, heads, width) if with_class else None,
            normal(batch, *grid, heads, width),
            normal(batch, heads, width) if with_class else None,
        )

    def requiring_gradients(self) -> Problem:
        """Return the same numbers as leaves that require gradients."""
        return Problem(
            self.qkv.detach().requires_grad_(),
            None if self.cls is None else self.cls.detach().requires_grad_(),
            self.dout,
            self.dcls,
        )

    def part(self, clips: slice, heads: slice, dtype: torch.dtype) -> Problem:
        """Return some clips and heads, in another precision."""

        def some(x: Tensor) -> Tensor:
            return x[clips, ..., heads, :].detach().to(dtype)

        return Problem(
            some(self.qkv),
            None if self.cls is None else some(self.cls),
            some(self.dout),
            None if self.dcls is None else some(self.dcls),
        )

    def forward(self, compute: Compute) -> Values:
        """Return the outputs, in the order of `NAMES`."""
        return compute(self.qkv, self.cls)

    def forward_backward(self, compute: Compute) -> Values:
        """Return outputs and gradients, in the order of `NAMES`."""
        out, cls_out = compute(self.qkv, self.cls)
        if self.cls is None or cls_out is None or self.dcls is None:
            return out.detach(), None, *torch.autograd.grad(out, (self.qkv,), self.dout), None
        gradients = torch.autograd.grad((out, cls_out), (self.qkv, self.cls), (self.dout, self.dcls))
        return out.detach(), cls_out.detach(), *gradients

    @property
    def bytes(self) -> int:
        return sum(x.numel() * x.element_size() for x in (self.qkv, self.cls, self.dout, self.dcls) if x is not None)


def by(compute: Compute, problem: Problem, dtype: torch.dtype) -> Values:
    """Return outputs and gradients computed by a function in a precision."""
    return problem.part(slice(None), slice(None), dtype).requiring_gradients().forward_backward(compute)


def written_out(step: Step, grid: Grid, problem: Problem, dtype: torch.dtype) -> Values:
    """Return outputs and gradients of the last clip, whose addresses are the highest, by unfused attention.

    Heads are computed one after the other, because the scores of a large clip take gigabytes.
    """
    parts: list[Values] = []
    for head in range(problem.qkv.shape[5]):
        one = problem.part(slice(-1, None), slice(head, head + 1), dtype).requiring_gradients()
        found = one.forward_backward(eager(step, grid, (one.qkv, one.cls)))
        parts.append(found)
    return tuple(_joined(heads) for heads in zip(*parts, strict=True))


def _joined(heads: tuple[Tensor | None, ...]) -> Tensor | None:
    found = [x for x in heads if x is not None]
    return torch.cat(found, -2) if found else None


def relative_error(found: Tensor, exact: Tensor) -> float:
    """Return |found - exact| / |exact| with vector norms; inf if a value is not finite."""
    if not bool(found.isfinite().all()):
        return float("inf")
    return float((found.double() - exact).norm() / exact.norm().clamp_min(1e-300))


def largest_error(found: Tensor, exact: Tensor) -> float:
    """Return the largest |found - exact| divided by the largest |exact|; inf if a value is not finite."""
    if not bool(found.isfinite().all()):
        return float("inf")
    return float((found.double() - exact).abs().max() / exact.abs().max().clamp_min(1e-300))


def worst(found: Sequence[Tensor | None], exact: Sequence[Tensor | None]) -> float:
    """Return the largest relative error of several tensors."""
    pairs = zip(found, exact, strict=True)
    return max(relative_error(x[-len(y) :], y) for x, y in pairs if x is not None and y is not None)


def judge(found: Values, exact: Values, low: Values, dtype: torch.dtype) -> tuple[float, str]:
    """Return the largest error as a share of the allowed one, and a text on errors that exceed it (empty: none).

    Allowed is 2 · (error of unfused attention in the same precision + its rounding) for a tensor as a whole, and twice
    that for its worst element, which varies by chance; all errors are against float64.
    """
    rounding, share, complaints = torch.finfo(dtype).eps / 2, 0.0, []
    for name, x, y, z in zip(NAMES, found, exact, low, strict=False):
        if x is None or y is None or z is None:
            continue
        for kind, measure, factor in (("relative error", relative_error, 2), ("largest error", largest_error, 4)):
            error, allowed = measure(x[-len(y) :], y), factor * (measure(z, y) + rounding)
            share = max(share, error / allowed)
            if not error <= allowed:
                complaints.append(f"{name}: {kind} {error:.3g}, allowed {allowed:.3g}")
    return share, "; ".join(complaints)


@contextmanager
def poisoned_outputs() -> Iterator[None]:
    """Fill new tensors without values with NaN inside, so that elements that are never written are found."""
    settings: Any = torch.utils.deterministic
    fill = settings.fill_uninitialized_memory
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    settings.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        settings.fill_uninitialized_memory = fill


def same_bits(first: Values, second: Values) -> bool:
    """Return True if two runs gave exactly the same values."""
    return all(x is None or (y is not None and torch.equal(x, y)) for x, y in zip(first, second, strict=True))
