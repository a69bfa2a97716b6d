"""Several artefacts together: each run is made once, in one go, and nothing before all results can be written."""

from pathlib import Path
from typing import Any

import pytest

from experiments import reproduce
from experiments.paper import Folders, load
from experiments.spec import RunSpec
from timesformer.errors import InputError


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Hashes of the runs of each call that would train."""
    calls: list[list[str]] = []

    def run_all(specs: list[RunSpec], *places: Any, **words: Any) -> list[dict[str, Any]]:
        calls.append([spec.hash() for spec in specs])
        return []

    monkeypatch.setattr("experiments.runner.run_all", run_all)
    return calls


def folders(place: Path) -> Folders:
    return Folders(data=place / "data", runs=place / "runs", out=place / "out")


def test_runs_that_artefacts_share_are_made_once(made: list[list[str]], tmp_path: Path) -> None:
    wanted = [load(name) for name in ("table4", "order", "figure3")]
    said: list[str] = []
    reproduce.train_together(wanted, "smoke", folders(tmp_path), 1, said.append)
    expected = [spec.hash() for artefact in wanted for spec in artefact.plan("smoke")]
    assert made == [list(dict.fromkeys(expected))]
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
