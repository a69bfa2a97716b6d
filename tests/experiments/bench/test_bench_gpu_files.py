"""What the benchmark of kernels, blocks and models makes of its record: csv, targets, pictures, the kernels' table."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from timesformer_experiments.bench.gpu import output, pictures
from timesformer_experiments.bench.gpu.floors import step_floor
from timesformer_experiments.bench.gpu.record import Row, read_lines
from timesformer_experiments.bench.gpu.sizes import step_of
from timesformer_experiments.bench.gpu.targets import NOT_MEASURED, targets, to_markdown
from timesformer_kernels import auto
from timesformer_kernels.auto import decide, read


@pytest.fixture(autouse=True)
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in the place of the one that `auto` reads."""
    path = tmp_path / "kernels" / "measured.csv"
    path.parent.mkdir()
    path.write_text(output.measured_file().read_text())
    monkeypatch.setattr(output, "measured_file", lambda: path)
    return path


GPU: Row = {
    "sizes": "full", "device": "cuda", "device_name": "NVIDIA X", "driver": "1", "cuda": "13.0", "cudnn": "9",
    "torch": "2.11.0", "triton": "3.6.0", "transformers": "5.17.0", "python": "3.12", "threads": 1,
    "run_name": "a", "finished_utc": "2026-01-01T00:00:00Z", "dtype": "bf16", "heads": 12, "head_width": 64,
}  # fmt: skip


def gpu_rows(factor: float) -> list[Row]:
    """A record in which ours takes `factor` times the floor in the steps, and others three times as long as that."""
    rows: list[Row] = [
        {
            **GPU,
            "slice": "ceilings",
            "provider": "copy",
            "what": "copy",
            "shape": "",
            "run": "a",
            "bytes_per_second": 4e12,
        },
        {
            **GPU,
            "slice": "ceilings",
            "provider": "product",
            "what": "product",
            "shape": "",
            "run": "a",
            "flops_per_second": 8e14,
        },
    ]
    for kind, shapes in (("time", ("8x14x14", "16x28x28")), ("space", ("8x14x14", "16x28x28"))):
        for shape in shapes:
            grid: Any = tuple(int(n) for n in shape.split("x"))
            for direction in ("forward", "forward_backward"):
                floor = step_floor(step_of(kind), grid, 32, 12, 64, 2, direction)  # type: ignore[arg-type]
                for provider, times in (("ours", 1), ("sdpa", 3), ("sdpa_flash", 4), ("fair_eager", 9)):
                    ms = factor * times * floor.ms(4e12, 8e14)
                    row = {**GPU, "slice": "kernels", "provider": provider, "what": kind, "shape": shape, "ms": ms}
                    row |= {"bytes_needed": floor.bytes, "flops_needed": floor.flops, "batch": 32}
                    rows.append({**row, "direction": direction})
    for provider, ms, peak in (("ours_triton", 10, 5), ("ours_sdpa_compiled", 16, 8), ("transformers", 25, 10)):
        for direction in ("training", "inference"):
            row = {**GPU, "slice": "models", "provider": provider, "what": "divided", "shape": "8x224", "batch": 16}
            rows.append({**row, "direction": direction, "ms": factor * ms, "peak_bytes": peak, "flops_needed": 1})
    clip = {**GPU, "slice": "largest", "provider": "ours_triton", "what": "divided", "batch": 8}
    rows.append({**clip, "shape": "96x224", "dtype": "bf16 autocast", "ms": 1.0, "direction": "training"})
    rows.append({**clip, "shape": "16x448", "status": "oom", "direction": "training"})
    return [{"key": str(number), "status": "ok", **row} for number, row in enumerate(rows)]


def test_targets_without_a_gpu_are_not_measured(tmp_path: Path) -> None:
    assert {target.reached for target in targets([])} == {NOT_MEASURED}
    output.write(tmp_path)
    text = (tmp_path / "gpu_targets.md").read_text()
    assert text.count(f"| {NOT_MEASURED} | {NOT_MEASURED} |") == len(targets([])) == 21
    assert json.dumps(output.summary(tmp_path)).count(NOT_MEASURED) == 42


