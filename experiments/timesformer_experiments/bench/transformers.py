"""Speed and memory on CPU, compared with TimesformerForVideoClassification of transformers.

ViT-B, one clip, fp32, random weights. Both models get the same input values and the same number of threads. The forward
pass is in eval mode without gradients, with interleaved repetitions so that other load on the machine affects both. Our
model is measured as trained and, for the forward pass, also after `fuse_for_inference`. Memory is the growth of the
peak resident set over one training step, in a fresh process.
"""

from __future__ import annotations

import importlib
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, Literal

import pandas as pd
import torch
from torch import Tensor, nn

from timesformer import TimeSformer, TimeSformerConfig
from timesformer_experiments.bench.fresh import figure_of
from timesformer_experiments.report.tables import Column, Table

Quantity = Literal["forward_seconds", "training_peak_bytes"]
Side = Literal["ours", "fused", "transformers"]
SIDES: dict[Quantity, tuple[Side, ...]] = {
    "forward_seconds": ("ours", "fused", "transformers"),
    "training_peak_bytes": ("ours", "transformers"),
}
HUGGING_FACE_NAMES = {"divided": "divided_space_time", "joint": "joint_space_time"}


@dataclass(frozen=True)
class Case:
    """One comparison. `wanted_ratio`: required ratio of the peer to ours (fused, where that is measured)."""

    quantity: Quantity
    attention: str
    num_frames: int
    wanted_ratio: float
    image_size: int = 224
    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    num_classes: int = 400

    @property
    def label(self) -> str:
        """Short text, such as `joint 16x224`."""
        return f"{self.attention} {self.num_frames}x{self.image_size}"


CASES = (
    Case("forward_seconds", "divided", 8, 1.0),
    Case("forward_seconds", "joint", 8, 1.8),
    Case("forward_seconds", "joint", 16, 2.5),
    Case("training_peak_bytes", "joint", 16, 2.0),
)


def build_model(side: Side, case: Case) -> nn.Module:
    """Build the model of a case with random weights, of equal size on both sides."""
    torch.manual_seed(0)
    if side != "transformers":
        fields = asdict(case)
        for name in ("quantity", "wanted_ratio"):
            del fields[name]
        model = TimeSformer(TimeSformerConfig(**fields))
        return model.fuse_for_inference() if side == "fused" else model
    from transformers import TimesformerConfig, TimesformerForVideoClassification

    sizes: dict[str, Any] = {
        "attention_type": HUGGING_FACE_NAMES[case.attention],
        "num_frames": case.num_frames,
        "image_size": case.image_size,
        "hidden_size": case.embed_dim,
        "num_hidden_layers": case.depth,
        "num_attention_heads": case.num_heads,
        "intermediate_size": 4 * case.embed_dim,
        "num_labels": case.num_classes,
    }
    return TimesformerForVideoClassification(TimesformerConfig(**sizes))


def logits_of(side: Side, model: nn.Module, clip: Tensor) -> Tensor:
    """Return the logits for a clip (b, t, c, H, W); the peer's output object is unwrapped."""
    output: Any = model(pixel_values=clip).logits if side == "transformers" else model(clip)
    assert isinstance(output, Tensor)
    return output


def _clip(case: Case) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, case.num_frames, 3, case.image_size, case.image_size, generator=generator)


def forward_seconds(case: Case, repetitions: int) -> dict[Side, list[float]]:
    """Measure the seconds of interleaved repetitions of all sides; the first of each is a warm-up and left out."""
    clip, sides = _clip(case), SIDES["forward_seconds"]
    models = {side: build_model(side, case).eval() for side in sides}
    seconds: dict[Side, list[float]] = {side: [] for side in sides}
    with torch.no_grad():
        for repetition in range(repetitions + 1):
            for side in sides if repetition % 2 else reversed(sides):
                start = time.perf_counter()
                logits_of(side, models[side], clip)
                if repetition:
                    seconds[side].append(time.perf_counter() - start)
    return seconds


def peak_resident_bytes() -> int:
    """Return the largest resident set of this process so far.

    On Linux, a child inherits ru_maxrss of its parent, so that the mark of its own address space is read instead.
    """
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
    except FileNotFoundError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, the system without /proc


def training_step_growth(side: Side, case: Case) -> int:
    """Measure the bytes by which one training step (weights, activations, gradients, SGD) raises this process's peak.

    To be called in a fresh process: the baseline is taken after the imports, before the model.
    """
    if side == "transformers":
        importlib.import_module("transformers.models.timesformer.modeling_timesformer")
    clip, label = _clip(case), torch.zeros(1, dtype=torch.long)
    baseline = peak_resident_bytes()
    model = build_model(side, case).train()
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3)
    nn.functional.cross_entropy(logits_of(side, model, clip), label).backward()
    optimiser.step()
    return peak_resident_bytes() - baseline


