"""Blocks that differ: which depths of an encoder take the steps of which scheme.

A schedule is written as depths, `{0-5: space, 6-11: divided}`, where other depths keep the steps of the model's own
scheme, or as a pattern, `[divided, divided, joint]`, which repeats from the first block to the last.  Depths are
counted from 0.  A scheme may have options: `{0-3: {name: sliding_tile, window: [3, 5, 5]}}`.

One choice has one form: neighbours of one scheme are one range, depths of the model's own scheme are left out, and a
pattern is written once.  A pattern follows the depth of the model, and depths do not; where they name the same blocks,
`settled` gives the same for both.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import groupby, pairwise
from typing import Any

from timesformer.attention import Scheme, build, chosen, spelling
from timesformer.attention.options import plain
from timesformer.attention.scheme import Block, Encoder
from timesformer.errors import InputError

Schedule = tuple[str, ...] | tuple[tuple[int, int, str], ...]
"""A pattern of schemes, or first depth, last depth and scheme of some blocks, in order."""
DEPTHS = re.compile(r"(\d+)(?:\s*-\s*(\d+))?")


def read_schedule(value: Any) -> Schedule:
    """Return a schedule from plain data, or as it is.

    Raises:
        InputError: neither depths nor a pattern, depths that occur twice, or an unknown scheme.
    """
    if isinstance(value, list | tuple) and value and all(isinstance(part, str | Mapping) for part in value):
        return _once([spelling(part) for part in value])
    if isinstance(value, tuple) and value:
        value = {f"{first}-{last}": attention for first, last, attention in value}
    if not isinstance(value, Mapping) or not value:
        raise InputError(
            f"schedule: expected schemes by depth, such as {{0-5: space, 6-11: divided}}, or a list, got {value!r}"
        )
    found: list[tuple[int, int, str]] = []
    for depths, attention in value.items():
        match = DEPTHS.fullmatch(str(depths).strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last:
            raise InputError(f"schedule: expected a depth or a range of depths, such as 0-5, got {depths!r}")
        found.append((first, last, spelling(attention)))
    found.sort(key=lambda entry: entry[:2])
    for before, after in pairwise(found):
        if after[0] <= before[1]:
            raise InputError(f"schedule: depth {after[0]} occurs twice, in {_range(before)} and in {_range(after)}")
    return tuple(found)


def write_schedule(schedule: Schedule) -> Any:
    """Return a schedule as plain data."""
    if isinstance(schedule[0], str):
        return [_plain(str(attention)) for attention in schedule]
    return {_range(entry): _plain(entry[2]) for entry in schedule if not isinstance(entry, str)}


def _once(pattern: list[str]) -> tuple[str, ...]:
    """Return the shortest pattern that repeats as this one does."""
    many = len(pattern)
    period = next(n for n in range(1, many + 1) if many % n == 0 and pattern == pattern[:n] * (many // n))
    return tuple(pattern[:period])


def settled(schedule: Schedule, attention: str, depth: int) -> tuple[tuple[int, int, str], ...]:
    """Return the depths whose scheme is not the model's own, in as few ranges as there can be.

    Raises:
        InputError: as for `by_depth`.
    """
    ranges, first = [], 0
    for name, blocks in groupby(by_depth(schedule, attention, depth)):
        last = first + len(list(blocks)) - 1
        if name != attention:
            ranges.append((first, last, name))
        first = last + 1
    return tuple(ranges)


def least_depth(schedule: Schedule | None) -> int:
    """Return the number of blocks that a model needs to have all that the schedule names."""
    if schedule is None:
        return 1
    return len(schedule) if isinstance(schedule[0], str) else 1 + max(int(entry[1]) for entry in schedule)


def by_depth(schedule: Schedule, attention: str, depth: int) -> list[str]:
    """Return the scheme of each of `depth` blocks; where the schedule names none, the model's own.

    Raises:
        InputError: a depth that the model does not have, or a pattern that is longer than the model is deep.
    """
    if isinstance(schedule[0], str):
        if len(schedule) > depth:
            raise InputError(
                f"schedule: expected a pattern of at most {depth} schemes, the depth of the model, got "
                f"{len(schedule)}: {', '.join(map(str, schedule))}"
            )
        return [str(schedule[number % len(schedule)]) for number in range(depth)]
    found = [attention] * depth
    for entry in schedule:
        first, last, name = entry[0], entry[1], entry[2]
        if int(last) >= depth:
            raise InputError(f"schedule: expected depths from 0 to {depth - 1}, got {_range(entry)}")
        found[int(first) : int(last) + 1] = [name] * (int(last) + 1 - int(first))
    return found


def scheduled(scheme: Scheme, names: list[str], reads_class: bool = True) -> Scheme:
    """Return the scheme with the steps of these schemes in its blocks, one name for each block.

    Class tokens, pooling and positions stay the scheme's; without class tokens the steps leave theirs out.  A scheme
    whose blocks differ, such as swin, gives a depth the block that it has there.

    `reads_class`: whether the head reads the class token where the scheme says so.

    Raises:
        InputError: a scheme with several encoders, frames that are streams of their own, or a last block without the
            class token that the head reads.
    """
    encoder = _only(scheme)
    if encoder.class_tokens == "frame":
        raise InputError(
            f"schedule: the frames of attention {scheme.name!r} are streams of their own, in which nothing but space "
            "can be scheduled; expected another scheme as attention, such as divided"
        )
    blocks = [_block(_only(build(name)).at(number), encoder) for number, name in enumerate(names)]
    if reads_class and encoder.pool == "class" and all(step.cls == "absent" for stage in blocks[-1] for step in stage):
        raise InputError(
            f"schedule: the head reads the class token, which takes no part in the last block, {names[-1]}; expected "
            "a scheme there with the class token in a step"
        )
    return replace(scheme, encoders=(replace(encoder, block=blocks[0], more=tuple(blocks[1:])),))


def _only(scheme: Scheme) -> Encoder:
    if len(scheme.encoders) > 1:
        raise InputError(
            f"schedule: attention {scheme.name!r} has {len(scheme.encoders)} encoders; expected schemes with one"
        )
    return scheme.encoders[0]


def _block(source: Encoder, target: Encoder) -> Block:
    if target.class_tokens != "none":
        return source.block
    return tuple(tuple(replace(step, cls="absent") for step in stage) for stage in source.block)


def _plain(attention: str) -> Any:
    name, options = chosen(attention)
    return {"name": name, **plain(options)} if options else name


def _range(entry: Any) -> str:
    return str(entry[0]) if entry[0] == entry[1] else f"{entry[0]}-{entry[1]}"
