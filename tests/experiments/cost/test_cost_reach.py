"""`timesformer cost` says after how many steps patches meet and reach each other."""

import json

import pytest
from typer.testing import CliRunner

from timesformer import TimeSformerConfig
from timesformer.config.registry import read_config
from timesformer_experiments.cli.main import app
from timesformer_experiments.cost.count import Cost, cost

WORDS = ["--num-frames", "3", "--patch-size", "8", "--embed-dim", "8", "--depth", "1", "--num-heads", "2"]


def counted(attention: str, **fields: object) -> Cost:
    sizes = {"num_frames": 3, "image_size": (40, 56), "patch_size": 8, "embed_dim": 8, "depth": 1, "num_heads": 2}
    return cost(TimeSformerConfig.from_dict({"attention": attention, **sizes, **fields}))


def steps(found: Cost) -> tuple[int | None, int | None, int | None]:
    return found.steps_to_meet, found.steps_to_reach_all, found.steps_to_reach_all_without_class_token


def test_steps_of_schemes() -> None:
    found = counted("axial")
    assert steps(found) == (None, 3, 3)
    assert found.reach_grid == (3, 5, 7)
    assert steps(counted("joint")) == (1, 1, 1)
    assert steps(counted("space")) == (None, None, None)


def test_the_class_token_can_be_what_carries() -> None:
    """A window of 2 x 2 patches around each of 4 x 4 sees one border less: its last row is never among the keys."""
    assert steps(counted("local_global_window_fixed", image_size=32)) == (2, 2, None)


def test_a_large_grid_is_made_smaller() -> None:
    found = counted("divided", num_frames=32, image_size=112)
    assert steps(found) == (None, 2, 2)
    assert found.reach_grid == (12, 12, 14)


def test_none_where_no_patch_comes_out() -> None:
    for found in (counted("factorised_encoder"), cost(read_config({"baseline": "c2d", "num_frames": 8}))):
        assert steps(found) == (None, None, None)
        assert found.reach_grid is None


@pytest.mark.parametrize("as_json", [True, False])
def test_on_the_command_line(as_json: bool) -> None:
    words = ["cost", "--attention", "local_global", *WORDS, "--image-size", "40x56"]
    done = CliRunner().invoke(app, [*words, "--json"] if as_json else words, env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    if as_json:
        found = json.loads(done.stdout)
        names = ("steps_to_meet", "steps_to_reach_all", "steps_to_reach_all_without_class_token")
        assert [found[name] for name in names] == [1, 2, 2]
        assert found["reach_grid"] == [3, 5, 7]
    else:
        assert "Steps to reach all" in done.stdout
        assert "3 x 5 x 7" in done.stdout
