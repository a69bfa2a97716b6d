"""The probes spin, match, contact, cue, bind and shell: their claims, from the decoded videos.

Each has an oracle, a few lines that tell every class from the pixels: the label is in the video.
"""

import csv
from collections import Counter
from itertools import pairwise, permutations
from pathlib import Path

import av
import numpy as np
import pytest
from scipy import ndimage

from timesformer.data import Preprocessing, Views, read_kinetics_csv
from timesformer.data.cache import decode
from timesformer.data.masks import MaskStore
from timesformer.data.probes import DIFFICULTY, ProbeInfo, make_kind, make_probe
from timesformer.data.probes.cheap import count_patches, predict, read_clips
from timesformer.data.probes.diagnostics import contact_sheet
from timesformer.data.probes.kinds.match import Match
from timesformer.data.probes.kinds.shell import Shell

SIZES = {"spin": (4, 16), "match": (8, 16), "contact": (8, 74), "cue": (8, 32), "bind": (4, 16), "shell": (4, 16)}
LOSSLESS = ("match", "contact", "cue", "bind")
Array = np.ndarray


@pytest.fixture(scope="module")
def probes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ProbeInfo]:
    folder = tmp_path_factory.mktemp("relations")
    return {
        name: make_probe(name, folder, num_train=train, num_test=test, seed=5) for name, (train, test) in SIZES.items()
    }


def rows_of(info: ProbeInfo, split: str = "test") -> list[dict[str, str]]:
    with open(info.folder / split / "clips.csv", newline="") as file:
        return list(csv.DictReader(file))


def clips_of(info: ProbeInfo, split: str = "test") -> tuple[list[Array], Array]:
    """Decoded clips (t, 3, H, W) and their labels."""
    samples = read_kinetics_csv(getattr(info, f"{split}_csv"), num_classes=len(info.labels))
    return [decode(sample.path).pixels for sample in samples], np.array([sample.label for sample in samples])


