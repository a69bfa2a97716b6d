"""Inspect a probe: a contact sheet, and the accuracy of three classifiers that see no motion."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from sklearn.ensemble import ExtraTreesClassifier

from timesformer.data.annotations import read_kinetics_csv
from timesformer.data.cache import FrameCache, decode
from timesformer.data.masks import MaskStore
from timesformer.data.probes.generate import ProbeInfo
from timesformer.data.probes.kind import ORDER_BLIND_CEILING_PERCENT
from timesformer.intervals import wilson_interval

__all__ = ["ORDER_BLIND_CEILING_PERCENT", "CheapResult", "cheap_classifiers", "contact_sheet"]

Array = np.ndarray


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
    """Train three classifiers on the probe's training set and test them: mean_frame, first_frame, file_size.

    Each is a forest of extremely randomised trees (scikit-learn, fixed seed) on grey frames at half resolution or on
    the file size in bytes.  `max_train` limits training to the first clips, whose classes are as balanced as in the
    whole set.
    """
    train, test = (
        _features(path, cache, limit) for path, limit in ((info.train_csv, max_train), (info.test_csv, None))
    )
    limits = info.kind.cheap_limits()
    results = {}
    for name in ("mean_frame", "first_frame", "file_size"):
        leaf = 20 if name == "file_size" else 1
        forest = ExtraTreesClassifier(n_estimators=100, min_samples_leaf=leaf, random_state=0)
        forest.fit(train[name], train["label"])
        correct = int((forest.predict(test[name]) == test["label"]).sum())
        low, high = wilson_interval(correct, len(test["label"]))
        percent = 100.0 * correct / len(test["label"])
        results[name] = CheapResult(percent, low, high, limits[name])
    return results


def contact_sheet(info: ProbeInfo, clips_per_class: int = 2, frames: int = 8) -> Figure:
    """Draw test clips of every class, one per row: `frames` frames in order, the object's mask outlined on the last."""
    samples = read_kinetics_csv(info.test_csv, num_classes=len(info.labels))
    masks = MaskStore()
    chosen = [
        sample
        for label in range(len(info.labels))
        for sample in [sample for sample in samples if sample.label == label][:clips_per_class]
    ]
    figure = Figure(figsize=(frames + 1.6, len(chosen)), layout="constrained")
    axes = figure.subplots(len(chosen), frames, squeeze=False)
    for row, sample in enumerate(chosen):
        video, mask = decode(sample.path), masks.get(sample.path)
        steps = np.linspace(0, len(video.pixels) - 1, frames).round().astype(int)
        for column, step in enumerate(steps):
            axis = axes[row, column]
            axis.imshow(video.pixels[step].transpose(1, 2, 0), interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            if column == frames - 1 and 0 < mask[step].mean() < 1:
                axis.contour(mask[step], [0.5], colors="white", linewidths=1)
            if row == 0:
                axis.set_title(f"frame {step}", fontsize=8)
        assert isinstance(sample.label, int)
        axes[row, 0].set_ylabel(
            f"{info.labels[sample.label]}\n{Path(sample.name).stem}", fontsize=8, rotation=0, ha="right", va="center"
        )
    return figure


def _features(csv: Path, cache: FrameCache | None, limit: int | None) -> dict[str, Array]:
    """Return the arrays label (n,), mean_frame and first_frame (n, pixels), and file_size (n, 1)."""
    read = cache.get if cache is not None else decode
    samples = read_kinetics_csv(csv)[:limit]
    mean, first = [], []
    for sample in samples:
        pixels = read(sample.path).pixels
        mean.append(_grey(pixels.mean(axis=0)))
        first.append(_grey(pixels[0].astype(np.float64)))
    return {
        "label": np.array([sample.label for sample in samples]),
        "mean_frame": np.stack(mean),
        "first_frame": np.stack(first),
        "file_size": np.array([[sample.path.stat().st_size] for sample in samples]),
    }


def _grey(frame: Array) -> Array:
    """Convert a frame (3, H, W) to a flat vector of brightness at half resolution."""
    luma = np.tensordot(np.array([0.299, 0.587, 0.114]), frame, axes=1)
    height, width = luma.shape[0] // 2, luma.shape[1] // 2
    return luma[: 2 * height, : 2 * width].reshape(height, 2, width, 2).mean(axis=(1, 3)).ravel()
