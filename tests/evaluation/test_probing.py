"""Probes on frozen features: scikit-learn's own on the same features, choices on validation, and the command line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from typer.testing import CliRunner

from tests.data.conftest import write_video
from timesformer import TimeSformer, TimeSformerConfig
from timesformer.config.cnn import CnnConfig
from timesformer.config.registry import build_model
from timesformer.data import Preprocessing, VideoDataset, read_annotations
from timesformer.errors import InputError
from timesformer.evaluation import probing
from timesformer.evaluation.evaluate import UnreadableVideos
from timesformer.evaluation.probing import STRENGTHS, Features, probe, read_features, scores_of
from timesformer.evaluation.protocols import protocol_named
from timesformer_experiments.cli.main import app

TINY: dict[str, Any] = {
    "num_frames": 2, "image_size": 16, "patch_size": 8, "num_classes": 5, "embed_dim": 8, "depth": 1, "num_heads": 2,
}  # fmt: skip
RECORD = {"num_frames": 2, "short_side": 16, "crop": 16}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos of three classes and two talkers, lists of them, and a model of five other classes."""
    place = tmp_path_factory.mktemp("probing")
    lines = []
    for number in range(18):
        name = f"talker{number % 2}_{number}.mp4"
        write_video(place / name, frames=3 + number % 3 * 3, size=(16, 24))
        lines.append(f"{name} {number % 3}")
    for name, part in (("train", lines[:12]), ("val", lines[12:15]), ("test", lines[15:])):
        (place / f"{name}.csv").write_text("\n".join(part) + "\n")
    torch.manual_seed(0)
    TimeSformer(TimeSformerConfig(**TINY)).save_pretrained(place / "model", preprocessing=RECORD)
    return place


def dataset(place: Path, name: str, **options: Any) -> VideoDataset:
    samples = read_annotations("kinetics", place / f"{name}.csv").samples
    return VideoDataset(samples, Preprocessing.from_dict(RECORD), train=False, **options)


def clouds(seed: int, count: int = 60, noise: float = 1.0) -> Features:
    """Features of two views around the means of four classes; tokens (n, 2, 2, 1, 2, 8)."""
    rng = np.random.default_rng(seed)
    means = np.random.default_rng(9).normal(size=(4, 2, 1, 2, 8))
    label = np.arange(count) % 4
    values = means[label][:, None] + noise * rng.normal(size=(count, 2, 2, 1, 2, 8))
    return Features(values.astype(np.float32), label.astype(np.int64), np.arange(count), [])


def flat(found: Features) -> Features:
    return Features(found.values.reshape(len(found.label), 2, -1), found.label, found.index, [])


@pytest.mark.parametrize(
    ("kind", "strength", "by_hand"),
    [
        ("linear", 10.0, make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))),
        ("knn", 5, KNeighborsClassifier(5, weights="distance", metric="cosine")),
    ],
)
def test_scores_are_scikit_learns(kind: Any, strength: float, by_hand: Any) -> None:
    train, test = flat(clouds(0)), flat(clouds(1))
    found = scores_of(kind, strength, train, test, 4, None, protocol_named("clip"))
    by_hand.fit(train.values.mean(1), train.label)
    np.testing.assert_allclose(found.numpy(), by_hand.predict_proba(test.values.mean(1)), atol=1e-6)
    # A class that nobody showed has no score.
    assert scores_of(kind, strength, train, test, 6, None, protocol_named("clip"))[:, 4:].abs().sum() == 0


def test_a_query_reads_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "EPOCHS", 12)
    config = TimeSformerConfig(**TINY)
    found, again = (
        scores_of("attentive", 0.01, clouds(0), clouds(1), 4, config, protocol_named("clip")) for _ in range(2)
    )
    assert torch.equal(found, again)
    right = (found.argmax(1).numpy() == clouds(1).label).mean()
    assert right > 0.6  # chance is 0.25
    assert [name for name, _ in probing.AttentiveProbe(config, 4).named_parameters() if "query" in name] == [
        "pooler.query"
    ]


