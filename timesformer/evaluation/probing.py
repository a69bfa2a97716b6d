"""Classifiers on the frozen features of a model: how far its representation alone gets on other videos.

    linear      logistic regression on standardised features; the strength is the inverse C of its penalty
    knn         the vote of the nearest training videos by cosine, weighted by distance; the strength is their number
    attentive   one learned query that reads all tokens (`timesformer.models.pooling`) and a linear layer; the
                strength is the weight decay

The strength is chosen by the accuracy on validation videos, of equal ones the first.  Then the classifier is fitted to
the whole training list and tested once.  Linear and nearest-neighbour probes are scikit-learn's, on the vector that the
model's own classifier reads, as a mean over the views.
"""

import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.utils.data import BatchSampler, Dataset, SequentialSampler

from timesformer.config.transformer import TimeSformerConfig
from timesformer.data import VideoDataset, collate
from timesformer.data.loading import batches
from timesformer.errors import InputError
from timesformer.evaluation.evaluate import EvalResult, Protocol, UnreadableVideos, merge_views, result_of
from timesformer.evaluation.frame_order import FrameOrder, rearranged
from timesformer.models.pooling import AttentivePooler
from timesformer.seeding import seed_all
from timesformer.training.loop import fit
from timesformer.training.recipe import Precision, Recipe

ProbeKind = Literal["linear", "attentive", "knn"]
KINDS: tuple[ProbeKind, ...] = get_args(ProbeKind)
STRENGTHS: dict[ProbeKind, tuple[float, ...]] = {
    "linear": (1e4, 1e3, 1e2, 1e1, 1e0, 1e-1, 1e-2),
    "attentive": (1.0, 0.1, 0.01),
    "knn": (50, 20, 10, 5, 3, 1),
}
"""Strengths of a probe, the strongest first."""
ITERATIONS = 2000
EPOCHS, BATCH, RATE = 40, 32, 1e-3
"""Training of an attentive probe: AdamW with one cycle of the learning rate."""


@dataclass(frozen=True)
class Features:
    """Frozen features of videos: vectors (n, views, d), or tokens (n, views, t, h, w, d), in float32.

    label: int64 (n,); index: of the videos in the dataset (n,); unreadable: (path, reason) of the others.
    """

    values: np.ndarray
    label: np.ndarray
    index: np.ndarray
    unreadable: list[tuple[str, str]]
    enlarged: int = 0

    @property
    def vectors(self) -> np.ndarray:
        """Means over the views, (n, d)."""
        return np.asarray(self.values.mean(1))


@dataclass(frozen=True)
class Probed:
    """Result of a probe on the test videos, and how its strength was chosen.

    percents: accuracy on validation by strength; train_videos: of the final fit; validation_videos: of the choice.
    """

    kind: ProbeKind
    result: EvalResult
    strength: float
    percents: dict[float, float]
    train_videos: int
    validation_videos: int

    def statement(self) -> dict[str, Any]:
        """Return what must accompany the metrics."""
        return {
            "probe": self.kind,
            "strength": self.strength,
            "validation_percent": self.percents[self.strength],
            "strengths": [{"strength": each, "validation_percent": found} for each, found in self.percents.items()],
            "train_videos": self.train_videos,
            "validation_videos": self.validation_videos,
        }


