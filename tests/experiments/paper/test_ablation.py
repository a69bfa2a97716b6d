"""What the artefacts that train share: their runs, what is made of records, and every artefact from its smoke runs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.experiments.paper.experiments_records import record_of
from timesformer.config.registry import macs_per_view
from timesformer.errors import InputError
from timesformer.evaluation.scores import read_scores
from timesformer_experiments.cli.main import app
from timesformer_experiments.cost import count as cost
from timesformer_experiments.jobs import attempt as jobs
from timesformer_experiments.paper.ablation import Ablation
from timesformer_experiments.paper.artefact import PROFILES, Profile
from timesformer_experiments.paper.artefacts.ablations import order
from timesformer_experiments.paper.artefacts.tables import table1, table4
from timesformer_experiments.paper.drawing import draw_dots
from timesformer_experiments.paper.gate import KIND
from timesformer_experiments.paper.registry import chosen, load, names
from timesformer_experiments.paper.variants import Variant
from timesformer_experiments.records.hits import hits_of, with_hits
from timesformer_experiments.report.report import Report
from timesformer_experiments.specs.run import RunSpec

RESULTS = Path(__file__).parents[3] / "results"


@pytest.fixture(autouse=True)
def one_count() -> Iterator[None]:
    """Without the second count of MACs, which is tested elsewhere and takes most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            cost,
            "fvcore_macs",
            lambda model, inputs, repeats=None: macs_per_view(getattr(model, "model", model).config),
        )
        yield


def records(ablation: Ablation, profile: Profile, right: dict[tuple[str, str], int]) -> list[dict[str, Any]]:
    """Of 200 test videos the first `right[variant, probe]` are right, one more with each seed."""
    return [
        record_of(cell.spec, [video < right[cell.variant, cell.part] + cell.seed for video in range(200)])
        for cell in ablation.cells(profile)
    ]


POSITIONS = {
    ("none", "appearance"): 160, ("space", "appearance"): 170, ("space_time", "appearance"): 172,
    ("none", "motion"): 24, ("space", "motion"): 50, ("space_time", "motion"): 180,
}  # fmt: skip


@pytest.fixture(scope="module")
def positions() -> Report:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            cost,
            "fvcore_macs",
            lambda model, inputs, repeats=None: macs_per_view(getattr(model, "model", model).config),
        )
        return load("table4").report(records(table4.ABLATION, "full", POSITIONS), "full")


@pytest.mark.parametrize("profile", PROFILES)
def test_what_is_the_same_run_is_trained_once(profile: Profile) -> None:
    """Table 4's last row and the first of the order are Table 1's divided runs, and all share their image models."""
    first = {spec.hash(): spec for spec in table1.ABLATION.plan(profile)}
    divided = {spec.name: key for key, spec in first.items() if "-divided-" in spec.name}
    for ablation, row in ((table4.ABLATION, "space_time"), (order.ABLATION, "divided")):
        cells = [cell for cell in ablation.cells(profile) if cell.variant == row]
        assert {cell.spec.name: cell.spec.hash() for cell in cells} == divided
        images = {spec.hash() for spec in ablation.plan(profile) if spec.init_from is None}
        assert images == {key for key, spec in first.items() if spec.init_from is None}


def test_an_image_model_has_the_width_and_patches_of_what_starts_from_it() -> None:
    shape = {"model.patch_size": 16, "model.embed_dim": 32, "model.position": "none"}
    ablation = Ablation(
        "shape",
        "Shape",
        "Shape",
        (
            Variant("small", "small", shape),
            Variant("nothing", "from nothing", image=None),
            Variant("few", "few stills", image={"data.num_train": 8}),
            Variant("through", "through the other probe", through="other"),
        ),
        base="small",
    )
    runs = {(cell.variant, cell.part): cell.spec for cell in ablation.cells("smoke")}
    small = runs["small", "motion"].init_from
    assert isinstance(small, RunSpec)
    assert (small.model.patch_size, small.model.embed_dim, small.model.position) == (16, 32, None)
    assert runs["nothing", "motion"].init_from is None
    few = runs["few", "motion"].init_from
    assert isinstance(few, RunSpec)
    assert few.data.num_train == 8  # type: ignore[union-attr]
    between = runs["through", "motion"].init_from
    assert isinstance(between, RunSpec)
    assert between.hash() in {
        spec.hash() for spec in table1.ABLATION.plan("smoke") if "appearance-divided" in spec.name
    }
    runs_images_between = (8, 3, 2)
    assert len({spec.hash() for spec in ablation.plan("smoke")}) == sum(runs_images_between)


