"""Selection of the frames of a video that a model sees.

At test time, this library's rule ("symmetric") is symmetric under time reversal: a reversed video gives the same frames
in reverse order, `index[i] == n - 1 - index[t - 1 - i]`, wherever that is possible (for an odd number of frames from a
video of even length there is no middle frame).  In training, the distribution of the random indices is symmetric.  Two
further rules reproduce the results of other code; they apply at test time only:

    "fair"       the released TimeSformer (datasets/decoder.py, datasets/ssv2.py)
    "mmaction2"  mmaction2 1.x (datasets/transforms/loading.py: SampleFrames in test mode)
"""

import math

import numpy as np

from timesformer.errors import InputError

NATIVE_RATE = 30.0
"""Default frame rate to which the stride of dense sampling refers."""
RULES = ("symmetric", "fair", "mmaction2")


def uniform_indices(
    num_frames: int,
    t: int,
    rng: np.random.Generator | None = None,
    clip: int = 0,
    clips: int = 1,
    rule: str = "symmetric",
) -> np.ndarray:
    """Select one frame from each of t equal segments: int64 (t,).

    With `rng` (training) the frame is random within its segment, otherwise it is the middle one.  With several test
    clips, each segment is divided into `clips` parts, and the frame is the middle of part `clip`.

    rule: "fair" and "mmaction2" use the middle of segments of (n - 1) / t frames with rounded ends, as the released
        code does for Something-Something; they support one clip only
    """
    _check(num_frames, t, clip, clips, rule)
    if rng is not None:
        position = (np.arange(t) + rng.random(t)) * (num_frames / t)
        return np.minimum(position.astype(np.int64), num_frames - 1)
    if rule != "symmetric":
        if clips > 1:
            raise InputError(f"uniform sampling by the rule {rule!r} supports one clip per video, got {clips}")
        ends = np.round((num_frames - 1) / t * np.arange(t + 1)).astype(np.int64)
        return (ends[:-1] + ends[1:]) // 2
    # The middle of part (i, clip) is numerator / denominator, in whole numbers so that ties are exact.
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
    """Select t frames at a stride of `frame_rate` frames, counted at `target_fps`: int64 (t,).

    The clip spans `t * frame_rate * fps / target_fps` frames; in a shorter video, indices are clamped to its ends.
    With `rng` (training) its position is random.  At test time it is centred, and several clips are spread evenly from
    start to end.  With start="first" it begins at frame 0, with indices rounded down as in FAIR's released code; clip k
    of several begins at k / clips of the free range, so that none begins at its end.

    end_to_end: clips follow one another without overlap, centred together (with start="first": from frame 0 on)
    rule: "mmaction2" counts strides in the video's own frames, whatever its rate; a clip that extends beyond the video
        continues at frame 0
    """
    _check(num_frames, t, clip, clips, rule)
    if frame_rate < 1 or fps <= 0:
        raise InputError(f"dense sampling needs frame_rate >= 1 and fps > 0, got {frame_rate} and {fps}")
    span = clip_span(t, frame_rate, fps, target_fps)
    free = num_frames - span
    if rng is None and rule == "mmaction2":
        return _mmaction2(num_frames, t, frame_rate, clip, clips)
    if start == "first" and rng is None:
        # The released decoder drops the frames before the clip and counts from the first one kept.
        begins = math.ceil(clip * span if end_to_end else max(free, 0.0) * clip / clips)
        return np.clip(begins + np.linspace(0, span - 1, t).astype(np.int64), 0, num_frames - 1)
    if rng is not None:
        share = rng.random()
    else:
        share = 0.5 if clips == 1 else clip / (clips - 1)
    # A clip longer than the video is centred on it.
    offset = free * share if free > 0 else free / 2
    if end_to_end and rng is None:
        offset = (num_frames - clips * span) / 2 + clip * span
    position = offset + (np.linspace(0, span - 1, t) if t > 1 else np.array([(span - 1) / 2]))
    # Use twice the distance from the video's middle in whole thousandths of a frame: then ties are exact, and time
    # reversal maps ties to ties.
    unit, centre = 1000, num_frames - 1
    return _nearest(np.rint(unit * (2 * position - centre)).astype(np.int64) + unit * centre, 2 * unit, num_frames)


def clip_span(t: int, frame_rate: int, fps: float = NATIVE_RATE, target_fps: float = NATIVE_RATE) -> float:
    """Return the number of frames that a dense clip spans in a video at `fps`."""
    return t * frame_rate * fps / target_fps


def covering_clips(
    num_frames: int, t: int, frame_rate: int, fps: float = NATIVE_RATE, target_fps: float = NATIVE_RATE
) -> int:
    """Return the number of dense clips, laid end to end, that cover a video: rounded, at least 1.

    Source: section 4.6 of the paper, "as many non-overlapping temporal clips as needed".  It uses 48, 12, 6 and 4 clips
    of 8, 32, 64 and 96 frames at a stride of 32 for 410 seconds, which last as long as 48.05, 12.01, 6.01 and 4.00
    clips.
    """
    return max(1, math.floor(num_frames / clip_span(t, frame_rate, fps, target_fps) + 0.5))


def _mmaction2(num_frames: int, t: int, frame_rate: int, clip: int, clips: int) -> np.ndarray:
    """Select frames as SampleFrames in test mode.

    One clip is centred, several are spread from the first frame to the last.  Beyond the end, indices continue at frame
    0 (out_of_bound_opt="loop").
    """
    room = max(num_frames - ((t - 1) * frame_rate + 1), 0)
    begins = room // 2 if clips == 1 else int(np.round(clip * (room / (clips - 1))))
    return (begins + np.arange(t, dtype=np.int64) * frame_rate) % num_frames


def _nearest(numerator: np.ndarray, denominator: int, num_frames: int) -> np.ndarray:
    """Round each fraction to the nearest frame, ties towards the video's middle, clamped to the video."""
    twice = 2 * numerator
    down, up = (twice + denominator) // (2 * denominator), -((denominator - twice) // (2 * denominator))
    first_half = twice < denominator * (num_frames - 1)
    return np.clip(np.where(first_half, down, up), 0, num_frames - 1).astype(np.int64)


def _check(num_frames: int, t: int, clip: int, clips: int, rule: str) -> None:
    if num_frames < 1 or t < 1:
        raise InputError(f"sampling needs t >= 1 and num_frames >= 1, got t = {t} and num_frames = {num_frames}")
    if not 0 <= clip < clips:
        raise InputError(f"sampling: clip must be from 0 to {clips - 1}, got {clip}")
    if rule not in RULES:
        raise InputError(f"sampling rule: expected one of {', '.join(RULES)}, got {rule!r}")
