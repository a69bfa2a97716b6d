"""Tiles, rules and windows, against neighbourhoods written out by hand for a 3 x 5 x 7 grid."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.attention.custom import random_inputs
from tests.attention.test_oracle import check
from timesformer import InputError, TimeSformerConfig
from timesformer.attention import (
    ALL,
    EACH,
    Earlier,
    Everywhere,
    Partition,
    Predicate,
    Radial,
    Split,
    Step,
    Tiles,
    Window,
    attend,
    backends,
    build,
    windows,
)
from timesformer.attention.partition import Grid
from timesformer.attention.rules import Seen
from timesformer.config.counting import macs_per_view, step_pairs

GRID: Grid = (3, 5, 7)
ROWS, COLUMNS, FRAMES = range(5), range(7), range(3)


def over(attention: str | dict[str, Any], block: int = 0) -> Any:
    return build(attention).encoders[0].at(block).steps[0].over[0]


def keys(neighbourhood: Any, query: Grid, grid: Grid = GRID) -> set[Grid]:
    return {(t, h, w) for t, h, w in neighbourhood.visible(query, grid).nonzero().tolist()}


def product(*sides: Any) -> set[Grid]:
    return set(itertools.product(*sides))


def swin_by_hand(query: Grid) -> set[Grid]:
    """Windows of 2 x 2 x 3: frames 01|2, rows 01|23|4, columns 012|345|6."""
    t, h, w = query
    rows = {0, 1} if h < 2 else {2, 3} if h < 4 else {4}
    columns = {0, 1, 2} if w < 3 else {3, 4, 5} if w < 6 else {6}
    return product({0, 1} if t < 2 else {2}, rows, columns)


def shifted_by_hand(query: Grid) -> set[Grid]:
    """Shifted by 1, 1 and 1: frames 0|12, rows 0|12|34, columns 0|123|456."""
    t, h, w = query
    rows = {0} if h < 1 else {1, 2} if h < 3 else {3, 4}
    columns = {0} if w < 1 else {1, 2, 3} if w < 4 else {4, 5, 6}
    return product({0} if t < 1 else {1, 2}, rows, columns)


def sliding_by_hand(query: Grid) -> set[Grid]:
    """Tiles of 1 x 2 x 3 (rows 01|23|4, columns 012|345|6), windows of 3 x 2 x 1 tiles.

    Three frames are all; two tiles of rows are the query's own and the one above it, the first two at the edge.
    """
    _, h, w = query
    rows = {0, 1, 2, 3} if h < 4 else {2, 3, 4}
    return product(FRAMES, rows, {0, 1, 2} if w < 3 else {3, 4, 5} if w < 6 else {6})


def neighbourhood_by_hand(query: Grid) -> set[Grid]:
    """Windows of 1 x 3 x 4 tokens, moved inwards at the edges; four columns reach two to the left, one to the right."""
    t, h, w = query
    rows = {0: {0, 1, 2}, 1: {0, 1, 2}, 2: {1, 2, 3}, 3: {2, 3, 4}, 4: {2, 3, 4}}[h]
    starts = {0: 0, 1: 0, 2: 0, 3: 1, 4: 2, 5: 3, 6: 3}
    return product({t}, rows, range(starts[w], starts[w] + 4))


def strided_by_hand(query: Grid) -> set[Grid]:
    """Windows of 1 x 1 x 3 with stride 3: columns 012 share that of column 1, 345 of column 4, 6 its own."""
    t, h, w = query
    return product({t}, {h}, {0, 1, 2} if w < 3 else {3, 4, 5} if w < 6 else {4, 5, 6})


def dilated_by_hand(query: Grid) -> set[Grid]:
    """Windows of 1 x 1 x 3 with dilation 2: even columns 0 2 4 6, odd columns 1 3 5."""
    t, h, w = query
    return product({t}, {h}, {0: {0, 2, 4}, 2: {0, 2, 4}, 4: {2, 4, 6}, 6: {2, 4, 6}}.get(w, {1, 3, 5}))


def causal_by_hand(query: Grid) -> set[Grid]:
    """Two frames up to the query's, cut at the beginning."""
    t, h, w = query
    return product({0: {0}, 1: {0, 1}, 2: {1, 2}}[t], {h}, {w})