def test_targets_are_judged(tmp_path: Path) -> None:
    path = tmp_path / "gpu.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in gpu_rows(1.25)))
    found = {target.text: target for target in targets(output.finished(read_lines(path)))}
    said = {text: target.reached for text, target in found.items()}
    assert said["time step, T = 8, bf16, forward: against the best other provider"] == "yes"
    assert found["time step, T = 8, bf16: share of the bandwidth floor, forward"].measured == pytest.approx(80)
    assert found["time step, T = 16, bf16: share of the bandwidth floor, backward"].measured == pytest.approx(80)
    assert found["space step, N = 784, bf16, forward: against the best SDPA path with its copies"].measured == 3
    assert said["ViT-B divided 8x224, inference, clips per second: against transformers"] == "yes"
    assert said["ViT-B divided 8x224, inference, clips per second: against transformers_compiled"] == NOT_MEASURED
    assert found["ViT-B divided 8x224, training memory: of transformers'"].measured == 50
    assert said["ViT-B divided 96x224 trains on one card: clips a batch"] == "yes"
    assert said["ViT-B divided 16x448 trains on one card: clips a batch"] == "NO"
    written = output.write(tmp_path)
    assert "gpu_measured.csv" in {file.name for file in written}
    text = (tmp_path / "gpu_measured.csv").read_text()
    table = tuple(csv.DictReader(text.splitlines()))
    assert decide(read(text)["NVIDIA X", "bfloat16"], 8)  # the kernels' own table takes the rows as they are
    assert [row["group_length"] for row in table] == ["8", "16", "196", "784"]
    csv_rows = list(csv.DictReader((tmp_path / "gpu.csv").read_text().splitlines()))
    ours = next(row for row in csv_rows if row["provider"] == "ours")
    assert float(ours["fraction_of_floor"]) == pytest.approx(0.8)
    assert ours["driver"] == "1"
    assert "NVIDIA X, driver 1, CUDA 13.0" in (tmp_path / "gpu_targets.md").read_text()
    slow = {target.text: target.reached for target in targets(output.finished(gpu_rows(2.0)))}
    assert slow["time step, T = 8, bf16: share of the bandwidth floor, forward"] == "NO"


def test_the_table_is_written_where_auto_reads_it(
    tmp_path: Path, measured: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows of other GPUs stay, earlier ones of the same GPU, dtype and length are replaced."""
    monkeypatch.undo()
    assert output.measured_file() == Path(auto.__file__).with_name(auto.MEASURED)
    monkeypatch.setattr(output, "measured_file", lambda: measured)
    heading = ",".join(output.MEASURED_COLUMNS)
    measured.write_text(f"{heading}\nNVIDIA Y,bfloat16,8,1,2\nNVIDIA X,bfloat16,8,9,2\nNVIDIA X,float16,8,9,2\n")
    (tmp_path / "gpu.jsonl").write_text("".join(json.dumps(row) + "\n" for row in gpu_rows(1.25)))
    assert measured in output.write(tmp_path)
    table = read(measured.read_text())
    assert decide(table["NVIDIA X", "bfloat16"], 8)
    assert not decide(table["NVIDIA X", "float16"], 8)
    assert table["NVIDIA Y", "bfloat16"] == ((8, True),)
    assert len(measured.read_text().splitlines()) == 1 + 4 + 2
    measured.unlink()
    assert measured not in output.write(tmp_path)
    assert "measured.csv: not written" in capsys.readouterr().err
    assert not measured.exists()
    assert output.install([]) == []


def test_what_killed_a_process_counts_as_failed() -> None:
    (row,) = output.finished([{**GPU, "key": "a", "status": "started", "slice": "kernels"}])
    assert (row["status"], row["note"]) == ("failed", "the process ended in it")


def test_pictures_are_drawn(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = output.finished(gpu_rows(1.5))
    drawn = pictures.draw(rows)
    assert set(drawn) == {"roofline", "bars"}
    assert all(png.startswith(b"\x89PNG") and len(png) > 10_000 for png in drawn.values())
    assert pictures.draw([row for row in rows if row["slice"] == "models"]) == {}
    monkeypatch.setitem(__import__("sys").modules, "timesformer_experiments.bench.gpu.pictures", None)
    assert output._pictures(rows, tmp_path / "gpu.jsonl") == []
    assert "no pictures" in capsys.readouterr().err


def test_the_committed_targets_are_those_of_the_committed_record() -> None:
    folder = Path(__file__).parents[3] / "results" / "bench"
    rows = output._gpu_rows(folder)
    assert (folder / "gpu_targets.md").read_text(encoding="utf-8") == to_markdown(targets(rows), rows)
