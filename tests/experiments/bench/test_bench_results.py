"""The benchmark of reading records."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from timesformer.attention import names
from timesformer_experiments.bench import results as bench_results
from timesformer_experiments.cli.main import app
from timesformer_experiments.records.read import load_results
from timesformer_experiments.report.tables import to_markdown


def test_records_are_those_of_a_sweep_and_all_come_back(tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").write_text(bench_results.made_up_log(400))
    frame = load_results(tmp_path)
    assert len(frame) == frame["hash"].nunique() == 400
    assert set(frame["model.attention"]) == set(frame["cell.model.attention"]) == set(names())
    assert set(frame["model.num_frames"]) == set(bench_results.FRAMES)
    assert not frame.duplicated(["model.attention", "model.num_frames", "seed"]).any()
    assert frame["top1_percent"].between(frame["top1_low_percent"], frame["top1_high_percent"]).all()
    assert frame["params"].nunique() == 400


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = bench_results.run
    monkeypatch.setattr(bench_results, "run", lambda **options: run(50, **options))
    words = ["bench", "--only", "results", "--repetitions", "3", "--out", str(tmp_path), "--json"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    assert record == json.loads((tmp_path / "results.json").read_text())
    assert (record["records"], len(record["load_seconds"])) == (50, 3)
    assert record["load_median_seconds"] == sorted(record["load_seconds"])[1] > 0
    assert record["log_bytes"] > 50_000
    late = record | {"load_median_seconds": 3.0, "reached": False}
    assert "NO" in to_markdown(bench_results.table(late))


def test_records_that_are_lost_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_results, "load_results", lambda folder: load_results(folder).iloc[1:])
    with pytest.raises(RuntimeError, match="expected 5 records, read 4"):
        bench_results.run(5)
