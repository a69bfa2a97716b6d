"""Predicted and measured peak memory: growth of the resident set on a CPU, the allocator's peak on a GPU.

Every case runs in its own process, on a model that takes a few seconds per step and whose activations are large
compared with its weights. On the CPU, the baseline is the resident set after a warm-up on a tiny model, with the
libraries loaded; the peak is the kernel's high-water mark of the process. malloc is set to return every freed block of
64 KiB and more to the system (`MALLOC_MMAP_THRESHOLD_`). By default it keeps freed blocks, so that the resident set
depends on malloc as much as on the model; two cases show this and have no tolerance.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

import pandas as pd
import torch
from torch import nn

from timesformer import TimeSformer, TimeSformerConfig
from timesformer.attention import names
from timesformer.errors import InputError
from timesformer.training.recipe import Optimiser, Precision, Recipe
from timesformer_experiments.bench.fresh import figure_of
from timesformer_experiments.bench.transformers import peak_resident_bytes
from timesformer_experiments.cost.memory import predict
from timesformer_experiments.report.tables import Column, Table

MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536"}
TOLERANCES = {"cpu": 0.15, "cuda": 0.10}
SIZE: dict[str, Any] = {
    "num_frames": 8,
    "image_size": 112,
    "patch_size": 8,
    "embed_dim": 192,
    "num_heads": 4,
    "depth": 3,
    "temporal_depth": 3,
    "num_classes": 10,
}
TINY: dict[str, Any] = {**SIZE, "num_frames": 2, "image_size": 16, "embed_dim": 64, "depth": 1}
"""Size of the model for the warm-up, which runs the same operators."""


@dataclass(frozen=True)
class Case:
    """One step to predict and to measure; `fields`: fields of the model's configuration.

    malloc_keeps: leave malloc at its default, for information.
    """

    attention: str
    train: bool = True
    backend: str = "sdpa"
    precision: Precision = "fp32"
    optimiser: Optimiser = "sgd"
    gradient_checkpointing: bool = False
    batch: int = 4
    malloc_keeps: bool = False
    device: str = "cpu"
    fields: dict[str, Any] = field(default_factory=lambda: dict(SIZE))

    @property
    def label(self) -> str:
        """Short text, such as `joint, training, sdpa, fp32`."""
        what = "training" if self.train else "inference"
        extra = f", {self.optimiser}" * (self.optimiser != "sgd") + ", checkpointing" * self.gradient_checkpointing
        extra += ", malloc's own rules" * self.malloc_keeps
        return f"{self.attention}, {what}, {self.backend}, {self.precision}{extra}"

    def config(self, fields: dict[str, Any] | None = None) -> TimeSformerConfig:
        """Return the model's configuration, with other sizes if `fields` are given."""
        return TimeSformerConfig.from_dict(
            {"attention": self.attention, "backend": self.backend, **(fields if fields is not None else self.fields)}
        )


def cases(device: str = "cpu") -> tuple[Case, ...]:
    """Return the cases: training of every scheme with fused and with unfused attention, and inference, bf16, AdamW and
    gradient checkpointing for single schemes.

    Raises:
        InputError: the device is neither cpu nor cuda.
    """
    if device not in ("cpu", "cuda"):
        raise InputError(f"device: expected cpu or cuda, got {device!r}")
    each = [Case(name, backend=backend, device=device) for backend in ("sdpa", "reference") for name in names()]
    more = [
        Case("divided", train=False, device=device),
        Case("joint", train=False, backend="reference", device=device),
        Case("divided", precision="bf16", device=device),
        Case("divided", optimiser="adamw", device=device),
        Case("divided", gradient_checkpointing=True, device=device),
    ]
    if device == "cpu":
        more += [Case(name, malloc_keeps=True) for name in ("divided", "joint")]
    return (*each, *more)


def predicted_bytes(case: Case) -> int:
    """Predict the peak memory of a case."""
    return predict(
        case.config(),
        batch=case.batch,
        train=case.train,
        precision=case.precision,
        optimiser=case.optimiser,
        gradient_checkpointing=case.gradient_checkpointing,
        device="cuda" if case.device == "cuda" else "cpu",
    ).peak_bytes


