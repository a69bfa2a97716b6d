"""The benchmark of kernels, blocks and models, run: in this process, by the command line, and on a machine that has
almost nothing installed.  In Triton's interpreter, at tiny sizes."""

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from timesformer_experiments.bench.gpu import __main__ as command
from timesformer_experiments.bench.gpu import (
    checks,
    largest,
    machine,
    models,
    output,
    steps,
    subjects,
    supervise,
    worker,
)
from timesformer_experiments.bench.gpu.bench import NOT_A_TIMING, Bench, Options
from timesformer_experiments.bench.gpu.machine import ContextLost, Unsupported
from timesformer_experiments.bench.gpu.record import Row, read_lines
from timesformer_experiments.bench.gpu.sizes import TINY
from timesformer_experiments.cli.main import app

ROOT = Path(__file__).parents[3]


def options(out: Path, *only: str, **more: Any) -> Options:
    values: dict[str, Any] = {"only": only, "out": out, "device": "cpu", "sizes": TINY, "run": "test"}
    return Options(**values | more)


@pytest.fixture
def no_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither checks, which take most of the time in the interpreter, nor pictures: other tests have them."""
    monkeypatch.setattr(checks, "ensure", lambda bench: True)
    monkeypatch.setattr(output, "_pictures", lambda rows, path: [])


def rows_of(out: Path) -> list[Row]:
    return [row for row in read_lines(out / "cpu.jsonl") if row["status"] != "started"]


def test_steps_are_measured_once(tmp_path: Path, no_checks: None, capsys: pytest.CaptureFixture[str]) -> None:
    given = options(tmp_path, "kernels", "flex", steps=("time", "space"))
    assert worker.run(given)
    rows = rows_of(tmp_path)
    assert {row["device"] for row in rows} == {"cpu"}
    assert {(row["provider"], row["status"]) for row in rows} == {
        *((name, "ok") for name in ("copy", "product", "ours", "sdpa", "sdpa_flash", "sdpa_math", "fair_eager")),
        *((name, "skipped") for name in ("sdpa_cudnn", "sdpa_efficient", "flex")),
    }
    assert all(row["error_vs_float64"] < 1e-6 for row in rows if row["slice"] == "kernels" and row["status"] == "ok")
    for row in rows:
        if row["provider"] == "ours":
            assert (row["ms"], row["note"]) == (None, NOT_A_TIMING)
    before, said = len(read_lines(tmp_path / "cpu.jsonl")), capsys.readouterr().err
    assert "plan: 22 measurements, about 1." in said
    assert said.index("  kernels: 20 measurements, 1.") < said.index("kernels: time 2x4x4")
    assert "sdpa_cudnn skipped" in said
    assert worker.run(given)
    assert len(read_lines(tmp_path / "cpu.jsonl")) == before
    with (tmp_path / "cpu.csv").open() as file:
        table = [row for row in csv.DictReader(file) if row["slice"] == "kernels" and row["status"] == "ok"]
    assert len(table) == 2 * 2 * 5
    assert all(row["device"] == "cpu" and row["torch"] and row["bytes_needed"] and row["floor_ms"] for row in table)
    assert "plan: 0 measurements, about 0.0 minutes" in capsys.readouterr().err


def test_models_blocks_and_largest_clips(tmp_path: Path, no_checks: None) -> None:
    chosen = ("ours_triton_fused", "ours_sdpa", "ours_sdpa_compiled", "transformers")
    given = options(tmp_path, "blocks", "models", "largest", providers=chosen, schemes=("divided",))
    assert worker.run(given)
    found = {(r["slice"], r["provider"], r["what"], r["direction"]): r for r in rows_of(tmp_path) if "direction" in r}
    assert {row["status"] for row in found.values()} == {"ok"}
    for direction in ("inference", "training"):
        for slice_name in ("blocks", "models"):
            for provider in ("ours_sdpa", "transformers"):
                row = found[slice_name, provider, "divided", direction]
                assert row["clips_per_second"] == pytest.approx(1e3 * row["batch"] / row["ms"])
                assert row["flops_needed"] > 0
    fused = found["models", "ours_triton_fused", "divided", "inference"]
    assert fused["error_vs_float64"] < 1e-5
    assert fused["note"] == NOT_A_TIMING
    shapes = {row["shape"]: row for row in rows_of(tmp_path) if row["slice"] == "largest" and row["status"] == "ok"}
    assert {"4x32", "2x48", "largest frames at 32", "largest crop at 2 frames"} == set(shapes)
    assert shapes["largest frames at 32"]["largest"] == TINY.most_frames
    skipped = {(row["slice"], row["provider"]) for row in rows_of(tmp_path) if row["status"] == "skipped"}
    assert ("models", "ours_sdpa_compiled") in skipped


def test_a_wrong_kernel_is_not_timed_and_all_else_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each kind of step in each precision is gated by itself."""
    monkeypatch.setattr(output, "_pictures", lambda rows, path: [])
    checked: list[tuple[str, torch.dtype]] = []

    def check(bench: Bench, step: Any, grid: object, dtype: torch.dtype) -> float:
        checked.append((step.name, dtype))
        if (step.name, dtype) in (("time", torch.float32), ("space", torch.bfloat16)):
            raise checks.WrongResult("patches: relative error 1")
        return 0.5

    monkeypatch.setattr(checks, "check_step", check)
    monkeypatch.setattr(checks, "check_add_norm", lambda bench: 0.5)
    chosen = {"steps": ("time", "space"), "schemes": ("divided", "joint"), "providers": ("ours", "sdpa", "ours_triton")}
    assert not worker.run(options(tmp_path, "kernels", "models", **chosen))  # in fp32, on a CPU
    rows = rows_of(tmp_path)
    timed = {(r["what"], r["provider"]) for r in rows if r["slice"] in ("kernels", "models") and r["status"] == "ok"}
    assert timed == {("time", "sdpa"), ("space", "sdpa"), ("space", "ours"), ("joint", "ours_triton")}
    skipped = {row["provider"]: row["note"] for row in rows if row["status"] == "skipped"}
    assert set(skipped) == {"ours, time", "ours_triton, divided"}
    assert skipped["ours, time"] == "its check failed on this device in fp32: time"
    said = capsys.readouterr().err
    assert "wrong on this device, and therefore not timed: space bf16, time fp32" in said
    before = len(checked)
    assert not worker.run(options(tmp_path, "kernels", **chosen))
    assert len(checked) == before  # not repeated in the same run
    assert not worker.run(options(tmp_path, "kernels", **chosen, run="next"))
    assert checked[before:] == [*[("time", torch.float32)] * (len(checked) - before - 1), ("space", torch.bfloat16)]
    monkeypatch.setattr(checks, "check_step", lambda *rest: 0.5)  # mended
    assert worker.run(options(tmp_path, "kernels", **chosen, run="last"))
    assert ("time", "ours") in {(row["what"], row["provider"]) for row in rows_of(tmp_path) if row["status"] == "ok"}


