"""Sizes from which on a sparse scheme needs less than a dense one: executed MACs and predicted memory.

Sizes are tried one after the other, along the frames and along the resolution.  A scheme breaks even at the first size
from which on it needs less at every larger one that was tried.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from timesformer import TimeSformerConfig
from timesformer.config.counting import macs_per_view
from timesformer_experiments.cost.memory import predict

REFERENCES = ("joint", "divided")
FRAMES = (2, 4, 8, 16, 32, 64)
PATCHES = (4, 7, 10, 14, 20, 28)
"""Patches along a side of a square frame."""


@dataclass(frozen=True)
class BreakEven:
    """Sizes from which on a scheme needs less than a reference; None where it never does among the sizes tried.

    along: the field that grows, `num_frames` or `image_size`; tried: its values.  `fewer_macs_from`: from there on
    fewer executed MACs per view, with `fewer_macs_tokens` patches; `less_memory_from`: a lower predicted peak of a
    training step of one clip, with `less_memory_tokens` patches.
    """

    attention: str
    reference: str
    along: str
    tried: tuple[int, ...]
    fewer_macs_from: int | None
    fewer_macs_tokens: int | None
    less_memory_from: int | None
    less_memory_tokens: int | None

    def to_dict(self) -> dict[str, Any]:
        """Return field names and plain values."""
        return {**asdict(self), "tried": list(self.tried)}


@dataclass(frozen=True)
class Waste:
    """MACs of one size: needed by the declaration, executed with the scheme's tiles, and what these add in percent."""

    macs_needed: int
    macs_executed: int
    added_percent: float


def waste(config: TimeSformerConfig) -> Waste:
    """Return what is computed in vain at the configuration's size."""
    needed, executed = macs_per_view(config, "needed"), macs_per_view(config, "executed")
    return Waste(needed, executed, 100 * (executed / needed - 1))


def break_even(
    config: TimeSformerConfig,
    references: Sequence[str] = REFERENCES,
    frames: Sequence[int] = FRAMES,
    patches: Sequence[int] = PATCHES,
    progress: Callable[[str], None] = lambda text: None,
) -> list[BreakEven]:
    """Compare a scheme with each reference along frames and along resolution, at the configuration's other sizes.

    References have the configuration's width, depth and patch size, and their own policies.
    """
    found = []
    axes = {
        "num_frames": tuple(number * config.tubelet_size for number in frames),
        "image_size": tuple(number * config.patch_size for number in patches),
    }
    for along, values in axes.items():
        sizes = [replace(config, **{along: value}) for value in values]  # type: ignore[arg-type]
        tokens = [size.grid[0] * size.grid[1] * size.grid[2] for size in sizes]
        progress(f"{config.label} along {along}")
        ours = [_needs(size) for size in sizes]
        for reference in references:
            progress(f"{reference} along {along}")
            dense = [replace(size, attention=reference, schedule=None, cls_policy=None) for size in sizes]
            theirs = [_needs(size) for size in dense]
            less = [[mine[part] < other[part] for mine, other in zip(ours, theirs, strict=True)] for part in (0, 1)]
            first = [first_less(flags) for flags in less]
            at = [(None, None) if number is None else (values[number], tokens[number]) for number in first]
            found.append(BreakEven(config.label, reference, along, values, *at[0], *at[1]))
    return found


def _needs(config: TimeSformerConfig) -> tuple[int, int]:
    """Executed MACs per view, and the predicted peak of training on one clip in bytes."""
    return macs_per_view(config, "executed"), predict(config, batch=1, train=True).peak_bytes


def first_less(less: Sequence[bool]) -> int | None:
    """Number of the first place from which on all are True."""
    number = len(less)
    while number and less[number - 1]:
        number -= 1
    return number if number < len(less) else None
