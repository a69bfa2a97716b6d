"""Look at a probe, and ask how far classifiers without attention get on it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from timesformer.data.annotations import read_kinetics_csv
from timesformer.data.cache import FrameCache, decode
from timesformer.data.masks import MaskStore
from timesformer.data.probes.cheap import GATED, count_patches, forest, predict, read_clips
from timesformer.data.probes.generate import ProbeInfo
from timesformer.data.probes.kind import ORDER_BLIND_CEILING_PERCENT
from timesformer.intervals import wilson_interval

__all__ = [
    "CHEAP",
    "GATE_MARGIN_POINTS",
    "ORDER_BLIND_CEILING_PERCENT",
    "CheapResult",
    "cheap_best_percent",
    "cheap_classifiers",
    "contact_sheet",
    "gate",
]

CHEAP = ("mean_frame", "first_frame", "file_size", *GATED)
"""Names of the cheap classifiers."""

GATE_MARGIN_POINTS = 5.0
"""A probe on which a cheap classifier comes this close to the best scheme ranks no schemes."""

FEW_FRAMES = 4


@dataclass(frozen=True)
class CheapResult:
    """Accuracy of a cheap classifier on the test set with its 95 % Wilson interval, and its limit.

    limit_percent: highest accuracy that the kind of probe allows (`Kind.cheap_limits`), for example the order-blind
        ceiling of 50 % in `motion`; None in `appearance`, where a single frame may reveal the class
    """

    top1_percent: float
    low_percent: float
    high_percent: float
    limit_percent: float | None

    @property
    def within_limit(self) -> bool:
        """True if there is no limit or the interval's lower end does not exceed it."""
        return self.limit_percent is None or self.low_percent <= self.limit_percent


def cheap_classifiers(
    info: ProbeInfo, cache: FrameCache | None = None, max_train: int | None = None
) -> dict[str, CheapResult]:
    """Train on the probe's training set and test on its test set: mean_frame, first_frame, file_size, then `GATED`.

    The first three are forests of extremely randomised trees (scikit-learn, fixed seed), on grey frames at half
    resolution or on the number of bytes; the others are those of `timesformer.data.probes.cheap`, a forest, a linear
    model and an MLP on three kinds of features that need no attention.  `max_train` takes the first clips alone, which
    are as balanced as all.
    """
    train, test = (
        read_clips(read_kinetics_csv(path)[:limit], cache)
        for path, limit in ((info.train_csv, max_train), (info.test_csv, None))
    )
    count_patches(train, test)
    limits = info.kind.cheap_limits()
    results = {}
    for name in CHEAP:
        if name in GATED:
            predicted = predict(name, train, test)
        else:
            model = forest(len(train["label"]), min_samples_leaf=20 if name == "file_size" else 1)
            model.fit(train[name], train["label"])
            predicted = model.predict(test[name])
        correct = int((predicted == test["label"]).sum())
        low, high = wilson_interval(correct, len(test["label"]))
        percent = 100.0 * correct / len(test["label"])
        results[name] = CheapResult(percent, low, high, limits.get(name))
    return results


def cheap_best_percent(results: dict[str, CheapResult]) -> float:
    """The accuracy of the best of them."""
    return max(result.top1_percent for result in results.values())


def gate(cheap_best_percent: float, best_scheme_percent: float) -> bool:
    """True if a probe may rank attention schemes: the best of them beats the best cheap classifier by more than
    `GATE_MARGIN_POINTS`."""
    return best_scheme_percent - cheap_best_percent > GATE_MARGIN_POINTS


def contact_sheet(info: ProbeInfo, clips_per_class: int = 2, frames: int = 8) -> Figure:
    """Draw test clips of every class, one per row: `frames` frames in order, or all of a shorter video, the object's
    mask outlined on the last; few frames are drawn large, with the mask on all."""
    frames = min(frames, info.kind.frames)
    few = frames <= FEW_FRAMES
    side = 2.0 if few else 1.0
    samples = read_kinetics_csv(info.test_csv, num_classes=len(info.labels))
    masks = MaskStore()
    chosen = [
        sample
        for label in range(len(info.labels))
        for sample in [sample for sample in samples if sample.label == label][:clips_per_class]
    ]
    figure = Figure(figsize=(side * frames + 1.6, side * len(chosen)), layout="constrained")
    axes = figure.subplots(len(chosen), frames, squeeze=False)
    for row, sample in enumerate(chosen):
        video, mask = decode(sample.path), masks.get(sample.path)
        steps = np.linspace(0, len(video.pixels) - 1, frames).round().astype(int)
        for column, step in enumerate(steps):
            axis = axes[row, column]
            axis.imshow(video.pixels[step].transpose(1, 2, 0), interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            if (few or column == frames - 1) and 0 < mask[step].mean() < 1:
                axis.contour(mask[step], [0.5], colors="white", linewidths=1)
            if row == 0:
                axis.set_title(f"frame {step}", fontsize=8)
        assert isinstance(sample.label, int)
        axes[row, 0].set_ylabel(
            f"{info.labels[sample.label]}\n{Path(sample.name).stem}", fontsize=8, rotation=0, ha="right", va="center"
        )
    return figure
