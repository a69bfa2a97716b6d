"""The benchmark on a GPU that is not there: what it would measure for the targets, and the tools that it calls."""

import shutil
import subprocess
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from timesformer_experiments.bench.gpu import (
    bench,
    checks,
    largest,
    models,
    output,
    providers,
    steps,
    subjects,
    tools,
    worker,
)
from timesformer_experiments.bench.gpu.bench import Bench, Options
from timesformer_experiments.bench.gpu.record import Row, read_lines
from timesformer_experiments.bench.gpu.sizes import STEPS, TINY
from timesformer_experiments.bench.gpu.targets import NOT_MEASURED, targets

GPU: Row = {
    "device": "cuda", "device_name": "NVIDIA X", "driver": "1", "cuda": "13.0", "cudnn": "9", "threads": 1,
    "python": "3.12", "torch": "2.11.0", "triton": "3.6.0", "transformers": "5.17.0",
}  # fmt: skip


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU by name, on which the kernels can run."""
    monkeypatch.setattr(bench, "device_of", lambda name: torch.device("cuda"))
    monkeypatch.setattr(bench, "environment", lambda device: dict(GPU))
    monkeypatch.setattr(bench, "interpreted", lambda: False)
    monkeypatch.setattr(output, "_pictures", lambda rows, path: [])
    for module in (checks, steps, subjects, tools):
        monkeypatch.setattr(module, "why_unusable", lambda device: None)
    for module in (bench, checks, steps, models, largest):
        monkeypatch.setattr(module, "free_memory", lambda device: None)


def test_the_plan_of_the_targets_is_short_and_measures_nothing(gpu: None, tmp_path: Path) -> None:
    for minutes, calls in ((9.0, "2 calls of 9 minutes"), (20.0, "1 calls of 20 minutes")):
        here = Bench(Options(("targets",), tmp_path, minutes=minutes))
        first, *slices = worker.plan(here)
        assert first.endswith(calls)
        assert float(first.split("about ")[1].split()[0]) <= 15
        assert [line.split(":")[0].strip() for line in slices] == [
            "checks", "ceilings", "kernels", "models", "flex", "largest",
        ]  # fmt: skip
        assert here.planned is None
    assert read_lines(tmp_path / "gpu.jsonl") == []
    everything = worker.plan(Bench(Options(("kernels", "flex", "blocks", "models", "largest"), tmp_path)))
    assert float(everything[0].split("about ")[1].split()[0]) > 60


def test_the_targets_slice_decides_every_target(gpu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that says 1 ms for everything; within the 15 minutes that are planned."""

    def measured(here: Bench, row: Row, action: object, kernels: bool = False) -> None:
        rates = {"bytes_per_second": 4e12, "flops_per_second": 8e14} if row["slice"] == "ceilings" else {}
        here.record.append({**row, "ms": 1.0, "peak_bytes": 1, **rates, **here._stamp()}, "ok")

    monkeypatch.setattr(Bench, "measure_now", measured)
    monkeypatch.setattr(output, "measured_file", lambda: tmp_path / "measured.csv")
    (tmp_path / "measured.csv").write_text(",".join(output.MEASURED_COLUMNS) + "\n")
    assert worker.run(Options(("targets",), tmp_path, minutes=9, run="a"))
    rows = output.finished(read_lines(tmp_path / "gpu.jsonl"))
    found = targets([row for row in rows if row["sizes"] == "full"])
    undecided = [target.text for target in found if target.reached == NOT_MEASURED]
    # the same times forward and with backward leave backward no time of its own
    assert undecided == [f"time step, T = {t}, bf16: share of the bandwidth floor, backward" for t in (8, 16)]
    assert len((tmp_path / "measured.csv").read_text().splitlines()) == 1 + 4  # 8, 16, 196 and 784 tokens


