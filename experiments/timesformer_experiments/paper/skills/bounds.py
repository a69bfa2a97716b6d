"""Consequences of a scheme's declaration: bounds for any weights, and which clips show a pair that meets."""

from __future__ import annotations

import math

import numpy as np

from timesformer import TimeSformerConfig
from timesformer.attention import build, meet, reach
from timesformer.attention.partition import Grid
from timesformer.data.probes.kinds.contact import Contact, Place
from timesformer_experiments.paper.probes import ceiling_percent
from timesformer_experiments.specs.run import RunSpec

ALL = "all"
PARTS = (ALL, "frame", "place", "elsewhere")
"""Parts of the clips of `contact`: all, those with an offset within a frame, in time alone, and in both."""


def bound_percent(spec: RunSpec) -> float:
    """Return the highest accuracy of any weights on a run's probe, in percent; 100 where nothing is proved."""
    found = ceiling_percent(spec, order_blind=blind_to_order(spec))
    return 100.0 if found is None else found


def blind_to_order(spec: RunSpec) -> bool:
    """Return True if a run's model sees the frames of a clip as a set, for any weights.

    That is so where no patch depends on another frame, frames have no positions and what they give is averaged.
    """
    model = spec.model
    if not isinstance(model, TimeSformerConfig):
        return False
    scheme = model.scheme
    if len(scheme.encoders) > 1 or scheme.encoders[0].class_tokens != "frame" or model.resolved_position == "table":
        return False
    frames, rows, columns = model.grid
    apart = ~reach(scheme, model.grid, blocks=model.depth).numpy().reshape(frames, rows * columns, frames, -1)
    others = ~np.eye(frames, dtype=bool)
    return bool(apart.transpose(0, 2, 1, 3)[others].all()) and model.resolved_position in ("space", "none")


def met_before_reading(scheme: str, grid: Grid, depth: int) -> np.ndarray:
    """Return the pairs (p, p) that meet before the step in which the class token reads for the last time.

    What meets in that step itself reaches patches that nothing reads any more.  Either of a pair may be the query.
    """
    encoder = build(scheme).encoders[0]
    stages = encoder.block * depth
    reading = max(place for place, stage in enumerate(stages) if any(step.cls != "absent" for step in stage))
    frames = grid[0]
    within = (1, *grid[1:]) if encoder.class_tokens == "frame" else grid
    met = np.zeros((math.prod(grid), math.prod(grid)), dtype=bool)
    for step in {step for stage in stages[:reading] for step in stage}:
        pairs = meet(step, within).numpy()
        met |= np.kron(np.eye(frames, dtype=bool), pairs) if encoder.class_tokens == "frame" else pairs
    return met | met.T


def share_told(kind: Contact, met: np.ndarray, offset: Place) -> float:
    """Return the share of an offset's clips in which a pair meets that tells the class.

    Four pairs do: those at the offset, which are the same in one class, and those across, which are so in the other.
    """
    shares = []
    for x, others in kind.placings(offset):
        told = [any(met[_number(a, kind), _number(b, kind, offset)] for a in (x, y) for b in (x, y)) for y in others]
        shares.append(sum(told) / len(told))
    return sum(shares) / len(shares)


def _number(place: Place, kind: Contact, offset: Place = (0, 0, 0)) -> int:
    """Number of the patch at a place, or at an offset from it."""
    time, row, column = (part + by for part, by in zip(place, offset, strict=True))
    return (time * kind.grid + row) * kind.grid + column


def part_of(offset: Place) -> str:
    """Return the part of the clips of `contact` that an offset belongs to, other than all."""
    if offset[0] == 0:
        return "frame"
    return "place" if offset[1:] == (0, 0) else "elsewhere"
