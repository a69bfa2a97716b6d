"""`timesformer reproduce real`: one's own lists and a checkpoint, from the command line to the page."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from tests.data.conftest import write_video
from timesformer import TimeSformer, TimeSformerConfig
from timesformer.errors import InputError
from timesformer_experiments.cli.main import app
from timesformer_experiments.paper.own_data.lists import read_lists
from timesformer_experiments.paper.own_data.plan import Study
from timesformer_experiments.paper.own_data.schemes import CNNS, PER_FRAME, SCHEMES
from timesformer_experiments.specs.choice import Choice

CHOICE = Choice(0, (50.0, 0.0), "0" * 64)
COLUMNS = [
    "split", "scheme", "chosen", "seeds", "measured_top1_percent", "measured_top1_low_percent",
    "measured_top1_high_percent", "measured_shuffled_top1_percent",
]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten videos of two classes by two talkers in two splits, and a checkpoint of an image model."""
    place = tmp_path_factory.mktemp("own")
    (place / "data" / "clips").mkdir(parents=True)
    lines = []
    for number in range(10):
        name = f"clips/talker{number % 2}_{number // 2}.mp4"
        write_video(place / "data" / name, frames=4 + number % 3, size=(24, 34))
        lines.append(f"{name} {number // 2 % 2}")
    for split in ("one", "two"):
        (place / "data" / f"{split}_train.csv").write_text("\n".join(lines[: 8 if split == "one" else 6]) + "\n")
        (place / "data" / f"{split}_test.csv").write_text("\n".join(lines[8:]) + "\n")
    (place / "data" / "two_val.csv").write_text("\n".join(lines[6:8]) + "\n")
    image = TimeSformerConfig(
        attention="space", num_frames=1, image_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=2
    )
    TimeSformer(image).save_pretrained(place / "image", preprocessing={"short_side": 32, "crop": 32, "num_frames": 1})
    return place


def study(place: Path, **fields: Any) -> Study:
    values = {"profile": "smoke", "schemes": tuple(SCHEMES)} | fields
    return Study("own", read_lists(place / "data"), str(place / "image"), **values)  # type: ignore[arg-type]


def test_lists_are_found_by_their_names(place: Path) -> None:
    lists = read_lists(place / "data")
    assert list(lists.splits) == ["one", "two"]
    assert lists.first == "one"
    assert lists.splits["one"]["val_fraction"] == 0.25
    assert Path(lists.splits["two"]["val"]).name == "two_val.csv"
    assert all(fields["num_classes"] == 2 and fields["train_on_validation"] for fields in lists.splits.values())


def test_every_scheme_stands_behind_the_same_frozen_blocks(place: Path) -> None:
    own = study(place)
    assert own.size == (24, 32)  # whole patches of 24 x 34 pixels
    for scheme in SCHEMES:
        first, second = own.draws(scheme)
        assert first.evaluate_on == second.evaluate_on == "validation"
        assert first.hash() != second.hash()
        assert first.recipe.lr != second.recipe.lr
        assert own.draws("joint")[1].recipe.lr == second.recipe.lr  # the same draws for all
        if scheme in CNNS:
            assert first.recipe.freeze is None
            assert first.init_from is None
            continue
        assert first.recipe.freeze == 1
        assert first.recipe.cache_stem
        blocks = first.model.scheme.encoders[0]  # type: ignore[union-attr]
        assert [step.name for step in blocks.at(0).steps] == ["space"]
        assert scheme in PER_FRAME or first.model.time_from == 1  # type: ignore[union-attr]


def test_models_that_start_from_nothing(place: Path, tmp_path: Path) -> None:
    file = tmp_path / "lists.yaml"
    splits = {"one": {"train": "one_train.csv", "test": "one_test.csv", "val_fraction": 0.25}}
    model = {"image_size": [16, 24], "patch_size": 8, "embed_dim": 8, "depth": 3, "num_heads": 2}
    file.write_text(yaml.safe_dump({"splits": splits, "from_nothing": True, "model": model}))
    own = Study("own", read_lists(place / "data", file), "no/such/checkpoint", "smoke", tuple(SCHEMES))
    assert own.blocks == own.depth == 3
    for scheme in SCHEMES:
        spec = own.draws(scheme)[0]
        assert spec.init_from is None
        assert spec.recipe.freeze is None
        assert not spec.recipe.cache_stem
        assert not spec.recipe.lr_scale  # nothing of them is older than the rest
        assert spec.model.height_width == (16, 24)
        if scheme not in CNNS:
            assert spec.model.embed_dim == 8  # type: ignore[union-attr]
            assert spec.model.position_std == 1.0  # type: ignore[union-attr]
            assert spec.model.schedule is None  # type: ignore[union-attr]
    apart = ["--out", str(tmp_path / "results"), "--runs", str(tmp_path / "runs")]
    found = reproduce(place, "--lists", str(file), "--init-from", "no/such", "--schemes", "divided", *apart)
    assert found.exit_code == 0, found.output
    page = (tmp_path / "results" / "real" / "own-smoke" / "report.html").read_text()
    assert "all models start from nothing" in page


