"""Real data: what is asked for, what is checked, and the way to a table, with small stand-ins for the datasets."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from timesformer import TimeSformer, TimeSformerConfig
from timesformer.checkpoints import save_model
from timesformer.data import Preprocessing
from timesformer.data.probes import make_probe
from timesformer.errors import InputError
from timesformer.training.recipe import Recipe
from timesformer_experiments.cli.main import app
from timesformer_experiments.paper import datasets, real
from timesformer_experiments.paper.datasets import DATASETS
from timesformer_experiments.paper.registry import names
from timesformer_experiments.specs.run import RunSpec

SHAPE = {"image_size": 32, "embed_dim": 16, "depth": 1, "num_heads": 2, "patch_size": 16}


def test_rows_of_the_artefacts() -> None:
    found = {name: {(row.key, row.dataset) for row in real.rows_of(name)} for name in names()}
    assert len(found["table1"]) == 5 * 2
    assert found["table4"] == {(key, name) for key in ("none", "space", "space_time") for name in ("k400", "ssv2")}
    assert ("TimeSformer-HR", "diving48") in found["table7"]
    assert {key for key, _ in found["table8"]} == {f"TimeSformer {frames}" for frames in (8, 32, 64, 96)}
    assert {key for key, _ in found["backbone"]} == {"base"}  # the others need image models of their own
    assert {key for key, _ in found["table3"]} == {
        f"{m} ImageNet-21K" for m in ("TimeSformer", "TimeSformer-HR", "TimeSformer-L")
    }
    assert not found["figure3"]


def test_the_papers_recipe_sampling_and_protocol(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("a.mp4 0\n")
    (tmp_path / "val.csv").write_text("b.mp4 1\n")
    rows = {row.key: row for row in real.rows_of("table5")}
    runs = {key: real.run_of("table5", row, tmp_path, "somewhere") for key, row in rows.items()}
    assert [run.preprocessing.frame_rate for run in runs.values()] == [32, 16, 4]
    assert [run.preprocessing.crop for run in runs.values()] == [224, 448, 224]
    assert [run.data.jitter for run in runs.values()] == [(256, 320), (448, 512), (256, 320)]
    base = runs["TimeSformer"]
    assert base.recipe == Recipe.paper()
    assert (base.protocol, base.model.drop_path_rate, base.data.flip) == ("paper", 0.1, True)
    ssv2 = next(row for row in real.rows_of("table7") if row.dataset == "ssv2")
    assert not DATASETS["ssv2"].flip
    assert real._sampling(ssv2.dataset, 8) == {"sampling": "uniform"}
    assert real._sampling("howto100m", 96) == {"sampling": "dense", "frame_rate": 32}


def test_what_data_names() -> None:
    assert real.parse_data("k400=a,ssv2=b/c") == {"k400": Path("a"), "ssv2": Path("b/c")}
    for wrong in ("k400", "k400=", "k900=a"):
        with pytest.raises(InputError, match=f"--data {wrong}: expected DATASET=FOLDER with one of k400"):
            real.parse_data(wrong)
    with pytest.raises(InputError, match="table5: --data must name one or more of its datasets, which are k400"):
        real.cells("table5", {"ssv2": Path("x")}, "somewhere")
    with pytest.raises(InputError, match="figure3: this artefact has no models"):
        real.cells("figure3", {"ssv2": Path("x")}, "somewhere")


def save_small(folder: Path, frames: int) -> None:
    """A model of a few weights, of images or of so many frames."""
    model = TimeSformer(TimeSformerConfig(attention="space", num_frames=frames, num_classes=8, **SHAPE))  # type: ignore[arg-type]
    crop = Preprocessing(num_frames=frames, crop=32, short_side=40)
    save_model(folder, model, preprocessing=crop.to_dict(), labels=None, provenance={})


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder as that of K400 with a few videos of eight classes, and an image model."""
    folder = tmp_path_factory.mktemp("k400")
    probe = make_probe("appearance", folder / "made", num_train=16, num_test=8)
    place = probe.folder
    (place / "val.csv").write_text((place / "test.csv").read_text())
    save_small(folder / "image", 1)
    return place, folder / "image"


def run(*words: str) -> Any:
    return CliRunner().invoke(app, ["reproduce", *words, "--profile", "paper", "--json"])


