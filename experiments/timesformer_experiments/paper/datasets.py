"""Real datasets of the paper: their sizes, and the models and sampling that the paper uses for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MODELS: Mapping[str, Mapping[str, Any]] = {
    "TimeSformer": {"num_frames": 8, "image_size": 224},
    "TimeSformer-HR": {"num_frames": 16, "image_size": 448},
    "TimeSformer-L": {"num_frames": 96, "image_size": 224},
}
VIEWS = 3


@dataclass(frozen=True)
class Dataset:
    """Dataset of the paper.

    format: format of its annotation files (`timesformer.data.READERS`). train, test: names of these files in the
    dataset's folder. videos: folder of the videos in it. num_train, num_test: number of videos with which the paper
    trains and tests, within the relative `tolerance`, since videos disappear from the web. dense: True for dense
    sampling (at 1/32, HR 1/16, L 1/4), False for uniform sampling. protocol: protocol of the paper's evaluation.
    files: further files that the format needs.
    """

    title: str
    format: str
    train: str
    test: str
    videos: str
    classes: int
    num_train: int
    num_test: int
    tolerance: float
    dense: bool
    flip: bool = True
    protocol: str = "paper"
    files: tuple[str, ...] = field(default=())


DATASETS: Mapping[str, Dataset] = {
    "k400": Dataset("Kinetics-400", "kinetics", "train.csv", "val.csv", ".", 400, 240_000, 20_000, 0.1, dense=True),
    "k600": Dataset("Kinetics-600", "kinetics", "train.csv", "val.csv", ".", 600, 392_000, 30_000, 0.1, dense=True),
    "ssv2": Dataset(
        "Something-Something-V2",
        "ssv2",
        "something-something-v2-train.json",
        "something-something-v2-validation.json",
        "videos",
        174,
        170_000,
        25_000,
        0.02,
        dense=False,
        flip=False,
        files=("something-something-v2-labels.json",),
    ),
    "diving48": Dataset(
        "Diving-48",
        "diving48",
        "Diving48_V2_train.json",
        "Diving48_V2_test.json",
        "videos",
        48,
        16_000,
        3_000,
        0.4,
        dense=False,
        files=("Diving48_vocab.json",),
    ),
    "howto100m": Dataset(
        "HowTo100M tasks",
        "kinetics",
        "train.csv",
        "test.csv",
        ".",
        1059,
        85_000,
        35_000,
        0.1,
        dense=True,
        protocol="coverx1",
    ),
}
