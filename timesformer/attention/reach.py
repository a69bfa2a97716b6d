"""Who can meet whom and who can depend on whom, from a scheme's declaration alone.

Patches of a (t, h, w) grid are numbered with time slowest, p = t * h * w; in every matrix a row is a patch that comes
out and a column a patch that goes in.

- `meet`: pairs that one step compares directly, in one softmax.
- `reach`: what a patch can depend on after some steps, through any number of patches in between and, with `bridge`,
  through the class token.  It holds for any weights: where it is False the derivative is zero, where it is True the
  derivative is other than zero for almost all weights (not for projections or extra linears that are still at their
  start of zero).  Norms, projections and the MLP act on each token alone and the residual connection keeps what a
  token had, so attention alone counts; a shared qkv projection changes no path.
- `first_meeting` and `all_reached`: after how many steps.

Steps side by side are one step: they read the same tokens and nothing lies between them.

The class token reads every patch in each step that it takes part in, `global` by its own query and `replicated` by the
mean of its copies, and is a key of every patch of that step; through a mixer no patch reads it.  Where every frame is a
stream of its own, patches and class token stay in their frame; the mean over the frames at the end is not part of it.
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
"""Patches that `small_grid` allows; the patches that a mixer sees are found one at a time."""


class After(NamedTuple):
    """A number of steps, counted through the blocks from 1, and the block in which the last of them lies."""

    steps: int
    blocks: int


class _Keys(NamedTuple):
    """Which patches every patch sees, each set once: patch i sees those numbered `sets[of[i]]`."""

    sets: tuple[NDArray[np.intp], ...]
    of: NDArray[np.intp]


class _State(NamedTuple):
    """What tokens depend on, eight patches to a byte: patches (streams, patches, bytes), class (streams, bytes)."""

    patches: Bits
    cls: Bits


def meet(step: Step, grid: Grid) -> Bool[Tensor, "p p"]:
    """The pairs of patches that a step compares in one softmax: row the query, column the key.

    A patch is among its own keys where the declaration says so.  A step that shares its heads between parts compares
    what any of them does.  For a mixer these are the patches with a weight in its `operator`, as `visible` says.

    Raises:
        InputError: not a grid of three positive integers, or a predicate that leaves a query without keys.
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
    """The patches (columns) that each patch (row) can depend on after so many steps or blocks of a scheme.

    scheme: a scheme of one encoder, or the name of one
    steps: so many, over as many blocks as they take; 0: every patch itself
    blocks: so many whole blocks; with neither steps nor blocks: any number, what can ever be reached
    bridge: the class token carries over what it has read; False: patches read it as a constant

    Raises:
        InputError: both steps and blocks, or a negative one; not a grid of three positive integers; a scheme of
            several encoders, which hands on one token a frame, so that no patch comes out of it.
    """
    encoder = _encoder(scheme)
    _require_grid(grid)
    if steps is not None and blocks is not None:
        raise InputError(f"steps, blocks: expected one of them, got steps {steps} and blocks {blocks}")
    for name, number in (("steps", steps), ("blocks", blocks)):
        if number is not None and number < 0:
            raise InputError(f"{name}: expected 0 or more, got {number}")
    wanted = steps if blocks is None else blocks * len(encoder.block)
    (last,) = deque(islice(_states(encoder, grid, bridge), None if wanted is None else wanted + 1), maxlen=1)
    bits = last.patches.reshape(-1, last.patches.shape[-1])
    return torch.from_numpy(np.unpackbits(bits, axis=1, count=len(bits)).astype(bool))


def first_meeting(scheme: Scheme | str, grid: Grid) -> After | None:
    """After how many steps every patch has been compared directly, as a query, with a patch of another frame and
    another place in the frame; None where that never happens.

    Raises:
        InputError: as `reach`.
    """
    encoder = _encoder(scheme)
    _require_grid(grid)
    if encoder.class_tokens == "frame":
        return None
    number = torch.arange(grid[0] * grid[1] * grid[2])
    frame, place = number // (grid[1] * grid[2]), number % (grid[1] * grid[2])
    elsewhere = (frame[:, None] != frame) & (place[:, None] != place)
    met = torch.zeros(len(number), dtype=torch.bool)
    for steps, stage in enumerate(encoder.block, start=1):
        for step in stage:
            met |= (meet(step, grid) & elsewhere).any(1)
        if met.all():
            return After(steps, 1)
    return None


def all_reached(scheme: Scheme | str, grid: Grid, bridge: bool = True) -> After | None:
    """After how many steps every patch can depend on every patch, `bridge` as in `reach`; None where never.

    Raises:
        InputError: as `reach`.
    """
    encoder = _encoder(scheme)
    _require_grid(grid)
    every = np.packbits(np.ones(grid[0] * grid[1] * grid[2], dtype=bool))
    for steps, state in enumerate(_states(encoder, grid, bridge)):
        if (state.patches == every).all():
            return After(steps, -(-steps // len(encoder.block)))
    return None


def small_grid(scheme: Scheme | str, grid: Grid) -> Grid:
    """The grid itself up to 2048 patches (36 with a mixer), else a smaller one for `first_meeting` and `all_reached`.

    The longest side gives up two at a time, so that what was odd or even stays so.  Every shipped scheme has the same
    answers on both; a scheme with windows of a fixed size, or with more parts than the smaller side has patches, can
    need more steps on the larger grid.
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
            f"attention scheme {scheme.name!r}: an encoder before another hands on one token a frame, so that no patch "
            f"comes out of its {len(scheme.encoders)} encoders; expected a scheme of one"
        )
    return scheme.encoders[0]


def _require_grid(grid: Grid) -> None:
    if len(grid) != 3 or any(side < 1 for side in grid):
        raise InputError(f"grid: expected numbers of frames, rows and columns of 1 or more, got {grid}")


def _states(encoder: Encoder, grid: Grid, bridge: bool) -> Iterator[_State]:
    """Before the first step, after it, after the second, …; ends after a block that changed nothing."""
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
        for stage in encoder.block:
            state = _after(stage, state, stream, bridge)
            yield state
        changed = any((now != then).any() for now, then in zip(state, start, strict=True))


def _after(stage: Iterable[Step], before: _State, stream: Grid, bridge: bool) -> _State:
    """After steps side by side: each reads the tokens as they were before all of them."""
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
    """The patches that each patch sees, bool (p,)."""
    if isinstance(over, Predicate):
        for rows in over.chunks(grid):
            yield from rows
        return
    for query in np.ndindex(*grid):
        yield over.visible(query, grid).flatten()
