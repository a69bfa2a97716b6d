"""Runs that are evaluated on validation data alone, from encoded videos to records."""

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.experiments.spec_fakes import SIZES, fields
from timesformer.data.probes import make_probe
from timesformer_experiments.records.folder import RunFolder
from timesformer_experiments.records.hits import hits_of, with_hits
from timesformer_experiments.records.read import load_results
from timesformer_experiments.run import train
from timesformer_experiments.run.identity import OtherData
from timesformer_experiments.run.train import run_one
from timesformer_experiments.specs.run import RunSpec

TUNED = {
    "search": "grid",
    "draws": 2,
    "over": {"recipe.lr": [0.001, 0.01]},
    "chosen": {"recipe.lr": 0.001},
    "best_percent": 50.0,
    "seed": None,
    "draw": None,
    "tuning_sha256": None,
}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    probe = make_probe("motion", tmp_path_factory.mktemp("probe"), num_train=8, num_val=4, num_test=4)
    return probe.folder


def on_lists(folder: Path, **changes: Any) -> RunSpec:
    lists = {name: str(folder / f"{name}.csv") for name in ("train", "val", "test")}
    data = {**lists, "num_classes": 8, "preprocessing": {"short_side": 20}}
    return RunSpec.parse(fields(data=data, recipe={"steps": 2, "batch_size": 4}, **changes))


def chosen(folder: Path, runs: Path) -> tuple[float, list[float]]:
    """The better of two learning rates by validation, and all that was measured."""
    found = {}
    for rate in (0.001, 0.05):
        spec = on_lists(folder, evaluate_on="validation").model_copy()
        spec = RunSpec.parse({**_plain(spec), "recipe": {"steps": 2, "batch_size": 4, "lr": rate}})
        record = run_one(spec, runs, data_dir=runs / "data", progress=False)
        scores = pd.read_parquet(RunFolder(runs, spec.hash()).scores)
        found[rate] = (record["metrics"]["top1_percent"], scores["scores"].map(max).sum())
    return max(found, key=lambda rate: found[rate]), [value for pair in found.values() for value in pair]


def _plain(spec: RunSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "data": spec.data,
        "model": {"attention": "divided", "num_frames": 2, **SIZES},
        "protocol": spec.protocol,
        "threads": 1,
        "evaluate_on": spec.evaluate_on,
    }


def test_a_poisoned_test_list_changes_nothing_of_what_is_chosen(videos: Path, tmp_path: Path) -> None:
    own = tmp_path / "videos"
    shutil.copytree(videos, own)
    clean = chosen(own, tmp_path / "clean")
    lines = (own / "test.csv").read_text().splitlines()
    labels = [line.split()[1] for line in lines]
    permuted = [f"{line.split()[0]} {label}\n" for line, label in zip(lines, labels[1:] + labels[:1], strict=True)]
    (own / "test.csv").write_text("".join(permuted))
    assert chosen(own, tmp_path / "permuted") == clean
    (own / "test.csv").write_bytes(b"\xff\xfe\x00 no list of videos")
    shutil.rmtree(own / "test")
    assert chosen(own, tmp_path / "poisoned") == clean


def test_a_result_on_validation_belongs_to_the_videos_of_validation(videos: Path, tmp_path: Path) -> None:
    own = tmp_path / "videos"
    shutil.copytree(videos, own)
    spec = on_lists(own, evaluate_on="validation")
    record = run_one(spec, tmp_path / "runs", progress=False)
    assert set(record["dataset"]["identity"]) == {"kind", "full", "train", "validation", "start"}
    assert record["dataset"]["identity"]["validation"] == record["dataset"]["validation"]["fingerprint"]
    folder = RunFolder(tmp_path / "runs", spec.hash()).path
    assert {path.name for path in folder.glob("*.videos.json")} == {"train.videos.json", "validation.videos.json"}
    (own / "test.csv").unlink()
    shutil.rmtree(own / "test")
    assert run_one(spec, tmp_path / "runs", progress=False) == record
    shutil.copyfile(own / "val" / "000001.mp4", own / "val" / "000000.mp4")
    with pytest.raises(OtherData, match=r"other videos: validation: 1 of 4 files has changed: .*000000\.mp4"):
        run_one(spec, tmp_path / "runs", progress=False)


def test_records_say_what_was_evaluated_and_how_it_was_chosen(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated = []
    real = train.evaluate
    monkeypatch.setattr(train, "evaluate", lambda *a, **k: evaluated.append(a[1].samples) or real(*a, **k))
    probe = {"probe": "motion", "num_train": 8, "num_test": 4, "num_val": 6, "preprocessing": {"short_side": 20}}
    recipe = {"steps": 2, "batch_size": 4}
    on_val = RunSpec.parse(fields(name="val", data=probe, recipe=recipe, evaluate_on="validation"))
    final = RunSpec.parse(fields(name="final", data=probe, recipe=recipe, selection=TUNED))
    records = {
        spec.name: run_one(spec, tmp_path, data_dir=tmp_path / "data", progress=False) for spec in (on_val, final)
    }
    assert run_one(final, tmp_path, data_dir=tmp_path / "data", progress=False) == records["final"]
    assert [samples[0].name for samples in evaluated] == ["val/000000.mp4", "test/000000.mp4"]  # each once
    assert [records[name]["evaluated_on"] for name in ("val", "final")] == ["validation", "test"]
    assert records["val"]["selection"] is None
    assert records["final"]["selection"] == {"on": "validation", **TUNED}
    assert set(records["val"]["dataset"]) == {"train", "validation", "identity"}
    assert records["val"]["dataset"]["validation"]["num_videos"] == records["val"]["metrics"]["test_videos"] == 6
    assert set(records["final"]["dataset"]) == {"train", "test", "identity"}
    scores = pd.read_parquet(RunFolder(tmp_path, final.hash()).scores)
    assert scores["group"].tolist() == ["test/000000.mp4"] * 2 + ["test/000002.mp4"] * 2
    assert len(hits_of(with_hits(records["val"], tmp_path))) == 6
    frame = load_results(tmp_path)
    assert frame["evaluated_on"].tolist() == ["validation", "test"]
    assert json.loads(frame["selection"].iloc[1])["chosen"] == {"recipe.lr": 0.001}
    assert frame["dataset.validation.num_videos"].iloc[0] == 6
