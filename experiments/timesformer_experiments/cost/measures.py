"""Measures of a run or a cost; each entry states how it is measured, which metrics it gives and how they are shown.

Sweeps, jobs, reports and progress lines all read this registry.  To add a measure, add an entry to `MEASURES`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch

from timesformer.config.registry import Model, ModelConfig, build_model, macs_per_view
from timesformer.evaluation.protocols import protocol_named
from timesformer.training.recipe import Optimiser, Precision
from timesformer_experiments.report.tables import Origin

if TYPE_CHECKING:
    from timesformer_experiments.cost.memory import Device

GIB, MIB = 2**30, 2**20
WARM_UP, REPETITIONS = 1, 5


class CostRecipe(Protocol):
    """The fields of a recipe that determine the cost of a step."""

    @property
    def precision(self) -> Precision: ...
    @property
    def optimiser(self) -> Optimiser: ...
    @property
    def gradient_checkpointing(self) -> bool: ...


class Subject(Protocol):
    """A model to measure, with its batch and test protocol, such as a `CostSpec`."""

    @property
    def model(self) -> ModelConfig: ...
    @property
    def recipe(self) -> CostRecipe: ...
    @property
    def protocol(self) -> str: ...
    @property
    def batch(self) -> int: ...


@dataclass(frozen=True)
class Unit:
    """A smaller unit than the usual one, used if all values are below `limit`."""

    limit: float
    large: str
    small: str
    scale: float


@dataclass(frozen=True)
class Metric:
    """A number in a record's metrics, and how it is shown.

    `title`: heading of a table column, with the unit.  `axis`: label of an axis.  `scale`: divisor for display.
    `spread`: shown with an interval.  `kind`: type in data frames.  `smaller`: unit for small values.
    """

    name: str
    title: str
    axis: str
    origin: Origin
    scale: float = 1.0
    spread: bool = False
    kind: Literal["integer", "number"] | None = None
    smaller: Unit | None = None

    @property
    def key(self) -> str:
        """Column in a summary: the origin, then the name with the unit."""
        return f"{self.origin}_{self.name}"

    @property
    def bounds(self) -> tuple[str, str]:
        """Columns with the lower and upper end of the interval."""
        stem, _, unit = self.key.rpartition("_")
        return f"{stem}_low_{unit}", f"{stem}_high_{unit}"


ACCURACY = Metric("top1_percent", "Top-1 [%]", "top-1 accuracy [%]", "measured", spread=True)
PARAMS = Metric(
    "params", "Params [M]", "parameters [M]", "counted", 1e6, kind="integer", smaller=Unit(1e6, "[M]", "[k]", 1e3)
)
TFLOPS = Metric(
    "tflops_total",
    "TFLOPs",
    "TFLOPs, all views",
    "counted",
    kind="number",
    smaller=Unit(0.1, "TFLOPs", "GFLOPs", 1e-3),
)
MACS = Metric(
    "macs_per_view", "MACs per view [G]", "MACs per view [G]", "counted", 1e9, smaller=Unit(1e8, "[G]", "[M]", 1e6)
)
TRAINING = Metric(
    "train_peak_memory_bytes",
    "Training [GiB]",
    "training peak memory [GiB]",
    "predicted",
    GIB,
    smaller=Unit(GIB, "GiB", "MiB", MIB),
)
INFERENCE = Metric(
    "inference_peak_memory_bytes",
    "Inference [GiB]",
    "inference peak memory [GiB]",
    "predicted",
    GIB,
    smaller=Unit(GIB, "GiB", "MiB", MIB),
)
LATENCY = Metric("latency_seconds", "Latency [ms]", "latency per clip [ms]", "measured", 1e-3, spread=True)
THROUGHPUT = Metric("clips_per_second", "Clips per second", "clips per second", "measured", spread=True)


@dataclass(frozen=True)
class Measure:
    """A quantity that a sweep can measure.

    `done_by`: metric whose presence shows that a record has this measure.  `metrics`: metrics shown in tables and
    figures.  `take`: function that measures a model; None for results of training.  `brief`: function that makes a
    short text for a progress line from a record's metrics.  `timed`: True if it measures time, which other work on the
    machine would distort.
    """

    name: str
    done_by: str
    metrics: tuple[Metric, ...]
    take: Callable[[Subject], dict[str, Any]] | None = None
    brief: Callable[[Mapping[str, Any]], str] | None = None
    timed: bool = False


def _params(subject: Subject) -> dict[str, Any]:
    with torch.device("meta"):
        model = build_model(subject.model)
    return {"params": sum(parameter.numel() for parameter in model.parameters())}


def _macs(subject: Subject) -> dict[str, Any]:
    """Count MACs from the scheme's declaration alone (`timesformer cost` counts them twice)."""
    executed, views = macs_per_view(subject.model, "executed"), protocol_named(subject.protocol).views.per_video
    found: dict[str, Any] = {"macs_per_view": executed, "macs_needed": macs_per_view(subject.model, "needed")}
    if views is not None:  # no total if the number of views depends on the video
        found |= {"views": views, "tflops_total": executed * views / 1e12}
    return found


