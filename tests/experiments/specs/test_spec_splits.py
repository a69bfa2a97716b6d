"""Validation sets of runs: what they are, what they change in a run's definition, and what is never opened."""

from pathlib import Path
from typing import Any

import pytest

from tests.experiments.spec_fakes import SIZES, small
from timesformer import InputError
from timesformer.data import Sample
from timesformer_experiments.run.inputs import datasets
from timesformer_experiments.specs.run import CsvData, RunSpec, load_specs
from timesformer_experiments.specs.splits import Selection

PROBE = {"probe": "motion", "num_train": 8, "num_test": 4, "preprocessing": {"short_side": 20}}


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    for name, people in (("train", "abcdefgh"), ("val", "ij"), ("test", "kl")):
        lines = [f"{person}_{take}.mp4 {take % 2}\n" for person in people for take in range(4)]
        (tmp_path / f"{name}.csv").write_text("".join(lines))
    return tmp_path


def on_lists(folder: Path, data: dict[str, Any] | None = None, **fields: Any) -> RunSpec:
    paths = {name: str(folder / f"{name}.csv") for name in ("train", "test")}
    return RunSpec.parse(
        {
            "name": "lists",
            "data": {**paths, "num_classes": 2, **(data or {})},
            "model": {"attention": "divided", "num_frames": 2, **SIZES},
            "recipe": {"steps": 1, "batch_size": 2},
            **fields,
        }
    )


def videos_of(spec: RunSpec) -> list[list[Sample]]:
    assert isinstance(spec.data, CsvData)
    return [list(found) for found in spec.data.annotations("validation")]


def test_fields_of_validation_are_neutral_where_they_are_off(lists: Path) -> None:
    assert "num_val" not in small().definition()["data"]
    assert small(data={**PROBE, "num_val": 0}).hash() == small(data=PROBE).hash()
    assert small(data={**PROBE, "num_val": 4}).hash() != small(data=PROBE).hash()
    plain = on_lists(lists)
    assert set(plain.definition()["data"]) & {"val_csv", "val_fraction", "group", "val_shares_groups"} == set()
    assert "evaluate_on" not in plain.definition()
    group = {"pattern": r"^(\w)_"}
    others = [
        on_lists(lists, {"val": str(lists / "val.csv")}),
        on_lists(lists, {"val_fraction": 0.25}),
        on_lists(lists, {"val_fraction": 0.25, "group": group}),
        on_lists(lists, {"val_fraction": 0.25, "group": group, "val_shares_groups": True}),
        on_lists(lists, {"val_fraction": 0.25, "group": group}, evaluate_on="validation"),
    ]
    assert len({spec.hash() for spec in [plain, *others]}) == 6
    assert others[2].definition()["data"]["group"] == group


def test_validation_videos_by_their_names_and_trained_on_in_the_end(lists: Path) -> None:
    data = {"val_pattern": "_3", "group": {"pattern": r"^(\w)_"}, "val_shares_groups": True}
    spec = on_lists(lists, data)
    train, val = videos_of(spec)
    assert [sample.name for sample in val] == [f"{person}_3.mp4" for person in "abcdefgh"]
    assert len(train) == 24
    joined = on_lists(lists, data | {"train_on_validation": True})
    assert isinstance(joined.data, CsvData)
    assert [len(side) for side in joined.data.annotations("test")] == [32, 8]
    assert [len(side) for side in videos_of(joined)] == [24, 8]
    assert len({spec.hash(), joined.hash(), on_lists(lists).hash()}) == 3
    for wrong, said in (
        ({"val_pattern": "("}, "no regular expression"),
        ({"val_pattern": "_", "val_fraction": 0.5}, "expected one of them"),
        ({"train_on_validation": True}, "there is no validation set"),
    ):
        with pytest.raises(InputError, match=said):
            on_lists(lists, wrong)
    with pytest.raises(InputError, match=r"val_pattern: '_' is found in 32 of 32 names"):
        videos_of(on_lists(lists, {"val_pattern": "_"}))


def test_how_a_recipe_was_chosen_is_recorded_and_no_part_of_the_hash() -> None:
    chosen = {"search": "random", "draws": 8, "over": {"recipe.lr": "loguniform(1e-4, 1e-2)"}}
    tuned = small(selection={**chosen, "chosen": {"recipe.lr": 0.002}, "best_percent": 71.5})
    assert tuned.hash() == small().hash()
    assert tuned.selection == Selection(**chosen, chosen={"recipe.lr": 0.002}, best_percent=71.5)
    with pytest.raises(InputError, match=r"selection: chosen: expected values of recipe\.lr, got recipe\.steps"):
        small(selection={**chosen, "chosen": {"recipe.steps": 3}})


