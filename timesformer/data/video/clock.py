"""Times of the frames of a video, from the presentation time stamps; a frame rate alone where there are none."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DEFAULT_FPS = 30.0
"""Frame rate of a video that has neither time stamps nor a rate."""

_EXACT = 1e-6  # seconds: times given by a user have no more digits
_ROUNDING = 1.5  # ticks: the error of an even stamp that was rounded, and of the rate


@dataclass(frozen=True)
class Clock:
    """Times of the frames of a video, or of a part of it.

    starts: time from which each frame is shown, in seconds from the first frame on, (n,)
    lasting: time at which the last frame ends, in seconds
    fps: mean frame rate, (n - 1) / (last - first); 0 if unknown
    even: True if the frames are evenly spaced, so that frame i is shown at i / fps; otherwise the stamps must be used
    """

    starts: np.ndarray
    lasting: float
    fps: float
    even: bool = True

    @classmethod
    def at_rate(cls, num_frames: int, fps: float) -> "Clock":
        """Return the clock of evenly spaced frames; a rate of 0 is unknown and treated as DEFAULT_FPS."""
        rate = fps if fps > 0 else DEFAULT_FPS
        return cls(np.arange(num_frames) / rate, num_frames / rate, fps)

    @classmethod
    def from_stamps(cls, stamps: Sequence[int] | np.ndarray, tick: float, last: int, stated: float) -> "Clock":
        """Return the clock of frames with these stamps.

        stamps: ascending, in ticks; tick: length of a tick in seconds
        last: duration of the last frame in ticks, 0 if unknown; stated: the container's frame rate, 0 if unknown

        The stated rate is used if it is the stamps' own up to their rounding, since it is more exact.
        """
        ticks = np.asarray(stamps, np.int64)
        count, span = len(ticks), float(ticks[-1] - ticks[0]) * tick
        if count < 2 or span <= 0:
            even = cls.at_rate(count, stated)
            return even if last * tick <= 1.5 * even.lasting else cls(even.starts, last * tick, stated, False)
        mean = (count - 1) / span
        agree = stated > 0 and abs(span - (count - 1) / stated) <= _ROUNDING * tick
        plain = cls.at_rate(count, stated if agree else mean)
        starts = (ticks - ticks[0]) * tick
        long = last * tick > 1.5 / plain.fps
        if not long and np.abs(starts - plain.starts).max() <= _ROUNDING * tick:
            return plain if agree else cls(starts, plain.lasting, mean)
        usual = float(np.median(np.diff(ticks)))
        return cls(starts, span + (last if last > 0 else usual) * tick, plain.fps, False)

    @property
    def even_frames(self) -> int:
        """Number of frames of a video that lasts as long and has evenly spaced frames at the same rate."""
        return len(self.starts) if self.even else max(1, round(self.lasting * self.fps))

    def shown_at(self, seconds: np.ndarray | float) -> np.ndarray:
        """Return the index of the frame that is shown at each time, clamped to the video: int64."""
        found = np.searchsorted(self.starts, np.asarray(seconds) + _EXACT, side="right") - 1
        return np.clip(found, 0, len(self.starts) - 1).astype(np.int64)

    def between(self, start: float, end: float) -> tuple[int, int]:
        """Return the range of frames that are shown from `start` to before `end` seconds; at least one frame."""
        first = int(self.shown_at(start))
        return first, max(first + 1, int(np.searchsorted(self.starts, end - _EXACT, side="left")))

    def of_even(self, indices: np.ndarray) -> np.ndarray:
        """Convert indices of evenly spaced frames (see `even_frames`) to the frames shown in the middle of each."""
        return indices if self.even else self.shown_at((indices + 0.5) / self.fps)

    def part(self, start: int, end: int) -> "Clock":
        """Return the clock of frames `start` to `end` (excluded), from its first frame on."""
        stop = float(self.starts[end]) if end < len(self.starts) else self.lasting
        begin = float(self.starts[start]) if start < len(self.starts) else 0.0
        return Clock(self.starts[start:end] - begin, stop - begin, self.fps, self.even)
