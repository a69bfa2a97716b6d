"""A table for a paper: chosen columns, display names, plain numbers, the best in bold, seeds in the caption."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.experiments.sweep_records import write_sweep
from timesformer_experiments.cli.main import app

AXES: dict[str, list[Any]] = {"model.attention": ["space", "divided"], "model.num_frames": [4, 8], "seed": [0, 1, 2]}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    write_sweep(folder, AXES, scores=False)
    return folder


def table(sweep: Path, out: Path, *words: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["report", str(sweep), "--out", str(out.parent / "report"), *words])
    assert done.exit_code == code, done.output
    return out.read_text() if code == 0 else done.stderr


def test_columns_names_bold_and_seeds(sweep: Path, tmp_path: Path) -> None:
    words = ["--latex", str(tmp_path / "mine.tex"), "--columns", "attention,num_frames,top1_percent,tflops_total"]
    words += ["--name", "attention=Scheme & co", "--name", "divided=T+S", "--name", "top1_percent=Top-1 (%)"]
    text = table(sweep, tmp_path / "mine.tex", *words)
    lines = text.splitlines()
    head = lines[lines.index(r"\toprule") + 1]
    assert head.startswith(r"Scheme \& co & num\_frames & Top-1 (\%) & ")
    rows = lines[lines.index(r"\midrule") + 1 : lines.index(r"\bottomrule")]
    assert [row.split(" & ")[0] for row in rows] == ["Space", "Space", "T+S", "T+S"]
    accuracies = [row.split(" & ")[2] for row in rows]
    values = [float(cell.removeprefix(r"\textbf{").split()[0].rstrip("}")) for cell in accuracies]
    assert [cell.startswith(r"\textbf{") for cell in accuracies] == [value == max(values) for value in values]
    costs = [row.split(" & ")[3].removesuffix(r" \\") for row in rows]
    assert [cell.startswith(r"\textbf{") for cell in costs] == [True, False, True, False]  # four frames cost least
    assert "superscript" not in text
    assert r"\caption{Means over 3 seeds; accuracies with their 95 \% interval over seeds alone. Best" in text
    assert r"\label{tab:mine}" in text


def test_every_column_by_default(sweep: Path, tmp_path: Path) -> None:
    text = table(sweep, tmp_path / "all.tex", "--latex", str(tmp_path / "all.tex"))
    assert r"\begin{tabular}{@{}llr" in text
    assert text.count(r"\\") == 5


def test_what_does_not_fit_is_named(sweep: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.tex"
    for words, said in (
        (["--latex", str(out), "--columns", "attention,top2"], "--columns: 'top2' is none of attention, num_frames, "),
        (["--latex", str(out), "--name", "attention"], "--name attention: expected OLD=NEW"),
        (["--latex", "t.txt"], "expected a name that ends in .tex"),
        (["--columns", "attention"], "expected only with --latex"),
    ):
        assert said in table(sweep, out, *words, code=2)
