"""Files made from the record: one csv with a floor for every row, the table for `backend="auto"`, targets, pictures."""

from __future__ import annotations

import csv
import io
from importlib import resources
from pathlib import Path
from typing import Any

from timesformer.errors import InputError
from timesformer.files import write_atomic
from timesformer_experiments.bench.gpu import say
from timesformer_experiments.bench.gpu.bench import record_path
from timesformer_experiments.bench.gpu.floors import Floor
from timesformer_experiments.bench.gpu.record import Row, read_lines
from timesformer_experiments.bench.gpu.targets import targets, to_markdown
from timesformer_kernels.auto import MEASURED

COLUMNS = (
    "slice", "provider", "what", "shape", "batch", "heads", "head_width", "dtype", "direction", "status", "ms",
    "clips_per_second", "peak_bytes", "bytes_needed", "flops_needed", "floor_ms", "fraction_of_floor",
    "bytes_per_second", "flops_per_second", "error_vs_float64", "error_share", "largest", "note", "sizes", "device",
    "device_name", "driver", "cuda", "cudnn", "threads", "python", "torch", "triton", "transformers", "code",
    "run_name", "finished_utc",
)  # fmt: skip
MEASURED_COLUMNS = ("gpu", "dtype", "group_length", "kernels_ms", "other_ms")


def write(out: Path) -> list[Path]:
    """Write csv and pictures of each record in the folder, and the targets, which need a GPU's record in full size."""
    written = []
    for device in ("cuda", "cpu"):
        path = record_path(out, device)
        rows = finished(read_lines(path))
        if rows:
            written.append(write_atomic(path.with_suffix(".csv"), to_csv(rows, COLUMNS)))
            written += _pictures(rows, path)
    gpu = _gpu_rows(out)
    if gpu:
        measured = auto_table(gpu)
        written.append(write_atomic(out / "gpu_measured.csv", to_csv(measured, MEASURED_COLUMNS)))
        written += install(measured)
    found = targets(gpu)
    written.append(write_atomic(out / "gpu_targets.csv", to_csv([t.row() for t in found], tuple(found[0].row()))))
    written.append(write_atomic(out / "gpu_targets.md", to_markdown(found, gpu)))
    return written


def measured_file() -> Path:
    """Return the file that `backend="auto"` reads, beside the kernels."""
    return Path(str(resources.files("timesformer_kernels").joinpath(MEASURED)))


def install(table: list[Row]) -> list[Path]:
    """Write a table where `backend="auto"` reads it; rows of other GPUs, dtypes and lengths stay.

    Returns the file; nothing, with a message, if the table is empty or the file cannot be written.
    """
    if not table:
        return []
    path, fields = measured_file(), MEASURED_COLUMNS[:3]
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows: dict[tuple[str, ...], Row] = {tuple(row[x] for x in fields): row for row in csv.DictReader(file)}
        rows |= {tuple(str(row[x]) for x in fields): row for row in table}
        ordered = sorted(rows.values(), key=lambda row: (row["gpu"], row["dtype"], int(row["group_length"])))
        return [write_atomic(path, to_csv(ordered, MEASURED_COLUMNS))]
    except (OSError, InputError) as error:
        say(f'{path}: not written ({error}); backend="auto" goes by its earlier rows: copy gpu_measured.csv there')
        return []


def summary(out: Path) -> dict[str, Any]:
    """Return the targets, and the number of measurements by device and status."""
    counts: dict[str, dict[str, int]] = {}
    for device in ("cuda", "cpu"):
        for row in finished(read_lines(record_path(out, device))):
            counts.setdefault(device, {}).setdefault(row["status"], 0)
            counts[device][row["status"]] += 1
    return {"measurements": counts, "targets": [target.row() for target in targets(_gpu_rows(out))]}


def _gpu_rows(out: Path) -> list[Row]:
    """Return the rows in full size of the GPU that was measured last."""
    return latest_device([row for row in finished(read_lines(record_path(out, "cuda"))) if row["sizes"] == "full"])


