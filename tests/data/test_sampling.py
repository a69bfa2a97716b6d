"""Frame indices: FAIR's figures, symmetry under reversal, bounds."""

import numpy as np
import pytest

from timesformer import InputError
from timesformer.data import dense_indices, uniform_indices

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
    with pytest.raises(InputError, match="at least one frame"):
        uniform_indices(0, 8)
    with pytest.raises(InputError, match="clip 2"):
        uniform_indices(8, 8, clip=2, clips=2)
    with pytest.raises(InputError, match="frame_rate"):
        dense_indices(8, 8, 0)
