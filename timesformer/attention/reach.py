"""Direct comparisons and possible dependencies between patches, from a scheme's declaration alone.

Patches of a (t, h, w) grid are numbered with time slowest, p = t * h * w.  In every matrix a row is an output patch and
a column is an input patch.

- `meet`: pairs that one step compares directly, in one softmax.
- `reach`: patches that a patch can depend on after some steps, through any number of patches in between and, with
  `bridge`, through the class token.  The result holds for any weights: where it is False the derivative is zero; where
  it is True the derivative is nonzero for almost all weights (an exception are projections and extra linears that are
  still at their initial zero).  Only attention counts: norms, projections and the MLP act on each token separately, and
  the residual connection keeps what a token had.  A shared qkv projection changes no path.
- `first_meeting` and `all_reached`: number of steps until every patch has met or reached the others.

Parallel steps count as one step: they read the same tokens, and nothing lies between them.

The class token reads every patch in each step that it takes part in, by its own query (`global`) or by the mean of its
copies (`replicated`), and it is a key of every patch of that step; through a mixer no patch reads it.  Where every
frame is a stream of its own, patches and class token stay in their frame; the final mean over the frames is not
counted.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from timesformer._typing import Bool
from timesformer.attention.mixer import Mixer
from timesformer.attention.partition import Grid, Partition
from timesformer.attention.predicate import Predicate
from timesformer.attention.registry import build
from timesformer.attention.scheme import Encoder, Scheme, Step
from timesformer.errors import InputError

Bits = NDArray[np.uint8]
MANY, MANY_FOR_A_MIXER = 2048, 36
"""Most patches that `small_grid` allows, without and with a mixer, whose keys are found one patch at a time."""


class After(NamedTuple):
    """Number of steps, counted through the blocks from 1, and number of the block that holds the last of them."""

    steps: int
    blocks: int


class _Keys(NamedTuple):
    """Patches that every patch sees, each distinct set stored once: patch i sees those numbered `sets[of[i]]`."""

    sets: tuple[NDArray[np.intp], ...]
    of: NDArray[np.intp]


class _State(NamedTuple):
    """Dependencies of tokens, eight patches to a byte: patches (streams, patches, bytes), cls (streams, bytes)."""

    patches: Bits
    cls: Bits


def meet(step: Step, grid: Grid) -> Bool[Tensor, "p p"]:
    """Return the pairs of patches that a step compares in one softmax: rows are queries, columns are keys.

    A patch is among its own keys where the declaration says so.  A step that divides its heads between parts compares
    every pair that one of the parts compares.  For a mixer, the keys are the patches with a nonzero weight in its
    `operator`, as found by `visible`.

    Raises:
        InputError: the grid is not three positive integers, or a predicate leaves a query without keys.
    """
    _require_grid(grid)
    patches = grid[0] * grid[1] * grid[2]
    met = np.zeros((patches, patches), dtype=bool)
    for over in step.over:
        keys = _keys(over, grid)
        rows = np.zeros((len(keys.sets), patches), dtype=bool)
        for row, numbers in zip(rows, keys.sets, strict=True):
            row[numbers] = True
        met |= rows[keys.of]
    return torch.from_numpy(met)


def reach(
    scheme: Scheme | str, grid: Grid, steps: int | None = None, blocks: int | None = None, bridge: bool = True
) -> Bool[Tensor, "p p"]:
    """Return the patches (columns) that each patch (row) can depend on after some steps or blocks of a scheme.

    scheme: a scheme with one encoder, or its name
    steps: number of steps, over as many blocks as they take; after 0 steps each patch depends on itself
    blocks: number of whole blocks; with neither steps nor blocks, any number, which gives everything ever reached
    bridge: True: the class token passes on what it has read; False: patches read it as a constant

    Raises:
        InputError: both steps and blocks are given, or one is negative; the grid is not three positive integers; the
            scheme has several encoders, which pass on one token per frame, so that no patch comes out of them.
    """
    encoder = _encoder(scheme)
    _require_grid(grid)
    if steps is not None and blocks is not None:
        raise InputError(f"steps, blocks: expected one of them, got steps {steps} and blocks {blocks}")
    for name, number in (("steps", steps), ("blocks", blocks)):
        if number is not None and number < 0:
            raise InputError(f"{name}: expected 0 or more, got {number}")
    wanted = steps if blocks is None else steps_of(encoder, blocks)
    (last,) = deque(islice(_states(encoder, grid, bridge), None if wanted is None else wanted + 1), maxlen=1)
    bits = last.patches.reshape(-1, last.patches.shape[-1])
    return torch.from_numpy(np.unpackbits(bits, axis=1, count=len(bits)).astype(bool))


def first_meeting(scheme: Scheme | str, grid: Grid) -> After | None:
    """Return the number of steps until every patch, as a query, has met a patch at another time and place.

    To meet is to be compared directly, with a patch in another frame and at another position in the frame.  The result
    is None where that never happens.

    Raises:
        InputError: as for `reach`.
    """
    encoder = _encoder(scheme)
    _require_grid(grid)
    if encoder.class_tokens == "frame":
        return None
    number = torch.arange(grid[0] * grid[1] * grid[2])
    frame, place = number // (grid[1] * grid[2]), number % (grid[1] * grid[2])
    elsewhere = (frame[:, None] != frame) & (place[:, None] != place)
    met = torch.zeros(len(number), dtype=torch.bool)
    for steps, (block, stage) in enumerate(encoder.stages, start=1):
        for step in stage:
            met |= (meet(step, grid) & elsewhere).any(1)
        if met.all():
            return After(steps, block + 1)
    return None


def all_reached(scheme: Scheme | str, grid: Grid, bridge: bool = True) -> After | None:
    """Return the number of steps until every patch can depend on every patch, or None where that never happens.

    `bridge` is that of `reach`.

    Raises:
        InputError: as for `reach`.
    """
    encoder = _encoder(scheme)
    _require_grid(grid)
    every = np.packbits(np.ones(grid[0] * grid[1] * grid[2], dtype=bool))
    for steps, state in enumerate(_states(encoder, grid, bridge)):
        if (state.patches == every).all():
            return After(steps, block_of(encoder, steps))
    return None


def steps_of(encoder: Encoder, blocks: int) -> int:
    """Return the number of steps of the first blocks of an encoder."""
    return sum(len(encoder.pattern[number % len(encoder.pattern)]) for number in range(blocks))


def block_of(encoder: Encoder, steps: int) -> int:
    """Return the number of the block, counted from 1, that holds a step, counted from 1; 0 for none."""
    whole, rest = divmod(max(0, steps - 1), len(encoder.stages))
    return whole * len(encoder.pattern) + encoder.stages[rest][0] + 1 if steps else 0


def small_grid(scheme: Scheme | str, grid: Grid) -> Grid:
    """Return a grid of at most 2048 patches (36 with a mixer) for `first_meeting` and `all_reached`.

    A grid within the limit is returned unchanged.  Otherwise the longest side shrinks by two at a time, so that odd
    sides stay odd and even sides stay even.  Every shipped scheme gives the same results on both grids.  A scheme with
    windows of a fixed size, or with more parts than the smaller side has patches, can need more steps on the larger
    grid.
    """
    scheme = build(scheme) if isinstance(scheme, str) else scheme
    overs = [over for encoder in scheme.encoders for step in encoder.steps for over in step.over]
    most = MANY_FOR_A_MIXER if any(isinstance(over, Mixer) for over in overs) else MANY
    sides = list(grid)
    while sides[0] * sides[1] * sides[2] > most:
        sides[sides.index(max(sides))] -= 2
    return sides[0], sides[1], sides[2]


def _encoder(scheme: Scheme | str) -> Encoder:
    scheme = build(scheme) if isinstance(scheme, str) else scheme
    if len(scheme.encoders) > 1:
        raise InputError(
            f"attention scheme {scheme.name!r}: expected a scheme with one encoder, got {len(scheme.encoders)}; each "
            "but the last passes on one token per frame, so that no patch comes out"
        )
    return scheme.encoders[0]


def _require_grid(grid: Grid) -> None:
    if len(grid) != 3 or any(side < 1 for side in grid):
        raise InputError(f"grid: expected positive numbers of frames, rows and columns, got {grid}")


def _states(encoder: Encoder, grid: Grid, bridge: bool) -> Iterator[_State]:
    """Yield the state before the first step, after it, after the second, …, until no block changes anything."""
    streams = grid[0] if encoder.class_tokens == "frame" else 1
    stream = (grid[0] // streams, grid[1], grid[2])
    number = np.arange(grid[0] * grid[1] * grid[2])
    every = np.zeros((len(number), -(-len(number) // 8)), dtype=np.uint8)
    every[number, number // 8] = 128 >> number % 8  # as np.packbits orders them
    state = _State(every.reshape(streams, -1, every.shape[1]), np.zeros((streams, every.shape[1]), dtype=np.uint8))
    yield state
    changed = True
    while changed:
        start = state
        for _, stage in encoder.stages:
            state = _after(stage, state, stream, bridge)
            yield state
        changed = any((now != then).any() for now, then in zip(state, start, strict=True))


def _after(stage: Iterable[Step], before: _State, stream: Grid, bridge: bool) -> _State:
    """State after parallel steps, each of which reads the tokens as they were before all of them."""
    patches, cls = before.patches.copy(), before.cls
    for step in stage:
        for over in step.over:
            keys = _keys(over, stream)
            for after, tokens in zip(patches, before.patches, strict=True):
                found = np.stack([np.bitwise_or.reduce(tokens[numbers], axis=0) for numbers in keys.sets])
                after |= found[keys.of]
        if bridge and step.cls != "absent":
            cls = cls | np.bitwise_or.reduce(before.patches, axis=1)
            if not all(isinstance(over, Mixer) for over in step.over):
                patches |= before.cls[:, None]
    return _State(patches, cls)


@lru_cache(maxsize=32)
def _keys(over: Partition | Predicate | Mixer, grid: Grid) -> _Keys:
    if isinstance(over, Partition):
        groups, group = np.unique(over.group_ids(grid).flatten().numpy(), return_inverse=True)
        return _Keys(tuple(np.flatnonzero(group == number) for number in range(len(groups))), group)
    sets: dict[bytes, int] = {}
    of = [sets.setdefault(row.numpy().tobytes(), len(sets)) for row in _rows(over, grid)]
    return _Keys(tuple(np.flatnonzero(np.frombuffer(row, dtype=bool)) for row in sets), np.array(of))


def _rows(over: Predicate | Mixer, grid: Grid) -> Iterator[Tensor]:
    """Yield the patches that each patch sees, bool (p,)."""
    if isinstance(over, Predicate):
        for rows in over.chunks(grid):
            yield from rows
        return
    for query in np.ndindex(*grid):
        yield over.visible(query, grid).flatten()
