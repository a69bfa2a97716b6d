"""The benchmark against transformers at a tiny size: it compares like with like and records what it did."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from timesformer_experiments.bench import transformers as bench
from timesformer_experiments.bench.transformers import Case
from timesformer_experiments.cli.main import app
from timesformer_experiments.report.tables import to_markdown

TINY: dict[str, Any] = {"image_size": 32, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 5}


@pytest.mark.parametrize("attention", ["divided", "joint"])
def test_both_sides_are_the_same_model(attention: str) -> None:
    case = Case("forward_seconds", attention, 2, 1.0, **TINY)
    ours, theirs = (bench.build_model(side, case) for side in ("ours", "transformers"))
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    clip = torch.zeros(1, 2, 3, 32, 32)
    assert bench.logits_of("ours", ours, clip).shape == bench.logits_of("transformers", theirs, clip).shape == (1, 5)


@pytest.mark.integration
def test_forward_and_memory_are_measured_and_recorded() -> None:
    cases = (
        Case("forward_seconds", "divided", 2, 1e-6, **TINY),
        Case("training_peak_bytes", "joint", 2, 1e9, **TINY),
    )
    said: list[str] = []
    threads = torch.get_num_threads()
    record = bench.run(cases, repetitions=3, threads=1, progress=said.append)
    assert torch.get_num_threads() == threads
    forward, memory = record["results"]
    for side in ("ours", "fused", "transformers"):
        assert len(forward[f"{side}_forward_seconds"]) == 3
    assert forward["ratio_transformers_to_fused"] > 0
    assert "fused_training_peak_bytes" not in memory
    assert forward["clip_shape"] == [1, 2, 3, 32, 32]
    assert forward["reached"]
    assert not memory["reached"]
    assert memory["ours_median_training_peak_bytes"] > 0
    assert record["threads"] == 1
    assert set(record["versions"]) == {"torch", "transformers"}
    assert said == ["forward_seconds: divided 2x32", "training_peak_bytes: joint 2x32"]
    text = to_markdown(bench.table(record))
    assert "divided 2x32" in text
    assert "NO" in text


@pytest.mark.integration
def test_the_peak_is_that_of_this_process() -> None:
    """In a process of its own: here an earlier test may have left a higher mark."""
    code = (
        "import torch; from timesformer_experiments.bench.transformers import peak_resident_bytes as peak; "
        "before = peak(); "
        "block = torch.ones(100_000_000); print(peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 0.8 * 400_000_000


@pytest.mark.integration
def test_a_failing_training_step_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="the step failed"):
        bench.training_peak_bytes(Case("training_peak_bytes", "joint", 2, 1.0, **TINY | {"num_heads": 5}), 1, 1)


def test_command_writes_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "CASES", (Case("forward_seconds", "joint", 2, 1e-6, **TINY),))
    done = CliRunner().invoke(app, ["bench", "--out", str(tmp_path), "--repetitions", "1", "--json"])
    assert done.exit_code == 0, done.output
    stored = json.loads((tmp_path / "cpu_vs_transformers.json").read_text())
    assert json.loads(done.stdout) == stored
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".csv", ".md"}


@pytest.mark.parametrize("side", bench.SIDES["training_peak_bytes"])
def test_a_training_step_raises_the_peak_or_leaves_it(side: bench.Side) -> None:
    assert bench.training_step_growth(side, Case("training_peak_bytes", "divided", 2, 1.0, **TINY)) >= 0
