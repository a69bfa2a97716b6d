"""What is taken from a video at test time."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from timesformer.data.preprocessing import Preprocessing
from timesformer.data.sampling import RULES, covering_clips, dense_indices, uniform_indices
from timesformer.errors import InputError


@dataclass(frozen=True)
class Views:
    """Clips spread over time, and crops of each along the long side; a view is one crop of one clip.

    clips: how many, or "cover": as many dense clips, end to end, as cover the video, so that long videos have more
    start: where a single dense clip lies, "middle" or "first" (FAIR's released code)
    rule: whose frame indices are taken, see `timesformer.data.sampling`
    """

    clips: int | Literal["cover"] = 1
    crops: int = 1
    start: str = "middle"
    rule: str = "symmetric"

    def __post_init__(self) -> None:
        if self.clips != "cover" and (not isinstance(self.clips, int) or self.clips < 1):
            raise InputError(f'views: clips must be at least 1, or "cover", got {self.clips!r}')
        if self.crops < 1:
            raise InputError(f"views: crops must be at least 1, got {self.crops}")
        if self.start not in ("middle", "first"):
            raise InputError(f'views: start must be "middle" or "first", got {self.start!r}')
        if self.rule not in RULES:
            raise InputError(f"views: rule must be one of {', '.join(RULES)}, got {self.rule!r}")
        if self.clips == "cover" and self.rule == "mmaction2":
            raise InputError('views: clips "cover" is no part of the rule "mmaction2"; expected a number')

    @property
    def per_video(self) -> int | None:
        """Views of a video; None where it depends on the video."""
        return None if self.clips == "cover" else self.clips * self.crops

    def require_fitting(self, record: Preprocessing, stills: bool = False) -> None:
        """InputError where these views cannot be taken of videos that are sampled as `record` says."""
        uniform = record.sampling == "uniform" or stills
        if uniform and self.clips == "cover":
            raise InputError(
                'views: clips "cover" needs dense sampling, the preprocessing has sampling "uniform" (in a run: '
                "data.preprocessing: {sampling: dense, frame_rate: 8})"
            )
        if uniform and self.rule != "symmetric" and self.clips != 1:
            raise InputError(f"views: the rule {self.rule!r} takes one clip with uniform sampling, got {self.clips}")

    def indices(self, record: Preprocessing, num_frames: int, fps: float, stills: bool = False) -> list[np.ndarray]:
        """The frames of each clip of a video: int64 (t,) each.  A video without a frame rate counts as 30 a second."""
        t = 1 if stills else record.num_frames
        if record.sampling == "uniform" or stills:
            assert self.clips != "cover"
            return [uniform_indices(num_frames, t, None, clip, self.clips, self.rule) for clip in range(self.clips)]
        assert record.frame_rate is not None
        fps, rate, target = fps if fps > 0 else 30.0, record.frame_rate, record.target_fps
        cover = self.clips == "cover"
        clips = covering_clips(num_frames, t, rate, fps, target) if self.clips == "cover" else self.clips
        return [
            dense_indices(num_frames, t, rate, fps, None, clip, clips, self.start, self.rule, target, cover)
            for clip in range(clips)
        ]
