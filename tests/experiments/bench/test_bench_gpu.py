"""The parts of the benchmark of kernels, blocks and models: providers, errors, floors, record, clock, targets."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from timesformer.attention import oracle
from timesformer.errors import InputError
from timesformer_experiments.bench.gpu import accuracy, bench, checks, largest, machine, providers, supervise
from timesformer_experiments.bench.gpu.accuracy import Problem, by, judge, written_out
from timesformer_experiments.bench.gpu.bench import Bench, Options
from timesformer_experiments.bench.gpu.floors import backward_floor, step_floor
from timesformer_experiments.bench.gpu.machine import ContextLost, Unsupported, code_of
from timesformer_experiments.bench.gpu.providers import FLEX, PROVIDERS
from timesformer_experiments.bench.gpu.record import Record, Row, read_lines
from timesformer_experiments.bench.gpu.sizes import FULL, STEPS, TINY, step_of

CPU, GRID = torch.device("cpu"), (2, 4, 6)


def problem_of(kind: str, dtype: torch.dtype = torch.float64) -> Problem:
    return Problem.draw(step_of(kind), GRID, 2, 2, 16, dtype, CPU)


def dense(kind: str) -> providers.Compute:
    def compute(qkv: Tensor, cls: Tensor | None) -> providers.Output:
        return oracle(step_of(kind), qkv, cls)

    return compute


@pytest.mark.parametrize("kind", STEPS)
@pytest.mark.parametrize("name", ["sdpa", "sdpa_math", "fair_eager"])
def test_providers_compute_the_step(kind: str, name: str) -> None:
    """Values and gradients, against the dense oracle."""
    problem = problem_of(kind)
    leaves = problem.requiring_gradients()
    compute = PROVIDERS[name].make(step_of(kind), GRID, (leaves.qkv, leaves.cls))
    expected = by(dense(kind), problem, torch.float64)
    for found, exact in zip(leaves.forward_backward(compute), expected, strict=True):
        assert (found is None) == (exact is None)
        if found is not None and exact is not None:
            torch.testing.assert_close(found, exact, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", ["time", "space", "global"])
def test_flex_attention_computes_the_step(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not compiled here: the compiler is not what is tested."""
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    problem = problem_of(kind, torch.float32)
    compute = FLEX.make(step_of(kind), GRID, (problem.qkv, problem.cls))
    with torch.no_grad():
        out, cls = compute(problem.qkv, problem.cls)
    exact_out, exact_cls = by(dense(kind), problem, torch.float64)[:2]
    assert exact_out is not None
    torch.testing.assert_close(out.double(), exact_out, rtol=1e-4, atol=1e-5)
    assert (cls is None) == (exact_cls is None)
    if cls is not None and exact_cls is not None:
        torch.testing.assert_close(cls.double(), exact_cls, rtol=1e-4, atol=1e-5)


def test_a_backend_that_refuses_the_class_query_gets_it_as_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise RuntimeError("No available kernel. Aborting execution.")

    monkeypatch.setattr(providers, "attend", refuse)
    problem = problem_of("space")
    compute = PROVIDERS["sdpa_math"].make(step_of("space"), GRID, (problem.qkv, problem.cls))
    out, cls = compute(problem.qkv, problem.cls)
    exact = by(dense("space"), problem, torch.float64)
    torch.testing.assert_close(out, exact[0])
    torch.testing.assert_close(cls, exact[1])
    with pytest.raises(Unsupported, match="No available kernel"):
        PROVIDERS["sdpa_math"].make(step_of("time"), GRID, (problem.qkv, None))


def test_what_providers_do_not_serve_is_named() -> None:
    uneven = Problem.draw(step_of("local"), (2, 5, 4), 1, 2, 16, torch.float32, CPU)
    with pytest.raises(Unsupported, match="not all of one shape"):
        PROVIDERS["fair_eager"].make(step_of("local"), (2, 5, 4), (uneven.qkv, uneven.cls))


@pytest.mark.parametrize("kind", ["time", "local"])
def test_attention_written_out_head_by_head_is_the_oracle(kind: str) -> None:
    problem = problem_of(kind)
    exact = by(dense(kind), problem, torch.float64)
    for found, expected in zip(written_out(step_of(kind), GRID, problem, torch.float64), exact, strict=True):
        if found is not None and expected is not None:
            torch.testing.assert_close(found, expected[-1:])


