"""Which frames of a video a model sees.

At test time the rules of this library ("symmetric") are symmetric under time reversal: the frames taken from a reversed
video are the mirror images of those taken from the video, `index[i] == n - 1 - index[t - 1 - i]`, wherever that is
possible (an odd number of frames of an even video has no middle).  In training the law of the random indices is
symmetric.  The rules of other code are there to repeat its figures, and are used at test time alone:

    "fair"       the released TimeSformer (datasets/decoder.py, datasets/ssv2.py)
    "mmaction2"  mmaction2 1.x (datasets/transforms/loading.py: SampleFrames in test mode)
"""

import math

import numpy as np

from timesformer.errors import InputError

NATIVE_RATE = 30.0
"""Frames per second that the stride of dense sampling refers to."""
RULES = ("symmetric", "fair", "mmaction2")


def uniform_indices(
    num_frames: int,
    t: int,
    rng: np.random.Generator | None = None,
    clip: int = 0,
    clips: int = 1,
    rule: str = "symmetric",
) -> np.ndarray:
    """One frame from each of t equal segments: int64 (t,).

    With `rng` (training) a random frame of each segment; without, its middle.  Several test clips divide each segment
    into `clips` parts and take the middle of part `clip`.

    rule: "fair" and "mmaction2" take the middle of segments of (n - 1) / t frames with rounded ends, as the released
    code does for Something-Something; they know one clip.
    """
    _check(num_frames, t, clip, clips, rule)
    if rng is not None:
        position = (np.arange(t) + rng.random(t)) * (num_frames / t)
        return np.minimum(position.astype(np.int64), num_frames - 1)
    if rule != "symmetric":
        if clips > 1:
            raise InputError(f"uniform sampling by the rule {rule!r} takes one clip of a video, got {clips}")
        ends = np.round((num_frames - 1) / t * np.arange(t + 1)).astype(np.int64)
        return (ends[:-1] + ends[1:]) // 2
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
    rule: str = "symmetric",
    target_fps: float = NATIVE_RATE,
    end_to_end: bool = False,
) -> np.ndarray:
    """t frames at a stride of `frame_rate` frames of a video at `target_fps`: int64 (t,).

    The clip spans `t * frame_rate * fps / target_fps` frames; in a shorter video indices are clamped to its ends.  With
    `rng` (training) it lies anywhere; at test in the middle (several clips are spread evenly from start to end), or,
    with start="first", at frame 0 with indices rounded down as in FAIR's released code (clip k of several begins at
    k / clips of the room, and never at the end).

    end_to_end: the clips follow one another without overlap, together about the middle (start="first": from frame 0).
    rule: "mmaction2" counts strides in the video's own frames, whatever its rate, and a clip that leaves the video
    begins again at frame 0.
    """
    _check(num_frames, t, clip, clips, rule)
    if frame_rate < 1 or fps <= 0:
        raise InputError(f"dense sampling needs frame_rate >= 1 and fps > 0, got {frame_rate} and {fps}")
    span = clip_span(t, frame_rate, fps, target_fps)
    free = num_frames - span
    if rng is None and rule == "mmaction2":
        return _mmaction2(num_frames, t, frame_rate, clip, clips)
    if start == "first" and rng is None:
        # The released decoder keeps the frames from the clip's beginning on, and counts from the first of them.
        begins = math.ceil(clip * span if end_to_end else max(free, 0.0) * clip / clips)
        return np.clip(begins + np.linspace(0, span - 1, t).astype(np.int64), 0, num_frames - 1)
    if rng is not None:
        share = rng.random()
    else:
        share = 0.5 if clips == 1 else clip / (clips - 1)
    # A clip longer than the video lies about its middle.
    offset = free * share if free > 0 else free / 2
    if end_to_end and rng is None:
        offset = (num_frames - clips * span) / 2 + clip * span
    position = offset + (np.linspace(0, span - 1, t) if t > 1 else np.array([(span - 1) / 2]))
    # Twice the distance from the video's middle, in whole thousandths of a frame: ties are exact, and mirror images of
    # ties are ties.
    unit, centre = 1000, num_frames - 1
    return _nearest(np.rint(unit * (2 * position - centre)).astype(np.int64) + unit * centre, 2 * unit, num_frames)


def clip_span(t: int, frame_rate: int, fps: float = NATIVE_RATE, target_fps: float = NATIVE_RATE) -> float:
    """Frames of a video at `fps` that a dense clip spans."""
    return t * frame_rate * fps / target_fps


def covering_clips(
    num_frames: int, t: int, frame_rate: int, fps: float = NATIVE_RATE, target_fps: float = NATIVE_RATE
) -> int:
    """How many dense clips, laid end to end, cover a video: at least 1, to the nearest whole number.

    Section 4.6 of the paper: "as many non-overlapping temporal clips as needed", 48, 12, 6 and 4 clips of 8, 32, 64 and
    96 frames at a stride of 32 for 410 seconds, which 48.05, 12.01, 6.01 and 4.00 of them last.
    """
    return max(1, math.floor(num_frames / clip_span(t, frame_rate, fps, target_fps) + 0.5))


def _mmaction2(num_frames: int, t: int, frame_rate: int, clip: int, clips: int) -> np.ndarray:
    """SampleFrames in test mode: one clip in the middle, several from the first frame to the last; past the end it
    goes on at frame 0 (out_of_bound_opt="loop")."""
    room = max(num_frames - ((t - 1) * frame_rate + 1), 0)
    begins = room // 2 if clips == 1 else int(np.round(clip * (room / (clips - 1))))
    return (begins + np.arange(t, dtype=np.int64) * frame_rate) % num_frames


def _nearest(numerator: np.ndarray, denominator: int, num_frames: int) -> np.ndarray:
    """The whole number nearest to each fraction, ties towards the video's middle, within the video."""
    twice = 2 * numerator
    down, up = (twice + denominator) // (2 * denominator), -((denominator - twice) // (2 * denominator))
    first_half = twice < denominator * (num_frames - 1)
    return np.clip(np.where(first_half, down, up), 0, num_frames - 1).astype(np.int64)


def _check(num_frames: int, t: int, clip: int, clips: int, rule: str) -> None:
    if num_frames < 1 or t < 1:
        raise InputError(f"sampling needs at least one frame on both sides, got {t} frames of a video of {num_frames}")
    if not 0 <= clip < clips:
        raise InputError(f"clip {clip} asked for, but there are {clips}")
    if rule not in RULES:
        raise InputError(f"sampling rule {rule!r}: expected one of {', '.join(RULES)}")
