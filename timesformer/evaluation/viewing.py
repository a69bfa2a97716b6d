"""Reading of videos without labels, for prediction and feature extraction."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, SequentialSampler

from timesformer.data import Preprocessing, Sample, VideoDataset, Views, collate
from timesformer.data.loading import batches
from timesformer.progress import OnStep, step_bar


def each_batch(
    model: nn.Module,
    samples: list[Sample],
    record: Preprocessing,
    views: Views,
    unreadable: list[tuple[str, str]],
    *,
    batch_size: int,
    workers: int,
    device: torch.device | str | None,
    progress: bool | OnStep,
    enlarged: list[str] | None = None,
) -> Iterator[tuple[list[int], list[int], Iterator[Tensor]]]:
    """Yield (indices of the samples, their numbers of views, all their views) for each batch, in the samples' order.

    The views are in the order of the samples, in parts (at most batch_size, t, 3, H, W), on `device` (None: the model's
    device).  The model is moved to this device and set to evaluation mode.  The reasons why samples cannot be read are
    added to `unreadable`, and the names of those that were enlarged until the crop fitted to `enlarged`.
    """
    if not samples:
        return
    dataset = VideoDataset(samples, record, train=False, views=views, allow_unreadable=True)
    place = torch.device(device) if device is not None else next(model.parameters()).device
    model.to(place).eval()
    together = max(1, batch_size // (views.per_video or batch_size))
    keys = BatchSampler(SequentialSampler(dataset), together, drop_last=False)
    with step_bar("videos", progress) as on_step:
        for number, batch in enumerate(batches(dataset, keys, collate, workers), start=1):
            unreadable += batch["unreadable"]
            if enlarged is not None:
                enlarged += [samples[index].name for index in batch.get("enlarged", ())]
            if len(batch["label"]):
                clip = batch["clip"]
                counts = batch["views"].tolist() if "views" in batch else [clip.shape[1]] * len(clip)
                clips = clip if "views" in batch else clip.flatten(0, 1)
                yield batch["index"].tolist(), counts, (part.to(place) for part in clips.split(batch_size))
            on_step(number, len(keys), math.nan)