def test_the_rule_lets_rounding_pass_and_errors_fail() -> None:
    exact = torch.randn(64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    low = exact.bfloat16()
    share, complaint = judge((low,), (exact,), (low,), torch.bfloat16)
    assert complaint == ""
    assert 0 < share < 1
    wrong = low.clone()
    wrong[3, 4] += 1  # one element of 4096
    assert "patches: largest error" in judge((wrong,), (exact,), (low,), torch.bfloat16)[1]
    wrong[3, 4] = torch.nan
    assert "inf" in judge((wrong,), (exact,), (low,), torch.bfloat16)[1]
    assert judge((None,), (None,), (None,), torch.bfloat16) == (0.0, "")


def test_outputs_hold_nan_before_a_check() -> None:
    with accuracy.poisoned_outputs():
        assert torch.empty(3).new_empty(5).isnan().all()
    assert not torch.are_deterministic_algorithms_enabled()


def test_floors_by_hand() -> None:
    """The time step at 32 clips of 8 x 14 x 14 in bf16: 77 MB a pass, 4 passes forward and 7 backward."""
    passes = 32 * 8 * 196 * 768 * 2
    forward = step_floor(step_of("time"), (8, 14, 14), 32, 12, 64, 2, "forward")
    both = step_floor(step_of("time"), (8, 14, 14), 32, 12, 64, 2, "forward_backward")
    assert forward.bytes == 4 * passes
    assert backward_floor(forward, both).bytes == 7 * passes
    assert forward.flops == 4 * 32 * 196 * 8 * 8 * 768
    assert backward_floor(forward, both).flops == 10 * 32 * 196 * 8 * 8 * 768
    assert forward.ms(4.3e12, 8e14) == pytest.approx(0.0717, rel=1e-2)  # bytes
    assert forward.ms(1e18, 1e12) == pytest.approx(1e3 * forward.flops / 1e12)  # operations


def test_code_is_known_by_import_name_and_in_depth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same sources elsewhere are the same code; a changed file in a package's depth is other code."""
    digests = []
    for place in ("here", "there", "changed"):
        nested = tmp_path / place / "measured_pkg" / "inner"
        nested.mkdir(parents=True)
        for folder in (nested.parent, nested):
            (folder / "__init__.py").touch()
        (nested / "model.py").write_text("x = 2\n" if place == "changed" else "x = 1\n")
        with monkeypatch.context() as patch:
            patch.syspath_prepend(tmp_path / place)
            digests.append(code_of(("measured_pkg",)))
    here, there, changed = digests
    assert here == there
    assert changed != here
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        code_of(("no_such_package",))


ROW: Row = {"slice": "kernels", "provider": "ours", "what": "time", "shape": "8x14x14"}


def test_a_record_is_resumed(tmp_path: Path) -> None:
    path = tmp_path / "gpu.jsonl"
    record = Record(path)
    assert not record.done(ROW)
    record.append(ROW, "ok")
    for what, status in (("space", "failed"), ("joint", "started"), ("width", "skipped"), ("local", "oom")):
        record.append({**ROW, "what": what}, status)
    with path.open("a") as file:
        file.write('{"key": "cut off')
    again = Record(path)
    assert [again.done({**ROW, "what": what}) for what in ("time", "space", "joint", "width", "local")] == [
        True, True, True, False, True,
    ]  # fmt: skip
    assert not again.done({**ROW, "what": "space"}, retry=True)
    assert again.done(ROW, retry=True)
    assert not again.done({**ROW, "code": "changed"})
    again.append({**ROW, "what": "height"}, "ok")  # behind the line that was cut off
    assert [row["what"] for row in read_lines(path)] == ["time", "space", "joint", "width", "local", "height"]


@pytest.mark.parametrize("line", ['{"status": "ok"}', "{no json}"])
def test_a_damaged_record_names_the_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "gpu.jsonl"
    path.write_text('{"key": "a", "status": "ok"}\n' + line + "\n")
    with pytest.raises(InputError, match=r"gpu\.jsonl, line 2"):
        read_lines(path)


def tiny(tmp_path: Path, **options: Any) -> Bench:
    values: dict[str, Any] = {"only": ("kernels",), "out": tmp_path, "device": "cpu", "sizes": TINY, "run": "test"}
    return Bench(Options(**values | options))


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (torch.OutOfMemoryError("out of memory"), "oom"),
        (Unsupported("too old"), "unsupported"),
        (ValueError("odd\nmore"), "failed"),
    ],
)
def test_how_a_measurement_ends_is_recorded(tmp_path: Path, error: Exception, status: str) -> None:
    here = tiny(tmp_path)
    row = here.row("kernels", "sdpa", "time", "2x4x4")

    def fail() -> Row:
        raise error

    here.measure(row, 1, fail)
    assert here.status(row) == status
    assert str(error).splitlines()[0] in here.record.rows[next(iter(here.record.rows))]["note"]
    here.measure(row, 1, lambda: {"ms": 1.0})  # it stands
    assert here.status(row) == status


def test_a_lost_device_ends_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tiny(tmp_path)
    monkeypatch.setattr(bench, "still_answers", lambda device: False)
    row = here.row("kernels", "ours", "time", "2x4x4")
    with pytest.raises(ContextLost, match="ZeroDivisionError"):
        here.measure(row, 1, lambda: {"ms": 1 / 0})
    assert Record(tmp_path / "cpu.jsonl").done(row)