def resident_bytes() -> int:
    """Return the resident set of this process now, or without /proc the largest so far."""
    try:
        with open("/proc/self/statm", encoding="ascii") as sizes:
            return int(sizes.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except FileNotFoundError:
        return peak_resident_bytes()


def run_steps(case: Case, config: TimeSformerConfig, steps: int = 2) -> None:
    """Run steps as the training loop does; from the second step on, the optimiser's state exists."""
    torch.manual_seed(0)
    height, width = config.height_width
    model = TimeSformer(config).to(case.device).train(case.train)
    model.gradient_checkpointing = case.gradient_checkpointing
    optimiser = Recipe(steps=1, optimiser=case.optimiser).build_optimiser(model)
    clips = torch.randn(case.batch, config.num_frames, config.in_channels, height, width, device=case.device)
    labels = torch.zeros(case.batch, dtype=torch.long, device=case.device)
    for _ in range(steps):
        with (
            torch.set_grad_enabled(case.train),
            torch.autocast(case.device, torch.bfloat16, enabled=case.precision == "bf16"),
        ):
            logits = model(clips)
        if case.train:
            nn.functional.cross_entropy(logits.float(), labels).backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)


def growth_bytes(case: Case) -> int:
    """Measure the bytes by which the steps of a case raise the memory in use; to be called in a fresh process."""
    run_steps(case, case.config(TINY))
    if case.device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run_steps(case, case.config())
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    before = resident_bytes()
    run_steps(case, case.config())
    return peak_resident_bytes() - before


def measured_bytes(case: Case, threads: int = 1) -> int:
    """Return `growth_bytes` of a fresh process with `MALLOC` set.

    Raises:
        RuntimeError: the process failed; the message ends with its standard error.
    """
    values = (json.dumps(asdict(case)), str(threads))
    return figure_of(
        case.label, "timesformer_experiments.bench.memory", *values, environment={} if case.malloc_keeps else MALLOC
    )


def run(
    chosen: Sequence[Case], *, threads: int = 1, progress: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Predict and measure the cases one after the other; return a record with versions and settings.

    Raises:
        InputError: a case needs a GPU and there is none; nothing is measured.
    """
    if any(case.device == "cuda" for case in chosen) and not torch.cuda.is_available():
        raise InputError("device: 'cuda' is not available on this machine; expected 'cpu'")
    results = []
    for case in chosen:
        progress(f"memory: {case.label}")
        predicted, measured = predicted_bytes(case), measured_bytes(case, threads)
        off = predicted / measured - 1
        results.append(
            {
                **asdict(case),
                "label": case.label,
                "predicted_peak_bytes": predicted,
                "measured_peak_bytes": measured,
                "difference_percent": 100 * off,
                "tolerance_percent": None if case.malloc_keeps else 100 * TOLERANCES[case.device],
                "reached": None if case.malloc_keeps else abs(off) <= TOLERANCES[case.device],
            }
        )
    return {
        "bench": "memory_check",
        "what": "peak of two steps: predicted on fake tensors; measured as the growth of the resident set of a fresh "
        "process (CPU) or as the allocator's peak (GPU)",
        "malloc": MALLOC,
        "threads": threads,
        "machine": platform.machine(),
        "python": platform.python_version(),
        "versions": {"torch": version("torch")},
        "finished_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "results": results,
    }


def table(record: dict[str, Any]) -> Table:
    """Return the record as a table: predicted, measured, difference."""
    rows = [
        {
            "case": result["label"],
            "predicted_peak_mib": result["predicted_peak_bytes"] / 2**20,
            "measured_peak_mib": result["measured_peak_bytes"] / 2**20,
            "measured_difference_percent": result["difference_percent"],
            "reached": {True: "yes", False: "NO", None: None}[result["reached"]],
        }
        for result in record["results"]
    ]
    columns = (
        Column("case", "Step", "label"),
        Column("predicted_peak_mib", "Predicted [MiB]", "predicted", decimals=0),
        Column("measured_peak_mib", "Measured [MiB]", "measured", decimals=0),
        Column("measured_difference_percent", "Predicted less measured [%]", "measured", decimals=1),
        Column("reached", "Within tolerance", "label"),
    )
    first = record["results"][0]
    size = first["fields"]
    caption = (
        f"Predicted and measured peak memory on {first['device']}, {first['batch']} clips of {size['num_frames']} "
        f"frames of {size['image_size']} pixels, patches of {size['patch_size']}, width {size['embed_dim']}, depth "
        f"{size['depth']}; tolerance {first['tolerance_percent']:.0f} %"
    )
    return Table(pd.DataFrame(rows), columns, caption, measured="measured on this machine")


def _child(case: str, threads: str) -> None:
    torch.set_num_threads(int(threads))
    print(growth_bytes(Case(**json.loads(case))))


if __name__ == "__main__":
    _child(*sys.argv[1:])