def test_a_wrong_kernel_leaves_its_targets_undecided(
    gpu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Bench(Options(("targets",), tmp_path))
    here.wrong = {("space", "bf16"), ("time", "fp32")}
    assert here.refused("time") is None
    monkeypatch.setattr(Bench, "measure_now", lambda self, row, action, kernels=False: self.record.append(row, "ok"))
    steps.measure_case(here, steps.Case("space", (8, 14, 14), 32), list(providers.PROVIDERS.values()), "kernels")
    assert {row["provider"] for row in here.record.rows.values() if row["status"] == "skipped"} == {"ours, space"}
    assert not subjects.serves(here, subjects.VARIANTS["ours_auto"], "divided", "models")
    assert not subjects.serves(here, subjects.VARIANTS["ours_triton"], "factorised_dot_product", "models")
    assert subjects.serves(here, subjects.VARIANTS["ours_triton"], "joint", "models")
    assert subjects.serves(here, subjects.VARIANTS["ours_sdpa"], "divided", "models")


def test_the_tools_say_that_nothing_was_measured_on_a_cpu(tmp_path: Path) -> None:
    here = Bench(Options(("tools",), tmp_path, device="cpu", sizes=TINY))
    tools.tools(here)
    rows = {row["provider"]: row for row in read_lines(tmp_path / "cpu.jsonl")}
    assert set(rows) == {
        *(f"graph, {kind}" for kind in STEPS),
        "memcheck, checks", "racecheck, checks", "ncu, time", "ncu, space",
    }  # fmt: skip
    assert {(row["status"], row["note"]) for row in rows.values()} == {("skipped", "not measured: needs a GPU")}


def test_tools_that_are_not_installed_are_named(gpu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: None)
    monkeypatch.setattr(tools, "capture", lambda here, kind: {"note": "captured"})
    here = Bench(Options(("tools",), tmp_path))
    tools.tools(here)
    rows = {row["provider"]: row for row in read_lines(tmp_path / "gpu.jsonl") if row["status"] != "started"}
    assert rows["graph"]["status"] == "ok"
    assert rows["memcheck, checks"]["note"] == "not measured: compute-sanitizer is not on the PATH"
    assert rows["ncu, space"]["note"] == "not measured: ncu is not on the PATH"


def test_the_sanitizer_is_called(gpu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    code, text = 0, "========= ERROR SUMMARY: 0 errors\n"

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, code, text, "")

    monkeypatch.setattr(subprocess, "run", run)
    here = Bench(Options(("tools",), tmp_path, run="a"))
    earlier = tmp_path / "tools" / "memcheck" / "gpu.jsonl"
    earlier.parent.mkdir(parents=True)
    earlier.touch()
    assert tools.sanitize(here, "memcheck") == {"note": "ERROR SUMMARY: 0 errors"}
    assert not earlier.exists()  # else its checks would count as made
    assert (tmp_path / "tools" / "memcheck.txt").read_text() == text
    (command,) = commands
    assert command[:5] == ["compute-sanitizer", "--tool", "memcheck", "--error-exitcode", "99"]
    assert "timesformer_experiments.bench.gpu" in command
    code, text = 99, "========= ERROR SUMMARY: 3 errors\n"
    with pytest.raises(RuntimeError, match="racecheck: exit code 99; ERROR SUMMARY: 3 errors"):
        tools.sanitize(here, "racecheck")


def test_the_profiler_is_called(gpu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, heading = "gpu__time_duration.sum", '"ID","Kernel Name","Metric Name","Metric Value"'
    code, text = (
        0,
        f'==PROF== x\n{heading}\n"0","short_forward","{name}","1,234.5"\n"1","short_backward","{name}","9"\n',
    )

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        assert command[:4] == ["ncu", "--clock-control", "none", "--csv"]
        assert command[-4:] == ["time", "full", "bf16", "cuda"]
        return subprocess.CompletedProcess(command, code, text, "ERR_NVGPUCTRPERM")

    monkeypatch.setattr(subprocess, "run", run)
    here = Bench(Options(("tools",), tmp_path))
    assert tools.profile(here, "time") == {"note": f"{name} 1234.5"}
    assert (tmp_path / "tools" / "ncu_time.csv").read_text().startswith(heading)
    text = f"{heading}\n"
    with pytest.raises(RuntimeError, match="no kernel of ours was profiled"):
        tools.profile(here, "time")
    code = 1
    with pytest.raises(RuntimeError, match="ncu: exit code 1; ERR_NVGPUCTRPERM"):
        tools.profile(here, "time")


def test_what_is_profiled_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[int] = []

    def counted(step: Any, grid: Any, inputs: Any) -> providers.Compute:
        called.append(1)
        return providers.eager(step, grid, inputs)

    monkeypatch.setattr(tools, "ours", counted)
    tools.step_once("space", TINY, torch.float32, torch.device("cpu"))
    assert called == [1]


@pytest.mark.parametrize("good", [True, False])
def test_a_graph_is_captured_and_replayed(
    gpu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, good: bool
) -> None:
    """On a CPU: the graph stands for what was called while it was captured."""
    calls: list[providers.Compute] = []
    held: dict[str, Any] = {}

    class Stream:
        def __init__(self, device: object) -> None: ...

        def synchronize(self) -> None: ...

    class Graph:
        def replay(self) -> None:
            if good:
                for target, value in zip(held["out"], held["again"](), strict=True):
                    if target is not None:
                        target.copy_(value)

    def eager(step: Any, grid: Any, inputs: Any) -> providers.Compute:
        right = providers.eager(step, grid, inputs)

        def compute(qkv: torch.Tensor, cls: torch.Tensor | None) -> providers.Output:
            out = right(qkv, cls)
            calls.append(compute)
            if len(calls) == 2:  # the one that is captured
                held.update(out=out, again=lambda: right(qkv, cls))
            return out

        return compute

    monkeypatch.setattr(tools, "ours", eager)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph: nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    here = Bench(Options(("tools",), tmp_path, sizes=TINY, dtype="fp32"))
    here.device = torch.device("cpu")
    if good:
        assert tools.capture(here, "space") == {"note": "captured, and replayed with the same bits"}
        return
    with pytest.raises(RuntimeError, match="other bits"):
        tools.capture(here, "space")
