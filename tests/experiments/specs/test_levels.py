"""The level below which a training counts as failed: from the probe's construction, a number, or one for each probe."""

from typing import Any

import pytest

from tests.experiments.spec_fakes import SIZES
from timesformer_experiments.specs.claims import Until, parse_claims
from timesformer_experiments.specs.levels import level_of, midpoint_percent
from timesformer_experiments.specs.run import RunSpec

CLAIM = {"name": "a", "family": "f", "first": "divided", "second": "joint"}


def run(probe: str = "motion", protocol: str = "clip", **data: Any) -> RunSpec:
    fields = {"probe": probe, "num_train": 4, "num_test": 4, **data}
    model = {**SIZES, "num_frames": 2}
    recipe = {"steps": 1, "batch_size": 4}
    return RunSpec.parse({"name": "x", "data": fields, "model": model, "recipe": recipe, "protocol": protocol}, "x")


def test_the_midpoint_lies_between_what_order_adds() -> None:
    assert midpoint_percent(run("motion")) == 75
    assert midpoint_percent(run("mixture", temporal_share=0.5)) == 87.5
    assert midpoint_percent(run("appearance")) is None
    assert midpoint_percent(run("detail")) is None


def test_clips_that_see_less_have_a_lower_one() -> None:
    """Clips of four of the eight segments, laid end to end, reach 83.3 %, and 50 % without their order."""
    reading = {"video_frames": 32, "preprocessing": {"sampling": "dense", "frame_rate": 8, "short_side": 32}}
    seeing = run("order", "coverx1", **reading)
    ceiling = seeing.data.kind.ceiling_percent(seeing.preprocessing, _views("coverx1"))  # type: ignore[union-attr]
    assert ceiling is not None
    expected = None if ceiling <= 50 else (50 + ceiling) / 2
    assert midpoint_percent(seeing) == expected


def _views(protocol: str) -> Any:
    from timesformer.evaluation.protocols import protocol_named

    return protocol_named(protocol).views


def test_numbers_hold_for_all_or_for_their_probe() -> None:
    assert level_of(60, run("appearance")) == 60
    assert level_of({"motion": 70}, run("motion")) == 70
    assert level_of({"motion": 70}, run("appearance")) is None
    assert level_of(None, run("motion")) is None
    assert level_of("midpoint", run("motion")) == 75


@pytest.mark.parametrize("level", ["midpoint", 60.0, {"motion": 60.0}])
def test_a_level_is_part_of_what_is_registered(level: Any, tmp_path: Any) -> None:
    without, own = (parse_claims({"claims": [CLAIM], **more}, "x") for more in ({}, {"failed_below_percent": level}))
    assert without.digest() != own.digest()
    assert parse_claims({"claims": [CLAIM], "failed_below_percent": None}, "x").digest() == without.digest()
    inline = Until.model_validate({"claims": [CLAIM], "failed_below_percent": level})
    assert inline.registered(tmp_path).digest() == own.digest()
