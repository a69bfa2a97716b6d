"""Who meets whom and who depends on whom, against derivatives of random models and neighbourhoods written by hand."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.attention.custom import MEAN_ENCODER, OVERS, SCHEMES, SHIPPED, TUBES
from timesformer import InputError, TimeSformer, TimeSformerConfig
from timesformer.attention import (
    ALL,
    EACH,
    After,
    Encoder,
    Grid,
    Mixer,
    MixerInputs,
    Partition,
    Predicate,
    Scheme,
    Step,
    all_reached,
    build,
    first_meeting,
    meet,
    reach,
    register,
    stride,
)
from timesformer.attention.predicate import Coordinates
from timesformer.attention.reach import small_grid
from timesformer.models.blocks import Block

GRIDS: list[Grid] = [(3, 5, 7), (4, 3, 2), (2, 4, 4)]
TINY = 1e-12


def before(query: Coordinates, key: Coordinates, grid: Grid) -> Tensor:
    """The same place in this frame and the one before: what is reached grows by a frame a step."""
    return (key[0] <= query[0]) & (key[0] >= query[0] - 1) & (key[1] == query[1]) & (key[2] == query[2])


class FrameMean(Mixer):
    """The mean over the frame: a mixer, so no patch reads the class token, and not everything is seen."""

    def operator(self, inputs: MixerInputs) -> Tensor:
        frames, places = inputs.grid[0], inputs.grid[1] * inputs.grid[2]
        frame = torch.full((places, places), 1 / places, dtype=inputs.q.dtype)
        return torch.block_diag(*[frame] * frames).expand(*inputs.q.shape[:2], -1, -1)

    def forward(self, inputs: MixerInputs) -> Tensor:
        frames, places = inputs.grid[0], inputs.grid[1] * inputs.grid[2]
        return inputs.v.unflatten(2, (frames, -1)).mean(3, keepdim=True).expand(-1, -1, -1, places, -1).flatten(2, 3)

    def reference(self, inputs: MixerInputs) -> Tensor:
        return self.operator(inputs) @ inputs.v

    def macs(self, grid: Grid, width: int, heads: int) -> int:
        return 0


ROWS, COLUMNS = Partition(EACH, EACH, ALL), Partition(EACH, ALL, EACH)
CHAIN = Step("chain", (Predicate(before),), cls="absent")

# Policies that differ by step, parts of the heads, steps side by side, streams, and a class token that only listens.
OWN = [
    Scheme(
        "test_half_heads",
        (Encoder(((Step("both", (TUBES, ROWS), cls="replicated"),), (Step("rows", (ROWS,), cls="global"),))),),
    ),
    Scheme("test_beside", (Encoder(((CHAIN, Step("listen", (COLUMNS,), cls="global")), (Step("x", (ROWS,)),))),)),
    Scheme("test_streams", (Encoder(((Step("rows", (ROWS,), cls="global"),),), class_tokens="frame"),)),
    Scheme("test_chain", (Encoder(((CHAIN,),), class_tokens="none", pool="mean"),)),
    Scheme("test_shared", (Encoder(((Step("rows", (ROWS,)), Step("columns", (COLUMNS,), qkv_from="rows")),)),)),
    Scheme(
        "test_mixed_parts",
        (Encoder(((Step("both", (OVERS["linear"], ROWS), cls="global"), CHAIN),)),),
    ),
    Scheme("test_frame_mean", (Encoder(((Step("mean", (FrameMean(),), cls="global"),),)),)),
    Scheme("test_single", (Encoder(((Step("alone", (Partition(EACH, EACH, EACH),)),),)),)),
]
for _scheme in OWN:
    register(_scheme)

CONFIGURED: list[dict[str, Any]] = [
    {"attention": "divided", "cls_policy": "global", "share_qkv": True},
    {"attention": "divided_parallel", "cls_policy": "replicated", "share_qkv": True},
    {"attention": "factorised_encoder"},
]
ONE_ENCODER = [name for name in SHIPPED if len(build(name).encoders) == 1]
CASES: list[dict[str, Any]] = [
    *({"attention": name} for name in ONE_ENCODER),
    *({"attention": scheme.name} for scheme in (*SCHEMES, *OWN)),
    *(case for case in CONFIGURED if len(build(case["attention"]).encoders) == 1),
]


def config_of(grid: Grid, **fields: Any) -> TimeSformerConfig:
    sizes: dict[str, Any] = {"num_frames": grid[0], "image_size": (grid[1], grid[2]), "patch_size": 1}
    width: dict[str, Any] = {"in_channels": 1, "embed_dim": 8, "num_heads": 2, "mlp_ratio": 1, "depth": 2}
    return TimeSformerConfig(**sizes, **width, backend="sdpa", num_classes=2, **fields)


def depends(config: TimeSformerConfig, bridge: bool) -> list[Tensor]:
    """After each step of a random model, (p, p): the size of the derivative of each patch by each input patch.

    The clip is repeated p times; copy i is asked for patch i, so that one backward pass gives every row.  Without the
    bridge the class token enters every step as a constant.
    """
    torch.manual_seed(0)
    model = TimeSformer(config).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    t, h, w = config.grid
    p = t * h * w
    leaf = torch.randn(1, t, h, w, config.embed_dim, dtype=torch.float64).repeat(p, 1, 1, 1, 1).requires_grad_()
    after: list[Tensor] = []

    def enter(module: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> Any:
        patches, cls, *rest = inputs
        return (patches, cls if bridge or cls is None else cls.detach(), *rest), options

    def keep(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        after.append(inputs[0].reshape(p, p, -1))

    model.patch_embed.register_forward_hook(lambda module, inputs, output: leaf)
    (stack,) = model.stacks()
    for block in stack.blocks:
        assert isinstance(block, Block)
        for number, stage in enumerate(stack.encoder.block):
            for step in stage:
                block.steps[step.name].register_forward_pre_hook(enter, with_kwargs=True)
            if number:  # what a stage reads is what the one before it left
                block.steps[stage[0].name].register_forward_pre_hook(keep)
        block.mlp.register_forward_pre_hook(keep)
    model.forward_features(torch.zeros(p, t, 1, h, w, dtype=torch.float64))
    asked = torch.randn(p, config.embed_dim, dtype=torch.float64)
    found = []
    for patches in after:
        total = (patches.diagonal().T * asked).sum()
        (gradient,) = torch.autograd.grad(total, leaf, retain_graph=True)
        found.append(gradient.reshape(p, p, -1).abs().amax(-1))
    return found


def require_same(declared: Tensor, derivative: Tensor) -> None:
    """Fail unless the derivative is zero exactly where nothing is declared."""
    wrong = (declared != (derivative > TINY)).nonzero()
    assert not len(wrong), f"{len(wrong)} of {declared.numel()} pairs (output, input): {wrong[:5].tolist()} …"


@pytest.mark.parametrize("bridge", [True, False], ids=["bridge", "no bridge"])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("fields", CASES, ids=lambda fields: "-".join(map(str, fields.values())))
def test_derivatives_after_every_step(fields: dict[str, Any], grid: Grid, bridge: bool) -> None:
    config = config_of(grid, **fields)
    scheme = config.scheme
    stages = len(scheme.encoders[0].block)
    found = depends(config, bridge)
    assert len(found) == 2 * stages
    for steps, derivative in enumerate(found, start=1):
        declared = reach(scheme, grid, steps=steps, bridge=bridge)
        require_same(declared, derivative)
        if steps % stages == 0:
            assert torch.equal(declared, reach(scheme, grid, blocks=steps // stages, bridge=bridge))


def test_wrong_answers_are_found() -> None:
    grid = (3, 5, 7)
    (one_block, two_blocks) = depends(config_of(grid, attention="divided_parallel"), bridge=True)
    declared = reach("divided_parallel", grid, blocks=1)
    assert 0 < int(declared.sum()) < declared.numel()
    require_same(declared, one_block)
    for wrong in (torch.ones_like(declared), torch.eye(105, dtype=torch.bool), declared.roll(1, 0)):
        with pytest.raises(AssertionError, match="pairs"):
            require_same(wrong, one_block)
    one_wrong = declared.clone()
    one_wrong[7, 7] = False
    with pytest.raises(AssertionError, match="1 of 11025 pairs"):
        require_same(one_wrong, one_block)
    require_same(torch.ones_like(declared), two_blocks)

    streams = depends(config_of(grid, attention="test_streams"), bridge=True)[1]
    dropped = reach("test_streams", grid, blocks=2, bridge=False)
    with pytest.raises(AssertionError, match="pairs"):
        require_same(dropped, streams)
    cut = depends(config_of(grid, attention="test_streams"), bridge=False)[1]
    with pytest.raises(AssertionError, match="pairs"):
        require_same(reach("test_streams", grid, blocks=2), cut)


def numbers(picture: str) -> set[int]:
    """Patches of a 3 x 5 x 7 grid marked # in three frames side by side."""
    lines = [line.split() for line in picture.strip().splitlines()]
    return {
        (frame * 5 + row) * 7 + column
        for row, frames in enumerate(lines)
        for frame, marks in enumerate(frames)
        for column, mark in enumerate(marks)
        if mark == "#"
    }


