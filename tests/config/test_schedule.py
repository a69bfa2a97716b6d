"""Options of schemes and blocks that differ: what is read, written, refused, and what a model makes of it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.attention.custom import SHIPPED
from tests.models.dense import dense_logits
from timesformer import InputError, TimeSformer, TimeSformerConfig
from timesformer.attention import Encoder, Scheme, Step, Tiles, Window, build, register, spelling
from timesformer.attention.rules import Size
from timesformer.checkpoints import load_model
from timesformer.checkpoints.transfer import transfer
from timesformer.config.counting import comparisons_per_patch, macs_per_view
from timesformer.maps.capture import sites
from timesformer_experiments.cost.count import cost
from timesformer_experiments.cost.memory import predict
from timesformer_experiments.specs.hashing import defining_fields, hash_of

SMALL: dict[str, Any] = {
    "num_frames": 4,
    "image_size": 32,
    "patch_size": 8,
    "embed_dim": 24,
    "num_heads": 2,
    "depth": 4,
    "num_classes": 3,
}


def config(**fields: Any) -> TimeSformerConfig:
    return TimeSformerConfig.from_dict(SMALL | fields)


def test_spellings_of_one_choice_are_one() -> None:
    wanted = "sliding_tile(tile=[1,2,2],window=[3,1,1])"
    for attention in (
        {"name": "sliding_tile", "window": [3, 1, 1], "tile": (1, 2, 2)},
        "sliding_tile(window=[3, 1, 1], tile=[1, 2, 2])",
        {"name": "sliding_tile", "tile": [1, 2, 2], "window": [3, 1, 1], "causal": False},
    ):
        made = config(attention=attention)
        assert made.attention == wanted
        assert made.to_dict()["attention"] == {"name": "sliding_tile", "tile": [1, 2, 2], "window": [3, 1, 1]}
        assert TimeSformerConfig.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    assert config(attention={"name": "sliding_tile", "window": [3, 3, 3]}).attention == "sliding_tile"
    assert build(wanted).encoders[0].steps[0].over == (Tiles((1, 2, 2), Window((3, 1, 1))),)


def test_hashes_have_options_only_where_given() -> None:
    plain, given = config(attention="sliding_tile"), config(attention="sliding_tile(window=[3,1,1])")
    assert defining_fields(plain)["attention"] == "sliding_tile"
    assert "schedule" not in defining_fields(plain)
    assert defining_fields(given)["attention"] == {"name": "sliding_tile", "window": [3, 1, 1]}
    scheduled = config(schedule={"0-1": "space"})
    assert defining_fields(scheduled)["schedule"] == {"0-1": "space"}
    assert len({hash_of(defining_fields(each)) for each in (plain, given, scheduled, config())}) == 4


@pytest.mark.parametrize(
    ("attention", "message"),
    [
        (
            {"name": "sliding_tile", "windows": [1, 1, 1]},
            "unknown option 'windows'; expected one of tile, window, causal",
        ),
        ({"name": "sliding_tile", "window": [1, 1]}, "option window: expected a list of 3, each a whole number"),
        ({"name": "sliding_tile", "window": [1, 1, True]}, "option window: expected a list of 3"),
        ({"name": "sliding_tile", "causal": 1}, "option causal: expected true or false, got 1"),
        ({"name": "dilated", "dilation": [0, 1, 1]}, "attention dilated: Window.dilation: expected three positive"),
        ({"name": "radial", "decay": -1}, "Radial.decay: expected a positive number"),
        ({"name": "swin", "window": [0, 7, 7]}, "attention swin: window: expected three positive integers"),
        ({"name": "joint", "window": [1, 1, 1]}, "joint: unknown option 'window'; it has none"),
        ({"window": [1, 1, 1]}, "attention: expected a name and the options beside it"),
        ("sliding_tile(window=[1,1,1]", "expected the name of a scheme, or name"),
        ("sliding_tile(window)", "option window: expected a value"),
        ("nothing(a=1)", "unknown scheme 'nothing'"),
        ("swin(window=[1,1,1],window=[2,2,2])", "option window is given twice"),
    ],
)
def test_refused_options(attention: Any, message: str) -> None:
    with pytest.raises(InputError) as error:
        config(attention=attention)
    assert message in str(error.value)


def test_a_test_s_own_function_is_a_scheme_with_options() -> None:
    def test_own_rows(reach: int = 1, tile: Size = (1, 1, 2)) -> Scheme:
        def near(query: Any, key: Any, grid: Any) -> Any:
            """A rule of the test's own, on tiles."""
            return (query[1] - key[1]).abs() <= reach

        return Scheme("test_own_rows", (Encoder(block=((Step("near", (Tiles(tile, near),), cls="global"),),)),))

    register(test_own_rows)
    made = config(attention={"name": "test_own_rows", "reach": 2})
    found = cost(made)  # raises where the two counts disagree
    assert found.attention == "test_own_rows(reach=2)"
    assert cost(config(attention="test_own_rows")).macs_needed < found.macs_needed

    def no_default(reach: int) -> Scheme:
        raise AssertionError

    with pytest.raises(InputError, match="option 'reach': expected a type and a default"):
        register(no_default)