@pytest.mark.parametrize("kind", ["linear", "knn"])
def test_the_strength_is_chosen_on_validation_and_the_whole_list_is_fitted(place: Path, kind: Any) -> None:
    model = TimeSformer.from_pretrained(place / "model")
    sides = [dataset(place, name) for name in ("train", "val", "train", "test")]
    found = probe(kind, model, *sides, protocol_named("clip"), refuse_unreadable=True)
    train, validation, test = (read_features(model, dataset(place, name)) for name in ("train", "val", "test"))
    percents = {}
    for strength in STRENGTHS[kind]:
        if kind == "knn" and strength > 12:
            continue
        scores = scores_of(kind, strength, train, validation, 3, model.config, protocol_named("clip"))
        percents[strength] = 100 * float((scores.argmax(1).numpy() == validation.label).mean())
    assert found.percents == percents
    assert found.strength == next(each for each, percent in percents.items() if percent == max(percents.values()))
    expected = scores_of(kind, found.strength, train, test, 3, model.config, protocol_named("clip"))
    np.testing.assert_allclose(np.stack(list(found.result.per_video["scores"])), expected.numpy(), atol=1e-6)
    assert (found.train_videos, found.validation_videos, found.result.num_videos) == (12, 3, 3)
    assert found.statement()["validation_percent"] == max(percents.values())


def test_features_are_those_that_the_head_reads(place: Path) -> None:
    model = TimeSformer.from_pretrained(place / "model")
    found = read_features(model, dataset(place, "test", views=protocol_named("2x1").views))
    clips = dataset(place, "test", views=protocol_named("2x1").views).get_batch(0, range(3))["clip"]
    with torch.no_grad():
        expected = model.features(clips.flatten(0, 1)).unflatten(0, (3, 2))
    np.testing.assert_allclose(found.values, expected.numpy(), atol=1e-6)
    assert read_features(model, dataset(place, "test"), tokens=True).values.shape == (3, 1, 2, 2, 2, 8)
    network = build_model(CnnConfig("c2d", num_frames=2, image_size=16, width=4, blocks=(1, 1, 1, 1), num_classes=3))
    assert read_features(network, dataset(place, "test")).values.shape[:2] == (3, 1)
    with pytest.raises(InputError, match="a convolutional network has no tokens"):
        read_features(network, dataset(place, "test"), tokens=True)


def evaluated(place: Path, *more: str, columns: int = 80) -> Any:
    arguments = ["evaluate", str(place / "test.csv"), "--checkpoint", str(place / "model"), "--protocol", "clip"]
    env = {"COLUMNS": str(columns)}
    return CliRunner().invoke(app, [*arguments, "--train-list", str(place / "train.csv"), *more], env=env)


def test_on_the_command_line(place: Path) -> None:
    """Any list, whatever the classes of the checkpoint are."""
    found = evaluated(place, "--probe", "linear", "--val-list", str(place / "val.csv"), "--json", "--per-class")
    assert found.exit_code == 0, found.output
    said = json.loads(found.stdout)
    (row,) = said["evaluations"]
    assert row["probe"] == "linear"
    assert row["top1_percent"] == said["top1_percent"]
    assert row["train_videos"] == 12
    assert {each["strength"] for each in row["strengths"]} == set(STRENGTHS["linear"])
    assert [len(row["confusion"][0]["classes"])] == [3]
    val = ("--val-list", str(place / "val.csv"))
    grouped = evaluated(place, "--probe", "knn", *val, "--group", r"pattern=talker\d", "--json")
    assert json.loads(grouped.stdout)["evaluations"][0]["groups"] == 2
    twice = evaluated(place, "--probe", "knn", "--val-list", str(place / "test.csv"))
    assert twice.exit_code == 2
    assert "is in validation as well" in " ".join((twice.output + twice.stderr).split())
    orders = evaluated(place, "--probe", "knn", "--frame-order", "all", "--json")
    assert len(json.loads(orders.stdout)["evaluations"]) == 6
    shown = evaluated(place, "--probe", "knn", columns=200)
    assert "knn probe, test.csv" in " ".join(shown.output.split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--probe", "svm"], "--probe svm: expected one of linear, attentive, knn"),
        ([], "--train-list: expected with --probe"),
        (["--probe", "knn", "--val-list", "val.csv", "--val-fraction", "0.5"], "expected one of them"),
    ],
)
def test_options_that_do_not_fit(place: Path, arguments: list[str], said: str) -> None:
    found = evaluated(place, *arguments)
    assert found.exit_code == 2
    assert said in found.output + found.stderr


def test_unreadable_videos_are_named(place: Path, tmp_path: Path) -> None:
    model = TimeSformer.from_pretrained(place / "model")
    (tmp_path / "broken.csv").write_text("gone.mp4 0\n" + f"{place / 'talker0_0.mp4'} 1\n")
    broken = dataset(tmp_path, "broken", allow_unreadable=True)
    sides = [dataset(place, "train"), dataset(place, "val"), dataset(place, "train"), broken]
    with pytest.raises(UnreadableVideos, match=r"gone\.mp4"):
        probe("knn", model, *sides, protocol_named("clip"), refuse_unreadable=True)
    assert probe("knn", model, *sides, protocol_named("clip")).result.num_videos == 1
