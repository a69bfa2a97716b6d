"""The probes order, detail and mixture: what each tests, and that its bound holds on the decoded videos."""

import csv
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.ensemble import ExtraTreesClassifier

from timesformer import InputError
from timesformer.data import Preprocessing, VideoDataset, Views, read_kinetics_csv
from timesformer.data.cache import decode
from timesformer.data.masks import MaskStore
from timesformer.data.probes import KINDS, LABELS, ProbeInfo, kinds, make_kind, make_probe, open_probe, registry
from timesformer.data.probes.diagnostics import cheap_classifiers, contact_sheet
from timesformer.data.probes.kind import ORDERLESS
from timesformer.data.probes.kinds.order import Order
from timesformer.data.transforms import normalise

NAMES = ["appearance", "motion", "order", "detail", "mixture", "match", "spin", "contact", "cue", "bind", "shell"]
NEW = {"order": (8, 24), "detail": (8, 16), "mixture": (32, 64)}


@pytest.fixture(scope="module")
def probes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ProbeInfo]:
    folder = tmp_path_factory.mktemp("kinds")
    return {
        name: make_probe(name, folder, num_train=train, num_test=test, seed=3) for name, (train, test) in NEW.items()
    }


def facts(info: ProbeInfo, split: str = "test") -> list[dict[str, str]]:
    with open(info.folder / split / "clips.csv", newline="") as file:
        return list(csv.DictReader(file))


