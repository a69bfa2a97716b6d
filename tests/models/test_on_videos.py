"""`model.predict` and `model.processor` on real video files."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.conftest import write_video
from timesformer import InputError, TimeSformer, TimeSformerConfig
from timesformer.checkpoints import load_model
from timesformer.config.cnn import CnnConfig
from timesformer.config.registry import build_model
from timesformer.data import Preprocessing, VideoError
from timesformer.evaluation.prediction import predict

CHECKPOINT = Path(__file__).parents[2] / "results" / "checkpoints" / "divided-motion"
SIZES = {"num_frames": 2, "image_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}
RECORD = Preprocessing(num_frames=2, short_side=16, crop=16)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("on") / "video.mp4", 12)


def test_it_is_the_prediction_of_the_command_line(video: Path) -> None:
    loaded = load_model(CHECKPOINT)
    record = Preprocessing.from_dict(loaded.preprocessing)
    (expected,) = predict(loaded.model, [video], record, loaded.labels, top=3).videos
    found = loaded.model.train().predict(video, top=3)
    assert loaded.model.training
    assert [name for name, _ in found] == [guess.label for guess in expected.top]
    np.testing.assert_allclose([p for _, p in found], [guess.probability for guess in expected.top], atol=1e-6)
    clip = loaded.model.processor(str(video), clips=2, crops=3)
    assert clip.shape == (6, 8, 3, 32, 32)


def test_a_model_made_in_python_asks_for_its_preprocessing(video: Path, tmp_path: Path) -> None:
    model = TimeSformer(TimeSformerConfig(num_classes=3, **SIZES))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"does not know its preprocessing: give preprocessing=…"):
        model.predict(video)
    for given in (RECORD, RECORD.to_dict()):
        assert {name for name, _ in model.predict(video, preprocessing=given)} == {"class 0", "class 1", "class 2"}
        assert model.processor(video, preprocessing=given).shape == (1, 2, 3, 16, 16)
    folder = model.save_pretrained(tmp_path / "m", labels=list("abc"), preprocessing=RECORD)
    assert {name for name, _ in TimeSformer.from_pretrained(folder).predict(video)} == {"a", "b", "c"}
    with pytest.raises(InputError, match="top: expected at least 1"):
        model.predict(video, top=0, preprocessing=RECORD)
    with pytest.raises(VideoError, match="no such file"):
        model.predict(tmp_path / "none.mp4", preprocessing=RECORD)
    with torch.no_grad():
        model.head.bias.fill_(torch.nan)
    with pytest.raises(InputError, match="not finite"):
        model.predict(video, preprocessing=RECORD)


def test_several_heads_and_convolutional_networks(video: Path) -> None:
    model = TimeSformer(TimeSformerConfig(num_classes=(3, 2), **SIZES))  # type: ignore[arg-type]
    model.extras = {"preprocessing": RECORD.to_dict(), "labels": {"verb": list("abc"), "noun": ["x", "y"]}}
    found = model.predict(video, top=2)
    assert isinstance(found, dict)
    assert {head: len(some) for head, some in found.items()} == {"verb": 2, "noun": 2}
    assert sum(p for _, p in found["noun"]) == pytest.approx(1)
    cnn = build_model(CnnConfig("c2d", num_frames=2, image_size=32, width=8, blocks=(1, 1, 1, 1), num_classes=2))
    record = Preprocessing(num_frames=2, short_side=32, crop=32)
    assert len(cnn.predict(video, preprocessing=record)) == 2  # type: ignore[operator]
