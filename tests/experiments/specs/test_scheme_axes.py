"""Options of schemes and schedules as axes of a sweep, and in the data frame of its records."""

from typing import Any

import pytest

from timesformer import InputError
from timesformer_experiments.records.frame import frame_of
from timesformer_experiments.records.log import make_record, now_utc
from timesformer_experiments.specs.run import RunSpec
from timesformer_experiments.specs.sweep import parse_sweep

BASE: dict[str, Any] = {
    "data": {"probe": "motion", "num_train": 16, "num_test": 8},
    "model": {"image_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_frames": 4},
    "recipe": {"steps": 2},
}


def runs(axes: dict[str, list[Any]], **model: Any) -> list[RunSpec]:
    base = {**BASE, "model": {**BASE["model"], **model}}
    return parse_sweep({"name": "s", "base": base, "axes": axes}).runs()


def test_an_option_is_an_axis() -> None:
    windows = [[3, 3, 3], [1, 3, 3], [3, 1, 1]]
    found = runs({"model.attention.window": windows}, attention="sliding_tile")
    assert [run.model.attention for run in found] == [
        "sliding_tile",
        "sliding_tile(window=[1,3,3])",
        "sliding_tile(window=[3,1,1])",
    ]
    assert [run.name for run in found] == ["s window=[3,3,3]", "s window=[1,3,3]", "s window=[3,1,1]"]
    assert len({run.hash() for run in found}) == 3
    plain = RunSpec.parse({**BASE, "name": "plain", "model": {**BASE["model"], "attention": "sliding_tile"}})
    assert found[0].hash() == plain.hash()
    with_tile = runs({"model.attention.window": windows[:1]}, attention={"name": "sliding_tile", "tile": [1, 2, 2]})
    assert with_tile[0].model.attention == "sliding_tile(tile=[1,2,2])"


def test_an_option_that_a_scheme_lacks_is_refused_with_its_cell() -> None:
    axes = {"model.attention": ["joint", "sliding_tile"], "model.attention.window": [[1, 1, 1]]}
    with pytest.raises(InputError, match=r"cell s attention=joint .*joint: unknown option 'window'"):
        runs(axes)


def test_schemes_and_schedules_in_records() -> None:
    schemes: list[Any] = ["joint", {"name": "sliding_tile", "window": [1, 3, 3]}]
    records = []
    for run, scheme in zip(runs({"model.attention": schemes}), schemes, strict=True):
        records.append(make_record(run, started_utc=now_utc(), wall_seconds=1.0, cell={"model.attention": scheme}))
    (scheduled,) = runs({"model.schedule": [{"0": "space"}]})
    assert scheduled.model.label == "0: space, 1: divided"
    records.append(make_record(scheduled, started_utc=now_utc(), wall_seconds=1.0))
    frame = frame_of([(record, "log", "log:1") for record in records])
    text = "sliding_tile(window=[1,3,3])"
    assert frame["model.attention"].tolist() == ["joint", text, "divided"]
    assert frame["cell.model.attention"].tolist()[:2] == ["joint", text]
    assert frame["model.schedule"].tolist()[2] == '{"0": "space"}'