def row(matrix: Tensor, query: Grid) -> set[int]:
    return set(matrix[(query[0] * 5 + query[1]) * 7 + query[2]].nonzero().flatten().tolist())


NOTHING = """
.......  .......  .......
.......  .......  .......
.......  .......  .......
.......  .......  .......
.......  .......  .......
"""
OWN_COLUMN = """
.......  .......  .......
.......  .......  .......
.....#.  .....#.  .....#.
.......  .......  .......
.......  .......  .......
"""
OWN_FRAME = """
.......  #######  .......
.......  #######  .......
.......  #######  .......
.......  #######  .......
.......  #######  .......
"""
COLUMN_AND_FRAME = """
.......  #######  .......
.......  #######  .......
.....#.  #######  .....#.
.......  #######  .......
.......  #######  .......
"""
QUADRANT = """
....###  ....###  ....###
....###  ....###  ....###
....###  ....###  ....###
.......  .......  .......
.......  .......  .......
"""
PARITY = """
.......  .......  .......
.......  .#.#.#.  .......
.......  .......  .......
.......  .#.#.#.  .......
.......  .......  .......
"""
WIDTH_AND_TIME = """
.......  .......  .......
.......  .......  .......
#######  #######  #######
.......  .......  .......
.......  .......  .......
"""


