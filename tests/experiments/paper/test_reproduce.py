"""Several artefacts together: each run is made once, in one go, and nothing before all results can be written."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from timesformer.errors import InputError
from timesformer_experiments.cli.main import app
from timesformer_experiments.paper import reproduce
from timesformer_experiments.paper.artefact import Artefact, Folders, Profile
from timesformer_experiments.paper.registry import load
from timesformer_experiments.report.report import Report
from timesformer_experiments.report.style import new_figure
from timesformer_experiments.report.tables import Column, Table
from timesformer_experiments.specs.run import RunSpec


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Hashes of the runs of each call that would train."""
    calls: list[list[str]] = []

    def run_all(specs: list[RunSpec], *places: Any, **words: Any) -> list[dict[str, Any]]:
        calls.append([spec.hash() for spec in specs])
        return []

    monkeypatch.setattr("timesformer_experiments.jobs.plan.run_all", run_all)
    return calls


def folders(place: Path) -> Folders:
    return Folders(data=place / "data", runs=place / "runs", out=place / "out")


def test_runs_that_artefacts_share_are_made_once(made: list[list[str]], tmp_path: Path) -> None:
    wanted = [load(name) for name in ("table4", "order", "figure3")]
    said: list[str] = []
    reproduce.train_together(wanted, "smoke", folders(tmp_path), 1, said.append)
    expected = [spec.hash() for artefact in wanted for spec in artefact.plan("smoke")]
    assert sorted(made[0]) == sorted(set(expected))
    assert len(made) == 1
    images = {spec.hash() for spec in wanted[0].plan("smoke") if spec.init_from is None}
    assert set(made[0][: len(images)]) == images  # all others wait for them
    assert len(made[0]) < len(expected)
    assert said == [
        f"3 tables and figures, smoke: {len(made[0])} runs; those finished before are taken from {tmp_path / 'runs'}"
    ]


def test_nothing_is_trained_for_results_that_cannot_be_written(made: list[list[str]], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "order").write_text("in the way")
    with pytest.raises(InputError, match="order"):
        reproduce.train_together([load("table4"), load("order")], "smoke", folders(tmp_path), 1)
    assert made == []


def test_without_runs_nothing_is_said(made: list[list[str]], tmp_path: Path) -> None:
    said: list[str] = []
    reproduce.train_together([load("figure3"), load("table6")], "quick", folders(tmp_path), 1, said.append)
    assert made == []
    assert said == []


def stub(name: str) -> Artefact:
    """An artefact for which nothing is trained or counted."""
    frame = pd.DataFrame([{"name": name, "counted_params": 7}])
    table = Table(
        frame, (Column("name", "Name", "label"), Column("counted_params", "Parameters", "counted")), "Caption"
    )

    def report(records: Any, profile: Profile) -> Report:
        return Report(name, f"Title of {name}", table, new_figure(2, 2, panels=1)[0], (), (), ())

    return Artefact(name, f"Title of {name}", lambda profile: (), report)


def test_several_artefacts_have_one_page_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timesformer_experiments.paper.registry.load", stub)
    out = tmp_path / "out"

    def shown(*words: str) -> dict[str, Any]:
        done = CliRunner().invoke(app, [*words, "--out", str(out), "--json"])
        assert done.exit_code == 0, done.output
        found = json.loads(done.stdout)
        assert isinstance(found, dict)
        return found

    page, runs = out / "smoke.html", ("--profile", "smoke", "--runs", str(tmp_path / "runs"))
    assert shown("reproduce", "table6", *runs)["pages"] == []
    assert not page.exists()
    assert shown("reproduce", "table6", "table7", *runs)["pages"] == [str(page)]
    before = page.read_text()
    assert before.index("Title of table6") < before.index("Title of table7")
    page.unlink()
    assert shown("report", "all")["pages"] == [str(page)]
    assert page.read_text() == before
    done = CliRunner().invoke(app, ["report", str(out / "table6"), "--json"])
    assert [made["artefact"] for made in json.loads(done.stdout)["artefacts"]] == ["table6"]
