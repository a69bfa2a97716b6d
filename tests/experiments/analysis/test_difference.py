"""The difference between two sweeps, and the command `report` for sweeps, differences and artefacts."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.experiments.report.test_report import NASTY, OUR_SCRIPT, example
from tests.experiments.sweep_records import AXES, BASE, SMALL, jobs, right_answers, write_cell, write_failure
from timesformer_experiments.analysis.difference import difference, write_difference
from timesformer_experiments.cli.main import app


def run(*words: Any) -> Any:
    return CliRunner().invoke(app, ["report", *map(str, words)])


def test_the_difference_of_a_folder_to_itself_is_none(tmp_path: Path) -> None:
    for job in jobs(AXES).values():
        write_cell(tmp_path, job)
    found = difference(tmp_path, tmp_path)
    assert found.counts() == {"same": 36, "changed": 0, "added": 0, "removed": 0}
    assert found.changes == ()
    assert {pair.matched_by for pair in found.pairs} == {"hash"}


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """Two sweeps: in the second the recipe is another, one cell has failed, one is new, one is gone."""
    recipes = ({"steps": steps, "batch_size": 4} for steps in (2, 3))
    before, after = (list(jobs(SMALL, base={**BASE, "recipe": recipe}).values()) for recipe in recipes)
    for job in before[:-1]:
        write_cell(tmp_path / "a", job)
    for job in after[1:-1]:
        write_cell(tmp_path / "b", job, change=lambda metrics: metrics.update(params=5, train_seconds=99.0))
    write_failure(tmp_path / "b", after[-1])
    write_cell(tmp_path / "b", next(iter(jobs({**SMALL, "model.depth": [3]}).values())))
    write_failure(tmp_path / "a", before[-1])
    return tmp_path / "a", tmp_path / "b"


def test_differences_are_matched_by_axes_with_intervals(two: tuple[Path, Path], tmp_path: Path) -> None:
    found = difference(*two)
    assert found.counts() == {"same": 0, "changed": 7, "added": 1, "removed": 1}
    assert {pair.matched_by for pair in found.pairs} == {"axes", "none"}
    changed = next(pair for pair in found.pairs if pair.state == "changed")
    assert set(changed.changed) == {"recipe.steps", "params"}
    assert changed.changed["recipe.steps"] == (2, 3)
    params = [change for change in found.changes if change.metric == "params"]
    assert {change.metric for change in found.changes} == {"params"}
    assert len(params) == 4
    assert params[-1].second == 5
    assert params[-1].low is None
    assert params[-1].percent == pytest.approx(-99.9995)
    files = write_difference(found, tmp_path / "out")
    assert {path.name for path in files} == {"diff.json", "diff.md", "diff.html", "diff_changes.csv", "diff_cells.csv"}
    stored = json.loads((tmp_path / "out" / "diff.json").read_text())
    assert stored["counts"]["changed"] == 7
    text, page = (tmp_path / "out" / "diff.md").read_text(), (tmp_path / "out" / "diff.html").read_text()
    assert "a → b: 0 same, 7 changed, 1 added, 1 removed." in text
    assert "recipe.steps: 2 → 3" in page
    assert page.count("<table") == 2


def test_the_page_of_a_difference_escapes_what_it_is_given(tmp_path: Path) -> None:
    first, second, *_ = jobs(SMALL).values()
    for folder in (tmp_path / "a", tmp_path / NASTY.replace("/", "")):
        write_cell(folder, first)
    write_cell(tmp_path / "a", second)
    write_failure(tmp_path / NASTY.replace("/", ""), second)
    write_difference(difference(tmp_path / "a", tmp_path / NASTY.replace("/", "")), tmp_path / "out")
    page = (tmp_path / "out" / "diff.html").read_text()
    assert page.count("<script") == page.count(OUR_SCRIPT) == 1
    assert page.count("&lt;script&gt;alert(") >= 3
    assert "{{ 7 * 7 }}" in page


def test_differences_of_accuracy_are_tested(tmp_path: Path) -> None:
    cells = jobs(SMALL)
    for job in cells.values():
        write_cell(tmp_path / "x" / "runs", job)
        worse = {"top1_percent": 100 * float(right_answers(job).mean()) - 10, "top1_low_percent": 1.0}
        write_cell(tmp_path / "y" / "runs", job, scores=False, change=lambda metrics, new=worse: metrics.update(new))
    found = difference(tmp_path / "x" / "runs", tmp_path / "y" / "runs")
    assert (found.first, found.second) == ("x/runs", "y/runs")
    assert {change.metric for change in found.changes} == {"top1_percent"}
    assert all(change.over == "seeds alone" and change.difference == pytest.approx(-10) for change in found.changes)
    # Two seeds that differ by the same amount do not prove a difference: they say nothing of the seeds' spread.
    assert found.changes[0].high > -10
    assert all(change.direction_p == 1 and change.verdict == "undecided" for change in found.changes)
    assert found.findings()[-1] == "Top-1 accuracy of 4 settings that changed, judged together: 4 undecided."
    outcome = difference(tmp_path / "x" / "runs", tmp_path / "x" / "runs")
    assert len(outcome.findings()) == 2 - 1


def test_an_outcome_that_changed_is_said(tmp_path: Path) -> None:
    first, second, *_ = jobs(SMALL).values()
    for job in (first, second):
        write_cell(tmp_path / "a", job)
    write_cell(tmp_path / "b", first)
    write_failure(tmp_path / "b", second)
    found = difference(tmp_path / "a", tmp_path / "b")
    assert found.findings()[1] == f"{second.name}: done → failed"
    assert found.counts() == {"same": 1, "changed": 1, "added": 0, "removed": 0}
    none = write_difference(difference(tmp_path / "a", tmp_path / "a"), tmp_path / "out")
    assert {path.name for path in none} == {"diff.json", "diff.md", "diff.html"}


def test_the_command_writes_beside_the_records_or_elsewhere(two: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = two
    done = run(first)
    assert done.exit_code == 0, done.output
    assert (first / "report.html").is_file()
    assert "7 runs finished, 1 failed" in done.output
    done = run(first, "--out", tmp_path / "out", "--json")
    found = json.loads(done.stdout)
    assert found["runs"] == 8
    assert len(found["summary"]) == 4
    assert found["comparisons"][0]["sentence"].startswith("depth 1: space ")
    assert all(Path(path).is_file() for path in found["files"])
    done = run("--diff", first, second)
    assert done.exit_code == 0, done.output
    assert "0 same, 7 changed, 1 added, 1 removed." in done.output
    done = run("--diff", first, second, "--json", "--out", tmp_path / "diff")
    assert json.loads(done.stdout)["counts"]["added"] == 1
    assert (tmp_path / "diff" / "diff.html").is_file()


def test_the_command_still_makes_artefacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "table1" / "full"
    for job in jobs(SMALL).values():
        write_cell(target, job)
    made = []
    monkeypatch.setattr(
        "timesformer_experiments.paper.reproduce.rebuild", lambda *words: (made.append(words), (example(), []))[1]
    )
    for words in ((target,), (tmp_path,), ("table1", "--out", tmp_path), ("all", "--out", tmp_path)):
        done = run(*words)
        assert done.exit_code == 0, done.output
        artefact, profile, out = made.pop()
        assert (artefact.name, profile, out) == ("table1", "full", tmp_path)
        assert made == []
    done = run(target, "--out", tmp_path / "out")  # its records as those of any runs
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / "comparisons.csv").is_file()
    assert made == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nowhere",), r"nowhere: expected a folder with records, or one of .*figure3, .*, all"),
        (("table1", "--out", "nowhere"), r"--out nowhere: no results of table1 in this folder"),
        (("all", "--compare", "seed"), r"--compare seed: expected only with a folder of records"),
        (("--diff", "nowhere", "nowhere"), r"nowhere: no records there"),
    ],
)
def test_bad_input_is_said(words: tuple[str, ...], said: str) -> None:
    done = run(*words)
    assert done.exit_code == 2
    assert re.search(said, done.stderr)


def test_results_that_cannot_be_written_are_said(two: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = run(two[0], "--out", tmp_path / "file")
    assert done.exit_code == 2
    assert "cannot write results into this folder" in done.stderr