def finished(lines: list[Row]) -> list[Row]:
    """Return the last line of every measurement, with the floor from the ceilings of its own run."""
    last = {line["key"]: line for line in lines}
    ceilings: dict[str, dict[str, float]] = {}
    for line in last.values():
        if line["slice"] == "ceilings" and line["status"] == "ok":
            found = ceilings.setdefault(line["run"], {})
            found |= {name: line[name] for name in ("bytes_per_second", "flops_per_second") if name in line}
    return [_with_floor(line, ceilings.get(line.get("run_name", ""), {})) for line in last.values()]


def _with_floor(line: Row, ceilings: dict[str, float]) -> Row:
    if line["status"] == "started":
        return {**line, "status": "failed", "note": "the process ended in it"}
    if line["slice"] in ("ceilings", "checks", "largest", "tools") or len(ceilings) < 2 or "flops_needed" not in line:
        return line
    floor = Floor(line.get("bytes_needed", 0), line["flops_needed"])
    ms = floor.ms(ceilings["bytes_per_second"], ceilings["flops_per_second"])
    rates = {f"ceiling_{name}": value for name, value in ceilings.items()}
    fraction = ms / line["ms"] if line.get("ms") else None
    return {**line, **rates, "floor_ms": ms, "fraction_of_floor": fraction}


def latest_device(rows: list[Row]) -> list[Row]:
    """Return the rows of the device that was measured last; different devices are not compared."""
    if not rows:
        return []
    name = max(rows, key=lambda row: row.get("finished_utc", ""))["device_name"]
    return [row for row in rows if row["device_name"] == name]


def auto_table(rows: list[Row]) -> list[Row]:
    """Return the table from which `backend="auto"` chooses.

    It holds milliseconds of forward and backward by our kernels and by PyTorch's default, summed over the steps with
    groups of equal length, at the largest batch measured for both.
    """
    times: dict[tuple[str, str, int], dict[str, dict[tuple[Any, ...], float]]] = {}
    for row in rows:
        if row["slice"] != "kernels" or row["status"] != "ok" or row["direction"] != "forward_backward":
            continue
        if row["provider"] in ("ours", "sdpa"):
            key = (row["device_name"], _torch_name(row["dtype"]), group_length(row["what"], row["shape"]))
            place = (row["batch"], row["what"], row["shape"])
            times.setdefault(key, {}).setdefault(row["provider"], {})[place] = row["ms"]
    table = []
    for (gpu, dtype, length), found in sorted(times.items()):
        both = set(found.get("ours", {})) & set(found.get("sdpa", {}))
        if both:
            batch = max(place[0] for place in both)
            kernels, other = (
                sum(ms for place, ms in found[name].items() if place in both and place[0] == batch)
                for name in ("ours", "sdpa")
            )
            table.append(
                dict(zip(MEASURED_COLUMNS, (gpu, dtype, length, round(kernels, 5), round(other, 5)), strict=True))
            )
    return table


def _torch_name(dtype: str) -> str:
    return {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}[dtype]


def group_length(kind: str, shape: str) -> int:
    """Return the tokens per group of a kind of step on a grid such as 8x14x14."""
    from timesformer_experiments.bench.gpu.sizes import step_of

    t, h, w = (int(length) for length in shape.split("x"))
    over: Any = step_of(kind).over[0]
    return max(tile.group_size for tile in over.tiles((t, h, w)))


def to_csv(rows: list[Row], columns: tuple[str, ...]) -> str:
    """Return rows as csv in full precision; missing values are empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: "" if row.get(name) is None else row[name] for name in columns} for row in rows)
    return text.getvalue()


def _pictures(rows: list[Row], path: Path) -> list[Path]:
    try:
        from timesformer_experiments.bench.gpu.pictures import draw
    except ImportError as error:
        say(f"no pictures: {error}")
        return []
    return [write_atomic(path.with_name(f"{path.stem}_{name}.png"), png) for name, png in draw(rows).items()]
