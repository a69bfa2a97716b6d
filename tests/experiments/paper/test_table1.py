"""Table 1: what it trains, what it makes of records, and the whole way from encoded videos to the page."""

import csv
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from tests.experiments.paper.experiments_records import record_of
from timesformer.checkpoints import load_model
from timesformer.config.counting import macs_per_view
from timesformer.data.probes.diagnostics import CHEAP
from timesformer.errors import InputError
from timesformer_experiments.cli.main import app
from timesformer_experiments.cost import count as cost
from timesformer_experiments.jobs import attempt as jobs
from timesformer_experiments.paper.artefact import PROFILES, Profile
from timesformer_experiments.paper.artefacts.tables import table1
from timesformer_experiments.paper.artefacts.tables.table1 import ABLATION
from timesformer_experiments.paper.registry import load, names
from timesformer_experiments.paper.setting import PROBES, SETTINGS
from timesformer_experiments.report.report import Report


@pytest.fixture(autouse=True)
def one_count() -> Iterator[None]:
    """Without the second count of MACs, which is tested elsewhere and takes most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost, "fvcore_macs", lambda model, inputs, repeats=None: macs_per_view(model.model.config))
        yield


MOTION = {"space": 196, "joint": 384, "divided": 360, "local_global": 356, "axial": 340}
"""Of 400 test videos, those that are right; with each seed one percent more."""


def records(profile: Profile, **motion: int) -> list[dict[str, Any]]:
    """Of every run of a profile: `motion` of the videos of `motion` are right, 388 of those of `appearance`."""
    right = MOTION | motion
    found = []
    for cell in ABLATION.cells(profile):
        count = right[cell.variant] + 4 * cell.seed if cell.part == "motion" else 388
        found.append(record_of(cell.spec, [video < count for video in range(400)]))
    return found


def without(found: list[dict[str, Any]], name: str, **other: Any) -> list[dict[str, Any]]:
    """The records without that of a name, or with other fields in it."""
    (one,) = [each for each in found if each["name"] == name]
    return [*(each for each in found if each is not one), *([one | other] if other else [])]


@pytest.fixture(scope="module")
def one_seed() -> Report:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost, "fvcore_macs", lambda model, inputs, repeats=None: macs_per_view(model.model.config))
        return load("table1").report(records("quick"), "quick")


def test_it_is_found_by_its_file() -> None:
    assert {"figure3", "table1"} <= set(names())
    with pytest.raises(InputError, match=", ".join(names())):
        load("table9")


@pytest.mark.parametrize("profile", PROFILES)
def test_every_scheme_starts_from_the_image_model_of_its_seed(profile: Profile) -> None:
    specs = ABLATION.plan(profile)
    stills = [spec for spec in specs if spec.init_from is None]
    assert [spec.seed for spec in stills] == list(range(SETTINGS[profile].seeds))
    assert all(spec.data.stills and spec.model.num_frames == 1 for spec in stills)
    assert len(specs) == len({spec.hash() for spec in specs}) == len(stills) * (1 + 5 * 2)
    for spec in specs:
        if spec.init_from is not None:
            assert spec.init_from == stills[spec.seed]
            assert spec.model.num_frames == 8


def test_motion_is_never_flipped() -> None:
    motion = [cell.spec for cell in ABLATION.cells("quick") if cell.part == "motion"]
    assert len(motion) == 5
    assert not any(spec.data.flip for spec in motion)


def test_columns_of_the_paper_stand_beside_ours(one_seed: Report) -> None:
    frame = one_seed.table.frame.set_index("attention")
    assert list(frame.index) == list(table1.SCHEMES)
    assert (frame["counted_params"] / 1e6).round(1).tolist() == frame["published_params_millions"].tolist()
    assert frame.loc["divided", "counted_tflops_total"] == pytest.approx(0.59, abs=0.005)
    assert frame["published_tflops_total"].notna().tolist() == [False, False, True, False, False]
    assert frame["published_k400_top1_percent"].tolist() == [76.9, 77.4, 78.0, 75.9, 73.5]
    assert frame["published_ssv2_top1_percent"].tolist() == [36.6, 58.5, 59.5, 56.3, 56.2]
    assert frame["measured_motion_top1_percent"].tolist() == [count / 4 for count in MOTION.values()]
    # 384 of 400 videos, so 192 of 200 pairs, are right: a plain t over the pairs.
    half = 1.97196 * 100 * (192 * 8 / 200 / 199 / 200) ** 0.5
    assert frame.loc["joint", "measured_motion_top1_low_percent"] == pytest.approx(96 - half, abs=1e-3)
    assert set(frame["measured_motion_interval_over"]) == {"test videos alone"}
    for column in one_seed.table.columns:
        assert column.origin == "label" or column.key.startswith(column.origin)


def test_findings_follow_from_the_numbers(one_seed: Report) -> None:
    text = " ".join(one_seed.findings)
    assert "5 of 5 as printed" in text
    assert "space reaches 49.0 % and does not pass" in text
    assert "axial, is 36.0 points above space" in text
    assert "joint, divided, local_global, axial, space; the intervals of the first two overlap" in text
    apart = " ".join(load("table1").report(records("quick", joint=400), "quick").findings)
    assert "the intervals of the first two do not overlap" in apart


def test_passing_the_ceiling_is_said() -> None:
    passing = load("table1").report(records("quick", space=260), "quick")
    assert "and passes the order-blind ceiling of 50 % by more than its interval" in " ".join(passing.findings)


def test_without_doubt_nothing_is_said_of_chance(one_seed: Report) -> None:
    assert "top-1 accuracy, chance 12.5 %" in one_seed.table.caption
    assert "Above chance" not in {column.title for column in one_seed.table.columns}


def test_what_is_not_above_chance_is_undecided() -> None:
    report = load("table1").report(records("quick", space=56), "quick")
    assert "Above chance" in {column.title for column in report.table.columns}
    frame = report.table.frame.set_index("attention")
    assert frame["measured_above_chance"].tolist() == ["undecided on motion", "yes", "yes", "yes", "yes"]
    assert any("Space (S): undecided on motion" in line for line in report.findings)


def test_seeds_are_averaged_with_their_interval() -> None:
    row = ABLATION.frame(ABLATION.measured(records("full"), "full"), {}).set_index("attention").loc["joint"]
    assert row["measured_motion_top1_percent"] == pytest.approx(97.0)
    assert row["measured_motion_interval_over"] == "seeds and test videos"
    assert row["measured_motion_top1_high_percent"] - 97.0 > 4.3027 / 3**0.5  # that of the seeds alone
    assert row["measured_motion_each_seed_percent"] == "96.0 97.0 98.0"
    assert row["measured_motion_seeds"] == 3


AXIAL = "table1-quick-motion-axial-s0"


@pytest.mark.parametrize("other", [{}, {"outcome": "failed"}, {"hash": "of another run"}])
def test_records_without_a_finished_run_are_refused(other: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="table1: no finished run of axial on motion with seed 0"):
        ABLATION.measured(without(records("quick"), AXIAL, **other), "quick")


def test_an_accuracy_that_cannot_be_is_refused() -> None:
    impossible = without(records("quick"), AXIAL, metrics={"top1_percent": 412.5, "test_videos": 400})
    with pytest.raises(InputError, match=r"run \w+: top1_percent: expected 0 to 100, got 412\.5"):
        ABLATION.measured(impossible, "quick")


def command(folder: Path) -> list[str]:
    places = ["--out", str(folder / "results"), "--runs", str(folder / "runs")]
    return ["reproduce", "table1", "--profile", "smoke", "--jobs", "1", *places]


def test_reproduce_leaves_table_figure_page_records_and_model(table1_at_smoke: tuple[Path, dict[str, Any]]) -> None:
    folder, shown = table1_at_smoke
    results = folder / "results"
    files = {path.name for path in (results / "table1" / "smoke").iterdir()}
    assert files == {
        "table1.csv", "table1.md", "table1.png", "report.html", "records.jsonl",
        "classes.csv", "confusion.png", "curves.parquet", "learning_curves_appearance.png",
        "learning_curves_motion.png", "learning_curves_stills_of_appearance.png",
    }  # fmt: skip
    assert {str(path) for path in results.rglob("*") if path.is_file()} == set(shown["artefacts"][0]["files"])
    rows = list(csv.DictReader((results / "table1" / "smoke" / "table1.csv").open()))
    stored = {r["name"]: r for r in map(json.loads, (results / "table1/smoke/records.jsonl").read_text().splitlines())}
    assert len(stored) == 11
    for row in rows:
        of_run = stored[f"table1-smoke-motion-{row['attention']}-s0"]["metrics"]["top1_percent"]
        assert float(row["measured_motion_top1_percent"]) == of_run
    model = load_model(results / "checkpoints" / "divided-motion")
    assert model.model.config.attention == "divided"
    assert model.labels[0] == "left"
    for probe in PROBES:
        facts = json.loads((results / "probes" / f"{probe}-smoke.json").read_text())
        assert list(facts["cheap_classifiers"]) == list(CHEAP)


@pytest.mark.parametrize(
    ("there", "kept"),
    [
        (None, True),
        ({"name": "table1-smoke-motion-divided-s0"}, True),
        ({"name": "table1-quick-motion-divided-s0"}, True),
        ({"name": "table1-full-motion-divided-s0"}, False),
        ({"name": "mine"}, False),
        ({}, False),
    ],
)
def test_a_model_takes_the_place_of_one_of_its_own_or_a_smaller_profile(
    there: dict[str, str] | None, kept: bool, tmp_path: Path
) -> None:
    model, target = tmp_path / "model", tmp_path / table1.CHECKPOINT
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"weights")
    if there is not None:
        target.mkdir(parents=True)
        (target / "config.json").write_text("{}")
        (target / "provenance.json").write_text(json.dumps(there))
    files = table1.keep_model(model, target, "quick")
    assert bool(files) == (target / "model.safetensors").is_file() == kept


def test_a_second_call_trains_nothing(
    table1_at_smoke: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, shown = table1_at_smoke

    def no_training(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a finished run was started again")

    monkeypatch.setattr(jobs, "train_and_evaluate", no_training)
    done = CliRunner().invoke(app, [*command(folder), "--json"])
    assert done.exit_code == 0, done.output
    first, second = shown["artefacts"][0], json.loads(done.stdout)["artefacts"][0]
    assert pd.DataFrame(second["rows"]).equals(pd.DataFrame(first["rows"]))


def test_report_rebuilds_the_files_from_the_records(table1_at_smoke: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = table1_at_smoke
    results = folder / "results"
    before = {path: path.read_bytes() for path in (results / "table1" / "smoke").iterdir()}
    for path in before:
        if path.name not in ("records.jsonl", "curves.parquet"):
            path.unlink()
    done = CliRunner().invoke(app, ["report", "--out", str(results)])
    assert done.exit_code == 0, done.output
    assert {path: path.read_bytes() for path in before} == before


def test_unwritable_results_stop_it_before_training(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("in the way")
    done = CliRunner().invoke(app, command(tmp_path))
    assert done.exit_code == 2
    assert "cannot write results into this folder" in done.stderr
    assert str(tmp_path / "results") in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_smoke_profile_as_a_user_starts_it(tmp_path: Path) -> None:
    """Two processes, both counts; interrupted after the first finished run and started again."""
    places = ["--out", str(tmp_path / "results"), "--runs", str(tmp_path / "runs")]
    words = [
        sys.executable,
        "-m",
        "timesformer_experiments.cli.main",
        "reproduce",
        "table1",
        "--profile",
        "smoke",
        "--jobs",
        "2",
        *places,
    ]
    first = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not list((tmp_path / "runs").glob("*/record.json")) and time.monotonic() < deadline:
        time.sleep(0.1)
    first.send_signal(signal.SIGINT)
    first.wait(timeout=300)
    finished = {path: path.read_bytes() for path in (tmp_path / "runs").glob("*/record.json")}
    assert finished
    second = subprocess.run(words, capture_output=True, text=True)
    assert second.returncode == 0, second.stderr
    assert all(path.read_bytes() == content for path, content in finished.items())
    assert "Divided Space-Time (T+S)" in second.stdout
    assert (tmp_path / "results" / "table1" / "smoke" / "report.html").is_file()