def test_published_values_stand_beside_ours(positions: Report) -> None:
    frame = positions.table.frame.set_index("variant")
    assert frame["published_ssv2_top1_percent"].tolist() == [45.8, 52.5, 59.5]
    assert frame["published_k400_top1_percent"].tolist() == [75.4, 77.8, 78.0]
    assert frame.loc["space_time", "measured_motion_top1_percent"] == pytest.approx(100 * 181 / 200)
    assert frame["measured_motion_seeds"].tolist() == [3, 3, 3]
    assert frame["measured_motion_test_videos"].tolist() == [200, 200, 200]
    # A position is a vector: 8 of them in time, 197 of them (with the class token's) in space.
    params = frame["counted_params"]
    assert params["space_time"] - params["space"] == 8 * 768
    assert params["space"] - params["none"] == 197 * 768
    for column in positions.table.columns:
        assert column.origin == "label" or column.key.startswith(column.origin)


def test_records_that_cannot_be_are_refused() -> None:
    found = records(table4.ABLATION, "full", POSITIONS)
    run, said = found[0]["hash"], found[0]["metrics"]
    right = round(2 * said["top1_percent"])
    said["top1_percent"] += 5
    wrong = f"run {run}: top1_percent is {said['top1_percent']:g}, but according to test_right {right} of 200 videos"
    with pytest.raises(InputError, match=wrong):
        load("table4").report(found, "full")
    said["top1_percent"] = 412.5
    with pytest.raises(InputError, match=f"run {run}: top1_percent: expected 0 to 100, got 412.5"):
        load("table4").report(found, "full")


def test_differences_are_tested_and_set_beside_the_papers(positions: Report) -> None:
    found = [line for line in positions.findings if line.startswith("on motion: space only")]
    assert len(found) == 1
    assert "difference −65.0 points" in found[0]
    assert ": space and time is better (the 3 seeds do not differ: the interval is that of the test vi" in found[0]
    assert found[0].endswith(". In the paper, on SSv2: −7.0 points.")
    assert "for new seeds and new test videos (direction p" in found[0]
    near = next(line for line in positions.findings if line.startswith("on appearance: space only"))
    assert "difference −1.0 points" in near
    assert "In the paper, on K400: −0.2 points." in near


def test_differences_that_the_paper_states_as_such() -> None:
    right = {(variant.key, probe): 150 for variant in order.ABLATION.variants for probe in ("appearance", "motion")}
    report = order.ABLATION.report(records(order.ABLATION, "quick", right), "quick")
    lines = " ".join(report.findings)
    assert "space, then time 75.0 % and time, then space 75.0 %: difference 0.0 points" in lines
    said = "for new test videos alone, there is one seed: these two models are not told apart."
    assert f"{said} In the paper, on SSv2: −0.5 points." in lines
    assert "p =" not in lines
    assert "In the paper: −0.4 points." in lines
    assert "published_difference_points" in {column.key for column in report.table.columns}
    # `quick` leaves one run of this table out, and the caption says what the gap is.
    assert report.table.caption.count("accuracies shown as – were not trained in this profile") == 1


def test_without_gaps_nothing_is_said_of_them(positions: Report) -> None:
    assert "accuracies shown as –" not in positions.table.caption


def test_a_long_label_of_an_axis_is_wrapped(positions: Report) -> None:
    title = "Positions that the model holds, in space as well as in time"
    axis = draw_dots(positions.table.frame, table4.ABLATION.probes, title).axes[0]
    assert axis.get_ylabel().split() == title.split()
    assert max(map(len, axis.get_ylabel().splitlines())) <= 28


def test_accuracies_at_chance_are_said_to_be_undecided(positions: Report) -> None:
    """24 of 200 right is chance, 12.5 % with eight classes; of 50 and one more with each seed the interval is above."""
    frame = positions.table.frame.set_index("variant")
    assert frame.loc["none", "measured_above_chance"] == "undecided on motion"
    assert frame.loc["space", "measured_above_chance"] == "yes"
    assert "Above chance" in {column.title for column in positions.table.columns}
    said = "Undecided, because the interval does not lie above chance: none: undecided on motion."
    assert said in positions.findings


