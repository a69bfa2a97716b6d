"""Clip of a video as a model reads it, with the same frames for viewing."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from timesformer.data import Preprocessing, Sample, VideoDataset, Views
from timesformer.data.transforms import Geometry, pixels_of, resized_crop, test_geometry
from timesformer.data.video.open import open_video
from timesformer.errors import InputError
from timesformer.text import path_text

MOST_FILM = 64
"""Most frames of a film."""


@dataclass(frozen=True)
class Seen:
    """One clip of a video, and the film that it was taken from.

    clip: (1, t, 3, H, W), normalised as the model's preprocessing says
    frames: the same pixels, uint8 (t, H, W, 3); seconds: times of these frames in the video, (t,)
    film: at most 64 evenly spaced frames from the clip's first to its last, cropped like the clip, uint8 (n, H, W, 3)
    film_seconds: times of the film's frames in the video, (n,)
    available: number of frames of the video, or of the part of it that was looked at
    area: top, left, bottom and right edge of the crop, as shares of the whole frame's height and width
    """

    path: str
    clip: Tensor
    frames: np.ndarray
    seconds: np.ndarray
    film: np.ndarray
    film_seconds: np.ndarray
    available: int = 0
    area: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)

    @property
    def repeated(self) -> int:
        """Frames of the clip that are another one of its frames again, because the video has too few."""
        return len(self.seconds) - len(np.unique(self.seconds))

    @property
    def film_frames(self) -> np.ndarray:
        """Index of the clip's frame that is nearest in time to each frame of the film, (n,)."""
        return np.abs(self.film_seconds[:, None] - self.seconds[None]).argmin(1)

    @property
    def film_fps(self) -> float:
        """Frame rate at which the film lasts as long as in the video, in frames per second; 1 for a single frame."""
        lasting = float(self.film_seconds[-1] - self.film_seconds[0])
        return (len(self.film_seconds) - 1) / lasting if lasting > 0 else 1.0


def see(
    video: Path | str,
    record: Preprocessing,
    *,
    start: float | None = None,
    end: float | None = None,
    views: Views | None = None,
) -> Seen:
    """Read the middle clip and the centre crop of a video, or of its part from `start` to before `end` (in seconds).

    `views` may specify another rule or start of the clip, but must be one clip with one crop.

    Raises:
        VideoError: the video cannot be read.
        InputError: several views, or an empty part.
    """
    views = Views() if views is None else views
    if views.per_video != 1:
        raise InputError(f"views: expected one clip and one crop, got {views.clips} x {views.crops}")
    sample, begun = _part(video, start, end)
    sample = replace(sample, square=record.square_pixels)
    dataset = VideoDataset([sample], record, train=False, views=views)
    item = dataset[0]
    assert isinstance(item, dict)
    clip: Tensor = item["clip"]
    with open_video(sample) as file:
        available = file.num_frames
        (indices,) = views.indices(record, available, file.fps, clock=file.clock)
        first, last = int(indices.min()), int(indices.max())
        chosen = np.unique(np.linspace(first, last, min(MOST_FILM, last - first + 1)).round().astype(np.int64))
        geometry = test_geometry(file.height, file.width, record, 1)
        film = [_film(file.frames(some), geometry, record) for some in np.array_split(chosen, -(-len(chosen) // 8))]
        seconds, film_seconds = file.clock.starts[indices], file.clock.starts[chosen]
    return Seen(
        path=path_text(video),
        clip=clip,
        frames=_shown(pixels_of(clip[0], record)),
        seconds=begun + seconds,
        film=np.concatenate(film),
        film_seconds=begun + film_seconds,
        available=available,
        area=_area(geometry, record),
    )


def _part(video: Path | str, start: float | None, end: float | None) -> tuple[Sample, float]:
    """Return a sample of the whole video, or of the frames shown in a part of it, and when its first frame is shown.

    Raises:
        InputError: the segment is empty or does not begin within the video.
    """
    if start is None and end is None:
        return Sample(Path(video), 0, str(video)), 0.0
    with open_video(video) as file:
        clock = file.clock
    begin, stop = start or 0.0, clock.lasting if end is None else end
    if not (math.isfinite(begin) and math.isfinite(stop) and 0 <= begin < min(stop, clock.lasting)):
        raise InputError(f"{video}: expected a part of its {clock.lasting:.2f} seconds, got {begin:g} to {stop:g}")
    first, after = clock.between(begin, stop)
    return Sample(Path(video), 0, str(video), first, after), float(clock.starts[first])


def _area(geometry: Geometry, record: Preprocessing) -> tuple[float, float, float, float]:
    ((y, x), *_), (height, width), crop = geometry.crops, geometry.size, record.crop_size
    return y / height, x / width, (y + crop[0]) / height, (x + crop[1]) / width


def _film(frames: np.ndarray, geometry: Geometry, record: Preprocessing) -> np.ndarray:
    """Resize and crop frames (n, H, W, 3) as the clip."""
    pixels = torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2)))
    return _shown(resized_crop(pixels, geometry, record)[0])


def _shown(pixels: Tensor) -> np.ndarray:
    return np.ascontiguousarray(pixels.permute(0, 2, 3, 1).numpy())
