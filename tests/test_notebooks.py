"""The notebooks run in a fresh kernel, and are stored as they were executed."""

import ast
import json
import os
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.experiments.sweep_records import BASE, write_cell, write_failure
from tests.experiments.sweep_records import jobs as sweep_jobs
from timesformer.errors import InputError
from timesformer_experiments.cli.notebooks import FOLDER, digest, execute, find_notebooks, main, problems, read
from timesformer_experiments.records.columns import NOT_DOCUMENTED

NAMES = (
    "01_first_steps",
    "02_ablation_results",
    "03_attention_maps",
    "04_your_own_scheme",
    "05_kernels",
    "06_your_sweep",
)
PATHS = [FOLDER / f"{name}.ipynb" for name in NAMES]


def test_all_are_there() -> None:
    assert find_notebooks() == PATHS


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_stored_as_executed(path: Path) -> None:
    assert problems(path) == []


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_reads_like_a_text(path: Path) -> None:
    """Begins with its title, and explains what it does."""
    cells = read(path)["cells"]
    assert cells[0]["cell_type"] == "markdown"
    assert cells[0]["source"].startswith("# ")
    words = sum(len(cell["source"].split()) for cell in cells if cell["cell_type"] == "markdown")
    assert words > 150


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_runs_in_a_fresh_kernel(path: Path) -> None:
    """Every second one from the repository's folder, the others from their own."""
    folder = FOLDER.parent if PATHS.index(path) % 2 else FOLDER
    stored, fresh = read(path), execute(path, folder)
    assert digest(fresh) == digest(stored)
    code = [[cell for cell in each["cells"] if cell["cell_type"] == "code"] for each in (stored, fresh)]
    for before, after in zip(*code, strict=True):
        assert all(output["output_type"] != "error" for output in after["outputs"])
        kinds = [  # what libraries say on standard error depends on the machine
            {output["output_type"] for output in cell["outputs"] if output.get("name") != "stderr"}
            for cell in (before, after)
        ]
        assert kinds[0] == kinds[1], after["source"]


# The notebook of any sweep: its cells without a kernel


SWEEP = FOLDER / "06_your_sweep.ipynb"


def parameters(**values: str) -> str:
    return "\n".join(f"{name} = {value!r}" for name, value in values.items())


def run_cells(path: Path, given: str) -> tuple[dict[str, Any], list[Any]]:
    """The variables after all code cells, of which the one of parameters is replaced, and what was displayed."""
    shown: list[Any] = []
    scope: dict[str, Any] = {}
    for cell in read(path)["cells"]:
        if cell["cell_type"] != "code":
            continue
        source = given if "parameters" in cell["metadata"].get("tags", []) else cell["source"]
        tree = ast.parse(source.replace("%matplotlib inline\n", ""))
        last = tree.body[-1]
        if isinstance(last, ast.Expr):  # a kernel shows the value of the last line
            tree.body[-1] = ast.parse("__shown__(None)").body[0]
            tree.body[-1].value.args = [last.value]  # type: ignore[attr-defined]
        scope["__shown__"] = shown.append
        exec(compile(ast.fix_missing_locations(tree), path.name, "exec"), scope)
    return scope, [each for each in shown if each is not None]