def test_a_probe_that_a_cheap_classifier_nearly_solves_is_named() -> None:
    right = {(variant.key, probe): 150 for variant in order.ABLATION.variants for probe in ("appearance", "motion")}
    cheap = {"kind": KIND, "probe": "motion", "classifier": "frame differences", "top1_percent": 71.0}
    found = order.ABLATION.report([*records(order.ABLATION, "quick", right), cheap], "quick")
    said = "a classifier of frame differences reaches 71.0 %, the best scheme 75.0 %"
    assert found.findings[-1].startswith(f"On motion schemes are not ranked: {said}.")
    assert cheap not in found.records
    assert order.ABLATION.schemes() == {"divided", "divided_st", "divided_parallel"}
    assert table4.ABLATION.beside(RESULTS, "full") == []  # its variants have one scheme
    assert {each["probe"] for each in table1.ABLATION.beside(RESULTS, "full")} == {"appearance", "motion"}


def test_missing_runs_are_named() -> None:
    found = records(table4.ABLATION, "quick", POSITIONS)
    with pytest.raises(InputError, match="table4: no finished run of space_time on motion with seed 0"):
        table4.ABLATION.report(found[:-1], "quick")
    with pytest.raises(InputError, match="space_time on motion"):
        table4.ABLATION.report([*found[:-1], {**found[-1], "outcome": "failed"}], "quick")


def test_names_groups_and_all() -> None:
    assert chosen(["main"]) == ("table1", "figure3", "memory")
    assert chosen(["memory", "main", "table4"]) == ("memory", "table1", "figure3", "table4")
    assert chosen(["all"]) == names()
    tables = [f"table{number}" for number in range(1, 9)]
    assert names()[:10] == ("table1", "table1_tuned", *tables[1:], "figure3")
    with pytest.raises(InputError, match=r"artefact 'table9': expected one or more of .*main, all"):
        chosen(["table9"])


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders that the artefacts of this module share: what they have in common is trained once."""
    return tmp_path_factory.mktemp("artefacts")


def reproduce(places: Path, *wanted: str) -> dict[str, Any]:
    words = ["reproduce", *wanted, "--profile", "smoke", "--jobs", "1", "--json"]
    done = CliRunner().invoke(app, [*words, "--out", str(places / "results"), "--runs", str(places / "runs")])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_from_videos_to_page(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (made,) = reproduce(places, "table4")["artefacts"]
    results = places / "results" / "table4" / "smoke"
    assert {path.name for path in results.iterdir()} == {
        "table4.csv", "table4.md", "table4.png", "report.html", "records.jsonl",
        "classes.csv", "confusion.png", "curves.parquet", "learning_curves_appearance.png",
        "learning_curves_motion.png", "learning_curves_stills_of_appearance.png",
    }  # fmt: skip
    stored = [json.loads(line) for line in (results / "records.jsonl").read_text().splitlines()]
    for each in stored:  # which videos were right, in the record and in the run's scores
        rows = read_scores(places / "runs" / each["hash"] / "scores.parquet").per_video.sort_values("path")
        assert list(hits_of(each).values()) == (rows["prediction"] == rows["label"]).tolist()
    before = {path: path.read_bytes() for path in results.iterdir()}

    def no_training(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a finished run was started again")

    monkeypatch.setattr(jobs, "train_and_evaluate", no_training)
    (again,) = reproduce(places, "table4")["artefacts"]
    assert again["rows"] == made["rows"]
    done = CliRunner().invoke(app, ["report", "--out", str(places / "results")])
    assert done.exit_code == 0, done.output
    assert {path: path.read_bytes() for path in before} == before


def test_a_run_without_scores_says_nothing_of_videos(tmp_path: Path) -> None:
    plain = {"hash": "0" * 16, "metrics": {"test_videos": 3}}
    assert with_hits(plain, tmp_path) == plain
    assert hits_of(plain) == {}


TRAINED = [name for name in names() if name not in ("table1", "table4", "figure3", "memory")]


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_every_artefact_at_smoke(name: str, places: Path) -> None:
    (made,) = reproduce(places, name)["artefacts"]
    assert made["rows"]
    assert made["findings"]
    page = (places / "results" / name / "smoke" / "report.html").read_text()
    assert "data:image/png;base64," in page
