"""Dataset of clips for training and testing: sampled from video files, cropped and normalised.

Every random choice comes from a generator keyed by (seed, epoch, index).  A sample is therefore bitwise the same in any
order, worker and batch and after any interruption.  torch's global random state is neither read nor changed.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from timesformer.data.annotations import Annotations, Label, Sample
from timesformer.data.audit import audit, fingerprint
from timesformer.data.augment import Augment
from timesformer.data.cache import FrameCache
from timesformer.data.fingerprint import Fingerprint
from timesformer.data.masks import MaskStore
from timesformer.data.preprocessing import Preprocessing
from timesformer.data.sampling import dense_indices, uniform_indices
from timesformer.data.transforms import (
    Geometry,
    crop,
    normalise,
    pixels_of,
    resized_crop,
    resized_views,
    test_geometry,
    train_geometry,
)
from timesformer.data.video.clock import DEFAULT_FPS, Clock
from timesformer.data.video.error import VideoError
from timesformer.data.video.open import open_video
from timesformer.data.views import Views
from timesformer.errors import InputError

Key = int | tuple[int, int]
"""Key of a sample: index, or (epoch, index)."""
COPIES_SEED = 0
"""Seed by which the copies of training videos are drawn."""


@dataclass(frozen=True)
class Unreadable:
    """Placeholder for a video that could not be read; `collate` removes it from the batch and lists it."""

    path: str
    reason: str
    index: int


@dataclass(frozen=True)
class _Sampled:
    """Sample with views (v, t, 3, H, W): uint8 before normalisation, or float32 if normalised before resizing."""

    clip: Tensor
    mask: Tensor | None
    label: Label
    index: int
    enlarged: bool


class VideoDataset(Dataset[Any]):
    """Dataset of clips; a sample is `dataset[index]` (epoch 0) or `dataset[epoch, index]`.

    train: return a random clip (t, 3, H, W); otherwise all views of the video (views, t, 3, H, W)
    jitter: (low, high) of the random short side in training; None: always the record's
    flip: mirror training clips with probability 1/2
    augment: augmentation of training clips after the crop
    views: views at test time; cache: cache of decoded frames
    masks: also return the object's mask, cropped with the clip (for datasets with a masks.npz in the videos' folder)
    allow_unreadable: return `Unreadable` for a video that cannot be read, instead of raising VideoError
    stills: return one frame per sample, random in training and the middle one at test time, for image models
    copies: number of different random clips of each training video, which the epochs go through in turn; they are drawn
        by a seed of their own, so that runs of all seeds see the same ones.  None: a new one in every epoch

    A sample is a dict with clip (float32), label, index and, if requested, mask (bool, the clip's shape without
    channels).  A video into which the crop did not fit (`Preprocessing.too_narrow`) has enlarged too, and a batch
    lists the indices of such videos there.  If the number of views depends on the video, the dict also has views, and a
    batch concatenates the views of all its videos: clip (sum of views, t, 3, H, W), views (b,).
    `heads` has the names of the heads if samples have several labels.
    `unreadable` maps the videos found unreadable so far in this process to the reasons.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        preprocessing: Preprocessing,
        *,
        train: bool,
        jitter: tuple[int, int] | None = None,
        flip: bool = False,
        augment: Augment | None = None,
        seed: int = 0,
        views: Views | None = None,
        cache: FrameCache | None = None,
        masks: bool = False,
        allow_unreadable: bool = False,
        stills: bool = False,
        copies: int | None = None,
    ) -> None:
        if not samples:
            raise InputError("dataset: there are no samples")
        if jitter is not None and not min(preprocessing.crop_size) <= jitter[0] <= jitter[1]:
            raise InputError(
                f"dataset: jitter must be (low, high), both at least the crop's shorter side, got {jitter}"
            )
        if augment and masks:
            raise InputError("dataset: augment and masks exclude each other: masks follow the crops only")
        if seed < 0:
            raise InputError(f"dataset: seed must not be negative, got {seed}")
        if copies is not None and (isinstance(copies, bool) or not isinstance(copies, int) or copies < 1):
            raise InputError(f"dataset: copies must be a positive integer, got {copies!r}")
        self.copies = copies if train else None
        self.samples = (
            [replace(sample, square=True) for sample in samples] if preprocessing.square_pixels else [*samples]
        )
        self.heads = samples.heads if isinstance(samples, Annotations) else ()
        self.preprocessing = preprocessing
        self.train, self.jitter, self.flip, self.seed = train, jitter, flip, seed
        self.views = views or Views()
        if not train:
            self.views.require_fitting(preprocessing, stills)
        self.augment = augment if train and augment else None
        self.cache = cache
        self.masks = MaskStore() if masks else None
        self.allow_unreadable, self.stills = allow_unreadable, stills
        self.unreadable: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[dict[str, Any] | Unreadable]:
        return (self[index] for index in range(len(self)))

    @property
    def num_frames(self) -> int:
        """Number of frames of a clip."""
        return 1 if self.stills else self.preprocessing.num_frames

    @property
    def clip_shape(self) -> tuple[int, ...]:
        """Shape of a sample's clip; the number of views is -1 if it depends on the video."""
        shape = (self.num_frames, 3, *self.preprocessing.crop_size)
        return shape if self.train else (self.views.per_video or -1, *shape)

    def __getitem__(self, key: Key) -> dict[str, Any] | Unreadable:
        sampled = self._sample(key)
        if isinstance(sampled, Unreadable):
            return sampled
        item: dict[str, Any] = {"clip": self._finish(sampled.clip), "label": sampled.label, "index": sampled.index}
        if self._views_vary:
            item["views"] = len(item["clip"])
        if sampled.enlarged:
            item["enlarged"] = True
        if sampled.mask is not None:
            item["mask"] = sampled.mask.reshape(self._mask_shape())
        return item

    def __getitems__(self, keys: Sequence[Key]) -> dict[str, Any]:
        """Return a collated batch, bitwise equal to `collate` of samples.  torch's DataLoader prefers this method."""
        if self._views_vary:
            return collate([self[key] for key in keys])
        sampled = [self._sample(key) for key in keys]
        found = [item for item in sampled if isinstance(item, _Sampled)]
        batch = _labels(found, [item for item in sampled if isinstance(item, Unreadable)])
        if not found:
            batch["clip"] = torch.empty((0, *self.clip_shape))
        elif all(item.clip.dtype == torch.uint8 for item in found):
            clips = normalise(torch.stack([item.clip for item in found]), self.preprocessing)
            batch["clip"] = clips.reshape(len(found), *self.clip_shape)
        else:
            batch["clip"] = torch.stack([self._finish(item.clip) for item in found])
        if self.masks is not None:
            masks = [item.mask.reshape(self._mask_shape()) for item in found if item.mask is not None]
            batch["mask"] = torch.stack(masks) if masks else torch.empty((0, *self._mask_shape()), dtype=torch.bool)
        return batch

    def get_batch(self, epoch: int, indices: Iterable[int]) -> dict[str, Any]:
        """Return a collated batch of samples of one epoch."""
        return self.__getitems__([(epoch, int(index)) for index in indices])

    def audit(self, known: Fingerprint | None = None) -> dict[str, Any]:
        """Return number, labels, fingerprint (computed unless known) and unreadable videos, for records."""
        return audit(self.samples, self.cache, known)

    def fingerprint(self) -> Fingerprint:
        """Return the present state of the video files."""
        return fingerprint(self.samples)

    @property
    def _views_vary(self) -> bool:
        return not self.train and self.views.per_video is None

    def _finish(self, clip: Tensor) -> Tensor:
        clip = normalise(clip, self.preprocessing) if clip.dtype == torch.uint8 else clip
        return clip.reshape(self.clip_shape)

    def _mask_shape(self) -> tuple[int, ...]:
        return (*self.clip_shape[:-3], *self.clip_shape[-2:])

    def _sample(self, key: Key) -> _Sampled | Unreadable:
        epoch, index = (0, key) if isinstance(key, int) else key
        sample = self.samples[index]
        seed = self.seed
        if self.copies is not None:
            seed, epoch = COPIES_SEED, epoch % self.copies
        rng = np.random.default_rng(np.random.SeedSequence([seed, epoch, index]))
        try:
            return self._read(sample, index, rng)
        except VideoError as error:
            if not self.allow_unreadable:
                raise
            self.unreadable[error.path] = error.reason
            return Unreadable(error.path, error.reason, index)

    def _read(self, sample: Sample, index: int, rng: np.random.Generator) -> _Sampled:
        if self.cache is not None:
            with self.cache.open(sample) as video:
                chosen = self._choose(video.clock, rng)
                pixels = video.pixels(np.concatenate(chosen))
        else:
            with open_video(sample) as file:
                chosen = self._choose(file.clock, rng)
                pixels = np.ascontiguousarray(file.frames(np.concatenate(chosen)).transpose(0, 3, 1, 2))
        height, width = pixels.shape[-2:]
        try:
            geometry = self._geometry(height, width, rng)
        except InputError as error:
            raise VideoError(sample.place, str(error)) from error
        clips, masks = [], []
        t = self.num_frames
        for number, indices in enumerate(chosen):
            clips.append(self._augmented(self._cut(pixels[number * t : (number + 1) * t], geometry), rng))
            if self.masks is not None:
                masks.append(self._cut_mask(self.masks.get(sample.path)[indices], geometry))
        mask = torch.cat(masks) if masks else None
        return _Sampled(torch.cat(clips) if len(clips) > 1 else clips[0], mask, sample.label, index, geometry.enlarged)

    def _choose(self, clock: Clock, rng: np.random.Generator) -> list[np.ndarray]:
        """Select the frames of each clip."""
        record, frames = self.preprocessing, len(clock.starts)
        if not self.train:
            return self.views.indices(record, frames, clock.fps, self.stills, clock)
        if record.sampling == "uniform" or self.stills:
            return [uniform_indices(frames, self.num_frames, rng)]
        assert record.frame_rate is not None
        fps = clock.fps if clock.fps > 0 else DEFAULT_FPS
        even = dense_indices(
            clock.even_frames, self.num_frames, record.frame_rate, fps, rng, target_fps=record.target_fps
        )
        return [clock.of_even(even)]

    def _geometry(self, height: int, width: int, rng: np.random.Generator) -> Geometry:
        if self.train:
            return train_geometry(height, width, self.preprocessing, self.jitter, self.flip, rng)
        return test_geometry(height, width, self.preprocessing, self.views.crops)

    def _cut(self, clip: np.ndarray, geometry: Geometry) -> Tensor:
        """Crop the views of a clip (t, 3, H, W).

        They are uint8 pixels if nothing is resized or resizing is quantised, otherwise normalised float32.
        """
        record = self.preprocessing
        if clip.shape[-2:] == geometry.size:
            return torch.from_numpy(crop(clip, geometry, *record.crop_size))
        return resized_views(torch.from_numpy(np.ascontiguousarray(clip)), geometry, record)

    def _augmented(self, views: Tensor, rng: np.random.Generator) -> Tensor:
        """Augment a training clip (1, t, 3, H, W); without augmentation, return it unchanged."""
        if self.augment is None:
            return views
        frames = views if views.dtype == torch.uint8 else pixels_of(views, self.preprocessing)
        changed = self.augment(frames[0].permute(0, 2, 3, 1).numpy(), rng)
        return torch.from_numpy(changed.transpose(0, 3, 1, 2).copy())[None]

    def _cut_mask(self, mask: np.ndarray, geometry: Geometry) -> Tensor:
        """Crop the views (v, t, h, w) of a mask (t, H, W), resized like the frames."""
        if mask.shape[-2:] == geometry.size:
            return torch.from_numpy(crop(mask[:, None], geometry, *self.preprocessing.crop_size))[:, :, 0]
        views = resized_crop(torch.from_numpy(mask[:, None]).float(), geometry, self.preprocessing)
        return views[:, :, 0] >= 0.5


