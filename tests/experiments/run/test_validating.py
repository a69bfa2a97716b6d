"""Runs that validate while they train, from encoded videos to records."""

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.experiments.spec_fakes import fields
from timesformer.data.probes import make_probe
from timesformer.errors import InputError
from timesformer_experiments.analysis.curves import curve_of
from timesformer_experiments.cli.train import validated
from timesformer_experiments.records.folder import RunFolder
from timesformer_experiments.run.identity import OtherData
from timesformer_experiments.run.train import run_one
from timesformer_experiments.specs.run import RunSpec

RECIPE = {"steps": 4, "batch_size": 4, "validate_every": 2}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_probe("motion", tmp_path_factory.mktemp("probe"), num_train=8, num_val=4, num_test=4).folder


def spec_of(folder: Path, **recipe: Any) -> RunSpec:
    lists = {name: str(folder / f"{name}.csv") for name in ("train", "val", "test")}
    data = {**lists, "num_classes": 8, "preprocessing": {"short_side": 20}}
    return RunSpec.parse(fields(data=data, recipe={**RECIPE, **recipe}))


def test_accuracies_are_in_record_and_curve(videos: Path, tmp_path: Path) -> None:
    spec = spec_of(videos, keep="best")
    record = run_one(spec, tmp_path / "runs", progress=False)
    percents = [each["top1_percent"] for each in record["validation"]]
    assert [(each["step"], each["test_videos"]) for each in record["validation"]] == [(2, 4), (4, 4)]
    assert record["metrics"].get("kept_step", 4) == (2 if percents[0] >= percents[1] else 4)
    assert record["evaluated_on"] == "test"
    best = 2 if percents[0] >= percents[1] else 4
    assert f"4 steps; best of 2 validations {max(percents):.1f} % at step {best}; weights of step {best}" in validated(
        record
    )
    place = RunFolder(tmp_path / "runs", spec.hash()).curve
    kept = pd.read_parquet(place)["validation_percent"].dropna()
    assert list(kept.index) == [1, 3]
    assert list(kept) == percents
    assert list(curve_of(place, "run")["validation_percent"].dropna()) == percents


def test_validating_alone_changes_nothing(videos: Path, tmp_path: Path) -> None:
    plain, watched = spec_of(videos, validate_every=None), spec_of(videos)
    assert plain.hash() == watched.hash()
    folders = (tmp_path / "plain", tmp_path / "watched")
    results = [run_one(spec, place, progress=False) for spec, place in zip((plain, watched), folders, strict=True)]
    steady = ("top1_percent", "train_loss", "train_top1_percent")
    assert [results[0]["metrics"][name] for name in steady] == [results[1]["metrics"][name] for name in steady]
    assert "validation" not in results[0]
    assert "validation_percent" not in pd.read_parquet(RunFolder(tmp_path / "plain", plain.hash()).curve)


def test_the_test_list_is_read_once_training_has_ended(videos: Path, tmp_path: Path) -> None:
    spec = spec_of(videos).model_copy(update={"evaluate_on": "validation"})
    (tmp_path / "nothing.csv").write_text("no list\n")
    unreadable = spec.model_copy(update={"data": spec.data.model_copy(update={"test_csv": tmp_path / "nothing.csv"})})
    record = run_one(unreadable, tmp_path / "runs", progress=False)
    assert len(record["validation"]) == 2


def test_videos_that_chose_the_weights_belong_to_the_result(videos: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(videos, tmp_path / "videos"))
    plain, choosing = spec_of(folder), spec_of(folder, keep="best")
    for spec in (plain, choosing):
        run_one(spec, tmp_path / "runs", progress=False)
    one, other = sorted((folder / "val").glob("*.mp4"))[:2]
    shutil.copy(one, other)
    run_one(plain, tmp_path / "runs", progress=False)  # they did not touch its result
    with pytest.raises(OtherData, match="belongs to other videos: validation"):
        run_one(choosing, tmp_path / "runs", progress=False)


def test_a_validation_set_is_asked_for(videos: Path) -> None:
    data = {"probe": "motion", "num_train": 8, "num_test": 4, "preprocessing": {"short_side": 20}}
    with pytest.raises(InputError, match=r"recipe\.validate_every: the data have no validation set"):
        RunSpec.parse(fields(data=data, recipe=RECIPE))
    RunSpec.parse(fields(data={**data, "num_val": 4}, recipe=RECIPE))
