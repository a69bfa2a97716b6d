"""Accuracy of a model on a set of videos under a named protocol: a number means something only with its protocol."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, SequentialSampler

from timesformer._typing import Float
from timesformer.data import Sample, VideoDataset, Views, collate
from timesformer.errors import InputError
from timesformer.loading import batches
from timesformer.progress import OnStep, step_bar
from timesformer.recipe import Precision

Merge = Literal["mean_softmax", "sum_logits", "mean_logits"]


@dataclass(frozen=True)
class Protocol:
    """Which views of a video are taken, and how their scores become the video's."""

    name: str
    views: Views
    merge: Merge


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        # The paper (appendix B): the clip in the middle, three crops, mean of the softmax.
        Protocol("paper", Views(1, 3, "middle"), "mean_softmax"),
        # The released code: the clip begins at frame 0, raw logits are summed.
        Protocol("fair-code", Views(1, 3, "first"), "sum_logits"),
        # mmaction2: the clip in the middle, three crops, mean of the probabilities.
        Protocol("mmaction2", Views(1, 3, "middle"), "mean_softmax"),
        # One centre crop of one clip: the figure that is watched in training.
        Protocol("clip", Views(1, 1, "middle"), "mean_softmax"),
    )
}


def protocol_named(name: str) -> Protocol:
    """The protocol of a name; InputError with the names there are."""
    if name not in PROTOCOLS:
        raise InputError(f"protocol: unknown name {name!r}; expected one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def merge_views(logits: Float[Tensor, "b views classes"], merge: Merge) -> Float[Tensor, "b classes"]:
    """The scores of videos from the logits of their views."""
    if merge == "mean_softmax":
        return logits.softmax(-1).mean(1)
    return logits.sum(1) if merge == "sum_logits" else logits.mean(1)


def wilson_interval(hits: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion, in percent.  (0, 100) where nothing was counted.

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927).
    """
    if count == 0:
        return 0.0, 100.0
    z = 1.959963984540054  # the normal distribution's 97.5 % quantile
    share, shrink = hits / count, 1 + z * z / count
    centre = (share + z * z / (2 * count)) / shrink
    half = z / shrink * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    low = 0.0 if hits == 0 else 100 * (centre - half)
    return low, 100.0 if hits == count else 100 * (centre + half)


@dataclass(frozen=True)
class EvalResult:
    """Accuracy over videos, in percent, with Wilson's 95 % interval (low, high).

    top5_percent and top5_interval are None where there are fewer than 5 classes: everything would be right.
    num_videos: evaluated ones; unreadable: (path, reason) of the others, which count neither as right nor as wrong.
    per_video: a row per evaluated video in the dataset's order, with columns index, path (as the annotation file has
    it), label, prediction, scores (a list per video: probabilities for mean_softmax, else logits).
    """

    protocol: str
    merge: Merge
    top1_percent: float
    top1_interval: tuple[float, float]
    top5_percent: float | None
    top5_interval: tuple[float, float] | None
    num_videos: int
    unreadable: list[tuple[str, str]]
    seconds: float
    per_video: pd.DataFrame

    def metrics(self) -> dict[str, float | int | None]:
        """The figures with their units in their names."""
        top5 = self.top5_interval or (None, None)
        return {
            "top1_percent": self.top1_percent,
            "top1_low_percent": self.top1_interval[0],
            "top1_high_percent": self.top1_interval[1],
            "top5_percent": self.top5_percent,
            "top5_low_percent": top5[0],
            "top5_high_percent": top5[1],
            "test_videos": self.num_videos,
            "test_videos_unreadable": len(self.unreadable),
            "evaluate_seconds": self.seconds,
        }


def evaluate(
    model: nn.Module,
    dataset: VideoDataset,
    protocol: str | Protocol = "paper",
    batch_size: int = 32,
    *,
    workers: int = 0,
    precision: Precision = "fp32",
    device: torch.device | str | None = None,
    progress: bool | OnStep = False,
) -> EvalResult:
    """Evaluates `model`, where it is (or on `device`), over all videos; `batch_size` counts views.

    `dataset` is in test mode with the protocol's views: `dataset[i]` gives `clip` (views, frames, channels, height,
    width), `label` and `index`.  An unreadable video raises VideoError, unless the dataset was told to allow it.

    Raises:
        InputError: an unknown protocol, a dataset with other views, or not one video could be read.
        ArithmeticError: the model's scores are not finite; the message names the video.
    """
    protocol = protocol if isinstance(protocol, Protocol) else protocol_named(protocol)
    if dataset.train:
        raise InputError(f"protocol {protocol.name}: expected a dataset in test mode (train=False)")
    if dataset.views != protocol.views:
        raise InputError(f"protocol {protocol.name}: expected a dataset with {protocol.views}, got {dataset.views}")
    views = protocol.views.clips * protocol.views.crops
    place = torch.device(device) if device is not None else next(model.parameters()).device
    model = model.to(place)
    keys = BatchSampler(SequentialSampler(dataset), max(1, batch_size // views), drop_last=False)
    began, was_training = time.perf_counter(), model.training
    merged, labels, indices = [], [], []
    unreadable: dict[str, str] = {}
    model.eval()
    with step_bar(f"protocol {protocol.name}", progress) as on_step, torch.inference_mode():
        for number, batch in enumerate(batches(dataset, keys, collate, workers), start=1):
            unreadable.update(batch["unreadable"])
            if len(batch["label"]):
                merged.append(_scores(model, batch["clip"].to(place), protocol, precision).cpu())
                labels.append(batch["label"])
                indices.append(batch["index"])
            on_step(number, len(keys), math.nan)
    model.train(was_training)
    if not merged:
        raise InputError(f"dataset: not one of its {len(dataset)} videos could be read")
    return _result(
        torch.cat(merged),
        torch.cat(labels),
        torch.cat(indices),
        dataset.samples,
        protocol,
        sorted(unreadable.items()),
        time.perf_counter() - began,
    )


def _scores(model: nn.Module, clip: Tensor, protocol: Protocol, precision: Precision) -> Tensor:
    """Scores (b, classes) of clips (b, views, frames, channels, height, width)."""
    with torch.autocast(clip.device.type, torch.bfloat16, enabled=precision == "bf16"):
        logits = model(clip.flatten(0, 1))
    return merge_views(logits.float().unflatten(0, clip.shape[:2]), protocol.merge)


def _result(
    scores: Tensor,
    label: Tensor,
    index: Tensor,
    samples: list[Sample],
    protocol: Protocol,
    unreadable: list[tuple[str, str]],
    seconds: float,
) -> EvalResult:
    names = [samples[i].name for i in index.tolist()]
    finite = torch.isfinite(scores).all(1)
    if not finite.all():
        raise ArithmeticError(f"{names[int((~finite).nonzero()[0])]}: the model's scores are not finite")
    classes, count = scores.shape[1], len(names)
    if int(label.max()) >= classes:
        worst = int(label.argmax())
        raise InputError(f"{names[worst]}: label {int(label[worst])} is out of range, the model has {classes} classes")
    prediction = scores.argmax(1)
    hits = int((prediction == label).sum())
    five = int((scores.topk(5).indices == label[:, None]).any(1).sum()) if classes >= 5 else None
    frame = pd.DataFrame(
        {
            "index": index.numpy(),
            "path": names,
            "label": label.numpy(),
            "prediction": prediction.numpy(),
            "scores": [row.tolist() for row in scores],
        }
    )
    return EvalResult(
        protocol=protocol.name,
        merge=protocol.merge,
        top1_percent=100 * hits / count,
        top1_interval=wilson_interval(hits, count),
        top5_percent=None if five is None else 100 * five / count,
        top5_interval=None if five is None else wilson_interval(five, count),
        num_videos=count,
        unreadable=unreadable,
        seconds=seconds,
        per_video=frame,
    )


Validation = Callable[[nn.Module], dict[str, Any]]


def validation(dataset: VideoDataset, protocol: str | Protocol = "clip", batch_size: int = 32) -> Validation:
    """A function for `fit(validation=…)`: the metrics of `evaluate` for a model."""

    def validate(model: nn.Module) -> dict[str, Any]:
        return evaluate(model, dataset, protocol, batch_size).metrics()

    return validate