def test_nothing_begins_that_would_end_too_late(tmp_path: Path) -> None:
    here = tiny(tmp_path, minutes=0.5)
    row = here.row("kernels", "sdpa", "time", "2x4x4")
    here.measure(row, 60, lambda: {"ms": 1.0})
    assert here.left == 1
    assert here.wanted(row)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "tpu"}, "--device tpu"),
        ({"device": "cuda"}, "--device cuda: PyTorch finds no GPU"),
        ({"sizes": FULL}, "TRITON_INTERPRET"),
        ({"steps": ("sideways",)}, "--steps sideways"),
        ({"schemes": ("sideways",)}, "--schemes sideways"),
    ],
)
def test_impossible_options_are_named(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tiny(tmp_path, **options)


def test_a_cpu_is_given_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "interpreted", lambda: False)
    assert tiny(tmp_path, sizes=FULL).sizes.batches == (1,)


def test_a_wrong_kernel_fails_its_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(step: Any, grid: Any, inputs: Any) -> providers.Compute:
        right = providers.eager(step, grid, inputs)

        def compute(qkv: Tensor, cls: Tensor | None) -> providers.Output:
            out, cls_out = right(qkv, cls)
            return out * 1.01, cls_out

        return compute

    here = tiny(tmp_path)
    monkeypatch.setattr(checks, "ours", wrong)
    with pytest.raises(checks.WrongResult, match=r"patches: relative error 0\.01"):
        checks.check_step(here, step_of("space"), (2, 4, 4), torch.float32)
    norm = torch.nn.functional.layer_norm
    monkeypatch.setattr(checks, "add_norm", lambda x, more, w, b, eps: (x + more, norm(x, (len(w),), w, b, eps)))
    with pytest.raises(checks.WrongResult):
        checks.check_add_norm(here)


def test_addresses_are_checked_on_the_last_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    factors = torch.ones(3)

    def only_last(step: Any, grid: Any, inputs: Any) -> providers.Compute:
        right = providers.eager(step, grid, inputs)
        return lambda qkv, cls: (right(qkv, cls)[0] * factors[:, None, None, None, None, None], None)

    monkeypatch.setattr(checks, "ours", only_last)
    assert checks.check_addresses(tiny(tmp_path), (2, 4, 4), 3) < 1
    factors[-1] = 1.01
    with pytest.raises(checks.WrongResult, match="patches"):
        checks.check_addresses(tiny(tmp_path), (2, 4, 4), 3)


def test_runs_that_differ_fail_the_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "ours", lambda step, grid, inputs: providers.eager(step, grid, inputs))
    monkeypatch.setattr(checks, "same_bits", lambda first, second: False)
    with pytest.raises(checks.WrongResult, match="two runs on the same inputs differ"):
        checks.check_step(tiny(tmp_path), step_of("time"), (2, 4, 4), torch.float32)


class FakeEvent:
    """A CUDA event whose time between two records is 3 ms."""

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None: ...

    def elapsed_time(self, other: "FakeEvent") -> float:
        return 3.0


def test_the_clock_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue is filled while the device sleeps; input sets take turns; the median of the events."""
    slept: list[int] = []
    called: list[int] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: None)
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(torch.cuda, "_sleep", slept.append)
    assert machine.kernel_ms(torch.device("cuda"), called.append, 3) == 3.0
    assert set(called) == {0, 1, 2}
    assert len(called) == 3 + 3 + 20 * len(slept)
    assert all(cycles > 0 for cycles in slept)


def test_the_largest_that_fits_is_found() -> None:
    tried: list[int] = []

    def attempt(size: int) -> Row | None:
        tried.append(size)
        return {"ms": float(size)} if size <= 1000 else None

    size, row = largest.largest_that(attempt, 16, 64, 4096)
    assert row == {"ms": float(size)}
    assert size % 16 == 0
    assert 1000 / 1.06 - 16 < size <= 1000
    assert len(tried) < 12
    assert largest.largest_that(attempt, 1, 8, 64)[0] == 64
    with pytest.raises(torch.OutOfMemoryError, match="not even 2048"):
        largest.largest_that(attempt, 1, 2048, 4096)


@pytest.mark.parametrize(("codes", "expected"), [([0], 0), ([75, -11, 0], 0), ([1], 1), ([2], 2), ([75] * 9, 1)])
def test_a_dead_process_is_followed_by_another(
    codes: list[int], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], timeout: float) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, codes[len(commands) - 1])

    monkeypatch.setattr(subprocess, "run", run)
    assert supervise.supervise(["--only", "kernels"], 8, tmp_path) == expected
    assert len(commands) == len(codes)
    assert len({command[command.index("--run") + 1] for command in commands}) == 1


def test_time_is_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was measured before is written as files all the same."""
    commands: list[list[str]] = []

    def late(command: list[str], timeout: float | None = None) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        if timeout is not None:
            raise subprocess.TimeoutExpired(command, timeout)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", late)
    assert supervise.supervise([], 1, tmp_path) == 0
    assert commands[-1][-4:] == ["--only", "report", "--out", str(tmp_path)]
    monkeypatch.setattr(subprocess, "run", lambda command, timeout: subprocess.CompletedProcess(command, 75))
    assert supervise.supervise([], 0.1, tmp_path) == 0
