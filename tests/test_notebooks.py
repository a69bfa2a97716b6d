"""The notebooks run in a fresh kernel, and are stored as they were executed."""

import os
from pathlib import Path

import nbformat
import pytest

from timesformer.errors import InputError
from timesformer_experiments.cli.notebooks import FOLDER, digest, execute, find_notebooks, main, problems, read

NAMES = ("01_first_steps", "02_ablation_results", "03_attention_maps", "04_your_own_scheme", "05_kernels")
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