def batch(info: ProbeInfo, record: Preprocessing, views: Views | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Test clips as a model gets them, float, and their labels."""
    dataset = VideoDataset(read_kinetics_csv(info.test_csv), record, train=False, views=views or Views())
    found = dataset.get_batch(0, range(len(dataset)))
    clip = found["clip"]
    return (normalise(clip, record) if clip.dtype == torch.uint8 else clip), found["label"]


@pytest.mark.parametrize(
    ("name", "difficulty", "folder", "seen"),
    [
        ("appearance", "quick", "appearance-108f77c5aa5fca50", (1790, 82.144, 32.675)),
        ("appearance", "full", "appearance-27acc4a9f3d37f7e", (3039, 88.115, 40.081)),
        ("motion", "quick", "motion-dc5b8aa7f8fc80ca", (1801, 76.369, 28.127)),
        ("motion", "full", "motion-8b492084c6879868", (1175, 75.948, 28.354)),
    ],
)
def test_the_first_two_kinds_are_what_they_were(
    tmp_path: Path, name: str, difficulty: str, folder: str, seen: tuple[float, float, float]
) -> None:
    """Records refer to them: neither what names them may change nor what they show.

    seen: of the eighth training clip, pixels of the object, mean and spread of all pixels.
    """
    info = make_probe(name, tmp_path, num_train=40, num_test=24, seed=3, difficulty=difficulty)
    assert info.folder.name == folder
    assert "dials" not in info.parameters
    clip = info.folder / "train" / "000007.mp4"
    pixels = decode(clip).pixels
    assert (MaskStore().get(clip).sum(), pixels.mean(), pixels.std()) == pytest.approx(seen, rel=0.002)
    columns = "name,label,motion,shape,object,object_hue,background,background_hue,reverses"
    assert (info.folder / "test" / "clips.csv").read_text().splitlines()[0] == columns


def test_every_kind_says_what_it_is(probes: dict[str, ProbeInfo]) -> None:
    assert list(LABELS) == list(KINDS) == NAMES
    assert [kind.seed_index for kind in KINDS.values()] == list(range(len(NAMES)))
    for name, info in probes.items():
        assert info.labels == LABELS[name]
        assert info.parameters["dials"] == info.kind.dials() == make_kind(name).dials()
        assert open_probe(info.folder) == info
        for path, count in zip((info.train_csv, info.test_csv), NEW[name], strict=True):
            labels = Counter(sample.label for sample in read_kinetics_csv(path, num_classes=len(info.labels)))
            assert labels == dict.fromkeys(range(len(info.labels)), count // len(info.labels))
        first = decode(info.folder / "test" / "000000.mp4").pixels
        assert first.shape == (info.kind.frames, 3, info.kind.size, info.kind.size)
        assert MaskStore().get(info.folder / "test" / "000000.mp4").shape == (first.shape[0], *first.shape[2:])
        for field in ("object", "background"):
            for split, parity in (("train", 0), ("test", 1)):
                rows = facts(info, split)
                assert {int(row[field]) % 2 for row in rows} == {parity}
                assert {int(float(row[f"{field}_hue"]) / (2 * np.pi) * 96) % 2 for row in rows} == {parity}


NEW_KIND = """
from dataclasses import dataclass
from typing import ClassVar

from timesformer.data.probes.kind import Kind


@dataclass(frozen=True)
class Speed(Kind):
    factor: float = 2.0
    gaps: str = "none"

    name: ClassVar[str] = "speed"
    labels: ClassVar[tuple[str, ...]] = ("slow", "fast")
    seed_index: ClassVar[int] = 99
"""


def test_a_new_kind_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "speed.py").write_text(NEW_KIND)
    monkeypatch.setattr(kinds, "__path__", [*kinds.__path__, str(tmp_path)])
    found = registry.find()
    monkeypatch.delitem(sys.modules, f"{kinds.__name__}.speed")
    assert list(found) == [*KINDS, "speed"]
    assert found["speed"]().dials() == {"factor": 2.0, "gaps": "none"}
    types = registry.dial_types(found)
    assert types.pop("factor") is float
    assert types.pop("gaps") == tuple[int, ...] | str
    assert types == {name: kind for name, kind in registry.DIAL_TYPES.items() if name != "gaps"}


def test_same_arguments_same_bytes_and_every_dial_counts(tmp_path: Path) -> None:
    for name in NEW:
        made = [make_probe(name, tmp_path / str(n), num_train=4, num_test=4, seed=1) for n in (0, 1)]
        assert made[0].fingerprint == made[1].fingerprint
    other = make_probe("mixture", tmp_path / "0", num_train=4, num_test=4, seed=1, dials={"temporal_share": 0.25})
    assert other.folder != made[0].folder
    assert other.parameters["dials"] == {"temporal_share": 0.25}


def tiles(info: ProbeInfo, segments: int) -> list[list[bytes]]:
    """The decoded clips of each test video when tiles of so many segments cover it, two frames of each segment."""
    record = Preprocessing(num_frames=2 * segments, short_side=40, crop=40, sampling="dense", frame_rate=8)
    clips, _ = batch(info, record, Views("cover", 1))
    count = 8 // segments
    return [[clips[count * video + i].numpy().tobytes() for i in range(count)] for video in range(len(clips) // count)]


@pytest.mark.parametrize(("segments", "ceiling"), [(1, 50), (2, 200 / 3), (4, 250 / 3), (8, 100)])
def test_order_shows_only_to_clips_that_cover_the_gap(
    probes: dict[str, ProbeInfo], segments: int, ceiling: float
) -> None:
    info = probes["order"]
    videos, rows = tiles(info, segments), facts(info)
    assert {int(row["gap"]) for row in rows} == {1, 2, 4}
    alike = 0
    for number in range(0, len(rows), 2):
        row, partner = rows[number : number + 2]
        assert partner["partner"] == row["name"]
        assert (partner["first"], partner["second"], partner["gap"]) == (row["second"], row["first"], row["gap"])
        assert int(partner["label"]) == int(row["label"]) ^ 1
        same = sorted(videos[number]) == sorted(videos[number + 1])
        assert same == (segments <= int(row["gap"]))
        alike += same
    record = Preprocessing(num_frames=2 * segments, short_side=40, crop=40, sampling="dense", frame_rate=8)
    assert info.kind.ceiling_percent(record, Views("cover", 3)) == pytest.approx(ceiling)
    assert info.kind.ceiling_percent(record, Views("cover", 3), order_blind=True) == 50
    assert 100 * (1 - alike / len(rows)) == pytest.approx(ceiling)


def test_order_holds_one_set_of_frames_whatever_the_order(probes: dict[str, ProbeInfo]) -> None:
    info = probes["order"]
    for first, second in zip(facts(info)[::2], facts(info)[1::2], strict=True):
        one, other = (decode(info.folder / "test" / row["name"]).pixels for row in (first, second))
        assert not np.array_equal(one, other)
        assert Counter(frame.tobytes() for frame in one) == Counter(frame.tobytes() for frame in other)
        assert len({frame.tobytes() for frame in one}) == 3
        seen = MaskStore().get(info.folder / "test" / first["name"]).any(axis=(1, 2)).reshape(8, 8)
        start, gap = int(first["start"]), int(first["gap"])
        assert np.flatnonzero(seen.any(axis=1)).tolist() == [start, start + gap]
        assert seen[[start, start + gap]].all()


def test_ceiling_of_order_by_hand() -> None:
    kind = Order(video_frames=8, event_frames=2, gaps=(1,))
    # Events at segments (0, 1) or (2, 3).
    assert kind.ceiling_of([[0, 2, 4, 6]]) == 100
    assert kind.ceiling_of([[0, 2, 4, 6]], order_blind=True) == 50
    # One half of the videos show an event in segment 0, which is the first.
    assert kind.ceiling_of([[0]]) == 75
    assert kind.ceiling_of([[2, 3]]) == 75
    # A clip of segments 1 and 2 has one event of every video; its place tells whether it is the first.
    assert kind.ceiling_of([[2, 4]]) == 100
    assert kind.ceiling_of([[2], [4]]) == 50
    assert kind.gap(kind.clips(0, 8)[7]) == 1


@pytest.mark.parametrize(("scales", "side", "ceiling"), [([2, 4], 16, 25), ([2, 4], 32, 62.5), ([2], 32, 25)])
def test_detail_is_averaged_away_at_low_resolution(
    tmp_path: Path, scales: list[int], side: int, ceiling: float
) -> None:
    info = make_probe("detail", tmp_path, num_train=4, num_test=32, seed=2, dials={"scales": scales})
    record = Preprocessing(num_frames=4, short_side=side, crop=side)
    clips, labels = batch(info, record)
    assert labels.tolist() == [0, 1, 2, 3] * 8
    scenes = clips.reshape(8, 4, -1)
    spread = (scenes - scenes[:, :1]).abs().amax(dim=(1, 2))
    lost = torch.tensor([int(row["scale"]) <= 64 // side for row in facts(info)[::4]])
    assert (spread[lost] < 1e-5).all()
    assert (spread[~lost] > 0.2).all()
    assert info.kind.ceiling_percent(record, Views()) == ceiling == 100 - 75 * lost.float().mean()
    # Whole frames at full resolution show every class.
    whole = Preprocessing(num_frames=4, short_side=64, crop=64)
    scenes = batch(info, whole)[0].reshape(8, 4, -1)
    for one in range(4):
        for other in range(one):
            assert ((scenes[:, one] - scenes[:, other]).abs().amax(dim=1) > 0.2).all()
    assert info.kind.ceiling_percent(whole, Views()) is None


def stripes(clips: torch.Tensor) -> np.ndarray:
    """How much neighbours one and two pixels apart differ down, across and both ways, on average."""
    grey = clips.mean(dim=-3)
    found = []
    for step in (1, 2):
        down, across = grey[..., step:, :] - grey[..., :-step, :], grey[..., step:] - grey[..., :-step]
        both = across[..., step:, :] - across[..., :-step, :]
        found += [part.abs().flatten(1).mean(dim=1) for part in (down, across, both)]
    # Rounded, so that sums that differ in the order of their terms are one number.
    return torch.stack([*found, *(part / found[0] for part in found[1:])], dim=1).numpy().round(3)


def test_a_classifier_of_textures_reads_detail_at_high_resolution_and_nothing_at_low(tmp_path: Path) -> None:
    dials = {"scales": [2], "pattern_contrast": 0.2}
    info = make_probe("detail", tmp_path, num_train=4, num_test=96, seed=2, dials=dials)
    accuracy = {}
    for side in (32, 64):
        clips, labels = batch(info, Preprocessing(num_frames=2, short_side=side, crop=side))
        features, label = stripes(clips), labels.numpy()
        forest = ExtraTreesClassifier(n_estimators=100, random_state=0).fit(features[:48], label[:48])
        accuracy[side] = (forest.predict(features[48:]) == label[48:]).mean()
    assert accuracy[32] == 0.25
    assert accuracy[64] > 0.7


def test_detail_bounds_nothing_where_resizing_keeps_some_of_the_pattern() -> None:
    kind = make_kind("detail")
    assert kind.ceiling_percent(Preprocessing(short_side=32, crop=32), Views()) == 62.5
    for changed in (
        {"antialias": True},
        {"interpolation": "bicubic"},
        {"short_side": 48},
        {"short_side": 8, "crop": 8},
    ):
        record = Preprocessing(**{"short_side": 32, "crop": 8, **changed})  # type: ignore[arg-type]
        assert kind.ceiling_percent(record, Views()) is None
    assert kind.default_short_side(32) == 32


@pytest.mark.parametrize("share", [0, 0.3, 0.5, 1.0])
def test_mixture_has_its_share_of_motion(tmp_path: Path, share: float) -> None:
    info = make_probe("mixture", tmp_path, num_train=20, num_test=20, seed=4, dials={"temporal_share": share})
    for split in ("train", "test"):
        rows = facts(info, split)
        temporal = [row for row in rows if int(row["label"]) >= 8]
        assert len(temporal) == round(20 * share)
        assert all(info.labels[int(row["label"])] == row["motion"] for row in temporal)
        others = [row for row in rows if int(row["label"]) < 8]
        assert all(info.labels[int(row["label"])] == row["shape"] for row in others)
        # Every clip but a reversal has an object of its own.
        assert len({row["object"] for row in rows}) == len([row for row in rows if not row["reverses"]])
    for row in facts(info):
        if row["reverses"]:
            one, other = (decode(info.folder / "test" / row[name]).pixels for name in ("name", "reverses"))
            assert np.array_equal(one, other[::-1])
    ceiling = info.kind.ceiling_percent(Preprocessing(), Views(), order_blind=True)
    reversed_clips = sum(bool(row["reverses"]) for row in facts(info))
    assert ceiling == pytest.approx(100 - 100 * reversed_clips / 20) == pytest.approx(100 - 50 * share)
    assert info.kind.ceiling_percent(Preprocessing(), Views()) is None


def test_the_first_two_kinds_have_the_bounds_of_old() -> None:
    assert make_kind("motion").ceiling_percent(Preprocessing(), Views(), order_blind=True) == 50
    assert make_kind("motion").ceiling_percent(Preprocessing(), Views()) is None
    assert make_kind("appearance").ceiling_percent(Preprocessing(), Views(), order_blind=True) is None


@pytest.mark.parametrize(
    ("name", "dials", "message"),
    [
        (
            "motion",
            {"temporal_share": 0.5},
            "temporal_share: not a dial of the probe motion; it has no dials of its own",
        ),
        (
            "order",
            {"scales": [2]},
            "scales: not a dial of the probe order; its dials are video_frames, event_frames, gaps",
        ),
        ("order", {"event_frames": 0}, "event_frames must be at least 1, got 0"),
        ("order", {"video_frames": 60}, r"video_frames must be event_frames \(8\) times a power of two from 2 to 64"),
        ("order", {"video_frames": 8}, "video_frames must be"),
        ("order", {"gaps": [3]}, "gaps must be a list of one or more of 1, 2, 4, got"),
        ("order", {"gaps": 2}, "gaps must be"),
        ("order", {"gaps": [8]}, "gaps must be"),
        ("detail", {"scales": []}, "scales must be a list of one or more of 2, 4, 8"),
        ("detail", {"scales": [3]}, "scales must be"),
        ("detail", {"scales": 2}, "scales must be"),
        ("detail", {"pattern_contrast": 0}, "pattern_contrast must be above 0"),
        ("detail", {"pattern_contrast": "much"}, "pattern_contrast must be"),
        ("mixture", {"temporal_share": 1.2}, "temporal_share must be from 0 to 1, got 1.2"),
        ("mixture", {"temporal_share": "half"}, "temporal_share must be"),
    ],
)
def test_impossible_dials_are_named(tmp_path: Path, name: str, dials: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_probe(name, tmp_path, num_train=4, num_test=4, dials=dials)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "num_test", "message"), [("order", 3, "even"), ("detail", 6, "a multiple of 4")])
def test_test_clips_that_belong_together_stay_together(tmp_path: Path, name: str, num_test: int, message: str) -> None:
    with pytest.raises(InputError, match=f"num_test must be {message}"):
        make_probe(name, tmp_path, num_train=4, num_test=num_test)


@pytest.mark.parametrize("name", NEW)
def test_a_contact_sheet_shows_every_class(probes: dict[str, ProbeInfo], name: str) -> None:
    figure = contact_sheet(probes[name], clips_per_class=1, frames=2)
    assert [axis.get_ylabel().split("\n")[0] for axis in figure.axes[::2]] == list(probes[name].labels)


@pytest.mark.parametrize(
    ("name", "limits"),
    [("order", [50, 62.5, 50]), ("detail", [62.5, 62.5, None]), ("mixture", [75, 75, 75])],
)
def test_cheap_classifiers_stay_within_the_limits_of_a_kind(
    probes: dict[str, ProbeInfo], name: str, limits: list[float | None]
) -> None:
    results = cheap_classifiers(probes[name])
    assert all(result.within_limit for result in results.values()), results
    assert [results[name].limit_percent for name in ("mean_frame", "first_frame", "file_size")] == limits
    assert {results[name].limit_percent for name in ORDERLESS} == {limits[0]}
    assert all(result.limit_percent is None for name, result in results.items() if name.startswith("differences"))