@torch.inference_mode()
def read_features(
    model: Any,
    dataset: VideoDataset,
    *,
    tokens: bool = False,
    batch_size: int = 32,
    workers: int = 0,
    precision: Precision = "fp32",
    device: torch.device | str | None = None,
    frame_order: FrameOrder = "normal",
    order_seed: int = 0,
) -> Features:
    """Return the features of all videos of a dataset in test mode; tokens: of every patch, instead of one vector.

    Raises:
        InputError: a number of views that depends on the video, several heads, tokens of a convolutional network, or no
            readable video.
    """
    views = dataset.views.per_video
    if dataset.train or views is None:
        raise InputError("probe: expected a dataset in test mode, with one number of views for all videos")
    if tokens and not isinstance(model.config, TimeSformerConfig):
        raise InputError("probe attentive: expected a video transformer; a convolutional network has no tokens")
    if any(isinstance(sample.label, tuple) for sample in dataset.samples):
        raise InputError("probe: expected one label for each video, got several heads")
    place = torch.device(device) if device is not None else next(model.parameters()).device
    model.to(place).eval()
    keys = BatchSampler(SequentialSampler(dataset), max(1, batch_size // views), drop_last=False)
    values, labels, index = list[np.ndarray](), list[Tensor](), list[Tensor]()
    unreadable, enlarged = list[tuple[str, str]](), 0
    for batch in batches(dataset, keys, collate, workers):
        unreadable += batch["unreadable"]
        enlarged += len(batch.get("enlarged", ()))
        if not len(batch["label"]):
            continue
        names = [dataset.samples[i].name for i in batch["index"].tolist()]
        clips = rearranged(batch["clip"].flatten(0, 1), [views] * len(names), names, frame_order, order_seed)
        found = [_features(model, part.to(place), tokens, precision) for part in clips.split(batch_size)]
        values.append(torch.cat(found).unflatten(0, (len(names), views)).numpy())
        labels.append(batch["label"])
        index.append(batch["index"])
    if not values:
        raise InputError(f"dataset: none of its {len(dataset)} videos can be read")
    return Features(
        np.concatenate(values), torch.cat(labels).numpy(), torch.cat(index).numpy(), sorted(unreadable), enlarged
    )


def _features(model: Any, clips: Tensor, tokens: bool, precision: Precision) -> Tensor:
    with torch.autocast(clips.device.type, torch.bfloat16, enabled=precision == "bf16"):
        found: Tensor = model.forward_features(clips).patches if tokens else model.features(clips)
    return found.float().cpu()


def probe(
    kind: ProbeKind,
    model: Any,
    train: VideoDataset,
    validation: VideoDataset,
    whole: VideoDataset,
    test: VideoDataset,
    protocol: Protocol,
    *,
    num_classes: int | None = None,
    refuse_unreadable: bool = False,
    frame_order: FrameOrder = "normal",
    order_seed: int = 0,
    **reading: Any,
) -> Probed:
    """Fit a probe to the features of a model and test it.

    train, validation: videos of the choice; whole: the training list, of which they may be parts; test: opened last.
    All have the protocol's views.  num_classes: by default what the labels of `whole` say.  frame_order: of the test
    videos alone.  reading: `batch_size`, `workers`, `precision` and `device` of `read_features`.

    Raises:
        InputError: as `read_features`, or an unknown kind.
        UnreadableVideos: with `refuse_unreadable`, a video of any list cannot be read.
    """
    if kind not in KINDS:
        raise InputError(f"probe: expected one of {', '.join(KINDS)}, got {kind!r}")
    began = time.perf_counter()
    everything = _read(model, whole, kind, reading)
    part = _of_samples(everything, whole, train)
    apart = {sample.place for sample in validation.samples} <= {sample.place for sample in whole.samples}
    judged = _of_samples(everything, whole, validation) if apart else _read(model, validation, kind, reading)
    tested = _read(model, test, kind, reading | {"frame_order": frame_order, "order_seed": order_seed})
    lost = {video for found in (everything, judged, tested) for video in found.unreadable}
    if lost and refuse_unreadable:
        raise UnreadableVideos(sorted(lost), len({s.place for each in (whole, validation, test) for s in each.samples}))
    classes = num_classes or 1 + int(max(found.label.max() for found in (everything, judged, tested)))
    strengths = [each for each in STRENGTHS[kind] if kind != "knn" or each <= len(part.label)]
    percents: dict[float, float] = {}
    for strength in strengths:
        scores = scores_of(kind, strength, part, judged, classes, model.config, protocol)
        percents[strength] = 100 * float((scores.argmax(1).numpy() == judged.label).mean())
    best = max(percents, key=lambda strength: percents[strength])
    scores = scores_of(kind, best, everything, tested, classes, model.config, protocol)
    result = result_of(
        scores,
        torch.from_numpy(tested.label),
        torch.from_numpy(tested.index),
        test.samples,
        (),
        (),
        protocol,
        len(tested.label) * tested.values.shape[1],
        tested.unreadable,
        time.perf_counter() - began,
        frame_order,
        order_seed,
    )
    result = replace(result, num_enlarged=tested.enlarged)
    return Probed(kind, result, best, percents, len(everything.label), len(judged.label))


def _read(model: Any, dataset: VideoDataset, kind: ProbeKind, reading: dict[str, Any]) -> Features:
    return read_features(model, dataset, tokens=kind == "attentive", **reading)


def _of_samples(found: Features, of: VideoDataset, wanted: VideoDataset) -> Features:
    """Return the features of the videos of `of` that are in another dataset too."""
    inside = {sample.place for sample in wanted.samples}
    kept = [number for number, i in enumerate(found.index.tolist()) if of.samples[i].place in inside]
    if not kept:
        raise InputError("probe: none of these videos is in the training list, or can be read")
    return replace(found, values=found.values[kept], label=found.label[kept], index=found.index[kept])


def scores_of(
    kind: ProbeKind,
    strength: float,
    train: Features,
    test: Features,
    classes: int,
    config: Any,
    protocol: Protocol,
) -> Tensor:
    """Return the scores (n, classes) of videos by a probe of this strength, fitted to others.

    Of a class that no training video has, the score is 0.
    """
    if kind == "attentive":
        return _attentive(strength, train, test, classes, config, protocol)
    found = classifier(kind, strength)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of rounds is part of the definition
        found.fit(train.vectors, train.label)
    scores = torch.zeros(len(test.label), classes)
    scores[:, torch.from_numpy(np.asarray(found.classes_, dtype=np.int64))] = torch.from_numpy(
        np.asarray(found.predict_proba(test.vectors), dtype=np.float32)
    )
    return scores


def classifier(kind: ProbeKind, strength: float) -> Any:
    """Make scikit-learn's classifier of a linear or nearest-neighbour probe."""
    if kind == "knn":
        return KNeighborsClassifier(int(strength), weights="distance", metric="cosine")
    return make_pipeline(StandardScaler(), LogisticRegression(C=1 / strength, max_iter=ITERATIONS))


class _Tokens(Dataset[Any]):
    """Views of videos as tokens, each a sample for `fit`."""

    def __init__(self, found: Features) -> None:
        self.values = torch.from_numpy(found.values).flatten(0, 1)
        self.label = torch.from_numpy(found.label).repeat_interleave(found.values.shape[1])

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        return {"clip": self.values[key[1]], "label": int(self.label[key[1]]), "index": key[1]}


class AttentiveProbe(nn.Module):
    """One learned query over the patches (b, t, h, w, d) of a model of this configuration, and a linear classifier."""

    def __init__(self, config: TimeSformerConfig, classes: int) -> None:
        super().__init__()
        self.pooler = AttentivePooler(config.changed(pool="attentive", pooler_depth=0))
        self.head = nn.Linear(config.embed_dim, classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, patches: Tensor) -> Tensor:
        """Return the logits (b, classes)."""
        out: Tensor = self.head(self.pooler(patches))
        return out


def _attentive(
    strength: float, train: Features, test: Features, classes: int, config: Any, protocol: Protocol
) -> Tensor:
    seed_all(0, "attentive probe")
    model = AttentiveProbe(config, classes)
    recipe = Recipe(epochs=EPOCHS, batch_size=BATCH, lr=RATE, weight_decay=strength, clip_grad_norm=1.0, workers=0)
    with TemporaryDirectory() as folder:
        fit(model, _Tokens(train), recipe, Path(folder), progress=False)
    place = next(model.parameters()).device
    with torch.inference_mode():
        parts = [model(part.to(place)).cpu() for part in torch.from_numpy(test.values).flatten(0, 1).split(BATCH)]
    return merge_views(torch.cat(parts).unflatten(0, (len(test.label), -1)), protocol.merge)
