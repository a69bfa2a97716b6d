"""Localisation by attention maps: measurements on a trained model of a probe, whose object masks are known.

Each method of `timesformer.maps` explains the predicted class, on the first test videos of the run's probe (one view
each). Two baselines show the values without any learning: an untrained model of the same configuration, and a map of
random numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from timesformer import TimeSformer, TimeSformerConfig
from timesformer.checkpoints import load_model
from timesformer.data import FrameCache, Sample, VideoDataset
from timesformer.data.splits import group_of
from timesformer.errors import InputError
from timesformer.maps import METHODS, Saliency, deletion_insertion, energy_inside, pointing_game
from timesformer.maps.capture import grid_of
from timesformer.maps.gradients import Target
from timesformer.maps.methods import Method
from timesformer.seeding import seed_all
from timesformer_experiments.paper.measured.kept import kept
from timesformer_experiments.records.folder import RunFolder
from timesformer_experiments.run.inputs import prepare
from timesformer_experiments.specs.run import ProbeData, RunSpec

KIND = "localisation"
VERSION = 1
"""Version of the measurement.  Increase it when the same run and videos give other numbers; all is then remeasured."""
RANDOM = "random"
BATCH = 16
STEPS = 6
"""Number of steps in which a clip's patches are deleted or inserted."""
PLACES = ("energy_inside_percent", "pointing_percent")
CURVES = ("deletion_area", "insertion_area")


def methods() -> dict[str, Method]:
    """Return every method by its name, and the map of random numbers."""
    return {**METHODS, RANDOM: random_map}


def random_map(model: TimeSformer, clip: Tensor, target: Target = None) -> Saliency:
    """Return a map of independent uniform numbers, the same for equal shapes."""
    shape = (len(clip), 1, *grid_of(model, clip))
    return Saliency(RANDOM, ("class",), np.random.default_rng(0).random(shape, dtype=np.float32))


def measured(record: dict[str, Any], spec: RunSpec, runs: Path, data: Path, videos: int) -> dict[str, Any]:
    """Measure the model of a finished run, or read the record of an earlier measurement from the run's folder.

    record: record of the run. videos: number of test videos, from the first on. The metrics of the result: `videos`,
    the number of videos with a visible object; `object_area_percent`, the share of pixels inside the mask; for each
    method `PLACES` and `CURVES`; and under `untrained` the `PLACES` of the untrained model.  Beside the metrics, `each`
    has the videos' names and groups, and the same figures of every video, with four digits.

    Raises InputError if the run does not train a TimeSformer on a probe.
    """
    if not isinstance(spec.data, ProbeData) or not isinstance(spec.model, TimeSformerConfig):
        raise InputError(f"localisation: {spec.name}: expected a TimeSformer on a probe, which has object masks")
    config = spec.model
    measures = {"version": VERSION, "videos": videos, "methods": list(methods()), "steps": STEPS}

    def measure() -> dict[str, Any]:
        trained = load_model(RunFolder(runs, record["hash"]).model).model.eval()
        seed_all(spec.seed, "initialisation")
        untrained = TimeSformer(config).eval()
        samples, loaded = _batches(spec, data, videos)
        of_trained, of_untrained = _of_model(trained, loaded, curves=True), _of_model(untrained, loaded, curves=False)
        each = {
            "videos": [sample.name for sample in samples],
            "groups": [group_of(sample) for sample in samples],
            **_rounded(of_trained),
            "untrained": _rounded(of_untrained),
        }
        return {
            "metrics": {**_of_masks(loaded), **_means(of_trained), "untrained": _means(of_untrained)},
            "each": each,
        }

    # earlier measurements kept the means alone
    return kept(record, KIND, measures, runs, measure, whole=lambda found: "each" in found)


Loaded = list[tuple[Tensor, np.ndarray]]


def _batches(spec: RunSpec, data: Path, videos: int) -> tuple[list[Sample], Loaded]:
    """Return the test videos in which the object is visible, and their clips (b, t, 3, H, W) and masks (b, t, H, W)."""
    assert isinstance(spec.data, ProbeData)
    samples = prepare(spec.data, data).annotations("test")[:videos]
    cache = FrameCache(data / "frames")
    dataset = VideoDataset(samples, spec.preprocessing, train=False, cache=cache, masks=True)
    items = [dataset[index] for index in range(len(dataset))]
    assert all(isinstance(item, dict) for item in items)
    pairs = [(s, item) for s, item in zip(samples, items, strict=True) if isinstance(item, dict) and item["mask"].any()]
    seen, loaded = [item for _, item in pairs], Loaded()
    for start in range(0, len(seen), BATCH):
        part = seen[start : start + BATCH]
        clips, masks = (torch.cat([item[name] for item in part]) for name in ("clip", "mask"))
        loaded.append((clips, masks.numpy()))
    return [sample for sample, _ in pairs], loaded


def _of_masks(loaded: Loaded) -> dict[str, Any]:
    areas = np.concatenate([masks.mean((1, 2, 3)) for _, masks in loaded])
    return {"videos": len(areas), "object_area_percent": float(100 * areas.mean())}


Values = dict[str, dict[str, np.ndarray]]


def _of_model(model: TimeSformer, loaded: Loaded, curves: bool) -> Values:
    """Return, by method, for each video `PLACES` and, with `curves`, `CURVES`."""
    found: dict[str, dict[str, list[np.ndarray]]] = {name: {} for name in methods()}
    for clips, masks in loaded:
        for name, method in methods().items():
            saliency = method(model, clips, None)
            values = dict(
                zip(PLACES, (100 * energy_inside(saliency, masks), 100 * pointing_game(saliency, masks)), strict=True)
            )
            if curves:
                areas = deletion_insertion(model, clips, saliency, steps=STEPS)
                values |= dict(zip(CURVES, (areas.deletion, areas.insertion), strict=True))
            for measure, value in values.items():
                found[name].setdefault(measure, []).append(value.reshape(len(clips)))
    return {
        name: {measure: np.concatenate(parts) for measure, parts in measures.items()}
        for name, measures in found.items()
    }


def _means(values: Values) -> dict[str, dict[str, float]]:
    return {name: {measure: float(each.mean()) for measure, each in of.items()} for name, of in values.items()}


def _rounded(values: Values) -> dict[str, dict[str, list[float]]]:
    return {
        name: {measure: [float(f"{value:.4g}") for value in each] for measure, each in of.items()}
        for name, of in values.items()
    }
