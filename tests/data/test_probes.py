"""The probes: exact reversals, what a single frame may tell, disjoint splits, reproducible files, masks."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from timesformer import InputError
from timesformer.data import Preprocessing, Video, VideoDataset, read_kinetics_csv
from timesformer.data.cache import decode
from timesformer.data.masks import MaskStore
from timesformer.data.probes import (
    DIFFICULTY,
    FAMILIES,
    LABELS,
    MOTIONS,
    Difficulty,
    ProbeInfo,
    generate,
    make_probe,
    open_probe,
)
from timesformer.data.probes.scene import SIZE, make_track, render
from timesformer.data.probes.shapes import make_outline


def clips(info: ProbeInfo, split: str) -> list[dict[str, str]]:
    with open(info.folder / split / "clips.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_every_test_clip_has_its_exact_reversal(motion: ProbeInfo) -> None:
    samples = {sample.path.name: sample for sample in read_kinetics_csv(motion.test_csv, num_classes=8)}
    rows = clips(motion, "test")
    reversals = [row for row in rows if row["reverses"]]
    assert len(reversals) == len(rows) // 2 == 16
    for row in reversals:
        forward, backward = samples[row["reverses"]], samples[row["name"]]
        assert {forward.label // 2} == {backward.label // 2}
        assert forward.label != backward.label
        frames, mirrored = decode(forward.path).pixels, decode(backward.path).pixels
        assert {frame.tobytes() for frame in frames} == {frame.tobytes() for frame in mirrored}
        assert np.array_equal(frames, mirrored[::-1])
        assert len({frame.tobytes() for frame in frames}) == 16
        masks = MaskStore()
        assert np.array_equal(masks.get(forward.path), masks.get(backward.path)[::-1])


def test_a_model_sees_the_same_set_of_frames_of_a_clip_and_its_reversal(motion: ProbeInfo) -> None:
    record = Preprocessing(num_frames=8, short_side=40, crop=32)
    dataset = VideoDataset(read_kinetics_csv(motion.test_csv), record, train=False)
    batch = dataset.get_batch(0, range(len(dataset)))
    assert np.array_equal(batch["clip"][0::2].numpy(), batch["clip"][1::2].flip(2).numpy())
    assert (batch["label"][0::2] // 2 == batch["label"][1::2] // 2).all()
    assert (batch["label"][0::2] != batch["label"][1::2]).all()


def test_classes_are_balanced(motion: ProbeInfo, appearance: ProbeInfo) -> None:
    for info in (motion, appearance):
        assert info.labels == LABELS[info.name]
        for path in (info.train_csv, info.test_csv):
            counts = Counter(sample.label for sample in read_kinetics_csv(path, num_classes=8))
            assert len(counts) == 8
            assert len(set(counts.values())) == 1


def test_splits_share_neither_objects_nor_backgrounds(motion: ProbeInfo, appearance: ProbeInfo) -> None:
    for info in (motion, appearance):
        train, test = clips(info, "train"), clips(info, "test")
        for field in ("object", "background"):
            assert not {row[field] for row in train} & {row[field] for row in test}
            # By construction, for any number of clips: identities by parity, hues by alternating bands.
            for rows, parity in ((train, 0), (test, 1)):
                assert {int(row[field]) % 2 for row in rows} == {parity}
                assert {int(float(row[f"{field}_hue"]) / (2 * np.pi) * 96) % 2 for row in rows} == {parity}


def test_files_are_intra_coded_h264(motion: ProbeInfo) -> None:
    sample = read_kinetics_csv(motion.train_csv)[0]
    with Video(sample.path) as video:
        assert video.key_frames == list(range(16))
        assert (video.num_frames, video.height, video.width) == (16, 40, 40)
        assert video.reader.stream.codec_context.name == "h264"


@pytest.mark.parametrize("family", [*FAMILIES, "blob"])
def test_outlines_have_equal_area_and_stay_within_two_radii(family: str) -> None:
    axis = np.linspace(-3, 3, 301, dtype=np.float32)
    for seed in range(40):
        distance = make_outline(family, np.random.default_rng(seed))(axis[None, :], axis[:, None])
        inside = distance < 0
        assert inside.mean() * 36 == pytest.approx(np.pi, rel=0.2)
        assert np.hypot(axis[None, :], axis[:, None])[inside].max() < 2


def test_no_rotation_maps_a_blob_onto_itself() -> None:
    axis = np.linspace(-2, 2, 101)
    u, v = np.meshgrid(axis, axis)
    for seed in range(20):
        outline = make_outline("blob", np.random.default_rng(seed))
        still = outline(u, v) < 0
        for angle in np.linspace(0.3, 2 * np.pi - 0.3, 30):
            turned = outline(np.cos(angle) * u + np.sin(angle) * v, np.cos(angle) * v - np.sin(angle) * u) < 0
            assert (still != turned).sum() > 0.03 * still.sum()


def test_the_middle_of_a_clip_has_the_same_law_whatever_the_motion() -> None:
    dial = DIFFICULTY["quick"]
    means = []
    for motion in MOTIONS:
        rng = np.random.default_rng(0)
        tracks = [make_track(motion, rng, dial.object_radius, 8.0, dial) for _ in range(400)]
        middle = [[(f[7] + f[8]) / 2 for f in (t.x, t.y, t.angle, np.log(t.radius))] for t in tracks]
        means.append(np.concatenate([np.mean(middle, 0), np.std(middle, 0)]))
    assert (np.ptp(means, axis=0) < 1e-9).all()


@pytest.mark.parametrize("motion", MOTIONS[::2])
def test_a_motion_and_its_opposite_differ_by_the_sign_of_time(motion: str) -> None:
    opposite = MOTIONS[MOTIONS.index(motion) + 1]
    dial = DIFFICULTY["quick"]
    for seed in range(20):
        one, other = (
            make_track(name, np.random.default_rng(seed), dial.object_radius, 8.0, dial) for name in (motion, opposite)
        )
        for field in ("x", "y", "angle", "radius"):
            np.testing.assert_allclose(getattr(one, field), getattr(other, field)[::-1], atol=1e-9)


@pytest.mark.parametrize("motion", MOTIONS)
def test_motions_go_where_their_names_say(motion: str) -> None:
    dial = DIFFICULTY["quick"]
    rng = np.random.default_rng(1)
    for _ in range(20):
        track = make_track(motion, rng, dial.object_radius, 8.0, dial)
        steps = {name: np.diff(getattr(track, name)) for name in ("x", "y", "angle", "radius")}
        forward = {name: np.sign(np.where(abs(step) < 1e-9, 0, step).sum()) for name, step in steps.items()}
        expected = {
            "left": ("x", -1), "right": ("x", 1), "up": ("y", -1), "down": ("y", 1),
            "clockwise": ("angle", 1), "anticlockwise": ("angle", -1),
            "growing": ("radius", 1), "shrinking": ("radius", -1),
        }[motion]  # fmt: skip
        assert forward == {**dict.fromkeys(forward, 0), expected[0]: expected[1]}


def test_mask_is_where_the_object_is() -> None:
    bright = Difficulty(
        contrast=(0.4, 0.4), noise=0.0, background_contrast=(0.0, 0.0), clutter=(0, 0), distractors=(0, 0)
    )
    for seed in range(10):
        scene = render("left", "disc", np.random.default_rng(seed), 0, bright)
        luma = scene.luma.astype(float)
        assert scene.mask.shape == (16, SIZE, SIZE)
        assert scene.mask.any(axis=(1, 2)).all()
        background = np.median(luma[~scene.mask])
        assert (abs(luma - background)[scene.mask] > 30).mean() > 0.95
        assert (abs(luma - background)[~scene.mask] > 45).mean() < 0.03


def test_distractors_in_front_are_cut_out_of_the_mask() -> None:
    crowded = Difficulty(distractors=(12, 12), distractor_radius=(3.0, 4.0))
    behind = Difficulty(distractors=(12, 12), distractor_radius=(3.0, 4.0), distractors_in_front=False)
    covered = sum(render("up", "disc", np.random.default_rng(s), 0, crowded).mask.sum() for s in range(8))
    free = sum(render("up", "disc", np.random.default_rng(s), 0, behind).mask.sum() for s in range(8))
    assert covered < 0.9 * free


def contents(info: ProbeInfo) -> dict[str, bytes]:
    return {
        path.relative_to(info.folder).as_posix(): path.read_bytes()
        for path in sorted(info.folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.integration
def test_same_seed_same_bytes_for_any_number_of_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "_CHUNK", 4)  # several chunks of few clips
    made = [
        make_probe("motion", tmp_path / str(workers), num_train=8, num_test=4, seed=5, workers=workers)
        for workers in (1, 2)
    ]
    assert contents(made[0]) == contents(made[1])
    assert made[0].fingerprint == made[1].fingerprint
    other = make_probe("motion", tmp_path / "1", num_train=8, num_test=4, seed=6)
    assert other.folder != made[0].folder
    assert other.fingerprint != made[0].fingerprint


def test_second_call_finds_the_first(motion: ProbeInfo) -> None:
    before = (motion.folder / "train" / "000000.mp4").stat().st_mtime_ns
    again = make_probe("motion", motion.folder.parent, num_train=32, num_test=32, seed=3)
    assert again == motion == open_probe(motion.folder)
    assert (motion.folder / "train" / "000000.mp4").stat().st_mtime_ns == before
    info = json.loads((motion.folder / "info.json").read_text())
    assert info["parameters"]["difficulty"] == DIFFICULTY["quick"].to_dict()


@pytest.mark.integration
def test_killed_generation_leaves_nothing_half_made(tmp_path: Path) -> None:
    code = (
        "from timesformer.data.probes import make_probe\n"
        f"make_probe('motion', {str(tmp_path)!r}, num_train=4000, num_test=2, seed=9)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    try:
        deadline = time.monotonic() + 300
        while not list(tmp_path.glob(".*.partial/train/0000*.mp4")):
            assert process.poll() is None, "the generation ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith(".")]
    # A later call for the same probe clears away what was left (here a smaller probe stands for it).
    left = next(tmp_path.glob(".*.partial"))
    info = make_probe("motion", tmp_path, num_train=8, num_test=2, seed=9)
    partial = tmp_path / f".{info.folder.name}.partial"
    info.folder.rename(partial)
    (partial / "info.json").unlink()
    (partial / "train" / "rubbish.mp4").write_bytes(b"half a file")
    again = make_probe("motion", tmp_path, num_train=8, num_test=2, seed=9)
    assert again == info
    assert not partial.exists()
    assert not (again.folder / "train" / "rubbish.mp4").exists()
    assert left.exists()  # belongs to another probe


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"name": "colour"}, "unknown probe 'colour'"),
        ({"num_test": 3}, "num_test must be even"),
        ({"num_train": 0}, "num_train must be at least 1"),
        ({"seed": -1}, "seed must not be negative"),
        ({"workers": 0}, "workers"),
        ({"difficulty": "hard"}, "unknown difficulty 'hard'"),
    ],
)
def test_impossible_requests(tmp_path: Path, changed: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"name": "motion", "num_train": 8, "num_test": 2, "seed": 0, **changed}
    with pytest.raises(InputError, match=message):
        make_probe(arguments.pop("name"), tmp_path, **arguments)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="not a probe"):
        open_probe(tmp_path)


@pytest.mark.parametrize(
    "changed",
    [
        {"noise": -0.1},
        {"object_radius": (5.0, 4.0)},
        {"distractors": (1, 99)},
        {"quantiser": 60},
        {"turn_speed": (0.1, 3.0)},
    ],
)
def test_impossible_difficulties(changed: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(changed))):
        Difficulty(**changed)  # type: ignore[arg-type]