def training_peak_bytes(case: Case, threads: int, repetitions: int) -> dict[Side, list[int]]:
    """Measure the growth of the peak resident set in fresh processes, with ours and the peer interleaved."""
    growth: dict[Side, list[int]] = {side: [] for side in SIDES["training_peak_bytes"]}
    for _ in range(repetitions):
        for side in growth:
            values = (side, json.dumps(asdict(case)), str(threads))
            growth[side].append(
                figure_of(f"{side}, {case.label}", "timesformer_experiments.bench.transformers", *values)
            )
    return growth


def run(
    cases: tuple[Case, ...],
    *,
    repetitions: int = 5,
    memory_repetitions: int = 1,
    threads: int | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Measure all cases; return a record with repetitions, medians, ratios, versions, threads and shapes."""
    threads = threads or torch.get_num_threads()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    results = []
    try:
        for case in cases:
            progress(f"{case.quantity}: {case.label}")
            samples: dict[Side, list[Any]] = (
                forward_seconds(case, repetitions)
                if case.quantity == "forward_seconds"
                else training_peak_bytes(case, threads, memory_repetitions)
            )
            medians = {side: statistics.median(found) for side, found in samples.items()}
            ratios = {side: medians["transformers"] / medians[side] for side in samples if side != "transformers"}
            results.append(
                {
                    **asdict(case),
                    "clip_shape": list(_clip(case).shape),
                    **{f"{side}_{case.quantity}": found for side, found in samples.items()},
                    **{f"{side}_median_{case.quantity}": median for side, median in medians.items()},
                    **{f"ratio_transformers_to_{side}": ratio for side, ratio in ratios.items()},
                    "reached": ratios.get("fused", ratios["ours"]) >= case.wanted_ratio,
                }
            )
    finally:
        torch.set_num_threads(before)
    return {
        "bench": "cpu_vs_transformers",
        "what": "ViT-B, one clip, fp32, random weights; forward: eval, no_grad, medians of interleaved repetitions; "
        "memory: growth of the peak resident set over one training step (SGD) in a fresh process",
        "threads": threads,
        "cpu": _cpu(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("torch", "transformers")},
        "finished_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "results": results,
    }


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (FileNotFoundError, StopIteration):
        return platform.processor() or platform.machine()


UNITS = {"forward_seconds": ("forward, seconds", 1.0), "training_peak_bytes": ("training step, peak GiB", 2.0**30)}


def table(record: dict[str, Any]) -> Table:
    """Return the record as a table: medians of both sides, their ratio and the required ratio."""
    rows = [
        {
            "case": f"{result['attention']} {result['num_frames']}x{result['image_size']}",
            "quantity": UNITS[result["quantity"]][0],
            **{f"measured_{side}": _median(result, side) for side in SIDES["forward_seconds"]},
            "measured_ratio_ours": result["ratio_transformers_to_ours"],
            "measured_ratio_fused": result.get("ratio_transformers_to_fused"),
            "wanted_ratio": result["wanted_ratio"],
            "reached": "yes" if result["reached"] else "NO",
        }
        for result in record["results"]
    ]
    columns = (
        Column("case", "ViT-B, one clip", "label"),
        Column("quantity", "Quantity", "label"),
        Column("measured_ours", "Ours", "measured", decimals=2),
        Column("measured_fused", "Ours, fused for inference", "measured", decimals=2),
        Column("measured_transformers", "transformers", "measured", decimals=2),
        Column("measured_ratio_ours", "Ratio", "measured", decimals=2),
        Column("measured_ratio_fused", "Ratio, fused", "measured", decimals=2),
        Column("wanted_ratio", "Wanted, at least", "label", decimals=1),
        Column("reached", "Reached", "label"),
    )
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    caption = f"CPU against transformers: {record['cpu']}, {record['threads']} threads, {versions}"
    return Table(pd.DataFrame(rows), columns, caption, measured="measured on this machine")


def _median(result: dict[str, Any], side: Side) -> float | None:
    """Return a side's median in the table's unit; None if it was not measured."""
    quantity: Quantity = result["quantity"]
    return result[f"{side}_median_{quantity}"] / UNITS[quantity][1] if side in SIDES[quantity] else None


def _child(side: str, case: str, threads: str) -> None:
    torch.set_num_threads(int(threads))
    print(training_step_growth("transformers" if side == "transformers" else "ours", Case(**json.loads(case))))


if __name__ == "__main__":
    _child(*sys.argv[1:])