SCHEDULES: list[tuple[Any, list[list[str]]]] = [
    ({"0-1": "space", 3: "joint"}, [["space"], ["space"], ["time", "space"], ["joint"]]),
    ({"1": {"name": "sliding_tile", "tile": [1, 2, 2]}}, [["time", "space"], ["sliding"], *[["time", "space"]] * 2]),
    (["divided", "joint", "space"], [["time", "space"], ["joint"], ["space"], ["time", "space"]]),
    (["swin"], [["window"]] * 4),
    ({"0-2": "factorised_self_attention"}, [*[["space", "time"]] * 3, ["time", "space"]]),
]


@pytest.mark.parametrize(("schedule", "steps"), SCHEDULES, ids=str)
def test_blocks_that_differ(schedule: Any, steps: list[list[str]], tmp_path: Path) -> None:
    made = config(schedule=schedule)
    assert TimeSformerConfig.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    torch.manual_seed(0)
    model = TimeSformer(made).eval()
    assert [list(block.steps) for block in model.stacks()[0].blocks] == steps  # type: ignore[union-attr]
    assert [site.step.name for site in sites(model)] == [name for block in steps for name in block]
    clip = torch.randn(2, 4, 3, 32, 32)
    with torch.no_grad():
        expected = model(clip)
        torch.testing.assert_close(model.fuse_for_inference()(clip), expected, rtol=1e-4, atol=1e-5)
    model.save_pretrained(tmp_path / "model")
    loaded = load_model(tmp_path / "model").model
    assert loaded.config == made
    with torch.no_grad():
        torch.testing.assert_close(loaded(clip), expected)
    found = cost(made)
    assert found.params == sum(parameter.numel() for parameter in model.parameters())
    assert found.macs_needed == macs_per_view(made, "needed")
    assert predict(made, batch=2, train=True).params_bytes == 4 * found.params


@pytest.mark.parametrize("fields", [{"pool": "mean"}, {"class_token": False}, {"pool": "attentive"}], ids=str)
def test_a_last_block_without_the_class_token_where_the_head_reads_patches(fields: dict[str, Any]) -> None:
    last = {"3": "factorised_self_attention"}
    with pytest.raises(InputError, match="the head reads the class token"):
        config(schedule=last)
    torch.manual_seed(0)
    model, clip = TimeSformer(config(schedule=last, **fields)).eval().double(), torch.randn(1, 4, 3, 32, 32).double()
    torch.testing.assert_close(model(clip), dense_logits(model, clip))


