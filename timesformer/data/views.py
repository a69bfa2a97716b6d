"""Views of a video at test time."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from timesformer.data.preprocessing import Preprocessing
from timesformer.data.sampling import RULES, covering_clips, dense_indices, uniform_indices
from timesformer.data.video.clock import DEFAULT_FPS, Clock
from timesformer.errors import InputError


@dataclass(frozen=True)
class Views:
    """Views of a video: clips spread over time, and crops of each along the long side.  A view is one crop of one clip.

    clips: number of clips, or "cover": as many dense clips, end to end, as cover the video
    crops: number of crops per clip
    start: position of dense clips, "middle" or "first" (FAIR's released code)
    rule: rule for the frame indices, see `timesformer.data.sampling`
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
            raise InputError('views: clips "cover" is not available with the rule "mmaction2"; expected a number')

    @property
    def per_video(self) -> int | None:
        """Number of views per video; None if it depends on the video."""
        return None if self.clips == "cover" else self.clips * self.crops

    def require_fitting(self, record: Preprocessing, stills: bool = False) -> None:
        """Raise InputError if these views are incompatible with the sampling in `record`."""
        uniform = record.sampling == "uniform" or stills
        if uniform and self.clips == "cover":
            raise InputError(
                'views: clips "cover" needs dense sampling, but the preprocessing has sampling "uniform" (for dense '
                "sampling, set data.preprocessing: {sampling: dense, frame_rate: 8} in the run)"
            )
        if uniform and self.rule != "symmetric" and self.clips != 1:
            raise InputError(
                f"views: the rule {self.rule!r} supports one clip with uniform sampling, got {self.clips} clips"
            )

    def indices(
        self, record: Preprocessing, num_frames: int, fps: float, stills: bool = False, clock: Clock | None = None
    ) -> list[np.ndarray]:
        """Return the frame indices of each clip, int64 (t,).  A video without a frame rate is treated as 30 fps.

        clock: times of the frames.  If they are unevenly spaced, dense clips have the frames that are shown at the
            times of evenly spaced ones (but for the rule "mmaction2", which counts frames).
        """
        t = 1 if stills else record.num_frames
        if record.sampling == "uniform" or stills:
            assert self.clips != "cover"
            return [uniform_indices(num_frames, t, None, clip, self.clips, self.rule) for clip in range(self.clips)]
        assert record.frame_rate is not None
        if clock is None or clock.even or self.rule == "mmaction2":
            clock = Clock.at_rate(num_frames, fps)
        num_frames, fps = clock.even_frames, clock.fps if clock.fps > 0 else DEFAULT_FPS
        rate, target, cover = record.frame_rate, record.target_fps, self.clips == "cover"
        clips = covering_clips(num_frames, t, rate, fps, target) if self.clips == "cover" else self.clips
        return [
            clock.of_even(
                dense_indices(num_frames, t, rate, fps, None, clip, clips, self.start, self.rule, target, cover)
            )
            for clip in range(clips)
        ]
