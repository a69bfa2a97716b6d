"""`validate_every`: accuracy on validation videos along the training, which changes nothing else."""

import pandas as pd
import pytest

from tests.experiments.spec_fakes import SIZES, fields
from timesformer.errors import InputError
from timesformer_experiments.analysis.curves import curve_of
from timesformer_experiments.records.folder import RunFolder
from timesformer_experiments.run.train import run_one
from timesformer_experiments.specs.run import RunSpec

DATA = {"probe": "motion", "num_train": 8, "num_test": 4, "num_val": 4, "preprocessing": {"short_side": 20}}
RUN = fields(data=DATA, model={"num_frames": 2, **SIZES}, recipe={"steps": 5, "batch_size": 4}, protocol="clip")


def test_the_curve_has_the_accuracy_on_validation_and_the_result_is_the_same(tmp_path) -> None:
    plain, watched = (RunSpec.parse(RUN | more, "x") for more in ({}, {"validate_every": 2}))
    assert plain.hash() == watched.hash()
    results = [
        run_one(spec, tmp_path / name, data_dir=tmp_path / "data", progress=False)["metrics"]
        for name, spec in (("plain", plain), ("watched", watched))
    ]
    steady = ("top1_percent", "train_loss", "train_top1_percent")
    assert [results[0][name] for name in steady] == [results[1][name] for name in steady]
    place = RunFolder(tmp_path / "watched", watched.hash()).curve
    measured = pd.read_parquet(place)["validation_percent"]
    assert measured.notna().tolist() == [False, True, False, True, True]  # after two, four and all five steps
    assert measured.dropna().between(0, 100).all()
    assert curve_of(place, "x")["validation_percent"].notna().sum() == 3
    assert "validation_percent" not in pd.read_parquet(RunFolder(tmp_path / "plain", plain.hash()).curve)


def test_it_needs_validation_videos() -> None:
    data = {key: value for key, value in DATA.items() if key != "num_val"}
    with pytest.raises(InputError, match="validate_every: the data have no validation set"):
        RunSpec.parse(RUN | {"data": data, "validate_every": 2}, "x")
    with pytest.raises(InputError, match="validate_every: expected processes 1"):
        RunSpec.parse(RUN | {"validate_every": 2, "processes": 2}, "x")
