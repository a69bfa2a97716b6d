"""The difference of two models' maps: sums, signs, other grids, pictures, and clips that do not show the same."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from timesformer.maps import Seen, difference, draw_difference
from timesformer.maps.difference import not_comparable, overlay_difference, resampled


def seen(frames: int = 2, size: tuple[int, int] = (8, 12)) -> Seen:
    pixels = np.full((frames, *size, 3), 120, np.uint8)
    times = np.arange(frames) / 4
    return Seen("v", torch.zeros(1, frames, 3, *size), pixels, times, pixels, times, frames)


def one_at(grid: tuple[int, ...], *places: tuple[int, ...]) -> np.ndarray:
    weights = np.zeros(grid, np.float32)
    for place in places:
        weights[place] = 1
    return weights


def test_where_the_first_has_more_is_above_zero() -> None:
    grid = (2, 2, 3)
    first, second = one_at(grid, (0, 0, 0), (1, 1, 2)), one_at(grid, (0, 0, 0), (0, 1, 1))
    found = difference({"rollout": first, "grad_cam": first}, {"rollout": 5 * second}, ("a", "b"))
    assert list(found.maps) == ["rollout"]  # of methods that both have
    (weights,) = found.maps.values()
    assert weights[1, 1, 2] == 0.5
    assert weights[0, 1, 1] == -0.5
    assert weights[0, 0, 0] == 0
    assert weights.sum() == pytest.approx(0)
    stated = found.described()
    assert stated["methods"]["rollout"] == {"moved": 0.5, "largest": 0.5}
    assert stated["sign"].startswith("first minus second")
    same = difference({"rollout": first}, {"rollout": first * 3}, ("a", "b")).maps["rollout"]
    assert np.abs(same).max() == 0


def test_negative_weight_and_empty_maps_count_as_none() -> None:
    grid = (1, 1, 2)
    found = difference({"m": np.array([[[-1.0, 2.0]]])}, {"m": np.zeros(grid)}, ("a", "b")).maps["m"]
    assert found.tolist() == [[[0.0, 1.0]]]


def test_weight_is_spread_over_the_finer_grid() -> None:
    coarse, fine = one_at((1, 2, 2), (0, 0, 1)), one_at((2, 4, 2), (1, 1, 1))
    found = difference({"m": coarse}, {"m": fine}, ("a", "b")).maps["m"]
    assert found.shape == (2, 4, 2)
    assert found[:, :2, 1].ravel().tolist() == [0.25, 0.25, 0.25, 0.25 - 1]
    assert found.sum() == pytest.approx(0)
    # Grids of which neither divides the other: a middle cell of three lies half in each of two.
    assert resampled(np.array([0.0, 1.0, 0.0])[None, None], (1, 1, 2)).ravel() == pytest.approx([0.5, 0.5])
    uneven = np.random.default_rng(0).random((3, 5, 7))
    assert resampled(uneven, (4, 6, 9)).sum() == pytest.approx(uneven.sum())


def test_pictures_glow_orange_and_blue_and_carry_signs() -> None:
    clip = seen()
    weights = np.zeros((2, 2, 3))
    weights[0, 0, 0], weights[1, 1, 2] = 0.4, -0.4
    pixels = overlay_difference(clip.frames, weights).astype(int)
    warm, cold, still = pixels[0, 0, 0], pixels[1, 7, 11], pixels[0, 7, 11]
    assert warm[0] - warm[2] > 25
    assert cold[2] - cold[0] > 25
    assert still.tolist() == [60, 60, 60]  # a dimmed grey frame
    found = difference({"rollout": np.maximum(weights, 0)}, {"rollout": np.maximum(-weights, 0)}, ("one", "other"))
    figure = draw_difference(clip, found)
    title = figure._suptitle.get_text()  # type: ignore[attr-defined]
    assert title == "+ orange: more in one; − blue: more in other; weight that differs: rollout 100 %"
    (row,) = [axis for axis in figure.axes if axis.get_ylabel() == "rollout"]
    assert [text.get_text() for text in row.texts] == ["+", "−"]
    (bar,) = [axis for axis in figure.axes if axis.get_label() == "scale"]
    assert [tick.get_text() for tick in bar.get_yticklabels()] == ["−100 %", "0", "+100 %"]
    nothing = difference({"rollout": weights.clip(0)}, {"rollout": weights.clip(0)}, ("one", "other"))
    assert draw_difference(clip, nothing, smooth=True).axes


def test_clips_that_do_not_show_the_same_have_no_difference() -> None:
    clip = seen()
    assert not_comparable(clip, clip) == ""
    assert "2 and 4 frames" in not_comparable(clip, seen(4))
    assert "other moments" in not_comparable(clip, replace(clip, seconds=clip.seconds + 0.5))
    cropped = replace(clip, area=(0.0, 0.1, 1.0, 0.9))
    assert "other parts of the frames" in not_comparable(clip, cropped)