def test_meetings_by_hand() -> None:
    grid, query = (3, 5, 7), (1, 2, 5)
    time, space = build("divided").encoders[0].steps
    assert row(meet(time, grid), query) == numbers(OWN_COLUMN)
    assert row(meet(space, grid), query) == numbers(OWN_FRAME)
    local, globally = build("local_global").encoders[0].steps
    assert row(meet(local, grid), query) == numbers(QUADRANT)
    assert row(meet(globally, grid), (1, 1, 3)) == numbers(PARITY)
    (both,) = build("factorised_dot_product").encoders[0].steps
    assert row(meet(both, grid), query) == numbers(COLUMN_AND_FRAME)
    (trajectory,) = build("trajectory").encoders[0].steps
    assert meet(trajectory, (2, 2, 3)).all()
    causal = meet(Step("causal", (OVERS["causal_cross"],), cls="global"), grid)
    assert row(causal, (0, 0, 0)) == {0, 1, 2, 3, 4, 5, 6, 7, 14, 21, 28}
    assert row(causal.T, (0, 0, 0)) == {f * 35 + n for f in range(3) for n in (0, 1, 2, 3, 4, 5, 6, 7, 14, 21, 28)}


@pytest.mark.parametrize(
    ("name", "steps", "query", "picture"),
    [
        ("divided", 1, (1, 2, 5), OWN_COLUMN),
        ("divided_st", 1, (1, 2, 5), OWN_FRAME),
        ("divided_parallel", 1, (1, 2, 5), COLUMN_AND_FRAME),
        ("axial", 1, (1, 2, 5), OWN_COLUMN),
        ("axial", 2, (1, 2, 5), WIDTH_AND_TIME),
        ("local_global", 1, (1, 2, 5), QUADRANT),
        ("space", 5, (1, 2, 5), OWN_FRAME),
        ("test_chain", 0, (1, 2, 5), None),
    ],
)
def test_reach_by_hand(name: str, steps: int, query: Grid, picture: str | None) -> None:
    expected = numbers(picture or NOTHING) or {(query[0] * 5 + query[1]) * 7 + query[2]}
    for bridge in (True, False):
        assert row(reach(name, (3, 5, 7), steps=steps, bridge=bridge), query) == expected


