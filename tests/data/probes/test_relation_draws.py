"""Draws of the probes of who must meet whom: validation videos are made as the test set is, and impossible dials."""

import csv
import json
from collections import Counter
from pathlib import Path

import pytest

from timesformer import InputError
from timesformer.data.cache import decode
from timesformer.data.probes import ProbeInfo, make_kind, make_probe

PROBES = ("spin", "match", "contact", "cue", "bind", "shell")
NUM_TRAIN = 8


@pytest.fixture(scope="module", params=PROBES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[ProbeInfo, ProbeInfo]:
    """The same probe without and with validation videos."""
    name = request.param
    folder, count = tmp_path_factory.mktemp(name), 2 * make_kind(name).together
    plain, more = (
        make_probe(name, folder, num_train=NUM_TRAIN, num_test=count, num_val=num_val, seed=3)
        for num_val in (0, 2 * count)
    )
    return plain, more


def files_of(info: ProbeInfo) -> dict[str, str]:
    """Digests by name."""
    return dict(json.loads((info.folder / "info.json").read_text())["files"])


def test_training_and_test_videos_are_the_same_bytes_with_and_without(made: tuple[ProbeInfo, ProbeInfo]) -> None:
    plain, more = made
    before, after = files_of(plain), files_of(more)
    assert before.items() <= after.items()
    assert {name.split("/")[0] for name in after.keys() - before.keys()} == {"val", "val.csv"}
    for name in before:
        assert (plain.folder / name).read_bytes() == (more.folder / name).read_bytes()


def test_validation_videos_are_no_others(made: tuple[ProbeInfo, ProbeInfo]) -> None:
    """Not even one frame that shows something is found in another split."""
    info = made[1]
    frames = {
        split: {
            frame.tobytes()
            for sample in info.annotations(split).samples
            for frame in decode(Path(sample.path)).pixels
            if frame.std() > 2
        }
        for split in ("train", "test", "val")
    }
    assert all(frames.values())
    assert not frames["val"] & (frames["train"] | frames["test"])


def test_validation_videos_are_made_as_the_test_set_is(made: tuple[ProbeInfo, ProbeInfo]) -> None:
    """Classes are balanced, groups are complete, and partners are named."""
    info = made[1]
    samples, kind = info.annotations("val").samples, info.kind
    assert len(samples) == 4 * kind.together
    labels = Counter(sample.label for sample in samples)
    assert labels == dict.fromkeys(range(len(info.labels)), len(samples) // len(info.labels))
    assert set(Counter(sample.group for sample in samples).values()) == {kind.together}
    with open(info.folder / "val" / "clips.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    partner = "reverses" if "reverses" in rows[0] else "partner"
    for first in range(0, len(rows), kind.together):
        names = [row[partner] for row in rows[first : first + kind.together]]
        assert names == ["", *[rows[first]["name"]] * (kind.together - 1)]


@pytest.mark.parametrize(
    ("name", "dials", "message"),
    [
        ("match", {"move": "queen"}, "move must be one of axis, diagonal, knight, got 'queen'"),
        ("match", {"move": "knight", "distance": 2}, "distance must be a whole number from 1 to 1, got 2"),
        ("match", {"grid": 12}, "grid must be a whole number from 3 to 8, got 12"),
        ("match", {"patch_noise": 1}, "patch_noise must be from 0 to 0.2, got 1"),
        ("spin", {"ring": 5}, "ring must be a whole number from 2 to 4, got 5"),
        ("spin", {"ring": 4, "drift": 1}, "drift must be a whole number from 0 to 0, got 1"),
        ("spin", {"ring": 2, "video_frames": 4}, "video_frames must be a whole number from 2 to 3, got 4"),
        ("contact", {"max_offset": 4}, "max_offset must be a whole number from 1 to 3, got 4"),
        ("cue", {"gap": 8}, "gap must be a whole number from 2 to 7, got 8"),
        ("cue", {"gap": 3, "cue_distractors": 3}, "cue_distractors must be a whole number from 1 to 2, got 3"),
        ("cue", {"question_patches": 5}, "question_patches must be 4 or 12, got 5"),
        ("cue", {"question_patches": 12.0}, "question_patches must be 4 or 12, got 12.0"),
        ("contact", {"pairs": 4.0}, "pairs must be 2, 4, 6 or 8, got 4.0"),
        ("shell", {"grid": 4.0}, "grid must be 4, 6 or 8, got 4.0"),
        ("bind", {"speed": 4}, "speed must be a whole number from 1 to 3, got 4"),
        ("shell", {"patches_per_frame": 4}, "patches_per_frame must be a whole number from 0 to 3, got 4"),
        ("shell", {"grid": 5}, "grid must be 4, 6 or 8, got 5"),
        ("contact", {"pairs": 3}, "pairs must be 2, 4, 6 or 8, got 3"),
    ],
)
def test_impossible_dials_are_named(tmp_path: Path, name: str, dials: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_probe(name, tmp_path, num_train=4, num_test=8, dials=dials)
