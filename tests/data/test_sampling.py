"""Frame indices: FAIR's figures, symmetry under reversal, bounds."""

from itertools import pairwise, product

import numpy as np
import pytest
import torch

from timesformer import InputError
from timesformer.data import dense_indices, uniform_indices
from timesformer.data.sampling import covering_clips

SIZES = [(16, 8), (16, 16), (300, 8), (7, 3), (5, 8), (1, 8), (17, 5), (250, 96)]


@pytest.mark.parametrize(("frames", "t"), SIZES)
@pytest.mark.parametrize("clips", [1, 2, 3])
def test_uniform_is_symmetric_under_reversal(frames: int, t: int, clips: int) -> None:
    taken = np.stack([uniform_indices(frames, t, clip=clip, clips=clips) for clip in range(clips)])
    assert taken.min() >= 0
    assert taken.max() < frames
    assert (np.diff(taken) >= 0).all()
    mirrored = frames - 1 - taken[::-1, ::-1]
    if frames % 2 == 0 and t % 2 and clips % 2:  # an even video has no middle frame
        mirrored[clips // 2, t // 2] = taken[clips // 2, t // 2]
    assert np.array_equal(taken, mirrored)


def test_uniform_takes_the_middle_of_segments() -> None:
    assert uniform_indices(16, 8).tolist() == [1, 3, 5, 7, 8, 10, 12, 14]
    assert uniform_indices(24, 8).tolist() == [1, 4, 7, 10, 13, 16, 19, 22]
    assert uniform_indices(3, 6).tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(("frames", "t"), SIZES)
@pytest.mark.parametrize("rate", [1, 4, 32])
@pytest.mark.parametrize("fps", [30.0, 25.0, 30000 / 1001])
def test_dense_is_symmetric_under_reversal(frames: int, t: int, rate: int, fps: float) -> None:
    for clips in (1, 3):
        taken = np.stack([dense_indices(frames, t, rate, fps, clip=clip, clips=clips) for clip in range(clips)])
        assert taken.min() >= 0
        assert taken.max() < frames
        mirrored = frames - 1 - taken[::-1, ::-1]
        if frames % 2 == 0 and t % 2:
            mirrored[clips // 2, t // 2] = taken[clips // 2, t // 2]
        assert np.array_equal(taken, mirrored)


def test_dense_from_the_first_frame_is_the_released_code() -> None:
    assert dense_indices(300, 8, 32, 30.0, start="first").tolist() == [0, 36, 72, 109, 145, 182, 218, 255]
    assert dense_indices(200, 8, 32, 30.0, start="first").tolist() == [0, 36, 72, 109, 145, 182, 199, 199]


def test_dense_in_the_middle() -> None:
    taken = dense_indices(300, 8, 32, 30.0)
    assert taken[0] + taken[-1] == 299
    assert taken[-1] - taken[0] == pytest.approx(255, abs=1)


def test_law_of_training_indices_is_symmetric() -> None:
    rng = np.random.default_rng(0)
    for draw in (
        lambda: uniform_indices(19, 4, rng),
        lambda: dense_indices(19, 4, 3, 30.0, rng),
    ):
        counts = np.zeros((4, 19))
        for _ in range(8000):
            taken = draw()
            assert (np.diff(taken) >= 0).all()
            counts[np.arange(4), taken] += 1
        assert np.abs(counts - counts[::-1, ::-1]).max() < 5 * np.sqrt(counts.max())
        assert counts.sum() == 32000


def test_training_covers_every_frame() -> None:
    rng = np.random.default_rng(0)
    assert set(np.concatenate([uniform_indices(16, 8, rng) for _ in range(200)])) == set(range(16))


def test_impossible_requests() -> None:
    with pytest.raises(InputError, match="needs t >= 1 and num_frames >= 1"):
        uniform_indices(0, 8)
    with pytest.raises(InputError, match="clip must be from 0 to 1, got 2"):
        uniform_indices(8, 8, clip=2, clips=2)
    with pytest.raises(InputError, match="frame_rate"):
        dense_indices(8, 8, 0)


# The released code's own steps, written out: a clip begins at room * k / clips; the decoder keeps the frames from there
# to the first one after the clip's end, and takes floor(linspace(0, span - 1, t)) of those, in float32.
@pytest.mark.parametrize("frames", [300, 250, 200, 57, 9])
@pytest.mark.parametrize(("t", "rate"), [(8, 32), (16, 16), (96, 4), (32, 32), (3, 5)])
def test_dense_from_the_first_frame_follows_the_released_decoder(frames: int, t: int, rate: int) -> None:
    for fps, clips in product((30.0, 25.0, 30000 / 1001, 60.0), (1, 3, 10)):
        follows_the_released_decoder(frames, t, rate, fps, clips)


def follows_the_released_decoder(frames: int, t: int, rate: int, fps: float, clips: int) -> None:
    span = rate * t / 30 * fps
    for clip in range(clips):
        begin = max(frames - span, 0) * clip / clips
        kept = [frame for frame in range(frames) if begin <= frame]
        last = next((i for i, frame in enumerate(kept) if frame > begin + span - 1), len(kept) - 1)
        kept = kept[: last + 1]
        index = torch.linspace(0, span - 1, t).clamp(0, len(kept) - 1).long()
        expected = [kept[i] for i in index]
        assert dense_indices(frames, t, rate, fps, clip=clip, clips=clips, start="first").tolist() == expected


def test_uniform_by_the_released_rule() -> None:
    """Segments of (n - 1) / t frames with rounded ends; the middle of each, rounded down."""
    # n = 30, t = 8: 3.625 frames each, ends 0 4 7 11 14 18 22 25 29 (14.5 and 21.75 round to 14 and 22)
    assert uniform_indices(30, 8, rule="fair").tolist() == [2, 5, 9, 12, 16, 20, 23, 27]
    assert uniform_indices(17, 8, rule="fair").tolist() == [1, 3, 5, 7, 9, 11, 13, 15]
    assert uniform_indices(8, 8, rule="fair").tolist() == [0, 1, 2, 3, 4, 4, 5, 6]
    assert uniform_indices(1, 4, rule="fair").tolist() == [0, 0, 0, 0]
    assert uniform_indices(30, 8, rule="mmaction2").tolist() == uniform_indices(30, 8, rule="fair").tolist()
    assert uniform_indices(30, 8).tolist() != uniform_indices(30, 8, rule="fair").tolist()


def test_mmaction2_takes_the_middle_in_the_videos_own_frames() -> None:
    """(8 - 1) * 32 + 1 = 225 frames; of 300 the first is (300 - 225) // 2 = 37."""
    expected = [37, 69, 101, 133, 165, 197, 229, 261]
    assert dense_indices(300, 8, 32, 30.0, rule="mmaction2").tolist() == expected
    assert dense_indices(300, 8, 32, 25.0, rule="mmaction2").tolist() == expected
    # Shorter than the clip: from frame 0, and again from there past the end.
    assert dense_indices(100, 8, 32, rule="mmaction2").tolist() == [0, 32, 64, 96, 28, 60, 92, 24]
    several = [dense_indices(300, 8, 32, clip=clip, clips=3, rule="mmaction2")[0] for clip in range(3)]
    assert several == [0, 38, 75]  # round(37.5) is even


@pytest.mark.parametrize(("t", "clips"), [(8, 48), (32, 12), (64, 6), (96, 4)])
def test_covering_a_long_video_takes_the_papers_number_of_clips(t: int, clips: int) -> None:
    """Table 8: 410 seconds at a stride of 32."""
    frames = 410 * 30
    assert covering_clips(frames, t, 32) == clips
    assert covering_clips(410 * 25, t, 32, 25.0) == clips
    for start in ("middle", "first"):
        taken = [
            dense_indices(frames, t, 32, clip=clip, clips=clips, start=start, end_to_end=True) for clip in range(clips)
        ]
        for before, after in pairwise(taken):
            assert before[-1] < after[0]
        assert taken[0][0] <= 13
        assert taken[-1][-1] >= frames - 13 - 32
    middle = np.stack([dense_indices(frames, t, 32, clip=clip, clips=clips, end_to_end=True) for clip in range(clips)])
    assert np.array_equal(middle, frames - 1 - middle[::-1, ::-1])


def test_covering_takes_one_clip_of_a_short_video() -> None:
    assert [covering_clips(frames, 8, 32) for frames in (1, 255, 256, 383, 384, 640)] == [1, 1, 1, 1, 2, 3]
    assert dense_indices(100, 4, 32, end_to_end=True).tolist() == dense_indices(100, 4, 32).tolist()


def test_the_stride_may_count_frames_of_another_rate() -> None:
    assert dense_indices(250, 32, 2, 25.0, target_fps=25.0).tolist() == dense_indices(250, 32, 2, 30.0).tolist()


def test_unknown_rules() -> None:
    with pytest.raises(InputError, match="sampling rule: expected one of symmetric, fair, mmaction2, got 'best'"):
        uniform_indices(8, 8, rule="best")
    with pytest.raises(InputError, match="by the rule 'fair' supports one clip per video, got 2"):
        uniform_indices(8, 8, clips=2, rule="fair")