def predicted_memory(subject: Subject, device: Device = "cuda") -> dict[str, Any]:
    """Predict peak memory of a training step, with its parts, and of inference, in bytes, for the recipe's batch.

    device: device whose memory is predicted.  Records state that of a GPU, wherever they are made.
    """
    from timesformer_experiments.cost.memory import predict

    recipe = subject.recipe
    common: dict[str, Any] = {
        "batch": subject.batch,
        "precision": recipe.precision,
        "optimiser": recipe.optimiser,
        "device": device,
    }
    train = predict(subject.model, train=True, gradient_checkpointing=recipe.gradient_checkpointing, **common)
    inference = predict(subject.model, train=False, **common)
    parts = {
        f"train_{part}_bytes": getattr(train, f"{part}_bytes")
        for part in ("params", "gradients", "optimiser", "activations", "attention")
    }
    return {
        "memory_device": device,
        "memory_batch": subject.batch,
        "train_peak_memory_bytes": train.peak_bytes,
        **parts,
        "inference_peak_memory_bytes": inference.peak_bytes,
        "inference_attention_bytes": inference.attention_bytes,
    }


def _latency(subject: Subject) -> dict[str, Any]:
    return {"latency_seconds": _seconds(subject, 1)}


def _throughput(subject: Subject) -> dict[str, Any]:
    batch = subject.batch
    return {"clips_per_second": batch / _seconds(subject, batch), "speed_batch": batch}


def _seconds(subject: Subject, batch: int) -> float:
    """Median seconds of `REPETITIONS` forward passes on this machine."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config, bf16 = subject.model, subject.recipe.precision == "bf16"
    model: Model = build_model(config).eval().to(device)
    clip = torch.randn(batch, config.num_frames, config.in_channels, *config.height_width, device=device)
    times = []
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        for _ in range(WARM_UP + REPETITIONS):
            began = time.perf_counter()
            model(clip)
            if device.type == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - began)
    return statistics.median(times[WARM_UP:])


MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        Measure("accuracy", "top1_percent", (ACCURACY,), brief=lambda found: f"top-1 {found['top1_percent']:.1f} %"),
        Measure("params", "params", (PARAMS,), _params),
        Measure(
            "macs",
            "macs_per_view",
            (TFLOPS, MACS),
            _macs,
            brief=lambda found: f"{found['macs_per_view'] / 1e9:,.1f} GMACs",
        ),
        Measure(
            "latency",
            "latency_seconds",
            (LATENCY,),
            _latency,
            brief=lambda found: f"{1000 * found['latency_seconds']:.1f} ms",
            timed=True,
        ),
        Measure("throughput", "clips_per_second", (THROUGHPUT,), _throughput, timed=True),
        Measure(
            "memory",
            "memory_device",
            (TRAINING, INFERENCE),
            predicted_memory,
            brief=lambda found: f"{found['train_peak_memory_bytes'] / 2**30:,.1f} GiB to train",
        ),
    )
}
SHOWN = sorted(MEASURES.values(), key=lambda measure: measure.timed)
"""All measures in the order of display: timed ones come last."""
METRICS = tuple(metric for measure in SHOWN for metric in measure.metrics)


def timed(names: Sequence[str]) -> bool:
    """Return True if any of the measures is a time, which other work on the machine would distort."""
    return any(MEASURES[name].timed for name in names)


def measured(subject: Subject, names: Sequence[str]) -> dict[str, Any]:
    """Measure a model and return the metrics, without those that only training gives."""
    found: dict[str, Any] = {}
    for name, measure in MEASURES.items():
        if name in names and measure.take is not None:
            found |= measure.take(subject)
    return found


def brief(metrics: Mapping[str, Any]) -> str:
    """Return a short text on a finished run: its accuracy, or what was counted and measured."""
    there = [measure for measure in SHOWN if measure.brief and any(m.name in metrics for m in measure.metrics)]
    trained = [measure for measure in there if measure.take is None]
    return ", ".join(measure.brief(metrics) for measure in trained or there if measure.brief) or "done"
