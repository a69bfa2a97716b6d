"""Consequences of a scheme's declaration: bounds for any weights, and which clips show a pair that meets."""

from __future__ import annotations

import math

import numpy as np

from timesformer import TimeSformerConfig
from timesformer.attention import build, meet, reach
from timesformer.attention.partition import Grid
from timesformer.attention.scheme import Step
from timesformer.data.probes.kinds.contact import Contact, Place, plus
from timesformer.data.probes.kinds.shell import Shell
from timesformer_experiments.paper.probes import ceiling_percent
from timesformer_experiments.specs.run import ProbeData, RunSpec

ALL = "all"
PARTS = (ALL, "frame", "place", "elsewhere")
"""Parts of the clips of `contact`: all, those with an offset within a frame, in time alone, and in both."""
SUM_PERCENT = 75.0
"""Bound of a sum of what is seen here and what is seen there, where four clips show one of two things here and one of
two things there, and the class is whether these go together: three right at most."""


def bound_percent(spec: RunSpec, part: str = ALL) -> float:
    """Return the highest accuracy of any weights on a run's probe, in percent; 100 where nothing is proved.

    part: of the clips of `contact`.
    """
    found = ceiling_percent(spec, order_blind=blind_to_order(spec))
    return min(100.0 if found is None else found, _sum_percent(spec, part))


def blind_to_order(spec: RunSpec) -> bool:
    """Return True if a run's model sees the frames of a clip as a set, for any weights.

    That is so where no patch depends on another frame, frames have no positions and what they give is averaged.
    """
    model = spec.model
    if not isinstance(model, TimeSformerConfig):
        return False
    scheme = model.scheme
    if len(scheme.encoders) > 1 or scheme.encoders[0].class_tokens == "clip":
        return False
    frames, rows, columns = model.grid
    apart = ~reach(scheme, model.grid, blocks=model.depth).numpy().reshape(frames, rows * columns, frames, -1)
    others = ~np.eye(frames, dtype=bool)
    averaged = model.resolved_pool in ("class", "mean")
    return averaged and bool(apart.transpose(0, 2, 1, 3)[others].all()) and model.resolved_position in ("space", "none")


def parts_of_sum(model: TimeSformerConfig) -> np.ndarray | None:
    """Return the patches (columns) that each summand (row) of a model's logits can depend on, for any weights.

    So it is without a class token, where the head, which is linear, reads the mean of the patches after their norms:
    the logits are a sum over the patches, and what each adds depends on the patches that it can be reached from.  None
    for a model that is no such sum.
    """
    scheme = model.scheme
    if len(scheme.encoders) > 1 or scheme.encoders[0].class_tokens != "none":
        return None
    if model.resolved_pool != "mean" or model.fc_norm:
        return None
    found: np.ndarray = reach(scheme, model.grid, blocks=model.depth, bridge=False).numpy()
    return found


def _sum_percent(spec: RunSpec, part: str) -> float:
    """Return the bound of a model whose logits are a sum; 100 for any other, and on probes that do not restrict it."""
    if not isinstance(spec.model, TimeSformerConfig) or not isinstance(spec.data, ProbeData):
        return 100.0
    parts, kind = parts_of_sum(spec.model), spec.data.kind
    if parts is None or not isinstance(kind, Contact | Shell) or spec.model.grid != (kind.frames, kind.grid, kind.grid):
        return 100.0
    together = parts.T.astype(int) @ parts > 0  # pairs of patches that one summand sees
    if isinstance(kind, Contact):
        return float(np.mean([_pair_percent(kind, together, each) for each in kind.offsets if in_part(each, part)]))
    # The marks are in the first frame, and the sides that tell the class in those after it.
    frames = spec.model.grid[0]
    of_frames = together.reshape(frames, -1, frames, len(together) // frames).any(axis=(1, 3))
    return 100.0 if of_frames[0, 1:].any() else SUM_PERCENT


def _pair_percent(kind: Contact, together: np.ndarray, offset: Place) -> float:
    """A summand may see no first twin beside a second one, be they of one pair or of two."""
    places = kind.placings(offset)
    first, second = [number(kind, x) for x in places], [number(kind, plus(x, offset)) for x in places]
    return 100.0 if together[np.ix_(first, second)].any() else SUM_PERCENT


def met(model: TimeSformerConfig) -> np.ndarray:
    """Return the pairs of patches (p, p) of which either sees the other in one step of a model.

    With a class token that is read in the end, only steps before the last one in which it reads count: what meets in
    that step reaches patches that nothing reads any more.
    """
    encoder = model.scheme.encoders[0]
    stages = encoder.block * model.depth
    if encoder.class_tokens == "none":
        return _meeting({step for stage in stages for step in stage}, model.grid)
    return met_before_reading(model.attention, model.grid, model.depth)


def met_before_reading(scheme: str, grid: Grid, depth: int) -> np.ndarray:
    """Return the pairs (p, p) that meet before the step in which the class token reads for the last time.

    What meets in that step itself reaches patches that nothing reads any more.  Either of a pair may be the query.
    """
    encoder = build(scheme).encoders[0]
    stages = encoder.block * depth
    reading = max(place for place, stage in enumerate(stages) if any(step.cls != "absent" for step in stage))
    steps = {step for stage in stages[:reading] for step in stage}
    if encoder.class_tokens != "frame":
        return _meeting(steps, grid)
    return np.kron(np.eye(grid[0], dtype=bool), _meeting(steps, (1, *grid[1:])))


def _meeting(steps: set[Step], grid: Grid) -> np.ndarray:
    found = np.zeros((math.prod(grid), math.prod(grid)), dtype=bool)
    for step in steps:
        found |= meet(step, grid).numpy()
    both: np.ndarray = found | found.T
    return both


def share_met(kind: Contact, pairs: np.ndarray, offset: Place) -> float:
    """Return the share of an offset's clips in which the two textures meet."""
    places = kind.placings(offset)
    return sum(bool(pairs[number(kind, x), number(kind, plus(x, offset))]) for x in places) / len(places)


def number(kind: Contact, place: Place) -> int:
    """Return the number of the patch at a place."""
    return (place[0] * kind.grid + place[1]) * kind.grid + place[2]


def part_of(offset: Place) -> str:
    """Return the part of the clips to which those with an offset belong."""
    if offset[0] == 0:
        return "frame"
    return "place" if offset[1:] == (0, 0) else "elsewhere"


def in_part(offset: Place, part: str) -> bool:
    """Return True if clips with an offset belong to a part."""
    return part in (ALL, part_of(offset))
