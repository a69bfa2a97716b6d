"""Which frames of a video a model sees.

At test time both rules are symmetric under time reversal: the frames taken from a reversed video are the mirror images
of those taken from the video, `index[i] == n - 1 - index[t - 1 - i]`, wherever that is possible (an odd number of
frames of an even video has no middle).  In training the law of the random indices is symmetric.
"""

import numpy as np

from timesformer.errors import InputError

NATIVE_RATE = 30.0
"""Frames per second that the stride of dense sampling refers to."""


def uniform_indices(
    num_frames: int, t: int, rng: np.random.Generator | None = None, clip: int = 0, clips: int = 1
) -> np.ndarray:
    """One frame from each of t equal segments: int64 (t,).

    With `rng` (training) a random frame of each segment; without, its middle.  Several test clips divide each segment
    into `clips` parts and take the middle of part `clip`.
    """
    _check(num_frames, t, clip, clips)
    if rng is not None:
        position = (np.arange(t) + rng.random(t)) * (num_frames / t)
        return np.minimum(position.astype(np.int64), num_frames - 1)
    # The middle of part (i, clip) lies at numerator / denominator; in whole numbers, so that ties are exact.
    denominator = 2 * t * clips
    numerator = (2 * (np.arange(t) * clips + clip) + 1) * num_frames - t * clips
    return _nearest(numerator, denominator, num_frames)


def dense_indices(
    num_frames: int,
    t: int,
    frame_rate: int,
    fps: float = NATIVE_RATE,
    rng: np.random.Generator | None = None,
    clip: int = 0,
    clips: int = 1,
    start: str = "middle",
) -> np.ndarray:
    """t frames at a stride of `frame_rate` frames of a 30 fps video: int64 (t,).

    The clip spans `t * frame_rate * fps / 30` frames; in a shorter video indices are clamped to its ends.  With `rng`
    (training) it lies anywhere; at test in the middle (several clips are spread evenly from start to end), or, with
    start="first", at frame 0 with indices rounded down as in FAIR's released code.
    """
    _check(num_frames, t, clip, clips)
    if frame_rate < 1 or fps <= 0:
        raise InputError(f"dense sampling needs frame_rate >= 1 and fps > 0, got {frame_rate} and {fps}")
    span = t * frame_rate * fps / NATIVE_RATE
    if start == "first" and rng is None:
        position = np.linspace(0, span - 1, t)
        return np.clip(position.astype(np.int64), 0, num_frames - 1)
    free = num_frames - span
    if rng is not None:
        share = rng.random()
    else:
        share = 0.5 if clips == 1 else clip / (clips - 1)
    # A clip longer than the video lies about its middle.
    offset = free * share if free > 0 else free / 2
    position = offset + (np.linspace(0, span - 1, t) if t > 1 else np.array([(span - 1) / 2]))
    # Twice the distance from the video's middle, in whole thousandths of a frame: ties are exact, and mirror images of
    # ties are ties.
    unit, centre = 1000, num_frames - 1
    return _nearest(np.rint(unit * (2 * position - centre)).astype(np.int64) + unit * centre, 2 * unit, num_frames)


def _nearest(numerator: np.ndarray, denominator: int, num_frames: int) -> np.ndarray:
    """The whole number nearest to each fraction, ties towards the video's middle, within the video."""
    twice = 2 * numerator
    down, up = (twice + denominator) // (2 * denominator), -((denominator - twice) // (2 * denominator))
    first_half = twice < denominator * (num_frames - 1)
    return np.clip(np.where(first_half, down, up), 0, num_frames - 1).astype(np.int64)


def _check(num_frames: int, t: int, clip: int, clips: int) -> None:
    if num_frames < 1 or t < 1:
        raise InputError(f"sampling needs at least one frame on both sides, got {t} frames of a video of {num_frames}")
    if not 0 <= clip < clips:
        raise InputError(f"clip {clip} asked for, but there are {clips}")
