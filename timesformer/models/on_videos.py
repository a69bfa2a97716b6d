"""A model on video files: from a path to clips, and to class names with their probabilities."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from timesformer.config.registry import Model
from timesformer.errors import InputError
from timesformer.heads import Labels, check_labels, default_labels

Guesses = list[tuple[str, float]]
"""Class names with their probabilities, best first."""


class OnVideos(Model):
    """Methods of a model on video files: `processor` and `predict`."""

    def processor(self, video: str | Path, *, clips: int = 1, crops: int = 1, preprocessing: Any = None) -> Tensor:
        """Return the views of a video (clips * crops, frames, 3, height, width), as the model takes them.

        clips: spread over the video, the middle one where there is one; crops: of each, along the long side.
        preprocessing: a `timesformer.data.Preprocessing` or its fields; by default the one that the model came with.

        Raises:
            InputError: a video that cannot be read, or a model that does not know its preprocessing.
        """
        from timesformer.data import Preprocessing, Sample, VideoDataset, Views

        record = self.extras.get("preprocessing") if preprocessing is None else preprocessing
        if record is None:
            raise InputError(
                "processor: this model does not know its preprocessing: give preprocessing=…, a "
                "timesformer.data.Preprocessing with its frames, short side and crop"
            )
        if isinstance(record, Mapping):
            record = Preprocessing.from_dict(dict(record))
        read: Any = VideoDataset([Sample(Path(video), 0)], record, train=False, views=Views(clips, crops))[0]
        views: Tensor = read["clip"]
        return views.to(self.head.weight.device)

    def predict(
        self, video: str | Path, *, top: int = 5, clips: int = 1, crops: int = 3, preprocessing: Any = None
    ) -> Guesses | dict[str, Guesses]:
        """Return the `top` most likely classes of a video with their probabilities, best first.

        A probability is the mean over the views, by default three crops of the middle clip as in the paper.  A model
        with several heads has a list for each of them.

        Raises:
            InputError: as for `processor`.
        """
        if top < 1:
            raise InputError(f"top: expected at least 1, got {top}")
        views = self.processor(video, clips=clips, crops=crops, preprocessing=preprocessing)
        labels: Labels = self.extras.get("labels") or default_labels(self.config.heads)
        labels = check_labels(labels, self.config.heads)
        was_training = self.training
        with torch.inference_mode():
            logits = self.eval()(views.to(self.head.weight.dtype)).double()
        if was_training:
            self.train()
        if not torch.isfinite(logits).all():
            raise InputError(f"{video}: the model's scores are not finite")
        named = labels if isinstance(labels, dict) else {"": labels}
        found = {}
        for (head, names), part in zip(named.items(), logits.split(self.config.heads, 1), strict=True):
            mean = part.softmax(-1).mean(0)
            order = mean.argsort(descending=True, stable=True)[:top].tolist()
            found[head] = [(names[place], float(mean[place])) for place in order]
        return found if isinstance(labels, dict) else found[""]
