"""The probes spin, match, contact, cue, bind and shell: their claims, from the decoded videos.

Each has an oracle, a few lines that tell every class from the pixels: the label is in the video.
"""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tests.data.probes.relations import (
    apart,
    brightness_of,
    clips_of,
    hues_of,
    patches_of,
    patterns_of,
    rows_of,
    shifted,
)
from timesformer.data import Preprocessing, Views
from timesformer.data.masks import MaskStore
from timesformer.data.probes import ProbeInfo, make_kind, make_probe
from timesformer.data.probes.diagnostics import contact_sheet

SIZES = {"spin": (4, 16), "match": (8, 16), "contact": (8, 148), "cue": (8, 32), "bind": (4, 16), "shell": (4, 16)}
LOSSLESS = tuple(SIZES)
Array = np.ndarray


@pytest.fixture(scope="module")
def probes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ProbeInfo]:
    folder = tmp_path_factory.mktemp("relations")
    return {
        name: make_probe(name, folder, num_train=train, num_test=test, seed=5) for name, (train, test) in SIZES.items()
    }


def turning(clip: Array) -> int:
    """Follow every texture of the ring, around the middle of where the rings are."""
    fields = patches_of(clip)
    shown = [np.argwhere(field.std(axis=-1) > 12) for field in fields]
    turns = 0.0
    for before, after in pairwise(range(len(fields))):
        for at in shown[before]:
            to = min(shown[after], key=lambda place: apart(fields[before][tuple(at)], fields[after][tuple(place)]))
            one, other = at - shown[before].mean(axis=0), to - shown[after].mean(axis=0)
            turns += one[1] * other[0] - one[0] * other[1]  # rows go down, so that clockwise is positive
    return int(turns < 0)


def moving(clip: Array) -> int:
    before, after = patches_of(clip)
    return int(np.argmin([shifted(before, after, *move) for move in ((0, 1), (1, 0), (0, -1), (-1, 0))]))


def touching(clip: Array) -> int:
    """Whether the twins, found by their patterns, differ in colour."""
    patches = patches_of(clip).reshape(-1, 3, 64)
    red = patches[:, 0].mean(axis=-1) > patches[:, 2].mean(axis=-1)
    patterns = np.tensordot([0.299, 0.587, 0.114], patches, axes=(0, 1))
    patterns = patterns - patterns.mean(axis=-1, keepdims=True)
    gaps = np.abs(patterns[:, None] - patterns).mean(axis=-1) + 1e3 * np.eye(len(patterns))
    pairs = {tuple(sorted((one, int(other)))) for one, other in enumerate(gaps.argmin(axis=1)) if gaps[one].min() < 12}
    assert len(pairs) == 4
    (told,) = {int(red[one] != red[other]) for one, other in pairs}
    return told


def remembering(clip: Array) -> int:
    patches = patches_of(clip)
    shown = np.flatnonzero((patches.std(axis=-1) > 12).any(axis=(1, 2)))
    cue, question = patches[shown[0]], patches[shown[-1], 1, 1]
    return int(np.argmin([apart(cue[corner], question) for corner in ((0, 0), (0, 3), (3, 0), (3, 3))]))


def binding(clip: Array) -> int:
    red, blue = clip[0, 0].astype(int), clip[0, 2].astype(int)
    row = int((red - blue).reshape(4, -1).mean(axis=1).argmax())
    patches = patches_of(clip)[:, row : row + 1]
    errors = [sum(shifted(*pair, 0, by) for pair in pairwise(patches)) for by in (1, -1)]
    return int(np.argmin(errors))


def following(clip: Array) -> int:
    """Where the textures end that the red cups have."""
    first, last = patches_of(clip)[0].reshape(16, 3, 64), patches_of(clip)[-1].reshape(16, 3, 64)
    red = first[:, 0].mean(axis=-1) > first[:, 2].mean(axis=-1)
    one, other = (np.tensordot([0.299, 0.587, 0.114], field, axes=(0, 1)) for field in (first, last))
    ends = np.abs(one[:, None] - other).mean(axis=-1).argmin(axis=1)
    assert sorted(ends) == list(range(16))
    (side,) = {int(end % 4 >= 2) for end in ends[red]}
    return side


