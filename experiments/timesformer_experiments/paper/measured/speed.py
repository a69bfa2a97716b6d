"""Speed of models at the paper's scale on this machine: inference and training steps with one clip."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from timesformer.config.registry import ModelConfig, build_model
from timesformer_experiments.records.folder import RunFolder
from timesformer_experiments.records.log import make_record, now_utc
from timesformer_experiments.specs.cost import CostSpec

REPETITIONS = 2
TRAINING = "train_step_clips_per_second"


def speed_record(name: str, config: ModelConfig, runs: Path) -> dict[str, Any]:
    """Measure a model's speed, or read the record of an earlier measurement from `runs`.

    Metrics: `clips_per_second` of inference and `train_step_clips_per_second` (forward, backward, SGD), in fp32, with
    batch 1, random clips and random weights.
    """
    spec = CostSpec(name=name, model=config)
    folder = RunFolder(runs, spec.hash())
    before = folder.record()
    if before is not None and TRAINING in before["metrics"]:
        return before
    started, began = now_utc(), time.perf_counter()
    metrics = _speeds(config)
    if before is not None:
        record = {**before, "metrics": {**before["metrics"], **metrics}}
    else:
        seconds = time.perf_counter() - began
        record = make_record(spec, started_utc=started, wall_seconds=seconds, metrics=metrics)
    folder.store(record)
    return record


def _speeds(config: ModelConfig) -> dict[str, Any]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build_model(config).to(device)
    clip = torch.randn(1, config.num_frames, config.in_channels, *config.height_width, device=device)
    label = torch.zeros(1, dtype=torch.long, device=device)
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9)

    def inference() -> None:
        with torch.inference_mode():
            model(clip)

    def training() -> None:
        torch.nn.functional.cross_entropy(model(clip), label).backward()
        optimiser.step()
        optimiser.zero_grad()

    model.eval()  # batch norm cannot average over a single clip of few pixels; dropout costs nothing
    return {
        "clips_per_second": 1 / _seconds(inference, device),
        TRAINING: 1 / _seconds(training, device),
        "speed_batch": 1,
    }


def _seconds(work: Callable[[], None], device: torch.device) -> float:
    """Return the median duration of the repetitions in seconds, after one warm-up."""
    times = []
    for _ in range(1 + REPETITIONS):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])