def radial_by_hand(query: Grid) -> set[Grid]:
    """One frame away a quarter of a frame: 2 * distance <= 0.5 * 5 - 1 rows and 0.5 * 7 - 1 columns, so 0 and 1."""
    t, h, w = query
    found = product({t}, ROWS, COLUMNS)
    for frame in FRAMES:
        if abs(frame - t) == 1:
            found |= product({frame}, {h}, {w - 1, w, w + 1} & set(COLUMNS))
        if abs(frame - t) == 2:  # an eighth: 2 * distance <= 0.35 * 5 - 1 and 0.35 * 7 - 1, so 0 and 0
            found |= {(frame, h, w)}
    return found


def union_by_hand(query: Grid) -> set[Grid]:
    """The query itself, and the corner of each frame, which all see and which sees all."""
    corners = product(FRAMES, {0}, {0})
    return product(FRAMES, ROWS, COLUMNS) if query in corners else {query} | corners


ALONE = Window((1, 1, 1))
BY_HAND: dict[str, tuple[Any, Callable[[Grid], set[Grid]]]] = {
    "windows": (over({"name": "swin", "window": [2, 2, 3]}), swin_by_hand),
    "shifted": (over({"name": "swin", "window": [2, 2, 3]}, 1), shifted_by_hand),
    "sliding_tile": (over({"name": "sliding_tile", "tile": [1, 2, 3], "window": [3, 2, 1]}), sliding_by_hand),
    "neighbourhood": (over({"name": "neighbourhood", "window": [1, 3, 4]}), neighbourhood_by_hand),
    "strided": (over({"name": "neighbourhood", "window": [1, 1, 3], "stride": [1, 1, 3]}), strided_by_hand),
    "dilated": (
        over({"name": "dilated", "tile": [1, 1, 1], "window": [1, 1, 3], "dilation": [1, 1, 2]}),
        dilated_by_hand,
    ),
    "causal": (over({"name": "neighbourhood", "window": [2, 1, 1], "causal": True}), causal_by_hand),
    "radial": (over({"name": "radial", "tile": [1, 1, 1], "decay": 0.5, "sink": False}), radial_by_hand),
    "union": (Tiles((1, 1, 1), ALONE | Everywhere((1, 5, 7))), union_by_hand),
    "both": (
        Tiles((1, 2, 3), Window((3, 2, 1)) & Earlier()),
        lambda q: {k for k in sliding_by_hand(q) if k[0] <= q[0]},
    ),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_neighbourhoods_by_hand(name: str) -> None:
    neighbourhood, by_hand = BY_HAND[name]
    for query in itertools.product(FRAMES, ROWS, COLUMNS):
        assert keys(neighbourhood, query) == by_hand(query), query


@pytest.mark.parametrize("name", [name for name in BY_HAND if name not in ("windows", "shifted")])
def test_by_hand_equals_the_oracle(name: str) -> None:
    check(Step("step", (BY_HAND[name][0],), cls="global"), GRID, ("sdpa",))


def test_windows_by_index() -> None:
    def parts(split: Split, length: int) -> list[list[int]]:
        return [list(range(length))[piece] for tile in split.tiles(length) for piece in tile.slices()]

    assert parts(windows(3), 8) == [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert parts(windows(3, shift=1), 8) == [[0], [1, 2, 3], [4, 5, 6], [7]]
    assert parts(windows(3, shift=2), 8) == [[0, 1], [2, 3, 4], [5, 6, 7]]
    assert parts(windows(4, shift=2), 4) == [[0, 1, 2, 3]]  # no longer than a window: one, not shifted
    assert parts(windows(4, shift=2), 5) == [[0, 1], [2, 3, 4]]
    for bad in (lambda: windows(3, shift=3), lambda: windows(3, shift=-1), lambda: Split("blocks", 3, 1)):
        with pytest.raises(InputError, match=r"Split\.shift"):
            bad()


GRIDS: list[Grid] = [(1, 1, 1), (1, 4, 4), (3, 5, 7), (8, 3, 2), (32, 2, 3)]
RULES: dict[str, Seen] = {
    "window": Window((3, 2, 5)),
    "strided": Window((3, 4, 4), stride=(2, 3, 4)),
    "dilated": Window((2, 3, 2), dilation=(2, 2, 3), causal=True),
    "radial": Radial(1.0),
    "global": ALONE | Everywhere((4, 3, 3)),
    "earlier": Earlier(),
}


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("name", RULES)
def test_plans_hold_the_mask(name: str, grid: Grid) -> None:
    """By tiles, by tokens, and both together: every query once, with its keys and no others."""
    rule, tokens = RULES[name], grid[0] * grid[1] * grid[2]
    cases = (Tiles((2, 2, 3), rule), Tiles((1, 2, 2), tokens=rule), Tiles((2, 2, 3), rule, Earlier()), Predicate(rule))
    for neighbourhood in cases:
        mask, found = neighbourhood.mask(grid), torch.zeros(tokens, tokens, dtype=torch.bool)
        plan = neighbourhood.plan(grid)
        for batch in plan:
            inside = torch.ones(*batch.rows.shape, batch.keys.shape[1], dtype=torch.bool)
            inside = inside if batch.mask is None else batch.mask
            found[batch.rows[:, :, None], batch.keys[:, None]] = inside
        assert torch.equal(found, mask)
        assert sorted(torch.cat([batch.rows.flatten() for batch in plan]).tolist()) == list(range(tokens))
        assert neighbourhood.pairs(grid) == int(mask.sum())
        if isinstance(neighbourhood, Tiles) and neighbourhood.tokens is None:
            assert sum(batch.pairs for batch in plan) == int(mask.sum())


@pytest.mark.parametrize("name", ["sliding_tile", "radial", "dilated", "swin"])
def test_nothing_is_computed_in_vain(name: str) -> None:
    for frames, side in ((8, 224), (3, 80), (32, 112)):
        config = TimeSformerConfig(attention=name, num_frames=frames, image_size=side)
        assert macs_per_view(config, "executed") == macs_per_view(config, "needed")


def test_a_rule_that_keeps_everything_is_joint_attention() -> None:
    qkv, cls = random_inputs(GRID)
    joint = attend(Step("joint", (Partition(ALL, ALL, ALL),), cls="global"), qkv, cls)
    for neighbourhood in (Tiles((2, 2, 3)), Tiles((2, 2, 3), Window((9, 9, 9))), over("radial(decay=99.0)")):
        ours = attend(Step("all", (neighbourhood,), cls="global"), qkv, cls)
        for mine, theirs in zip(ours, joint, strict=True):
            assert mine is not None
            assert theirs is not None
            torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


def later(query: Any, key: Any, grid: Grid) -> Tensor:
    """Keys of later frames, of which the last frame's queries have none."""
    seen: Tensor = key[0] > query[0]
    return seen


def test_a_query_without_keys_is_refused() -> None:
    for neighbourhood in (Tiles((1, 2, 3), later), Tiles((1, 2, 3), tokens=later), Predicate(later)):
        for ask in (neighbourhood.plan, neighbourhood.mask):
            with pytest.raises(InputError, match=r"query at \(t, h, w\) = \(2, 0, 0\) sees no key on grid \(3, 5, 7\)"):
                ask(GRID)
    with pytest.raises(InputError, match=r"Tiles\.tile"):
        Tiles((0, 1, 1))
    with pytest.raises(InputError, match=r"Window\.stride"):
        Window((1, 1, 1), stride=(2, 1, 1))


def nearness(query: Any, key: Any, grid: Grid) -> Tensor:
    return ((query[0] - key[0]).abs() < 2).float()


@pytest.mark.parametrize(
    "neighbourhood",
    [Tiles((1, 1, 1), nearness), Tiles((1, 1, 1), tokens=nearness), Predicate(nearness)],
    ids=["rule", "tokens", "predicate"],
)
def test_rules_that_give_no_bool_are_refused(neighbourhood: Predicate) -> None:
    for function in (neighbourhood.pairs, neighbourhood.mask):
        with pytest.raises(InputError, match=r"nearness.*expected a bool tensor.*float32"):
            function(GRID)


@pytest.mark.parametrize("wrong", [3, (1, 1), (1.5, 1, 1), (True, 1, 1), ("a", 1, 1), (0, 1, 1)], ids=str)
@pytest.mark.parametrize("make", [Tiles, Window, Everywhere])
def test_sizes_are_three_positive_integers(make: Any, wrong: Any) -> None:
    with pytest.raises(InputError, match="expected three positive integers"):
        make(wrong)
    assert hash(make([1, 2, 3])) == hash(make((1, 2, 3)))


def test_no_dense_mask_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a dense mask")

    monkeypatch.setattr(Predicate, "mask", refuse)
    qkv, cls = random_inputs((4, 6, 6))
    for name in ("sliding_tile", "neighbourhood", "radial", "dilated", "local_global_window_fixed"):
        for step in build(name).encoders[0].steps:
            patches, token = attend(step, qkv, cls)
            assert patches is not None
            assert token is not None
            (patches.sum() + token.sum()).backward()


@pytest.mark.parametrize("batch", [1, 3])
def test_chunks_of_any_size(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups are computed a few at a time, across the clips of a batch."""
    step = Step("step", (over("neighbourhood(window=[3,3,3])"),), cls="global")
    qkv, cls = random_inputs((3, 4, 5), batch=batch)
    found = []
    for size in (1, 1 << 12, 1 << 30):
        monkeypatch.setattr("timesformer.attention.gather.CHUNK_BYTES", size)
        patches, token = attend(step, qkv, cls)
        assert patches is not None
        assert token is not None
        found.append([patches, *torch.autograd.grad(patches.square().sum() + token.sum(), [qkv, cls])])
    for other in found[1:]:
        for mine, theirs in zip(found[0], other, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-12)


def test_gradients_are_summed_over_chunks_in_full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """The class token is a key of all groups: sums of their gradients in bf16 would lose the later ones."""
    monkeypatch.setattr("timesformer.attention.gather.CHUNK_BYTES", 1)  # a chunk a group, as at the size of a ViT-B
    step = build("sliding_tile(tile=[1,2,2],window=[1,1,1])").encoders[0].steps[0]
    inputs = random_inputs((8, 16, 16), batch=1)

    def gradient(dtype: torch.dtype, backend: Any) -> Tensor:
        qkv, cls = (x.detach().to(dtype).requires_grad_() for x in inputs)
        patches, _ = attend(step, qkv, cls, backend=backend)
        assert patches is not None
        return torch.autograd.grad(patches.sum(), cls)[0].double()[:, 2]  # of the class token's value

    exact = gradient(torch.float64, "sdpa")
    ours, reference = ((gradient(torch.bfloat16, name) - exact).norm() / exact.norm() for name in ("sdpa", "reference"))
    assert ours <= 2 * (reference + torch.finfo(torch.bfloat16).eps)


@pytest.mark.parametrize("joined", ["function first", "rule first"])
def test_functions_join_rules_on_either_side(joined: str) -> None:
    window = Window((1, 1, 1))
    either, both = (later | window, later & window) if joined == "function first" else (window | later, window & later)
    queries, others = (torch.arange(6)[:, None],) * 3, (torch.arange(6)[None],) * 3
    first, second = later(queries, others, (6, 6, 6)), window(queries, others, (6, 6, 6))
    assert torch.equal(either(queries, others, (6, 6, 6)), first | second)
    assert torch.equal(both(queries, others, (6, 6, 6)), first & second)


def test_flex_reads_tiles_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.nn.attention import flex_attention as flex  # the module, of which one function has the same name

    monkeypatch.setattr(flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    monkeypatch.setattr(backends, "_compiled_flex", lambda: flex.flex_attention)
    qkv, cls = (x.detach().float() for x in random_inputs((4, 6, 7), heads=1, width=16))
    for name in ("sliding_tile(tile=[2,3,4],window=[1,2,1])", "neighbourhood(window=[3,3,3])", "local_global_window"):
        step = build(name).encoders[0].steps[0]
        with torch.no_grad():
            ours, theirs = (attend(step, qkv, cls, backend=backend)[0] for backend in ("flex", "sdpa"))
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_video_swin_as_published() -> None:
    """Swin-T of Video Swin at 32 x 224: 88 GFLOPs (its table 1) lie in its four stages of windows of 8 x 7 x 7.

    The first stage is written out: 2 blocks on 16 x 56 x 56 tokens of width 96, whose attention has 4 d^2 weights and
    4 d biases, and 4 n d^2 + 2 * 392 n d products (the Swin paper's equation 2, with 392 tokens in a window).
    """
    swin = over("swin")
    width, grid = 96, (16, 56, 56)
    tokens = grid[0] * grid[1] * grid[2]
    (pairs,) = step_pairs(Step("window", (swin,), cls="absent"), grid)
    assert pairs is not None
    assert 4 * tokens * width**2 + 2 * width * pairs.patches == 4 * tokens * width**2 + 2 * 392 * tokens * width
    fields: dict[str, Any] = {"num_frames": 16, "image_size": 56, "patch_size": 1, "embed_dim": width, "num_heads": 3}
    config = TimeSformerConfig(attention="swin", depth=2, num_classes=1, in_channels=1, cls_policy=None, **fields)
    from timesformer import TimeSformer

    with torch.device("meta"):
        blocks = TimeSformer(config).stacks()[0].blocks
    attention = [p.numel() for name, p in blocks.named_parameters() if ".qkv." in name or ".proj." in name]
    assert sum(attention) == 2 * (4 * width**2 + 4 * width)
    total = 0
    for stage, depth in enumerate((2, 2, 6, 2)):
        side, d = 56 >> stage, 96 << stage
        n = 16 * side * side
        (pairs,) = step_pairs(Step("window", (swin,), cls="absent"), (16, side, side))
        assert pairs is not None
        total += depth * (12 * n * d * d + 2 * d * pairs.patches)  # qkv, projection and an MLP of 4 d
        total += n // 4 * 4 * d * 2 * d if stage < 3 else 0  # patch merging
    embedding = 16 * 56 * 56 * (2 * 4 * 4 * 3) * 96
    assert (total + embedding) / 1e9 == pytest.approx(88, abs=0.5)


def test_shifted_windows_compute_fewer_pairs_at_the_edges() -> None:
    plain, shifted = over("swin"), over("swin", 1)
    grid = (16, 14, 14)
    counts = [step_pairs(Step("s", (part,), cls="absent"), grid)[0] for part in (plain, shifted)]
    assert counts[0] is not None
    assert counts[1] is not None
    # 8+8 frames against 4+8+4, and 7+7 rows against 3+7+4
    assert counts[0].patches == (2 * 8 * 8) * (2 * 7 * 7) ** 2
    assert counts[1].patches == (4 * 4 + 8 * 8 + 4 * 4) * (3 * 3 + 7 * 7 + 4 * 4) ** 2
    assert Partition(EACH, EACH, EACH) != plain