ORACLES = {
    "spin": turning,
    "match": moving,
    "contact": touching,
    "cue": remembering,
    "bind": binding,
    "shell": following,
}


@pytest.mark.parametrize("name", SIZES)
def test_an_oracle_tells_every_class_from_the_pixels(probes: dict[str, ProbeInfo], name: str) -> None:
    clips, labels = clips_of(probes[name])
    assert [ORACLES[name](clip) for clip in clips] == labels.tolist()


@pytest.mark.parametrize("name", SIZES)
def test_classes_are_balanced_and_sizes_as_said(probes: dict[str, ProbeInfo], name: str) -> None:
    info = probes[name]
    for split, count in zip(("train", "test"), SIZES[name], strict=True):
        clips, labels = clips_of(info, split)
        assert Counter(labels.tolist()) == dict.fromkeys(range(len(info.labels)), count // len(info.labels))
        assert {clip.shape for clip in clips} == {(info.kind.frames, 3, info.kind.size, info.kind.size)}
    first = info.folder / "test" / "000000.mp4"
    assert MaskStore().get(first).any()


@pytest.mark.parametrize("name", SIZES)
def test_the_seed_decides_everything(tmp_path: Path, name: str) -> None:
    count = make_kind(name).together
    made = [
        make_probe(name, tmp_path / str(n), num_train=2, num_test=count, seed=seed) for n, seed in enumerate((1, 1, 2))
    ]
    assert made[0].fingerprint == made[1].fingerprint != made[2].fingerprint


@pytest.mark.parametrize("name", SIZES)
def test_a_contact_sheet_shows_every_class(probes: dict[str, ProbeInfo], name: str) -> None:
    figure = contact_sheet(probes[name], clips_per_class=1, frames=2)
    assert [axis.get_ylabel().split("\n")[0] for axis in figure.axes[::2]] == list(probes[name].labels)


@pytest.mark.parametrize("name", ["spin", "match", "bind"])
def test_a_clip_and_its_reversal_hold_the_same_frames(probes: dict[str, ProbeInfo], name: str) -> None:
    clips, labels = clips_of(probes[name])
    for first in range(0, len(clips), 2):
        assert np.array_equal(clips[first], clips[first + 1][::-1])
        assert not np.array_equal(clips[first], clips[first + 1])
        assert labels[first] != labels[first + 1]


@pytest.mark.parametrize("name", LOSSLESS)
def test_a_decoded_patch_is_what_was_drawn_and_nothing_of_its_neighbours(tmp_path: Path, name: str) -> None:
    """Without noise, a texture that is shown twice is decoded to the same numbers, wherever it is."""
    count = make_kind(name).together
    info = make_probe(name, tmp_path, num_train=2, num_test=count, seed=1, dials={"patch_noise": 0.0})
    clips, _ = clips_of(info)
    for number, clip in enumerate(clips):
        patches = patches_of(clip)
        if name in ("contact", "shell"):  # of two colours: by brightness
            patches = patterns_of(info.folder / "test" / f"{number:06d}.mp4")
        alike = Counter(patch.tobytes() for patch in patches[patches.std(axis=-1) > 12])
        assert 1 not in alike.values() if name in ("cue", "shell", "spin") else 2 in alike.values()
        if name == "contact":
            assert sum(count == 2 for count in alike.values()) == 4
        if name == "match":
            assert sum(count == 2 for count in alike.values()) == 12


def test_the_four_clips_of_a_contact_group_differ_in_the_colours_of_twins(probes: dict[str, ProbeInfo]) -> None:
    info = probes["contact"]
    clips, labels = clips_of(info)
    rows = rows_of(info)
    assert labels.tolist() == [0, 0, 1, 1] * 37
    for first in range(0, len(clips), 4):
        patterns = [patterns_of(info.folder / "test" / row["name"]) for row in rows[first : first + 4]]
        assert all(np.array_equal(patterns[0], other) for other in patterns[1:])
        assert [row["partner"] for row in rows[first : first + 4]] == ["", *[rows[first]["name"]] * 3]
        red = np.stack([hues_of(clip) > 0 for clip in clips[first : first + 4]])
        offset = np.array([int(rows[first][f"offset_{axis}"]) for axis in "thw"])
        ones = [np.array(np.unravel_index(int(place), (2, 4, 4))) for place in rows[first]["places"].split()]
        twins = [(tuple(one), tuple(one + offset)) for one in ones]
        assert len({place for pair in twins for place in pair}) == 8
        for one, other in twins:
            assert apart(patterns[0][one], patterns[0][other]) < 8
            assert (red[:, *one] == red[0, *one] ^ np.array([0, 1, 0, 1], bool)).all()
            assert (red[:, *other] == red[0, *one] ^ np.array([0, 1, 1, 0], bool)).all()
        for clip in red:  # as many first ones of either colour, and as many second ones
            assert {sum(clip[pair[twin]] for pair in twins) for twin in (0, 1)} == {2}
        others = np.ones((2, 4, 4), bool)
        others[tuple(zip(*(place for pair in twins for place in pair), strict=True))] = False
        assert (red[:, others] == red[0, others]).all()
    offsets = [tuple(int(row[f"offset_{axis}"]) for axis in "thw") for row in rows]
    assert Counter(offsets) == dict.fromkeys(info.kind.offsets, 4)  # type: ignore[attr-defined]
    assert len(set(offsets)) == 37
    assert {tuple(int(row[f"offset_{axis}"]) for axis in "thw") for row in rows_of(info, "train")} == set(
        offsets[::4][:4]
    )


@pytest.mark.parametrize("name", ["contact", "shell"])
def test_no_sum_over_frames_has_more_than_three_of_four_right(probes: dict[str, ProbeInfo], name: str) -> None:
    """The premise of the bound: four clips are made of two first frames and two others, and the class says which go
    together; and its consequence, for sums of random parts."""
    clips, labels = clips_of(probes[name])
    rows, rng = rows_of(probes[name]), np.random.default_rng(0)
    seen = 0
    for first in range(0, len(clips), 4):
        if name == "contact" and rows[first]["offset_t"] == "0":
            continue
        seen += 1
        group, classes = clips[first : first + 4], labels[first : first + 4]
        begins = [clip[0].tobytes() for clip in group]
        ends = [clip[1:].tobytes() for clip in group]
        assert len(set(begins)) == len(set(ends)) == 2
        one, other = np.array([begins.index(each) > 0 for each in begins]), np.array([each != ends[0] for each in ends])
        assert ((one ^ other ^ (classes[0] == 1)) == classes).all()
        sums = rng.normal(size=(2, 99, 2))
        scores = sums[0][:, one.astype(int)] + sums[1][:, other.astype(int)] + rng.normal(size=(99, 1))
        assert ((scores > 0) == classes).sum(axis=1).max() == 3
    assert seen == (25 if name == "contact" else 4)


def test_cue_groups_differ_in_what_their_bounds_say(probes: dict[str, ProbeInfo]) -> None:
    info = probes["cue"]
    clips, labels = clips_of(info)
    rows = rows_of(info)
    for first in range(0, len(clips), 8):
        group, row = clips[first : first + 8], rows[first]
        assert labels[first : first + 8].tolist() == [0, 1, 2, 3] * 2
        question = int(row["question_frame"])
        assert question - int(row["cue_frame"]) == 6
        assert len(row["distractor_frames"].split()) == 2
        rest = [np.delete(clip, question, axis=0).tobytes() for clip in group]
        assert len(set(rest[:4])) == len(set(rest[4:])) == 1
        assert rest[0] != rest[4]
        sets = [frozenset(Counter(frame.tobytes() for frame in clip).items()) for clip in group]
        assert len(set(sets)) == 4
        for one in range(4):
            partner = sets.index(sets[one], 4)
            assert partner - 4 != one  # the same frames, and another class
    assert {int(row["cue_frame"]) for row in rows} == {0, 1}


def test_bind_exchanges_objects_and_nothing_else(probes: dict[str, ProbeInfo]) -> None:
    info = probes["bind"]
    rows = rows_of(info)
    for first in range(0, len(rows), 4):
        kept, _, exchanged, both = rows[first : first + 4]
        assert int(kept["label"]) == int(both["label"]) != int(exchanged["label"])
        assert (kept["red_row"], kept["blue_row"]) == (exchanged["blue_row"], exchanged["red_row"])
        one, other = (brightness_of(info.folder / "test" / row["name"]) for row in (kept, exchanged))
        change = (other - one).reshape(4, 4, -1)
        for row in range(4):
            expected = {kept["red_row"]: -219 * 0.2, kept["blue_row"]: 219 * 0.2}.get(str(row), 0)
            assert np.abs(change[:, row] - expected).max() <= 1


def test_shell_groups_differ_in_the_marks_and_in_the_sides(probes: dict[str, ProbeInfo]) -> None:
    clips, labels = clips_of(probes["shell"])
    for first in range(0, len(clips), 4):
        kept, marks, sides, both = clips[first : first + 4]
        assert labels[first : first + 4].tolist() in ([0, 1, 1, 0], [1, 0, 0, 1])
        assert np.array_equal(kept[1:], marks[1:])
        assert np.array_equal(kept[0], sides[0])
        assert np.array_equal(marks[0], both[0])
        assert np.array_equal(sides[1:], both[1:])
        assert ((hues_of(kept)[0] > 0) == (hues_of(marks)[0] < 0)).all()
        columns = kept.reshape(2, 3, 32, 4, 8)[1], sides.reshape(2, 3, 32, 4, 8)[1]
        light = [half.mean(axis=(0, 1, 3)) for half in columns]
        assert not np.array_equal(kept[1], sides[1])
        assert light[0].sum() == pytest.approx(light[1].sum(), abs=0.5)


def ceiling(name: str, frames: int, order_blind: bool = False, clips: int = 1, **dials: object) -> float | None:
    kind = make_kind(name, dials)
    record = Preprocessing(num_frames=frames, short_side=kind.size, crop=kind.size)
    return kind.ceiling_percent(record, Views(clips), order_blind)


def test_bounds() -> None:
    for name, chance, frames in (("spin", 50, 2), ("match", 25, 2), ("cue", 25, 8), ("bind", 50, 4), ("shell", 50, 2)):
        assert ceiling(name, 1) == chance
        assert ceiling(name, frames) is None
    for name, frames in (("spin", 2), ("match", 2), ("cue", 8), ("bind", 4)):
        assert ceiling(name, frames, order_blind=True) == 50
        assert ceiling(name, 1, clips=frames) == 50  # frames one by one, averaged
    assert ceiling("shell", 2, order_blind=True) is None
    assert ceiling("shell", 2, video_frames=8) == 50  # frames 2 and 6: not the first
    assert ceiling("cue", 4, order_blind=True) is None
    assert ceiling("cue", 8, gap=7) is None
    assert ceiling("contact", 2) is None
    assert ceiling("contact", 2, order_blind=True) is None
    # One of two frames may show both twins where the offset is one within a frame: of 37 offsets 12 are.
    assert ceiling("contact", 1) == pytest.approx(50 + 50 * 12 / 37)


def test_long_memories_and_drifting_rings_can_be_made(tmp_path: Path) -> None:
    far = make_probe(
        "cue", tmp_path, num_train=4, num_test=8, dials={"video_frames": 96, "gap": 90, "cue_distractors": 8}
    )
    clips, labels = clips_of(far)
    assert [remembering(clip) for clip in clips] == labels.tolist()
    asked = make_probe("cue", tmp_path, num_train=4, num_test=8, dials={"question_patches": 12})
    clips, labels = clips_of(asked)
    assert [remembering(clip) for clip in clips] == labels.tolist()
    corners = np.zeros((4, 4), bool)
    corners[[0, 0, 3, 3], [0, 3, 0, 3]] = True
    for clip in clips:  # the last frame with textures is the question
        question = [frame for frame in patches_of(clip) if (frame.std(axis=-1) > 12).any()][-1]
        assert ((question.std(axis=-1) > 12) == ~corners).all()
        assert max(apart(patch, question[1, 1]) for patch in question[~corners]) < 12
    drifting = make_probe("spin", tmp_path, num_train=2, num_test=8, dials={"drift": 2, "grid": 5})
    clips, labels = clips_of(drifting)
    assert [turning(clip) for clip in clips] == labels.tolist()
