"""Splits, partitions and tiles, against neighbourhoods written out by hand for a 3 x 5 x 7 grid."""

import itertools
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from timesformer import InputError
from timesformer.attention import (
    ALL,
    EACH,
    Encoder,
    Partition,
    Predicate,
    Scheme,
    Split,
    Step,
    blocks,
    build,
    stride,
    windows,
)
from timesformer.attention.partition import Grid

GRID = (3, 5, 7)
SPACE = Partition(t=EACH, h=ALL, w=ALL)
ROWS, COLUMNS = range(5), range(7)


def hand_written(name: str, query: Grid) -> set[Grid]:
    """The keys of a query, spelled out; quadrants are rows 0-2 | 3-4 and columns 0-3 | 4-6."""
    t, h, w = query
    frames = range(3)
    if name == "joint":
        return set(itertools.product(frames, ROWS, COLUMNS))
    if name == "space":
        return {(t, y, x) for y in ROWS for x in COLUMNS}
    if name == "time":
        return {(0, h, w), (1, h, w), (2, h, w)}
    if name == "width":
        return {(t, h, x) for x in COLUMNS}
    if name == "height":
        return {(t, y, w) for y in ROWS}
    if name == "local":
        rows = {0, 1, 2} if h in (0, 1, 2) else {3, 4}
        columns = {0, 1, 2, 3} if w in (0, 1, 2, 3) else {4, 5, 6}
        return set(itertools.product(frames, rows, columns))
    assert name == "global"
    return set(
        itertools.product(
            {0, 2} if t in (0, 2) else {1},
            {0, 2, 4} if h in (0, 2, 4) else {1, 3},
            {0, 2, 4, 6} if w in (0, 2, 4, 6) else {1, 3, 5},
        )
    )


def steps() -> dict[str, Partition]:
    schemes = ("joint", "divided", "local_global", "axial")
    found = {step.name: step.over[0] for name in schemes for step in build(name).encoders[0].steps}
    return {name: over for name, over in found.items() if isinstance(over, Partition)}


@pytest.mark.parametrize("name", ["joint", "space", "time", "width", "height", "local", "global"])
def test_neighbourhoods_by_hand(name: str) -> None:
    partition = steps()[name]
    boxes = list(partition.boxes(GRID))
    for query in itertools.product(range(3), ROWS, COLUMNS):
        expected = hand_written(name, query)
        assert {tuple(key) for key in partition.visible(query, GRID).nonzero().tolist()} == expected
        marks = torch.zeros(GRID, dtype=torch.bool)
        marks[query] = True
        (box,) = [box for box in boxes if marks[box].any()]
        seen = torch.zeros(GRID, dtype=torch.bool)
        seen[box] = True
        assert {tuple(key) for key in seen.nonzero().tolist()} == expected


splits = st.one_of(
    st.just(ALL), st.just(EACH), st.builds(blocks, st.integers(1, 5)), st.builds(stride, st.integers(1, 5))
)


@given(splits, splits, splits, st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)))
def test_tiles_boxes_and_closed_form_agree(t: Split, h: Split, w: Split, grid: Grid) -> None:
    partition = Partition(t, h, w)
    ids = partition.group_ids(grid)
    count = partition.counts(grid)
    boxes = list(partition.boxes(grid))
    assert len(boxes) == count[0] * count[1] * count[2] == sum(tile.num_groups for tile in partition.tiles(grid))
    for number, box in enumerate(boxes):
        assert (ids[box] == number).all()
    assert sum(ids[box].numel() for box in boxes) == ids.numel()


@given(splits, splits, splits, st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(1, 7)))
def test_layout_strides_reach_the_tokens_of_each_group(t: Split, h: Split, w: Split, grid: Grid) -> None:
    partition = Partition(t, h, w)
    ids = partition.group_ids(grid).flatten()
    seen = []
    for tile in partition.tiles(grid):
        layout = tile.layout(grid)
        for group in itertools.product(*map(range, layout.counts)):
            base = layout.base + sum(g * s for g, s in zip(group, layout.group_strides, strict=True))
            tokens = [
                base + sum(i * s for i, s in zip(element, layout.strides, strict=True))
                for element in itertools.product(*map(range, layout.sizes))
            ]
            assert len({int(ids[token]) for token in tokens}) == 1
            seen += tokens
    assert sorted(seen) == list(range(len(ids)))


def test_uneven_blocks_follow_array_split() -> None:
    assert [s for tile in blocks(3).tiles(8) for s in tile.slices()] == [slice(0, 3, 1), slice(3, 6, 1), slice(6, 8, 1)]
    assert blocks(4).count(2) == 2


def test_unusable_splits_are_named() -> None:
    with pytest.raises(InputError, match=r"Split\.k"):
        blocks(0)
    with pytest.raises(InputError, match=r"Split\.word"):
        Split("some")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Partition(t=2, h=ALL, w=ALL), r"Partition\.t: expected ALL, .* got 2; .* blocks\(2\) or stride\(2\)"),
        (lambda: Partition(t=ALL, h="each", w=ALL), r"Partition\.h: expected ALL, EACH, .* got 'each'"),
        (lambda: blocks(2.5), r"Split\.k: expected a positive integer, got 2\.5"),
        (lambda: windows(3, shift=3), r"Split\.shift of 'windows': .* an integer less than 3, got 3"),
        (lambda: windows(3, shift=1.5), r"Split\.shift of 'windows': .* an integer less than 3, got 1\.5"),
        (lambda: windows(3, shift=True), r"Split\.shift of 'windows': .* an integer less than 3, got True"),
        (lambda: windows(3, shift="1"), r"Split\.shift of 'windows': .* an integer less than 3, got '1'"),
        (lambda: Predicate("earlier"), r"Predicate\.fn: expected a function"),
        (lambda: Step("a", SPACE), r"Step\.over of 'a': expected a tuple of at least one partition"),
        (lambda: Step("a", ("space",)), r"Step\.over of 'a': expected partitions, .* got 'space'"),
        (lambda: Encoder((Step("a", (SPACE,)),)), r"Encoder\.block: expected a tuple of stages"),
        (lambda: Encoder(Step("a", (SPACE,))), r"Encoder\.block: expected a tuple of stages"),
        (lambda: Scheme("a", Encoder(((Step("a", (SPACE,)),),))), r"Scheme\.encoders of 'a': expected a tuple"),
    ],
)
def test_wrong_kinds_are_named_errors(make: Callable[[], object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        make()