@pytest.mark.parametrize("sweep", ["finished", "unfinished", "costs", "alone"])
def test_the_notebook_of_any_sweep(
    sweep: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a folder elsewhere: with failures, unfinished, of costs alone, and of one scheme."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("matplotlib.pyplot.show", lambda: None)
    monkeypatch.setattr("IPython.display.display", lambda value: None)
    axes: dict[str, list[Any]] = {"model.attention": ["space", "divided"], "model.num_frames": [4, 8], "seed": [0, 1]}
    cells = {
        key: job for key, job in sweep_jobs(axes).items() if sweep != "alone" or "space" in job.spec.model.attention
    }
    if sweep == "unfinished":
        entries = [{"hash": key, "name": job.spec.name, "cell": dict(job.cell)} for key, job in cells.items()]
        (tmp_path / "cells.json").write_text(json.dumps({"cells": entries}))
    if sweep == "costs":
        del axes["seed"]
        cells = sweep_jobs(axes, base={"model": {**BASE["model"], "num_classes": 4}}, measure=["macs"])
    for number, job in enumerate(cells.values()):
        if sweep == "costs":
            counted = {"macs_per_view": 1000 + number, "views": 1}
            write_cell(tmp_path, job, scores=False, change=lambda m, new=counted: (m.clear(), m.update(new)))  # type: ignore[misc]
        elif number == 1 and sweep != "alone":
            write_failure(tmp_path, job)
        elif number != 2 or sweep != "unfinished":
            write_cell(tmp_path, job, change=lambda m: [m.pop(name) for name in list(m) if name[:4] not in ("top1",)])  # type: ignore[misc]
    scope, shown = run_cells(SWEEP, parameters(FOLDER=".", COMPARE=None))
    said = capsys.readouterr().out
    described, _, pivot, failures = shown
    assert NOT_DOCUMENTED not in set(described["meaning"])
    expected = {"finished": "7 done, 1 failed, 0 still", "unfinished": "6 done, 1 failed, 1 still",
                "costs": "4 done, 0 failed", "alone": "4 done, 0 failed"}  # fmt: skip
    assert expected[sweep] in said
    assert (scope["METRIC"] == "macs_per_view") is (sweep == "costs")
    assert pivot.shape == ((2, 1) if sweep == "alone" else (2, 2))
    assert len(failures) == 1
    assert bool(scope["report"].overall) is (sweep == "finished")  # else no seed in all settings
    assert ("no pair to test" in said) is (sweep in ("costs", "alone"))


@pytest.mark.slow
def test_the_notebook_of_any_sweep_runs_outside_the_repository(tmp_path: Path) -> None:
    notebook = read(SWEEP)
    given = FOLDER.parent / "results" / "sweeps" / "probe_grid"
    (cell,) = [each for each in notebook["cells"] if "parameters" in each["metadata"].get("tags", [])]
    cell["source"] = parameters(FOLDER=str(given), COMPARE="model.num_frames")
    nbformat.write(notebook, tmp_path / "mine.ipynb")
    done = execute(tmp_path / "mine.ipynb", tmp_path)
    texts = "".join(output.get("text", "") for each in done["cells"] for output in each.get("outputs", []))
    assert "compared: num_frames" in texts
    cell["source"] = parameters(FOLDER="gone", COMPARE=None)
    nbformat.write(notebook, tmp_path / "mine.ipynb")
    with pytest.raises(Exception, match="gone: no such folder; set FOLDER in the first cell"):
        execute(tmp_path / "mine.ipynb", tmp_path)


def small(path: Path, *sources: str) -> Path:
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


@pytest.mark.slow
def test_made_in_place_and_what_is_wrong_is_named(tmp_path: Path) -> None:
    path = small(tmp_path / "a.ipynb", "x = 3", "print(x)\nx")
    assert "it has no outputs" in problems(path)
    main([str(path)])
    assert problems(path) == []
    notebook = read(path)
    assert [output["output_type"] for output in notebook["cells"][1]["outputs"]] == ["stream", "execute_result"]
    notebook["cells"][0]["source"] = "x = 4"
    nbformat.write(notebook, path)
    assert problems(path) == ["its sources have changed since it was executed: run `make notebooks`"]
    main([str(small(tmp_path / "b.ipynb", "import os\nos.getcwd()"))])
    (problem,) = problems(tmp_path / "b.ipynb")
    assert problem.startswith("code cell 1 shows a path of a machine") or os.sep != "/"
    with pytest.raises(Exception, match="ZeroDivisionError"):
        execute(small(tmp_path / "c.ipynb", "1 / 0"))


def test_what_is_no_notebook_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.ipynb").write_text("{")
    with pytest.raises(InputError, match=r"a\.ipynb: expected a notebook"):
        read(tmp_path / "a.ipynb")