def test_counts_are_those_of_the_blocks() -> None:
    divided, space = config(), config(schedule={"0-3": "space"})
    half = config(schedule={"0-1": "space"})
    assert 2 * macs_per_view(half) == macs_per_view(divided) + macs_per_view(space)
    both = [comparisons_per_patch(each) for each in (divided, space)]
    assert comparisons_per_patch(half) == pytest.approx(sum(value for value in both if value is not None) / 2)


def test_a_schedule_of_the_model_s_own_scheme_is_none() -> None:
    assert config(schedule={"0-3": "divided"}) == config()
    assert config(schedule=["divided", "divided"]) == config()


assert config(attention="swin", schedule={"0-3": "swin"}) == config(attention="swin")


def test_forms_of_one_schedule_are_one() -> None:
    for same in (
        {"0-1": "space"},
        {"0": "space", "1": "space", "3": "divided"},
        {"0-0": "space", "1": {"name": "space"}, "2-3": "divided"},
    ):
        assert config(schedule=same).to_dict()["schedule"] == {"0-1": "space"}
    assert config(schedule=["space", "joint"] * 2) == config(schedule=["space", "joint"])
    pattern, depths = config(schedule=["space", "divided"]), config(schedule={"0": "space", "2": "space"})
    assert defining_fields(pattern) == defining_fields(depths)
    assert defining_fields(config(schedule=["space"])) == defining_fields(config(schedule={"0-3": "space"}))
    assert replace(pattern, depth=6).label == "0: space, 1: divided, 2: space, 3: divided, 4: space, 5: divided"
    assert replace(depths, depth=6).label == "0: space, 1: divided, 2: space, 3: divided"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"schedule": {"0-4": "space"}}, "schedule: expected depths from 0 to 3, got 0-4"),
        ({"schedule": {"0-2": "space", "2": "joint"}}, "schedule: depth 2 occurs twice, in 0-2 and in 2"),
        ({"schedule": {"2-1": "space"}}, "schedule: expected a depth or a range of depths"),
        ({"schedule": "space"}, "schedule: expected schemes by depth"),
        ({"schedule": {}}, "schedule: expected schemes by depth"),
        (
            {"schedule": [*["space"] * 4, "joint"]},
            "schedule: expected a pattern of at most 4 schemes, the depth of the",
        ),
        ({"schedule": {"0": "nothing"}}, "unknown scheme 'nothing'"),
        ({"schedule": {"0": "factorised_encoder"}}, "has 2 encoders; expected schemes with one"),
        ({"schedule": {"3": "factorised_self_attention"}}, "the head reads the class token"),
        ({"attention": "space", "schedule": {"0": "joint"}}, "streams of their own"),
    ],
)
def test_refused_schedules(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        config(**fields)
    assert message in str(error.value)


def test_weights_come_from_a_uniform_model() -> None:
    torch.manual_seed(0)
    uniform = TimeSformer(config())
    for parameter in uniform.parameters():
        torch.nn.init.normal_(parameter)
    model = TimeSformer(config(schedule={"0-1": "space", "3": "joint"}))
    from timesformer.checkpoints.source import Source

    source = Source("test", uniform.config, uniform.state_dict())
    report = transfer(model, source)
    ours, theirs = model.state_dict(), uniform.state_dict()
    for name in ("encoders.0.blocks.0.steps.space.qkv.weight", "encoders.0.blocks.2.steps.time.fc.weight"):
        assert torch.equal(ours[name], theirs[name])
    joint, space = (f"encoders.0.blocks.3.steps.{step}.proj.weight" for step in ("joint", "space"))
    assert torch.equal(ours[joint], theirs[space])
    assert "encoders.0.blocks.0.steps.time.qkv.weight" in report.left_out
    assert not report.initialised


@pytest.mark.parametrize("name", SHIPPED)
def test_every_scheme_is_usable_with_its_defaults(name: str) -> None:
    assert spelling(name) == name
    assert build(name) is build({"name": name})