def test_a_check_that_ended_its_process_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(bench: Bench, step: Any, *rest: object) -> float:
        if step.name == "joint" and step.cls != "global":
            raise KeyboardInterrupt  # as far as the record goes: the process is gone
        return 0.5

    monkeypatch.setattr(checks, "check_step", die)
    monkeypatch.setattr(checks, "check_add_norm", lambda bench: 0.5)
    with pytest.raises(KeyboardInterrupt):
        checks.ensure(Bench(options(tmp_path, "kernels")))
    following = Bench(options(tmp_path, "kernels"))  # a new process in the same run
    assert not checks.ensure(following)
    assert following.wrong == {("joint", "fp32")}
    assert following.refused("joint") == "its check failed on this device in fp32: joint"
    assert following.refused("time", "space") is None


def test_without_kernels_the_others_are_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in (checks, steps):
        monkeypatch.setattr(module, "why_unusable", lambda device: "they need a GPU")
    monkeypatch.setattr(output, "_pictures", lambda rows, path: [])
    assert worker.run(options(tmp_path, "kernels", steps=("time",), providers=("ours", "sdpa")))
    said = capsys.readouterr().err
    assert said.count("checks: ours skipped: they need a GPU") == 1  # not once more by the plan
    assert "kernels: ours skipped: they need a GPU" in said
    assert {row["provider"] for row in rows_of(tmp_path) if row["status"] == "ok"} == {"copy", "product", "sdpa"}