def patches_of(clip: Array) -> Array:
    """(t, rows, columns, 3 · 8 · 8) as signed numbers."""
    t, _, height, width = clip.shape
    cut = clip.reshape(t, 3, height // 8, 8, width // 8, 8).transpose(0, 2, 4, 1, 3, 5)
    return cut.reshape(t, height // 8, width // 8, -1).astype(int)


def brightness_of(path: Path) -> Array:
    """The stored brightness (t, H, W)."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray()[: frame.height] for frame in container.decode(video=0)]).astype(int)


def patterns_of(path: Path) -> Array:
    """The stored brightness of patches (t, rows, columns, 8 · 8)."""
    light = brightness_of(path)
    t, height, width = light.shape
    return light.reshape(t, height // 8, 8, width // 8, 8).transpose(0, 1, 3, 2, 4).reshape(t, height // 8, -1, 64)


def apart(one: Array, other: Array) -> float:
    return float(np.abs(one - other).mean())


def shifted(before: Array, after: Array, down: int, right: int) -> float:
    """How much the second field of patches differs from the first, moved, where they overlap."""
    rows, columns = before.shape[:2]
    places = [(y, x) for y in range(rows) for x in range(columns) if 0 <= y + down < rows and 0 <= x + right < columns]
    return float(np.mean([apart(before[y, x], after[y + down, x + right]) for y, x in places]))


def turning(clip: Array) -> int:
    grey = clip.mean(axis=1)
    centres = [np.array(ndimage.center_of_mass(frame > np.median(frame) + 50)) for frame in grey]
    errors = []
    for angle in (0.25, -0.25):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        still, turned = (
            [ndimage.affine_transform(frame, by, centre - by @ [19.5, 19.5], order=1) for frame, centre in found]
            for found, by in ((list(zip(grey, centres, strict=True)), by) for by in (np.eye(2), turn))
        )
        pairs = zip(turned[:-1], still[1:], strict=True)
        errors.append(sum(apart(one[10:30, 10:30], other[10:30, 10:30]) for one, other in pairs))
    return int(np.argmin(errors))


def moving(clip: Array) -> int:
    before, after = patches_of(clip)
    return int(np.argmin([shifted(before, after, *move) for move in ((0, 1), (1, 0), (0, -1), (-1, 0))]))


def touching(clip: Array) -> int:
    """Whether a pattern's twin has another colour."""
    patches = patches_of(clip)
    places = np.argwhere(patches.std(axis=-1) > 12)
    assert len(places) == 4
    colours = [patches[tuple(place)].reshape(3, -1).mean(axis=-1) for place in places]
    patterns = [patches[tuple(place)].reshape(3, -1)[1] for place in places]
    patterns = [pattern - pattern.mean() for pattern in patterns]
    twin = min(range(1, 4), key=lambda other: apart(patterns[0], patterns[other]))
    red = [colour[0] > colour[2] for colour in colours]
    return int(red[0] != red[twin])


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
    grey = clip.mean(axis=1)
    found = [np.array(ndimage.center_of_mass(*discs(frame))) for frame in grey]
    at = max(range(2), key=lambda disc: grey[0][tuple(found[0][disc].round().astype(int))])
    for before, after in pairwise(found):
        steps = np.abs(before[:, None] - after[None]).sum(axis=-1)
        at = min(permutations(range(2)), key=lambda order: np.abs(steps[[0, 1], list(order)] - 4).sum())[at]
    return int(found[-1][at][1] > 23.5)


def discs(frame: Array) -> tuple[Array, Array, list[int]]:
    """What `center_of_mass` takes."""
    bright = np.clip(frame - np.median(frame) - 30, 0, None)
    places, count = ndimage.label(bright > 0)
    sizes = ndimage.sum_labels(bright > 0, places, range(1, count + 1))
    return bright, places, [1 + int(index) for index in np.argsort(sizes)[-2:]]


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
        if name == "contact":  # of two colours: by brightness
            patches = patterns_of(info.folder / "test" / f"{number:06d}.mp4")
        alike = Counter(patch.tobytes() for patch in patches[patches.std(axis=-1) > 12])
        assert 1 not in alike.values() if name in ("contact", "cue") else 2 in alike.values()
        if name == "match":
            assert sum(count == 2 for count in alike.values()) == 12


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


def test_contact_pairs_hold_the_same_patterns_and_colours(probes: dict[str, ProbeInfo]) -> None:
    info = probes["contact"]
    clips, labels = clips_of(info)
    rows = rows_of(info)
    patterns = [patterns_of(info.folder / "test" / row["name"]) for row in rows]
    assert labels.tolist() == [0, 1, 1, 0] * 18 + [0, 1]
    for first in range(0, len(clips), 2):
        one, other = patterns[first : first + 2]
        assert Counter(map(bytes, one.reshape(-1, 64).astype(np.uint8))) == Counter(
            map(bytes, other.reshape(-1, 64).astype(np.uint8))
        )
        hues = [clip.astype(int).reshape(2, 3, 4, 8, 4, 8).mean(axis=(3, 5)) for clip in clips[first : first + 2]]
        hues = [hue[:, 0] - hue[:, 2] for hue in hues]  # red over blue
        assert np.abs(hues[0] - hues[1]).max() < 12  # but for what leaves the range of red, green and blue
        assert rows[first + 1]["partner"] == rows[first]["name"]
        equal = one if labels[first] == 0 else other
        x = np.array([int(rows[first][f"x_{axis}"]) for axis in "thw"])
        offset = np.array([int(rows[first][f"offset_{axis}"]) for axis in "thw"])
        y = x + [int(rows[first][f"between_{axis}"]) for axis in "thw"]
        signs = []
        for place in (x, y):
            assert apart(equal[tuple(place)], equal[tuple(place + offset)]) < 10
            assert (one[tuple(place)] == other[tuple(place)]).all()
            assert abs(hues[0][tuple(place)] - hues[0][tuple(place + offset)]) < 40
            signs.append(np.sign(hues[0][tuple(place)]))
        assert sorted(signs) == [-1, 1]
        assert apart(equal[tuple(x)], equal[tuple(y)]) > 10
    offsets = [tuple(int(row[f"offset_{axis}"]) for axis in "thw") for row in rows]
    assert Counter(offsets) == dict.fromkeys(info.kind.offsets, 2)  # type: ignore[attr-defined]
    assert len(set(offsets)) == 37
    assert {tuple(int(row[f"offset_{axis}"]) for axis in "thw") for row in rows_of(info, "train")} == set(offsets[:8:2])


def test_who_counts_patches_is_at_one_half_on_contact(probes: dict[str, ProbeInfo]) -> None:
    train, test = (read_clips(read_kinetics_csv(path), None) for path in (probes["contact"].test_csv,) * 2)
    count_patches(train, test)
    assert (predict("patches_forest", train, test) == test["label"]).mean() == 0.5


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


def test_shell_partners_differ_in_the_mark_alone(probes: dict[str, ProbeInfo]) -> None:
    clips, labels = clips_of(probes["shell"])
    for first in range(0, len(clips), 2):
        assert np.array_equal(clips[first][1:], clips[first + 1][1:])
        assert not np.array_equal(clips[first][0], clips[first + 1][0])
        assert labels[first] != labels[first + 1]


@pytest.mark.parametrize(("step", "frames", "count"), [(0.5, 8, 2), (1.0, 6, 3), (2.0, 8, 2), (0.375, 16, 2)])
def test_shells_coin_is_fair_whatever_first_and_last_frame_show(step: float, frames: int, count: int) -> None:
    kind = Shell(step, count, frames)
    for seed in range(4):
        kept, swapped = (kind._paths(np.random.default_rng(seed), way) for way in (False, True))
        assert np.array_equal(kept[:, 0], swapped[:, 0])
        assert np.array_equal(kept[[1, 0], -1], swapped[:2, -1])
        assert kept[0, -1, 1] <= 20
        assert kept[1, -1, 1] >= 28
        for paths in (kept, swapped):
            assert (np.abs(np.diff(paths, axis=1)).sum(axis=-1) == 8 * step).all()
            assert 4 <= paths.min() <= paths.max() <= 44
            for one in range(count):
                for other in range(one):
                    assert (np.abs(paths[one] - paths[other]).max(axis=-1) >= 8).all()


def ceiling(name: str, frames: int, order_blind: bool = False, clips: int = 1, **dials: object) -> float | None:
    kind = make_kind(name, dials)
    record = Preprocessing(num_frames=frames, short_side=kind.size, crop=kind.size)
    return kind.ceiling_percent(record, Views(clips), order_blind)


def test_bounds() -> None:
    for name, chance, frames in (("spin", 50, 8), ("match", 25, 2), ("cue", 25, 8), ("bind", 50, 4), ("shell", 50, 8)):
        assert ceiling(name, 1) == chance
        assert ceiling(name, frames) is None
    for name, frames in (("spin", 8), ("match", 2), ("cue", 8), ("bind", 4)):
        assert ceiling(name, frames, order_blind=True) == 50
        assert ceiling(name, 1, clips=frames) == 50  # frames one by one, averaged
    assert ceiling("shell", 8, order_blind=True) is None
    assert ceiling("shell", 4) == 50  # frames 1, 3, 5, 7 … not the first
    assert ceiling("cue", 4, order_blind=True) is None
    assert ceiling("cue", 8, gap=7) is None
    assert ceiling("contact", 2) is None
    assert ceiling("contact", 2, order_blind=True) is None
    # One of two frames shows what lies in it alone: of 37 offsets 12 lie in one frame.
    one = ceiling("contact", 1)
    assert one is not None
    assert 50 < one < 50 + 50 * 12 / 37


def test_many_discs_and_long_memories_can_be_made(tmp_path: Path) -> None:
    far = make_probe(
        "cue", tmp_path, num_train=4, num_test=8, dials={"video_frames": 96, "gap": 90, "cue_distractors": 8}
    )
    clips, labels = clips_of(far)
    assert [remembering(clip) for clip in clips] == labels.tolist()
    many = make_probe("spin", tmp_path, num_train=2, num_test=2, dials={"objects": 3, "video_frames": 4})
    assert len(clips_of(many)[0][0]) == 4
