"""Targets of the kernels, each compared with the record of a GPU."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from timesformer_experiments.bench.gpu.floors import Floor
from timesformer_experiments.bench.gpu.record import Row

NOT_MEASURED = "not measured"
TIME_SHAPES = {8: "8x14x14", 16: "16x28x28"}
SPACE_SHAPES = {196: "8x14x14", 784: "16x28x28"}
OURS = ("ours_triton", "ours_triton_fused", "ours_triton_compiled", "ours_triton_fused_compiled")
WORDS = {"forward": "forward", "forward_backward": "forward + backward"}


@dataclass(frozen=True)
class Target:
    """A required value of one quantity. `at_most`: the value is an upper limit. `measured`: None if not measured."""

    text: str
    wanted: float
    unit: str
    measured: float | None
    at_most: bool = False
    how: str = ""

    @property
    def reached(self) -> str:
        """Text on the result: yes, NO or 'not measured'."""
        if self.measured is None:
            return NOT_MEASURED
        return "yes" if (self.measured <= self.wanted if self.at_most else self.measured >= self.wanted) else "NO"

    def row(self) -> Row:
        """Return the target as a row of the csv."""
        return {
            "target": self.text,
            "wanted": f"{'at most' if self.at_most else 'at least'} {self.wanted:g} {self.unit}",
            "measured": NOT_MEASURED if self.measured is None else f"{self.measured:.3g}",
            "reached": self.reached,
            "how": self.how,
        }


def targets(rows: list[Row]) -> list[Target]:
    """Return all targets from the rows of one device; without rows, all are 'not measured'."""
    return [*_time(rows), *_space(rows), *_models(rows), *_clips(rows)]


def _time(rows: list[Row]) -> Iterator[Target]:
    for frames, shape in TIME_SHAPES.items():
        for direction in WORDS:
            ours, others = _step(rows, "time", shape, direction)
            best = _least(others)
            text = f"time step, T = {frames}, bf16, {WORDS[direction]}: against the best other provider"
            yield Target(text, 3, "times", *_ratio(best, ours))
        forward, both = (_step(rows, "time", shape, direction)[0] for direction in WORDS)
        text = f"time step, T = {frames}, bf16: share of the bandwidth floor"
        yield Target(f"{text}, forward", 75, "%", _floor_percent(forward))
        backward = None if forward is None else _floor_percent(both, forward)
        yield Target(f"{text}, backward", 65, "%", backward, how="the time of forward + backward less forward's")


def _space(rows: list[Row]) -> Iterator[Target]:
    for (patches, shape), wanted in zip(SPACE_SHAPES.items(), (1.3, 0.9), strict=True):
        for direction in WORDS:
            ours, others = _step(rows, "space", shape, direction)
            best = _least(row for row in others if row["provider"].startswith("sdpa"))
            text = f"space step, N = {patches}, bf16, {WORDS[direction]}: against the best SDPA path with its copies"
            yield Target(text, wanted, "times", *_ratio(best, ours))


def _models(rows: list[Row]) -> Iterator[Target]:
    for direction in ("training", "inference"):
        found = _where(rows, slice="models", what="divided", shape="8x224", direction=direction)
        ours = _least(row for row in found if row["provider"] in OURS)
        for peer, wanted in (("ours_sdpa_compiled", 1.5), ("transformers", 2), ("transformers_compiled", 2)):
            other = _least(row for row in found if row["provider"] == peer)
            text = f"ViT-B divided 8x224, {direction}, clips per second: against {peer}"
            yield Target(text, wanted, "times", *_ratio(other, ours))
    found = _where(rows, slice="models", what="divided", shape="8x224", direction="training")
    ours = _least((row for row in found if row["provider"] in OURS), "peak_bytes")
    other = _least((row for row in found if row["provider"] == "transformers"), "peak_bytes")
    share = None if ours is None or other is None else 100 * ours["peak_bytes"] / other["peak_bytes"]
    text = "ViT-B divided 8x224, training memory: of transformers'"
    yield Target(text, 60, "%", share, at_most=True, how="" if ours is None else ours["provider"])


def _clips(rows: list[Row]) -> Iterator[Target]:
    for shape in ("96x224", "16x448"):
        found = [
            row
            for row in rows
            if (row["slice"], row["what"], row["shape"]) == ("largest", "divided", shape)
            and row["provider"] in OURS
            and row["batch"] >= 8
        ]
        trained = [row["batch"] for row in found if row["status"] == "ok"]
        tried = any(row["status"] == "oom" for row in found)
        batch = max(trained) if trained else 0 if tried else None
        yield Target(f"ViT-B divided {shape} trains on one card: clips a batch", 8, "clips", batch)


def _where(rows: Iterable[Row], **fields: Any) -> list[Row]:
    """Return the finished rows in bf16 with these values, for the largest batch."""
    found = [
        row
        for row in rows
        if row["status"] == "ok"
        and row["dtype"].startswith("bf16")
        and all(row.get(name) == value for name, value in fields.items())
    ]
    largest = max((row["batch"] for row in found if row["provider"].startswith("ours")), default=0)
    return [row for row in found if row["batch"] == largest]


def _step(rows: list[Row], kind: str, shape: str, direction: str) -> tuple[Row | None, list[Row]]:
    """Return our row and all others at a step."""
    found = _where(rows, what=kind, shape=shape, direction=direction)
    found = [row for row in found if row["slice"] in ("kernels", "flex")]
    others = [row for row in found if row["provider"] != "ours"]
    return _least(row for row in found if row["provider"] == "ours"), others


def _least(rows: Iterable[Row], key: str = "ms") -> Row | None:
    return min((row for row in rows if row.get(key)), key=lambda row: row[key], default=None)


def _ratio(other: Row | None, ours: Row | None) -> tuple[float | None, bool, str]:
    """Return the other's milliseconds divided by ours."""
    if other is None or ours is None:
        return None, False, ""
    how = f"{ours['provider']} {ours['ms']:.4g} ms, {other['provider']} {other['ms']:.4g} ms, {ours['batch']} clips"
    return other["ms"] / ours["ms"], False, how


def _floor_percent(row: Row | None, less: Row | None = None) -> float | None:
    """Return the bandwidth floor in percent of the time; with `less`, for the difference between the two rows."""
    if row is None or "ceiling_bytes_per_second" not in row:
        return None
    moved, ms = row["bytes_needed"], row["ms"]
    if less is not None:
        moved, ms = moved - less["bytes_needed"], ms - less["ms"]
    floor = Floor(moved, 0).ms(row["ceiling_bytes_per_second"], row["ceiling_flops_per_second"])
    return 100 * floor / ms if ms > 0 else None


def to_markdown(found: list[Target], rows: list[Row]) -> str:
    """Return the targets as a table, with the device on which they were measured."""
    lines = ["# Targets of the kernels on a GPU", ""]
    if rows:
        row = max(rows, key=lambda row: row.get("finished_utc", ""))
        lines.append(
            f"{row['device_name']}, driver {row['driver']}, CUDA {row['cuda']}, torch {row['torch']}, triton "
            f"{row['triton']}, transformers {row['transformers'] or 'not installed'}."
        )
    else:
        lines.append("No GPU was measured. Run `timesformer bench --only targets` on a machine with a GPU.")
    lines += ["", "| Target | Wanted | Measured | Reached | |", "|---|---|---:|---|---|"]
    for target in found:
        cells = target.row()
        lines.append(
            f"| {cells['target']} | {cells['wanted']} | {cells['measured']} | {cells['reached']} | {cells['how']} |"
        )
    return "\n".join([*lines, ""])
