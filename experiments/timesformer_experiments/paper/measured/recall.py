"""Attention recall of declared neighbourhoods, measured on trained models of joint attention."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from timesformer.attention import build
from timesformer.checkpoints import load_model
from timesformer.data import FrameCache, VideoDataset
from timesformer.data.splits import group_of
from timesformer.errors import InputError
from timesformer.maps.recall import attention_recall, mean_recall
from timesformer_experiments.paper.measured.kept import kept
from timesformer_experiments.records.folder import RunFolder
from timesformer_experiments.run.inputs import prepare
from timesformer_experiments.specs.run import ProbeData, RunSpec

KIND = "recall"
VERSION = 1
"""Version of the measurement.  Increase it when the same run and videos give other numbers; all is then remeasured."""


def measured(
    record: dict[str, Any], spec: RunSpec, runs: Path, data: Path, videos: int, patterns: Sequence[str]
) -> dict[str, Any]:
    """Measure what each pattern keeps of the attention of a finished run's model, on its first test videos.

    patterns: spelled as in tables, `sliding_tile(window=[1,3,3])`.  The metrics of the result: `videos` and `recall`,
    a list with the `pattern` and the fields of `timesformer.maps.recall.Recall`, means over the videos; `each` has
    the recall of every video, means over heads, with four digits.

    Raises InputError if the run is not on a probe.
    """
    if not isinstance(spec.data, ProbeData):
        raise InputError(f"recall: {spec.name}: expected a run on a probe")
    probe = spec.data

    def measure() -> dict[str, Any]:
        model = load_model(RunFolder(runs, record["hash"]).model).model.eval()
        samples = prepare(probe, data).annotations("test")[:videos]
        dataset = VideoDataset(samples, spec.preprocessing, train=False, cache=FrameCache(data / "frames"))
        items = [dataset[index] for index in range(len(dataset))]
        clips = [item["clip"] for item in items if isinstance(item, dict)]
        found, each = [], []
        for pattern in patterns:
            by_clip = [attention_recall(model, clip, build(pattern)) for clip in clips]
            found += [{"pattern": pattern, **recall.to_dict()} for recall in mean_recall(by_clip)]
            each.append([[float(f"{recall.recall:.4g}") for recall in of_clip] for of_clip in by_clip])
        names = {"videos": [sample.name for sample in samples], "groups": [group_of(sample) for sample in samples]}
        return {"metrics": {"videos": len(clips), "recall": found}, "each": {**names, "recall": each}}

    definition = {"version": VERSION, "videos": videos, "patterns": list(patterns)}
    with torch.no_grad():
        return kept(record, KIND, definition, runs, measure)