def test_a_final_run_trains_on_validation_videos_too(place: Path) -> None:
    own = study(place)
    draw, final = own.draws("joint")[0], own.finals("joint", CHOICE)["one", 0]
    counts = [[len(side) for side in spec.data.annotations(spec.evaluate_on)] for spec in (draw, final)]  # type: ignore[union-attr]
    assert counts == [[6, 2], [8, 2]]
    assert final.selection is not None
    assert final.recipe.lr == draw.recipe.lr == final.selection.chosen["recipe.lr"]
    watched = own.lists.model_copy(update={"recipe": {"validate_every": 1}})
    with pytest.raises(InputError, match="leaves no validation videos"):
        Study("own", watched, str(place / "image"), "smoke").finals("joint", CHOICE)


def reproduce(place: Path, *more: str) -> Any:
    arguments = ["reproduce", "real", "--data", f"own={place / 'data'}", "--init-from", str(place / "image")]
    arguments += ["--profile", "smoke", "--out", str(place / "results"), "--runs", str(place / "runs"), *more]
    return CliRunner().invoke(app, arguments)


def test_from_the_lists_to_the_page(place: Path) -> None:
    found = reproduce(place, "--schemes", "joint,c2d", "--seeds", "2", "--json")
    assert found.exit_code == 0, found.output
    results = place / "results" / "real" / "own-smoke"
    table = pd.read_csv(results / "real.csv")
    assert set(COLUMNS) <= set(table.columns)
    assert list(zip(table["split"], table["scheme"], strict=True)) == [
        ("one", "joint"), ("one", "c2d"), ("two", "joint"), ("two", "c2d"),
    ]  # fmt: skip
    assert set(table["seeds"]) == {2}
    assert table["chosen"].notna().sum() == 2  # one scheme, in both splits
    assert table["measured_shuffled_top1_percent"].between(0, 100).all()
    draws = pd.read_csv(results / "draws.csv")
    assert len(draws) == 4
    page = (results / "report.html").read_text()
    assert "How recipes were chosen" in page
    assert "Accuracy of each class on one" in page
    assert (results / "learning_curves_one.png").is_file()
    # Again: everything is taken from what is there, and the page is the same.
    before = {path: path.stat().st_mtime_ns for path in (place / "runs").glob("*/record.json")}
    assert len(before) == 2 * 2 + 2 * 2 * 2
    again = reproduce(place, "--schemes", "joint,c2d", "--seeds", "2")
    assert again.exit_code == 0, again.output
    assert {path: path.stat().st_mtime_ns for path in (place / "runs").glob("*/record.json")} == before
    assert (results / "report.html").read_text() == page


@pytest.mark.slow
def test_all_schemes(place: Path) -> None:
    found = reproduce(place)
    assert found.exit_code == 0, found.output
    table = pd.read_csv(place / "results" / "real" / "own-smoke" / "real.csv")
    assert set(table["scheme"]) == set(SCHEMES)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"splits": {}}, "splits"),
        (
            {"splits": {"one": {"train": "one_train.csv", "test": "one_test.csv"}}, "tune_on": "x"},
            "tune_on: expected one",
        ),
        ({"splits": {"one": {"train": "none.csv", "test": "one_test.csv"}}}, "none.csv"),
        ({"splits": {"one": {"train": "one_train.csv", "test": "one_test.csv", "val_pattern": "x"}}}, "val_pattern"),
        (
            {"splits": {"one": {"train": "one_train.csv", "test": "one_test.csv"}}, "over": {"recipe.lr": 3}},
            "recipe.lr",
        ),
        (
            {"splits": {"one": {"train": "one_train.csv", "test": "one_test.csv"}}, "from_nothing": True, "blocks": 1},
            "blocks: expected none beside from_nothing",
        ),
    ],
)
def test_lists_that_cannot_be_read(place: Path, tmp_path: Path, values: dict[str, Any], said: str) -> None:
    file = tmp_path / "lists.yaml"
    file.write_text(yaml.safe_dump(values))
    with pytest.raises(InputError, match=said):
        read_lists(place / "data", file)


def test_a_folder_of_classes_and_a_folder_without_lists(place: Path, tmp_path: Path) -> None:
    for side in ("train", "test"):
        for label in ("a", "b"):
            for number in range(4):
                (tmp_path / side / label).mkdir(parents=True, exist_ok=True)
                video = tmp_path / side / label / f"{side}{number}.mp4"
                video.write_bytes((place / "data" / "clips" / "talker0_0.mp4").read_bytes())
    lists = read_lists(tmp_path)
    assert list(lists.splits) == ["all"]
    assert Study("own", lists, str(place / "image"), "smoke").draws("joint")[0].data.num_classes == 2
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"expected train.csv and test.csv, NAME_train.csv"):
        read_lists(tmp_path / "empty")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--schemes", "nothing"], "--schemes nothing"),
        (["--data", "nowhere"], "expected NAME=FOLDER"),
    ],
)
def test_options_that_do_not_fit(place: Path, arguments: list[str], said: str) -> None:
    found = reproduce(place, *arguments)
    assert found.exit_code == 2
    assert said in found.output + (found.stderr or "")