def test_a_check_counts_and_starts_nothing(stand_in: tuple[Path, Path], tmp_path: Path) -> None:
    place, image = stand_in
    words = ("table4", "--data", f"k400={place}", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out"))
    done = run(*words, "--check", "--init-from", str(image))
    assert done.exit_code == 1, done.output  # 16 videos are not 240,000
    lines = {line["what"]: line for line in json.loads(done.stdout)["checks"]["table4"]}
    assert lines["Kinetics-400: train.csv"]["fine"] == "yes"
    counted = lines["Kinetics-400: videos in train.csv"]
    assert (counted["expected"], counted["found"], counted["fine"]) == ("240,000 videos, within 10 %", "16", "NO")
    assert lines["Kinetics-400: 8 videos of val.csv"]["found"] == "all there"
    checkpoint = lines[f"checkpoint {image}"]
    assert (checkpoint["expected"], checkpoint["fine"]) == ("an image model of ViT-B's shape", "NO")
    assert f"{image}, embed_dim {SHAPE['embed_dim']}, depth {SHAPE['depth']}" in checkpoint["found"]
    memory = lines["K400, space and time: memory, 8 clips a step, fp32, on a GPU"]
    assert float(memory["found"].removesuffix(" GiB")) == pytest.approx(11.0, rel=0.2)
    hours = "K400, space and time: training, 240,000 videos, at this machine's present rate of matrix products"
    assert re.fullmatch(r"about [1-9][\d,]* h", lines[hours]["found"])
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "out").exists()


def test_a_check_names_what_is_missing(tmp_path: Path) -> None:
    done = run("table7", "--data", f"ssv2={tmp_path}", "--check", "--init-from", str(tmp_path / "none"))
    assert done.exit_code == 1
    found = json.loads(done.stdout)["checks"]["table7"]
    wrong = [line["what"] for line in found if line["fine"] == "NO"]
    assert wrong[0].startswith("checkpoint ")
    assert "Something-Something-V2: something-something-v2-labels.json" in wrong


@pytest.mark.parametrize(("frames", "fine"), [(1, "yes"), (8, "NO")])
def test_a_check_wants_an_image_model(frames: int, fine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(real, "_starts_from_vit_b", lambda config: True)
    monkeypatch.setattr(real, "_expect", lambda row, rate: [])
    save_small(tmp_path, frames)
    first, *_ = json.loads(run("table7", "--data", "ssv2=nowhere", "--check", "--init-from", str(tmp_path)).stdout)[
        "checks"
    ]["table7"]
    assert (first["found"], first["fine"]) == (str(tmp_path) + (", 8 frames" if frames == 8 else ""), fine)


def test_a_folder_that_is_not_there_and_one_given_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(real, "_expect", lambda row, rate: [])
    missing = tmp_path / "missing"
    lines = real.check("table7", {"ssv2": missing}, str(tmp_path)).to_dict(orient="records")
    assert [line["found"] for line in lines if line["what"] == f"Something-Something-V2: {missing}"] == [
        "no such folder"
    ]
    with pytest.raises(InputError, match="--data ssv2=b: ssv2 is given twice; expected one folder"):
        real.parse_data("ssv2=a,ssv2=b")


def test_options_of_the_other_profiles_are_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["reproduce", "table4", "--data", f"k400={tmp_path}"])
    assert done.exit_code == 2
    assert "expected only with --profile paper" in done.stderr
    done = CliRunner().invoke(app, ["reproduce", "table4", "--profile", "paper"])
    assert done.exit_code == 2
    assert "--data: expected DATASET=FOLDER for --profile paper" in done.stderr


def test_from_the_datasets_folder_to_the_table(
    stand_in: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way, with a small model and two steps in place of ViT-B and fifteen epochs."""
    place, image = stand_in
    small = {**DATASETS, "k400": replace(DATASETS["k400"], classes=8)}
    monkeypatch.setattr(datasets, "DATASETS", small)
    monkeypatch.setattr(real, "DATASETS", small)
    whole = real.run_of

    def shrunk(name: str, row: real.Row, folder: Path, init_from: str) -> RunSpec:
        spec = whole(name, row, folder, init_from)
        fields = {**spec.model.to_dict(), **SHAPE, "num_classes": 8}
        recipe = Recipe(steps=2, batch_size=8)
        data = spec.data.model_copy(update={"jitter": None, "preprocessing": {"sampling": "uniform"}})
        return spec.model_copy(update={"model": TimeSformerConfig.from_dict(fields), "recipe": recipe, "data": data})

    monkeypatch.setattr(real, "_starts_from_vit_b", lambda config: True)
    monkeypatch.setattr(real, "run_of", shrunk)
    words = ("table4", "--data", f"k400={place}", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out"))
    done = run(*words, "--init-from", str(image))
    assert done.exit_code == 0, done.output
    (made,) = json.loads(done.stdout)["artefacts"]
    assert [row["published_k400_top1_percent"] for row in made["rows"]] == [75.4, 77.8, 78.0]
    assert all(0 <= row["measured_k400_top1_percent"] <= 100 for row in made["rows"])
    assert "points from the paper." in made["findings"][0]
    assert (tmp_path / "out" / "table4" / "paper" / "report.html").is_file()