def _labels(found: Sequence[_Sampled], unreadable: Sequence[Unreadable]) -> dict[str, Any]:
    return {
        "label": torch.tensor([item.label for item in found], dtype=torch.int64),
        "index": torch.tensor([item.index for item in found], dtype=torch.int64),
        "unreadable": [(item.path, item.reason) for item in unreadable],
        "enlarged": [item.index for item in found if item.enlarged],
    }


def collate(batch: dict[str, Any] | Sequence[dict[str, Any] | Unreadable]) -> dict[str, Any]:
    """Collate samples to a batch: clip (b, …), label (b,), index (b,), mask if any, unreadable [(path, reason)],
    enlarged [index].

    Unreadable videos are omitted and listed but not replaced, so b may be smaller than requested, or 0.  A batch that
    `VideoDataset.__getitems__` has already collated is returned unchanged.
    """
    if isinstance(batch, dict):
        return batch
    found = [item for item in batch if not isinstance(item, Unreadable)]
    out: dict[str, Any] = {
        "label": torch.tensor([item["label"] for item in found], dtype=torch.int64),
        "index": torch.tensor([item["index"] for item in found], dtype=torch.int64),
        "unreadable": [(item.path, item.reason) for item in batch if isinstance(item, Unreadable)],
        "enlarged": [item["index"] for item in found if item.get("enlarged")],
    }
    vary = bool(found) and "views" in found[0]
    for field in ("clip", "mask"):
        if found and field in found[0]:
            out[field] = (torch.cat if vary else torch.stack)([item[field] for item in found])
    if vary:
        out["views"] = torch.tensor([item["views"] for item in found], dtype=torch.int64)
    if "clip" not in out:
        out["clip"] = torch.empty(0)
    return out
