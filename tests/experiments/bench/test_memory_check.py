"""Predicted peak memory against the growth of the resident set: two schemes quickly, all of them in the slow tests."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from tests.attention.custom import SHIPPED
from timesformer.errors import InputError
from timesformer_experiments.bench import memory as memory_check
from timesformer_experiments.bench.memory import MALLOC, TOLERANCES, Case, measured_bytes, predicted_bytes, run, table
from timesformer_experiments.bench.transformers import peak_resident_bytes
from timesformer_experiments.cli.main import app
from timesformer_experiments.report.tables import to_markdown


def check(case: Case) -> None:
    predicted, measured = predicted_bytes(case), measured_bytes(case)
    assert predicted == pytest.approx(measured, rel=TOLERANCES[case.device]), (case.label, predicted, measured)


@pytest.mark.integration
@pytest.mark.parametrize("attention", ["space", "divided"])
def test_prediction_is_what_a_process_grows_by(attention: str) -> None:
    check(Case(attention, batch=2))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["sdpa", "reference"])
@pytest.mark.parametrize("attention", SHIPPED)
def test_prediction_is_what_a_process_grows_by_for_every_scheme(attention: str, backend: str) -> None:
    check(Case(attention, backend=backend))


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"train": False},
        {"precision": "bf16"},
        {"optimiser": "adamw"},
        {"gradient_checkpointing": True},
    ],
)
def test_and_with_every_setting(settings: dict[str, Any]) -> None:
    check(Case("divided", **settings))


def test_on_a_gpu_the_allocators_peak_is_met() -> None:
    """Where there is no GPU, that is what is said, before anything is measured."""
    chosen = [replace(case, batch=2) for case in memory_check.cases("cuda")[:2]]
    assert not any(case.malloc_keeps for case in memory_check.cases("cuda"))
    if torch.cuda.is_available():
        assert all(result["reached"] for result in run(chosen)["results"])
    else:
        with pytest.raises(InputError, match="'cuda' is not available on this machine"):
            run(chosen)


def test_every_shipped_scheme_is_a_case() -> None:
    cases = memory_check.cases()
    for backend in ("sdpa", "reference"):
        assert {case.attention for case in cases if case.backend == backend and case.train} >= set(SHIPPED)
    assert len({case.label for case in cases}) == len(cases)
    with pytest.raises(InputError, match="device: expected cpu or cuda, got 'tpu'"):
        memory_check.cases("tpu")


@pytest.mark.parametrize("settings", [{}, {"train": False, "precision": "bf16"}, {"gradient_checkpointing": True}])
def test_steps_are_made_and_measured_in_the_process_itself(settings: dict[str, Any]) -> None:
    """Here the peak is that of an earlier test; in a process of its own it is that of the steps."""
    tiny = {**memory_check.TINY, "embed_dim": 16}
    assert memory_check.growth_bytes(Case("joint", fields=tiny, **settings)) >= 0


def test_where_there_is_no_proc_the_peak_stands_for_the_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    assert memory_check.resident_bytes() > 2**20

    def no_proc(path: str, encoding: str) -> Any:
        raise FileNotFoundError(path)

    monkeypatch.setattr("builtins.open", no_proc)
    assert memory_check.resident_bytes() == peak_resident_bytes()


@pytest.mark.integration
def test_a_failing_step_is_an_error() -> None:
    broken = Case("joint", fields={**memory_check.TINY, "num_heads": 5})
    with pytest.raises(RuntimeError, match=r"(?s)joint, training, sdpa, fp32: the step failed \(1\).*num_heads"):
        measured_bytes(broken)


def test_command_writes_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = (Case("joint"), Case("divided", optimiser="adamw"), Case("joint", malloc_keeps=True))
    monkeypatch.setattr(memory_check, "cases", lambda device: chosen)
    monkeypatch.setattr(memory_check, "predicted_bytes", lambda case: 100 * 2**20)
    measured = iter((110 * 2**20, 200 * 2**20, 200 * 2**20))
    monkeypatch.setattr(memory_check, "measured_bytes", lambda case, threads: next(measured))
    done = CliRunner().invoke(app, ["bench", "--only", "memory", "--out", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "memory_cpu.json").read_text())
    assert json.loads(done.stdout) == record
    assert [result["reached"] for result in record["results"]] == [True, False, None]
    assert record["malloc"] == MALLOC
    text = to_markdown(table(record))
    assert "divided, training, sdpa, fp32, adamw" in text
    assert "NO" in text
    assert "malloc's own rules" in text