def test_logits_that_are_wrong_are_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(options(tmp_path, "models"))
    monkeypatch.setattr(models, "relative_error", _errors(1e-7, 1.0))
    with pytest.raises(RuntimeError, match="the result is wrong on this device: error 1 of the logits"):
        models.measure_model(bench, subjects.VARIANTS["ours_triton"], "joint", 2, 16, 1, training=False)


def _errors(*values: float) -> Any:
    left = list(values)
    return lambda found, exact: left.pop(0)


def test_variants_that_do_not_serve(tmp_path: Path) -> None:
    bench = Bench(options(tmp_path, "models"))
    with pytest.raises(Unsupported, match="predicate"):
        subjects.build(bench, subjects.VARIANTS["ours_triton"], "local_global_window", 2, 32)
    bench.environment["transformers"] = ""
    assert not subjects.serves(bench, subjects.VARIANTS["transformers"], "divided", "models")
    assert rows_of(tmp_path)[-1]["note"] == "transformers is not installed"
    with pytest.raises(ValueError, match="square"):
        models.measure_block(bench, subjects.VARIANTS["ours_sdpa"], "divided", (2, 4, 3), 1, training=False)


@pytest.mark.parametrize("scheme", ["space", "factorised_encoder", "factorised_self_attention"])
def test_blocks_of_schemes_with_other_tokens(tmp_path: Path, scheme: str) -> None:
    """Frames as streams of their own; no class token."""
    bench = Bench(options(tmp_path, "blocks"))
    sdpa = subjects.VARIANTS["ours_sdpa"]
    assert models.measure_block(bench, sdpa, scheme, (2, 2, 2), 2, training=True)["ms"] > 0
    assert not subjects.serves(bench, subjects.VARIANTS["transformers"], scheme, "blocks")


def test_training_in_low_precision(tmp_path: Path) -> None:
    bench = Bench(options(tmp_path, "models", dtype="bf16"))
    result = models.measure_model(bench, subjects.VARIANTS["ours_sdpa"], "joint", 2, 16, 1, training=True)
    assert result["ms"] > 0


def test_the_search_says_what_ended_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    errors: dict[int, Exception] = {4: RuntimeError("invalid configuration\nargument")}

    def trial(bench: Bench, variant: object, scheme: str, frames: int, crop: int, batch: int) -> Row:
        if frames in errors:
            raise errors[frames]
        return {"ms": 1.0}

    monkeypatch.setattr(largest, "trial", trial)
    bench = Bench(options(tmp_path, "largest"))
    search = (bench, subjects.VARIANTS["ours_sdpa"], "divided", "frames")
    assert largest._search(*search) == {"ms": 1.0, "largest": 3, "note": "4: invalid configuration"}
    errors[3] = torch.OutOfMemoryError("out of memory")
    assert largest._search(*search)["note"] == "3: out of memory"
    monkeypatch.setattr(largest, "still_answers", lambda device: False)
    with pytest.raises(RuntimeError, match="invalid configuration"):
        largest._search(*search)


def test_a_cpu_has_no_largest_clip(tmp_path: Path) -> None:
    largest.largest(Bench(options(tmp_path, "largest", sizes=replace(TINY, name="full-like"))))
    assert rows_of(tmp_path)[-1]["note"] == "the largest clips are measured only on a GPU"


SITE = """
import sys
from importlib.machinery import PathFinder

names, find = set({blocked!r}.split()), PathFinder.find_spec

def find_spec(name, path=None, target=None):
    return None if name.split(".")[0] in names else find(name, path, target)

PathFinder.find_spec = find_spec
sys.meta_path[:] = [finder for finder in sys.meta_path if "_EditableFinder" not in repr(finder)]
"""
BLOCKED = (
    "pydantic av fvcore typer rich pandas matplotlib accelerate jaxtyping huggingface_hub safetensors transformers "
    "yaml sklearn scipy msgpack pyarrow beartype"
)