@pytest.mark.parametrize("how", ["named", "fraction"])
def test_a_run_on_validation_never_opens_the_test_list(lists: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data: dict[str, Any] = {"val": str(lists / "val.csv")} if how == "named" else {"val_fraction": 0.25}
    data["group"] = {"pattern": r"^(\w)_"}
    spec = on_lists(lists, data, evaluate_on="validation")
    before, videos = spec.hash(), videos_of(spec)
    for poison in (b"k_0.mp4 1\nk_1.mp4 0\n", b"\xff\xfe no list", None):
        path = lists / "test.csv"
        path.write_bytes(poison) if poison is not None else path.unlink()
        spec = on_lists(lists, data, evaluate_on="validation")
        assert spec.hash() == before
        assert videos_of(spec) == videos
        train, evaluated, _ = datasets(spec, lists / "cache")
        assert [train.samples, evaluated.samples] == videos
    with pytest.raises(InputError, match=r"data\.test_csv: no such annotation file"):
        on_lists(lists, data).hash()


def test_sides_may_share_a_group_only_where_they_say_so(lists: Path) -> None:
    group = {"pattern": r"^(\w)_"}
    (lists / "val.csv").write_text("a_9.mp4 1\n")
    shared = {"val": str(lists / "val.csv"), "group": group}
    for on in ("test", "validation"):
        with pytest.raises(InputError, match=r"data\.validation: the group 'a' \(a_9\.mp4\) is in data\.train as well"):
            datasets(on_lists(lists, shared, evaluate_on=on), lists / "cache")
        allowed = on_lists(lists, {**shared, "val_shares_groups": True}, evaluate_on=on)
        assert len(datasets(allowed, lists / "cache")[1]) == (8 if on == "test" else 1)
    (lists / "val.csv").write_text("k_9.mp4 1\n")
    assert len(datasets(on_lists(lists, shared, evaluate_on="validation"), lists / "cache")[1]) == 1
    with pytest.raises(InputError, match=r"data\.test: the group 'k'"):
        datasets(on_lists(lists, shared), lists / "cache")


def test_a_fraction_leaves_the_training_list(lists: Path) -> None:
    spec = on_lists(lists, {"val_fraction": 0.25, "group": {"pattern": r"^(\w)_"}}, evaluate_on="validation")
    train, val, _ = datasets(spec, lists / "cache")
    assert (len(train), len(val)) == (24, 8)
    assert len({sample.group for sample in val.samples}) == 2
    assert len(datasets(on_lists(lists, {"val_fraction": 0.25}), lists / "cache")[0]) == 24


@pytest.mark.parametrize(
    ("data", "fields", "message"),
    [
        ({}, {"evaluate_on": "validation"}, "evaluate_on: the data have no validation set"),
        ({"val": "a.csv", "val_fraction": 0.5}, {}, "data: val, val_fraction, val_pattern: expected one of them"),
        ({"val_shares_groups": True}, {}, "data: val_shares_groups: there is no validation set"),
        ({"group": "person"}, {}, r"data\.group: expected \{pattern: …\} or \{column: …\}, got 'person'"),
        ({"group": {"pattern": "x"}}, {}, r"train\.csv: a_0\.mp4: group\.pattern 'x' finds nothing in this name"),
        ({"val_fraction": 1.5}, {}, r"data\.val_fraction: Input should be less than 1"),
    ],
)
def test_impossible_splits(lists: Path, data: dict[str, Any], fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        datasets(on_lists(lists, data, **fields), lists / "cache")


def test_paths_are_taken_from_the_files_folder(lists: Path) -> None:
    (lists / "run.yaml").write_text(
        "name: lists\ndata: {train: train.csv, val: val.csv, test: test.csv, num_classes: 2}\n"
        "model: {num_frames: 2, image_size: 16, patch_size: 8, embed_dim: 16, depth: 1, num_heads: 2}\n"
        "recipe: {steps: 1}\nevaluate_on: validation\n"
    )
    (spec,) = load_specs(lists / "run.yaml")
    assert len(datasets(spec, lists / "cache")[1]) == 8


def test_a_probe_has_validation_videos_of_its_own(tmp_path: Path) -> None:
    train, test, _ = datasets(small(data=PROBE), tmp_path)
    spec = small(data={**PROBE, "num_val": 6}, evaluate_on="validation")
    same, val, _ = datasets(spec, tmp_path)
    assert [s.name for s in val.samples] == [f"val/{n:06}.mp4" for n in range(6)]
    assert [s.group for s in val.samples] == [f"val/{n // 2 * 2:06}.mp4" for n in range(6)]
    for ours, theirs in ((train, same), (test, datasets(small(data={**PROBE, "num_val": 6}), tmp_path)[1])):
        videos = [[sample.path.read_bytes() for sample in each.samples] for each in (ours, theirs)]
        assert videos[0] == videos[1]
    seen = {sample.path.read_bytes() for each in (train, test) for sample in each.samples}
    assert not seen & {sample.path.read_bytes() for sample in val.samples}
    with pytest.raises(InputError, match="num_val: expected an even number"):
        small(data={**PROBE, "num_val": 3})
