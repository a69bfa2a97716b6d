"""Accuracy of a model on a set of videos under a named protocol, which is part of every result."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, SequentialSampler

from timesformer._typing import Float
from timesformer.data import Sample, VideoDataset, Views, collate
from timesformer.data.loading import batches
from timesformer.data.splits import group_of
from timesformer.errors import InputError
from timesformer.evaluation.forward import computing, forward_only
from timesformer.evaluation.frame_order import FrameOrder, rearranged
from timesformer.evaluation.protocols import MERGES, PROTOCOLS, Merge, Protocol, protocol_named
from timesformer.heads import Heads, head_names, heads_of, is_right, predict
from timesformer.intervals import wilson_interval
from timesformer.progress import OnStep, step_bar
from timesformer.training.recipe import Precision

__all__ = [
    "MERGES",
    "PROTOCOLS",
    "EvalResult",
    "Merge",
    "Protocol",
    "UnreadableVideos",
    "Validation",
    "evaluate",
    "merge_views",
    "protocol_named",
    "result_of",
    "validation",
    "wilson_interval",
]


def merge_views(
    logits: Float[Tensor, "b views classes"], merge: Merge, heads: Heads = ()
) -> Float[Tensor, "b classes"]:
    """Merge the logits of views into the scores of videos; several heads are merged separately."""
    if heads:
        return torch.cat([merge_views(part, merge) for part in logits.split(heads, -1)], -1)
    if merge == "mean_softmax":
        return logits.softmax(-1).mean(1)
    return logits.sum(1) if merge == "sum_logits" else logits.mean(1)


class UnreadableVideos(InputError):
    """Error that lists all unreadable videos: `videos` is [(path, reason)], `of` the number of all videos."""

    def __init__(self, videos: list[tuple[str, str]], of: int) -> None:
        lines = "".join(f"\n  {path}: {reason}" for path, reason in videos)
        super().__init__(f"{len(videos)} of {of} videos cannot be read:{lines}")
        self.videos, self.of = videos, of

    def __reduce__(self) -> tuple[type["UnreadableVideos"], tuple[list[tuple[str, str]], int]]:
        return type(self), (self.videos, self.of)


@dataclass(frozen=True)
class EvalResult:
    """Accuracy over videos, in percent, with Wilson's 95 % interval (low, high).

    top5_percent, top5_interval: None below 5 classes, where every video would be correct
    num_videos: number of evaluated videos
    unreadable: (path, reason) of the other videos, which count neither as correct nor as wrong
    num_substituted: number of videos that were replaced by another one.  It is always 0, and stated because the
        released code replaces videos in training.
    num_enlarged: number of videos that were resized beyond the short side until the crop fitted; stated where there
        are any
    per_video: a row per evaluated video in the dataset's order, with columns index, path (as in the annotation file),
        label, prediction, scores (a list per video: probabilities for mean_softmax, else logits), and group if the data
        have groups

    With several heads, a video is correct if all heads are (top1_percent, and the same value as action_top1_percent).
    Then top5_percent is None, label and prediction are lists, scores hold the heads one after the other, and `per_head`
    holds each head's accuracy, as verb_top1_percent and so on.
    """

    protocol: str
    views: Views
    merge: Merge
    top1_percent: float
    top1_interval: tuple[float, float]
    top5_percent: float | None
    top5_interval: tuple[float, float] | None
    num_videos: int
    num_views: int
    unreadable: list[tuple[str, str]]
    seconds: float
    per_video: pd.DataFrame
    num_substituted: int = 0
    per_head: dict[str, float | None] = field(default_factory=dict)
    frame_order: FrameOrder = "normal"
    order_seed: int = 0
    num_enlarged: int = 0

    def statement(self) -> dict[str, Any]:
        """Return what must accompany the metrics: protocol, views, merge, frame order, numbers of videos and views."""
        return {
            **Protocol(self.protocol, self.views, self.merge).statement(),
            "videos": self.num_videos,
            "videos_unreadable": len(self.unreadable),
            "videos_substituted": self.num_substituted,
            **({"videos_enlarged": self.num_enlarged} if self.num_enlarged else {}),
            "views": self.num_views,
            "frame_order": self.frame_order,
            **({"order_seed": self.order_seed} if self.frame_order == "shuffled" else {}),
        }

    def metrics(self) -> dict[str, float | int | None]:
        """Return the metrics, with their units in their names."""
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
            "test_videos_substituted": self.num_substituted,
            "evaluate_seconds": self.seconds,
            **self.per_head,
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
    refuse_unreadable: bool = False,
    frame_order: FrameOrder = "normal",
    order_seed: int = 0,
) -> EvalResult:
    """Evaluate `model` on all videos, on its own device or on `device`; `batch_size` counts views.

    What runs is the fused copy of a TimeSformer, whose outputs are equal up to rounding.

    `dataset` is in test mode with the protocol's views: `dataset[i]` holds `clip` (views, frames, channels, height,
    width), `label` and `index`.  An unreadable video raises VideoError, unless the dataset allows unreadable videos.
    With `refuse_unreadable`, such a dataset is read to the end without further evaluation, so that the error names all
    unreadable videos.
    frame_order: how the frames of each clip are rearranged (see `timesformer.evaluation.frame_order`); order_seed: seed
    of shuffled frames

    Raises:
        InputError: an unknown protocol, a dataset with other views, labels that do not fit the model, or no readable
            video.
        UnreadableVideos: with `refuse_unreadable`, a video cannot be read.
        ArithmeticError: the model's scores are not finite; the message names the video.
    """
    protocol = protocol if isinstance(protocol, Protocol) else protocol_named(protocol)
    if dataset.train:
        raise InputError(f"protocol {protocol.name}: expected a dataset in test mode (train=False)")
    if dataset.views != protocol.views:
        raise InputError(f"protocol {protocol.name}: expected a dataset with {protocol.views}, got {dataset.views}")
    if batch_size < 1:
        raise InputError(f"batch_size: expected at least 1, got {batch_size}")
    together = max(1, batch_size // (protocol.views.per_video or batch_size))
    place = torch.device(device) if device is not None else next(model.parameters()).device
    model = model.to(place)
    keys = BatchSampler(SequentialSampler(dataset), together, drop_last=False)
    began, was_training = time.perf_counter(), model.training
    merged, labels, indices = [], [], []
    unreadable: list[tuple[str, str]] = []  # one for each sample: a list may name a video twice
    num_views = num_enlarged = 0
    running = forward_only(model.eval(), precision)
    with step_bar(f"protocol {protocol.name}", progress) as on_step, torch.inference_mode():
        for number, batch in enumerate(batches(dataset, keys, collate, workers), start=1):
            unreadable += batch["unreadable"]
            num_enlarged += len(batch.get("enlarged", ()))
            if len(batch["label"]) and not (refuse_unreadable and unreadable):
                clip = batch["clip"]
                counts = batch["views"].tolist() if "views" in batch else [clip.shape[1]] * len(clip)
                clips = clip if "views" in batch else clip.flatten(0, 1)
                names = [dataset.samples[i].name for i in batch["index"].tolist()]
                clips = rearranged(clips, counts, names, frame_order, order_seed)
                merged.append(_scores(running, clips, counts, protocol.merge, place, precision, batch_size))
                num_views += len(clips)
                labels.append(batch["label"])
                indices.append(batch["index"])
            on_step(number, len(keys), math.nan)
    model.train(was_training)
    if refuse_unreadable and unreadable:
        raise UnreadableVideos(sorted(unreadable), len(dataset))
    if not merged:
        raise InputError(f"dataset: none of its {len(dataset)} videos can be read")
    result = result_of(
        torch.cat(merged),
        torch.cat(labels),
        torch.cat(indices),
        dataset.samples,
        heads_of(model),
        getattr(dataset, "heads", ()),
        protocol,
        num_views,
        sorted(unreadable),
        time.perf_counter() - began,
        frame_order,
        order_seed,
    )
    return replace(result, num_enlarged=num_enlarged)


def _scores(
    model: nn.Module,
    clips: Tensor,
    counts: list[int],
    merge: Merge,
    place: torch.device,
    precision: Precision,
    batch_size: int,
) -> Tensor:
    """Compute the scores (b, classes) of videos from all their views.

    clips: (sum of counts, frames, channels, height, width), of which the model gets at most `batch_size` at a time
    """
    parts = []
    for some in clips.split(batch_size):
        with computing(place, precision):
            parts.append(model(some.to(place)).float())
    logits = torch.cat(parts)
    if len(set(counts)) == 1:
        return merge_views(logits.unflatten(0, (len(counts), counts[0])), merge, heads_of(model)).cpu()
    return torch.cat([merge_views(views[None], merge, heads_of(model)) for views in logits.split(counts)]).cpu()


def result_of(
    scores: Tensor,
    label: Tensor,
    index: Tensor,
    samples: list[Sample],
    heads: Heads,
    heads_named: Sequence[str],
    protocol: Protocol,
    num_views: int,
    unreadable: list[tuple[str, str]],
    seconds: float,
    frame_order: FrameOrder,
    order_seed: int,
) -> EvalResult:
    """Return the result of scores (b, classes) of samples `index` (b,) with their labels.

    Raises InputError for labels that do not fit the scores, and ArithmeticError for scores that are not finite.
    """
    names = [samples[i].name for i in index.tolist()]
    finite = torch.isfinite(scores).all(1)
    if not finite.all():
        raise ArithmeticError(f"{names[int((~finite).nonzero()[0])]}: the model's scores are not finite")
    count, per_head = len(names), dict[str, float | None]()
    prediction = predict(scores, heads)
    if label.shape != prediction.shape:
        given = 1 if label.dim() == 1 else label.shape[1]
        raise InputError(f"labels: expected {max(1, len(heads))} for each video, one for each head, got {given}")
    hits = int(is_right(prediction, label).sum())
    if heads:
        parts = zip(head_names(heads, heads_named), scores.split(heads, -1), label.unbind(-1), strict=True)
        for head, part, target in parts:
            one, five = _hits(part, target, names)
            per_head[f"{head}_top1_percent"] = 100 * one / count
            per_head[f"{head}_top5_percent"] = None if five is None else 100 * five / count
        per_head["action_top1_percent"], five = 100 * hits / count, None
    else:
        _, five = _hits(scores, label, names)
    frame = pd.DataFrame(
        {
            "index": index.numpy(),
            "path": names,
            "label": label.tolist() if heads else label.numpy(),
            "prediction": prediction.tolist() if heads else prediction.numpy(),
            "scores": [row.tolist() for row in scores],
        }
    )
    if any(sample.group for sample in samples):
        frame["group"] = [group_of(samples[i]) for i in index.tolist()]
    return EvalResult(
        protocol=protocol.name,
        views=protocol.views,
        merge=protocol.merge,
        top1_percent=100 * hits / count,
        top1_interval=wilson_interval(hits, count),
        top5_percent=None if five is None else 100 * five / count,
        top5_interval=None if five is None else wilson_interval(five, count),
        num_videos=count,
        num_views=num_views,
        unreadable=unreadable,
        seconds=seconds,
        per_video=frame,
        per_head=per_head,
        frame_order=frame_order,
        order_seed=order_seed,
    )


def _hits(scores: Tensor, label: Tensor, names: list[str]) -> tuple[int, int | None]:
    """Count the videos with the correct class first, and among the first five (None below five classes).

    Raises:
        InputError: a label is out of range.
    """
    classes = scores.shape[1]
    if int(label.max()) >= classes:
        worst = int(label.argmax())
        raise InputError(f"{names[worst]}: label {int(label[worst])} is out of range, expected 0 to {classes - 1}")
    first = int((scores.argmax(1) == label).sum())
    return first, int((scores.topk(5).indices == label[:, None]).any(1).sum()) if classes >= 5 else None


Validation = Callable[[nn.Module], dict[str, Any]]


def validation(
    dataset: VideoDataset,
    protocol: str | Protocol = "clip",
    batch_size: int = 32,
    workers: int = 0,
    precision: Precision = "fp32",
) -> Validation:
    """Make a function for `fit(validation=…)` that returns the metrics of `evaluate` for a model."""

    def validate(model: nn.Module) -> dict[str, Any]:
        found = evaluate(model, dataset, protocol, batch_size, workers=workers, precision=precision, progress=False)
        return found.metrics()

    return validate