@pytest.mark.integration
def test_it_runs_where_almost_nothing_is_installed(tmp_path: Path) -> None:
    """torch, triton, einops and numpy, from a checkout that is not installed either: with all checks."""
    (tmp_path / "sitecustomize.py").write_text(SITE.format(blocked=BLOCKED))
    out = tmp_path / "out"
    arguments = ["--only", "kernels,models", "--size", "tiny", "--device", "cpu", "--out", str(out), "--steps", "time"]
    arguments += ["--schemes", "divided", "--providers", "ours,sdpa_math,ours_sdpa,transformers"]
    path = os.pathsep.join(map(str, (tmp_path, ROOT, ROOT / "experiments", ROOT / "kernels")))
    environment = {**os.environ, "PYTHONPATH": path, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "timesformer_experiments.bench.gpu", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "models: transformers skipped: transformers is not installed" in done.stderr
    assert "no pictures: " in done.stderr
    rows = rows_of(out)
    passed = [row for row in rows if row["slice"] == "checks"]
    assert len(passed) > 15
    assert {row["status"] for row in passed} == {"ok"}
    timed = {(row["provider"], row["status"]) for row in rows if row["slice"] in ("kernels", "models")}
    assert timed == {("ours", "ok"), ("sdpa_math", "ok"), ("ours_sdpa", "ok"), ("transformers", "skipped")}
    assert (out / "cpu.csv").is_file()
    assert (out / "gpu_targets.md").is_file()


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(arguments: list[str], minutes: float, out: Path) -> int:
        return command.main([*arguments, "--worker", "--run", "test"])

    monkeypatch.setattr(supervise, "supervise", run)


@pytest.mark.parametrize("as_json", [False, True])
def test_the_command_line(tmp_path: Path, in_this_process: None, no_checks: None, as_json: bool) -> None:
    given = ["bench", "--only", "ceilings", "--size", "tiny", "--device", "cpu", "--out", str(tmp_path), "--retry"]
    done = CliRunner().invoke(app, [*given, *(["--json"] if as_json else [])])
    assert done.exit_code == 0, done.output
    if as_json:
        said = json.loads(done.stdout)
        assert said["measurements"] == {"cpu": {"ok": 2}}
        assert {target["reached"] for target in said["targets"]} == {"not measured"}
    else:
        assert "No GPU was measured" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--only", "kernels,sideways"],
            "--only sideways: expected one of transformers, peers, loader, memory, results, sparse, checks",
        ),
        (["--only", "kernels", "--size", "huge"], "--size huge: expected full or tiny"),
        (["--only", "kernels", "--device", "tpu"], "--device tpu: expected auto, cpu or cuda"),
    ],
)
def test_bad_input_of_the_command_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(app, ["bench", "--out", str(tmp_path), *arguments])
    assert done.exit_code == 2
    assert message in done.stderr


def test_exit_codes(
    tmp_path: Path, in_this_process: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--out", str(tmp_path), "--size", "tiny", "--device", "cpu"]
    assert command.main(["--only", "report", *given]) == 0
    assert (tmp_path / "gpu_targets.md").is_file()
    assert command.main(["--only", "kernels", "--providers", "sideways", *given]) == 2
    assert "--providers sideways" in capsys.readouterr().err

    def lost(options: Options) -> bool:
        raise ContextLost("illegal access")

    monkeypatch.setattr(worker, "run", lost)
    assert command.main(["--only", "largest", *given]) == supervise.LOST
    monkeypatch.setattr(worker, "run", lambda options: options.grids != ((2, 4, 4),) or options.batches != (3, 1))
    done = CliRunner().invoke(app, ["bench", "--only", "kernels", "--out", str(tmp_path), "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert command.main(["--only", "kernels", "--grids", "2x4x4", "--batches", "3,1", *given]) == 1
    with pytest.raises(SystemExit, match="2"):
        command.main(["--only", "sideways"])


def test_the_environment_of_a_machine_without_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*arguments: object, **more: object) -> None:
        raise FileNotFoundError("nvidia-smi")

    monkeypatch.setattr(subprocess, "run", missing)
    assert machine._driver() == "unknown"
    assert machine.installed("no_such_package") == ""
    assert machine.still_answers(torch.device("cpu"))
