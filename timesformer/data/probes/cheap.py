"""Classifiers that need no attention, on features of whole clips: what they solve ranks no attention schemes."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
from sklearn.cluster import MiniBatchKMeans
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import RidgeClassifierCV
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from timesformer.data.annotations import Sample
from timesformer.data.cache import FrameCache, decode

Array = np.ndarray

SHOWN_FRAMES = 8
"""Frames between which differences are taken, spread evenly over a clip."""
PATCH = 8
"""Height and width of a patch of the bag, in pixels."""
SCALES = (2, 4, 4)
"""Factors by which brightness and the two colours are made smaller before anything is computed from them: colours have
half the resolution of brightness, as in video."""
COLOURS = np.array([[0.299, 0.587, 0.114], [-0.169, -0.331, 0.5], [0.5, -0.419, -0.081]], np.float32)
"""Brightness, blue and red difference of (red, green, blue)."""
WORDS = 64
"""Kinds of patches that a bag counts."""
PATCHES_FOR_WORDS = 20_000
"""Patches of training clips, at most, by which the kinds are chosen."""


class Classifier(Protocol):
    """A classifier of scikit-learn."""

    def fit(self, features: Array, label: Array) -> object:
        """Learn from training clips."""

    def predict(self, features: Array) -> Array:
        """The classes of test clips."""


def forest(clips: int, min_samples_leaf: int = 1) -> Classifier:
    """A forest of extremely randomised trees, for so many training clips."""
    return ExtraTreesClassifier(n_estimators=100, min_samples_leaf=min_samples_leaf, random_state=0)


def linear(clips: int) -> Classifier:
    """Ridge regression on standardised features, its penalty chosen by leaving training clips out one by one."""
    return make_pipeline(StandardScaler(), RidgeClassifierCV(alphas=np.logspace(0, 5, 6)))


def mlp(clips: int) -> Classifier:
    """A network of one hidden layer on standardised features, for 40 rounds."""
    network = MLPClassifier((256,), alpha=1e-2, batch_size=min(64, clips), max_iter=40, random_state=0)
    return make_pipeline(StandardScaler(), network)


CLASSIFIERS: dict[str, Callable[[int], Classifier]] = {"forest": forest, "linear": linear, "mlp": mlp}

FEATURES = ("moments", "differences", "patches")
"""moments: mean frame, time-weighted mean frame and the products of both, pixel by pixel; differences: between frames
that follow one another; patches: how many of each kind a clip has, wherever and whenever.  All see brightness and
colour."""

GATED = tuple(f"{feature}_{classifier}" for feature in FEATURES for classifier in CLASSIFIERS)
"""Names of the results, features first."""


def predict(name: str, train: dict[str, Array], test: dict[str, Array]) -> Array:
    """The classes that one of `GATED` sees in the test clips."""
    feature, classifier = name.split("_")
    model = CLASSIFIERS[classifier](len(train["label"]))
    with warnings.catch_warnings():
        # The number of rounds is part of the definition.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(train[feature], train["label"])
    return np.asarray(model.predict(test[feature]))


def read_clips(samples: list[Sample], cache: FrameCache | None) -> dict[str, Array]:
    """label (n,), mean_frame and first_frame (n, pixels) in grey, file_size (n, 1), and in brightness and colour
    moments (n, 5 · values), differences (n, (frames - 1) · values) of at most `SHOWN_FRAMES` frames, and raw_patches
    (n, patches, values of a patch)."""
    read = cache.get if cache is not None else decode
    found: dict[str, list[Array]] = {
        name: [] for name in ("mean_frame", "first_frame", "moments", "differences", "raw_patches")
    }
    for sample in samples:
        pixels = read(sample.path).pixels
        found["mean_frame"].append(grey(pixels.mean(axis=0)))
        found["first_frame"].append(grey(pixels[0].astype(np.float64)))
        seen = planes(pixels)
        found["moments"].append(_moments(seen))
        shown = np.linspace(0, len(pixels) - 1, min(SHOWN_FRAMES, len(pixels))).round().astype(int)
        found["differences"].append(np.diff(_flat([plane[shown] for plane in seen]), axis=0).ravel())
        found["raw_patches"].append(_patches([plane[shown] for plane in seen]))
    stacked = {name: np.stack(values) for name, values in found.items()}
    return stacked | {
        "label": np.array([sample.label for sample in samples]),
        "file_size": np.array([[Path(sample.path).stat().st_size] for sample in samples]),
    }


def count_patches(train: dict[str, Array], test: dict[str, Array]) -> None:
    """Add `patches` (n, words) in place of raw_patches: how often each kind of patch is there.

    The kinds are the centres of clusters of the training clips' patches.
    """
    raw = train["raw_patches"]
    every = raw.reshape(-1, raw.shape[-1])
    step = -(-len(every) // PATCHES_FOR_WORDS)
    words = MiniBatchKMeans(min(WORDS, len(every[::step])), random_state=0, n_init=1, batch_size=2048)
    words.fit(every[::step])
    for clips in (train, test):
        raw = clips.pop("raw_patches")
        kinds = words.predict(raw.reshape(-1, raw.shape[-1])).reshape(len(raw), -1)
        clips["patches"] = np.stack([np.bincount(row, minlength=WORDS) for row in kinds]).astype(np.float64)


def grey(frame: Array) -> Array:
    """(3, H, W) to brightness at half resolution, flat."""
    luma = np.tensordot(np.array([0.299, 0.587, 0.114]), frame, axes=1)
    return _smaller(luma[None], 2).ravel()


def planes(pixels: Array) -> list[Array]:
    """Brightness (t, H / 2, W / 2) and the two colours (t, H / 4, W / 4) of (t, 3, H, W)."""
    found = np.einsum("cr,trhw->cthw", COLOURS, pixels.astype(np.float32))
    return [_smaller(plane, scale) for plane, scale in zip(found, SCALES, strict=True)]


def _smaller(plane: Array, scale: int) -> Array:
    """(t, H, W) with so many pixels made one along each side."""
    t, height, width = plane.shape[0], plane.shape[1] // scale, plane.shape[2] // scale
    cut = plane[:, : scale * height, : scale * width].reshape(t, height, scale, width, scale)
    found: Array = cut.mean(axis=(2, 4))
    return found


def _flat(seen: list[Array]) -> Array:
    """All values of each frame, (t, values)."""
    return np.concatenate([plane.reshape(len(plane), -1) for plane in seen], axis=1)


def _moments(seen: list[Array]) -> Array:
    """Mean frame, time-weighted mean frame, and their products."""
    frames = _flat([plane - np.median(plane) for plane in seen])
    time = np.linspace(-1, 1, len(frames)) if len(frames) > 1 else np.zeros(1)
    mean, weighted = frames.mean(axis=0), time @ frames
    return np.concatenate([mean, weighted, mean * weighted, mean**2, weighted**2]).astype(np.float32)


def _patches(seen: list[Array]) -> Array:
    """(patches, values of a patch)."""
    found = []
    for plane, scale in zip(seen, SCALES, strict=True):
        t, side = len(plane), PATCH // scale
        rows, columns = plane.shape[1] // side, plane.shape[2] // side
        cut = plane[:, : rows * side, : columns * side].reshape(t, rows, side, columns, side)
        found.append(cut.transpose(0, 1, 3, 2, 4).reshape(-1, side * side))
    return np.concatenate(found, axis=1)