def test_the_class_token_is_a_bridge_by_hand() -> None:
    """Rows of a frame of 2 x 2: the class token has read all after one step, and patches have read it after two."""
    grid = (2, 2, 2)
    pairs = [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    rows = torch.block_diag(torch.tensor(pairs), torch.tensor(pairs)).bool()
    frames = torch.block_diag(torch.ones(4, 4), torch.ones(4, 4)).bool()
    assert torch.equal(reach("test_streams", grid, steps=1), rows)
    assert torch.equal(reach("test_streams", grid, steps=2), frames)
    assert torch.equal(reach("test_streams", grid, bridge=False), rows)
    assert all_reached("test_streams", grid) is None


@pytest.mark.parametrize(
    ("name", "meeting", "reached", "without"),
    [
        ("joint", After(1, 1), After(1, 1), After(1, 1)),
        ("trajectory", After(1, 1), After(1, 1), After(1, 1)),
        ("divided", None, After(2, 1), After(2, 1)),
        ("divided_parallel", None, After(2, 2), After(2, 2)),
        ("axial", None, After(3, 1), After(3, 1)),
        ("local_global", After(1, 1), After(2, 1), After(2, 1)),
        ("space", None, None, None),
        ("test_streams", None, None, None),
        ("test_chain", None, None, None),
        ("test_frame_mean", None, None, None),
        ("test_single", None, After(2, 2), None),
        ("test_half_heads", None, After(2, 1), None),
        ("test_beside", None, After(2, 1), None),
    ],
)
def test_numbers_of_steps(name: str, meeting: After | None, reached: After | None, without: After | None) -> None:
    grid = (3, 3, 4) if name == "trajectory" else (3, 5, 7)
    assert first_meeting(name, grid) == meeting
    assert all_reached(name, grid) == reached
    assert all_reached(name, grid, bridge=False) == without


@pytest.mark.parametrize("name", [*ONE_ENCODER, *(scheme.name for scheme in OWN)])
@pytest.mark.parametrize("bridge", [True, False])
def test_numbers_of_steps_agree_with_the_matrices(name: str, bridge: bool) -> None:
    grid = (3, 3, 4)
    after = all_reached(name, grid, bridge)
    if after is None:
        assert not reach(name, grid, bridge=bridge).all()
        assert torch.equal(reach(name, grid, bridge=bridge), reach(name, grid, blocks=40, bridge=bridge))
        return
    assert reach(name, grid, steps=after.steps, bridge=bridge).all()
    assert not reach(name, grid, steps=after.steps - 1, bridge=bridge).all()
    assert reach(name, grid, blocks=after.blocks, bridge=bridge).all()


def test_a_patch_that_meets_nobody_elsewhere_counts() -> None:
    """With three frames the middle one is alone in its parity; so its patches never meet another frame."""
    parities = Scheme("parities", (Encoder(((Step("p", (Partition(stride(2), ALL, ALL),)),),)),))
    assert first_meeting(parities, (3, 2, 2)) is None
    assert first_meeting(parities, (4, 2, 2)) == After(1, 1)


FIXED_SIZES = {"swin", "sliding_tile", "neighbourhood", "dilated", "radial"}
"""Schemes whose windows have a number of tokens, whatever the grid: on a larger one it takes more steps."""


@pytest.mark.parametrize("name", [name for name in ONE_ENCODER if name not in FIXED_SIZES])
def test_a_smaller_grid_shows_the_same_pattern(name: str) -> None:
    large: Grid = (3, 4, 4) if name == "trajectory" else (8, 16, 18)
    small = small_grid(name, large)
    assert small == ((3, 2, 4) if name == "trajectory" else (8, 16, 16))
    assert first_meeting(name, small) == first_meeting(name, large)
    for bridge in (True, False):
        assert all_reached(name, small, bridge) == all_reached(name, large, bridge)


def test_refusals() -> None:
    questions: list[Callable[..., object]] = [reach, first_meeting, all_reached]
    for scheme in ("factorised_encoder", MEAN_ENCODER):
        for ask in questions:
            with pytest.raises(InputError, match="passes on one token per frame"):
                ask(scheme, (3, 5, 7))
    with pytest.raises(InputError, match="steps, blocks: expected one of them"):
        reach("joint", (2, 2, 2), steps=1, blocks=1)
    with pytest.raises(InputError, match="blocks: expected 0 or more, got -1"):
        reach("joint", (2, 2, 2), blocks=-1)
    with pytest.raises(InputError, match="grid: expected"):
        reach("joint", (2, 0, 2))
    with pytest.raises(InputError, match="grid: expected"):
        meet(build("joint").encoders[0].steps[0], (2, 2, 0))
    with pytest.raises(InputError, match="unknown scheme"):
        reach("nonsense", (2, 2, 2))
