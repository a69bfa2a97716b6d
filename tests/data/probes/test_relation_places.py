"""The probes match, shell and spin: what goes where, and what one place can tell."""

from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from tests.data.probes.relations import Array, clips_of, patches_of, shifted
from timesformer.data.probes import DIFFICULTY, make_kind, make_probe
from timesformer.data.probes.kinds.match import Match
from timesformer.data.probes.kinds.shell import Shell


def test_fields_of_match_are_the_same_draws_in_every_class() -> None:
    kind = Match()
    rng = [np.random.default_rng(0) for _ in kind.labels]
    clips = [kind.clips(0, 4)[label] for label in range(4)]
    scenes = [kind.draw(clip, source, DIFFICULTY["quick"]) for clip, source in zip(clips, rng, strict=True)]
    for scene in scenes[1:]:
        assert np.array_equal(scene.luma[0], scenes[0].luma[0])
        assert not np.array_equal(scene.luma[1], scenes[0].luma[1])


def test_one_place_of_match_tells_nothing_and_two_places_tell_all(tmp_path: Path) -> None:
    """A permutation test: how what a place shows first goes with what it shows next, in each class."""
    info = make_probe("match", tmp_path, num_train=160, num_test=2, seed=7, dials={"patch_noise": 0.0})
    clips, labels = clips_of(info, "train")
    fields = np.stack([patches_of(clip) for clip in clips]).astype(float)  # clips, 2, rows, columns, values
    fields -= fields.mean(axis=-1, keepdims=True)
    fields /= fields.std(axis=-1, keepdims=True)
    products = (fields[:, 0] * fields[:, 1]).mean(axis=-1)  # one place, both frames
    singles = np.concatenate([fields[:, frame, ..., :3].reshape(len(clips), -1) for frame in (0, 1)], axis=1)
    rng = np.random.default_rng(0)
    for features in (products.reshape(len(clips), -1), singles):

        def spread(found: Array, features: Array = features) -> float:
            means = np.stack([features[found == label].mean(axis=0) for label in range(4)])
            return float((means.var(axis=0) / features.var(axis=0)).max())

        chance = [spread(rng.permutation(labels)) for _ in range(99)]
        assert (np.array(chance) >= spread(labels)).mean() > 0.03
    moved = (fields[:, 0, :, :-1] * fields[:, 1, :, 1:]).mean(axis=(-1, -2, -3))
    assert moved[labels == 0] == pytest.approx(1)
    assert np.abs(moved[labels != 0]).max() < 0.5


@pytest.mark.parametrize(("move", "distance", "steps"), [
    ("axis", 2, [(0, 2), (2, 0), (0, -2), (-2, 0)]),
    ("diagonal", 1, [(1, 1), (1, -1), (-1, -1), (-1, 1)]),
    ("knight", 1, [(1, 2), (2, -1), (-1, -2), (-2, 1)]),
])  # fmt: skip
def test_moves_of_match(tmp_path: Path, move: str, distance: int, steps: list[tuple[int, int]]) -> None:
    dials = {"move": move, "distance": distance, "patch_noise": 0.0, "video_frames": 3}
    info = make_probe("match", tmp_path, num_train=4, num_test=8, dials=dials)
    assert [info.kind.step(label) for label in range(4)] == steps  # type: ignore[attr-defined]
    clips, labels = clips_of(info)
    for clip, label in zip(clips, labels, strict=True):
        first, second, third = patches_of(clip)
        assert shifted(first, second, *steps[label]) == shifted(second, third, *steps[label]) == 0
        assert min(shifted(first, second, *step) for step in steps if step != steps[label]) > 10


@pytest.mark.parametrize(("step", "frames", "grid"), [(0, 2, 4), (1, 3, 4), (2, 2, 6), (3, 4, 4)])
def test_cups_go_where_they_are_said_to(step: int, frames: int, grid: int) -> None:
    kind = Shell(step, grid, frames, patch_noise=0.0)
    for clip in kind.clips(1, 8):
        scene = kind.draw(clip, np.random.default_rng(clip.source), DIFFICULTY["quick"])
        light = scene.luma.reshape(frames, grid, 8, grid, 8).transpose(0, 1, 3, 2, 4).reshape(frames, grid, grid, 64)
        red = scene.cr.reshape(frames, grid, 4, grid, 4).mean(axis=(2, 4)) - 128.0
        assert np.abs(red[1:]).max() == 0
        assert (np.abs(red[0]) > 10).all()
        for row, column in product(range(grid), repeat=2):
            here = light[0, row, column]
            for frame in range(1, frames):
                there = light[frame, (row + frame * step) % grid]
                (found,) = np.flatnonzero((there == here).all(axis=-1))
                assert found in (column, grid - 1 - column)
            if red[0, row, column] > 0:
                assert (found >= grid // 2) == clip.label


@pytest.mark.parametrize(("ring", "drift", "grid", "frames"), [(3, 0, 4, 2), (3, 1, 4, 2), (2, 2, 4, 2), (3, 0, 3, 4)])
def test_both_turns_show_alike_at_every_place(ring: int, drift: int, grid: int, frames: int) -> None:
    """What a place shows over time, up to which textures they are: grey, new, or that of an earlier frame."""
    kind = make_kind("spin", {"ring": ring, "drift": drift, "grid": grid, "video_frames": frames, "patch_noise": 0.0})
    seen: list[Counter[tuple[int, ...]]] = [Counter(), Counter()]
    for clip in kind.clips(0, 1200):
        rng = np.random.default_rng(clip.source // 2)  # both turns from the same draws
        light = kind.draw(clip, rng, DIFFICULTY["quick"]).luma
        patches = light.reshape(frames, grid, 8, grid, 8).transpose(1, 3, 0, 2, 4).reshape(grid**2, frames, 64)
        for place, shows in enumerate(patches):
            names: dict[bytes, int] = {}
            story = [0 if show.std() < 1 else names.setdefault(show.tobytes(), 1 + len(names)) for show in shows]
            seen[clip.label][(place, *story)] += 1
    for story in seen[0] | seen[1]:
        many = [each[story] for each in seen]
        assert abs(many[0] - many[1]) < 4.5 * max(1, sum(many)) ** 0.5, story
