"""`timesformer features`: parquet, npy and npz against the model itself, streamed and whole or not there."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as parquet
import pytest
import torch
from typer.testing import CliRunner, Result

from timesformer.checkpoints import LoadedModel, load_model, weights_sha256
from timesformer.data import Preprocessing, Sample, VideoDataset, Views, read_annotations
from timesformer.data.probes import ProbeInfo, make_probe
from timesformer.evaluation.feature_files import NpyStream
from timesformer.evaluation.features import write_features
from timesformer_experiments.cli.main import app

CHECKPOINT = str(Path(__file__).parents[3] / "results" / "checkpoints" / "divided-motion")


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["features", *map(str, words), "--checkpoint", CHECKPOINT])


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> ProbeInfo:
    return make_probe("motion", tmp_path_factory.mktemp("probe"), num_train=1, num_test=6, seed=2)


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model(CHECKPOINT)


def clips_of(probe: ProbeInfo, loaded: LoadedModel, views: Views) -> list[torch.Tensor]:
    """The views of each test video, read one by one."""
    record = Preprocessing.from_dict(loaded.preprocessing)
    dataset = VideoDataset(read_annotations("kinetics", probe.test_csv), record, train=False, views=views)
    return [dataset[index]["clip"] for index in range(len(dataset))]  # type: ignore[index]


def test_parquet_of_an_annotation_file(probe: ProbeInfo, loaded: LoadedModel, tmp_path: Path) -> None:
    out = tmp_path / "new" / "features.parquet"
    result = run(probe.test_csv, "--out", out, "--json")
    assert result.exit_code == 0, result.output
    frame = pd.read_parquet(out)
    samples = read_annotations("kinetics", probe.test_csv)
    assert list(frame.columns) == ["path", "label", "feature"]
    assert frame["path"].tolist() == [sample.name for sample in samples]
    assert frame["label"].tolist() == [sample.label for sample in samples]
    with torch.inference_mode():
        expected = [loaded.model.features(clip).mean(0).numpy() for clip in clips_of(probe, loaded, Views(1, 3))]
    np.testing.assert_allclose(np.stack(frame["feature"].to_list()), expected, atol=1e-5)
    stated = json.loads(parquet.read_schema(out).metadata[b"timesformer"])
    printed = json.loads(result.stdout)
    assert printed["files"] == [str(out)]
    assert printed["rows"] == 6
    assert stated == {key: printed[key] for key in stated}
    assert stated["checkpoint"] == CHECKPOINT
    assert stated["weights_sha256"] == weights_sha256(load_model(CHECKPOINT).model)
    assert (stated["protocol"], stated["clips"], stated["crops"]) == ("paper", 1, 3)
    assert stated["pooled"] == "class token"
    assert stated["preprocessing"]["short_side"] == 40
    assert stated["versions"]["torch"] == torch.__version__
    assert stated["videos_unreadable"] == []


def test_a_row_for_each_view(probe: ProbeInfo, loaded: LoadedModel, tmp_path: Path) -> None:
    out = tmp_path / "views.parquet"
    videos = sorted((probe.folder / "test").glob("*.mp4"))
    assert run(*videos[:2], "--out", out, "--per-view", "--clips", 2, "--batch-size", 4).exit_code == 0
    frame = pd.read_parquet(out)
    assert list(frame.columns) == ["path", "clip", "crop", "feature"]
    assert frame["path"].tolist() == [str(videos[0])] * 6 + [str(videos[1])] * 6
    assert frame["clip"].tolist() == [0, 0, 0, 1, 1, 1] * 2
    assert frame["crop"].tolist() == [0, 1, 2] * 4
    with torch.inference_mode():
        expected = torch.cat([loaded.model.features(clip) for clip in clips_of(probe, loaded, Views(2, 3))[:2]])
    np.testing.assert_allclose(np.stack(frame["feature"].to_list()), expected, atol=1e-5)


def test_npy_and_what_lies_beside_it(probe: ProbeInfo, tmp_path: Path) -> None:
    assert run(probe.test_csv, "--out", tmp_path / "a.parquet").exit_code == 0
    result = run(probe.test_csv, "--out", tmp_path / "a.npy")
    assert result.stdout.split() == [str(tmp_path / "a.npy"), str(tmp_path / "a.json")]
    array = np.load(tmp_path / "a.npy", allow_pickle=False, mmap_mode="r")
    assert array.dtype == np.float32
    expected = pd.read_parquet(tmp_path / "a.parquet")
    np.testing.assert_array_equal(array, np.stack(expected["feature"].to_list()))
    beside = json.loads((tmp_path / "a.json").read_text())
    assert beside["array"] == "features"
    assert beside["axes"] == {"features": ["row", "channel"]}
    assert beside["rows"] == {"path": expected["path"].tolist(), "label": expected["label"].tolist()}


def test_tokens(probe: ProbeInfo, loaded: LoadedModel, tmp_path: Path) -> None:
    words = [probe.folder / "test", "--tokens", "--protocol", "clip", "--batch-size", 2]
    assert run(*words, "--out", tmp_path / "t.npz").exit_code == 0
    assert run(*words, "--out", tmp_path / "t.npy").exit_code == 0
    clips = torch.cat(clips_of(probe, loaded, Views(1, 1)))
    with torch.inference_mode():
        expected = loaded.model.forward_features(clips)
    with np.load(tmp_path / "t.npz", allow_pickle=False) as found:
        stated = json.loads(str(found["timesformer"]))
        assert stated["axes"] == {"patches": ["row", "time", "height", "width", "channel"], "cls": ["row", "channel"]}
        assert stated["rows_are"] == "views"
        assert found["patches"].shape == (6, 8, 4, 4, 96)
        np.testing.assert_allclose(found["patches"], expected.patches, atol=1e-4)
        assert expected.cls is not None
        np.testing.assert_allclose(found["cls"], expected.cls, atol=1e-4)
        assert [Path(path).name for path in found["path"]] == [f"{i:06}.mp4" for i in range(6)]
        assert found["clip"].tolist() == found["crop"].tolist() == [0] * 6
        np.testing.assert_array_equal(np.load(tmp_path / "t.npy"), found["patches"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.json", "t.npy", "t.npz"]


def test_unreadable_videos(probe: ProbeInfo, tmp_path: Path) -> None:
    videos = sorted((probe.folder / "test").glob("*.mp4"))
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    words = [videos[0], tmp_path / "bad.mp4", videos[1], "--out", tmp_path / "f.parquet"]
    result = run(*words)
    assert result.exit_code == 1
    assert "bad.mp4: not a video that can be opened" in result.stderr
    assert run(*words, "--allow-unreadable").exit_code == 0
    assert pd.read_parquet(tmp_path / "f.parquet")["path"].tolist() == [str(videos[0]), str(videos[1])]
    stated = json.loads(parquet.read_schema(tmp_path / "f.parquet").metadata[b"timesformer"])
    assert [item["path"] for item in stated["videos_unreadable"]] == [str(tmp_path / "bad.mp4")]


@pytest.mark.parametrize("suffix", [".parquet", ".npy", ".npz"])
def test_whole_or_not_there(probe: ProbeInfo, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing readable, or an interruption half way: what was there before stays, and nothing else."""
    out = tmp_path / f"f{suffix}"
    out.write_text("before")
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    result = run(tmp_path / "bad.mp4", "--out", out, "--allow-unreadable")
    assert result.exit_code == 2
    assert "none of 1 videos can be read:\n" in result.stderr
    (tmp_path / "bad.mp4").unlink()
    from timesformer import TimeSformer

    calls = []

    def interrupted(self: TimeSformer, clip: torch.Tensor) -> torch.Tensor:
        calls.append(len(clip))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return torch.zeros(len(clip), 96)

    monkeypatch.setattr(TimeSformer, "features", interrupted)
    run(probe.test_csv, "--out", out, "--batch-size", 3)
    assert len(calls) == 2
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    assert out.read_text() == "before"


def test_only_the_batch_at_hand_is_in_memory(
    probe: ProbeInfo, loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are written as they come: before the last video is read, the first ones lie in the file."""
    sizes: list[int] = []
    real = NpyStream.add

    def counted(self: NpyStream, values: np.ndarray) -> None:
        real(self, values)
        sizes.append(len(values))

    monkeypatch.setattr(NpyStream, "add", counted)
    samples = list(read_annotations("kinetics", probe.test_csv)) * 3
    record = Preprocessing.from_dict(loaded.preprocessing)
    written = write_features(tmp_path / "t.npz", loaded.model, samples, record, tokens=True, batch_size=4)
    assert written.rows == 54
    assert max(sizes) <= 4


def test_labels_of_several_heads(probe: ProbeInfo, loaded: LoadedModel, tmp_path: Path) -> None:
    samples: list[Any] = [Sample(sample.path, (3, 5)) for sample in read_annotations("kinetics", probe.test_csv)]
    record = Preprocessing.from_dict(loaded.preprocessing)
    for suffix in ("parquet", "npz"):
        write_features(tmp_path / f"f.{suffix}", loaded.model, samples[:2], record, protocol="clip")
    assert [list(label) for label in pd.read_parquet(tmp_path / "f.parquet")["label"]] == [[3, 5], [3, 5]]
    with np.load(tmp_path / "f.npz") as found:
        assert found["label"].tolist() == [[3, 5], [3, 5]]


def test_a_folder_of_classes_keeps_them_without_a_flag(probe: ProbeInfo, tmp_path: Path) -> None:
    """Numbered as the format `folder` does, with the names in the file; paths stay as they were given."""
    videos = sorted((probe.folder / "test").glob("*.mp4"))[:3]
    for number, name in enumerate(("run", "sit", "run")):
        (tmp_path / "classes" / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(videos[number], tmp_path / "classes" / name / f"{number}.mp4")
    (tmp_path / "classes" / "jump").mkdir()  # a class without a video is a number all the same
    out = tmp_path / "f.parquet"
    done = run(tmp_path / "classes", "--out", out, "--protocol", "clip", "--json")
    assert done.exit_code == 0, done.output
    frame = pd.read_parquet(out)
    assert frame["label"].tolist() == [1, 1, 2]
    assert frame["path"].tolist() == [
        str(tmp_path / "classes" / each) for each in ("run/0.mp4", "run/2.mp4", "sit/1.mp4")
    ]
    assert json.loads(done.stdout)["classes"] == ["jump", "run", "sit"]
    assert json.loads(parquet.read_schema(out).metadata[b"timesformer"])["classes"] == ["jump", "run", "sit"]
    stated = run(tmp_path / "classes", "--format", "folder", "--out", tmp_path / "g.parquet", "--protocol", "clip")
    assert stated.exit_code == 0, stated.output
    assert pd.read_parquet(tmp_path / "g.parquet")["label"].tolist() == [1, 1, 2]
    # A video beside the folders: they are no classes.
    shutil.copy(videos[0], tmp_path / "classes" / "alone.mp4")
    assert run(tmp_path / "classes", "--out", out, "--protocol", "clip").exit_code == 0
    assert "label" not in pd.read_parquet(out)


def test_bad_usage(probe: ProbeInfo, loaded: LoadedModel, tmp_path: Path) -> None:
    cases = [
        ([probe.test_csv, "--out", tmp_path / "f.csv"], "expected a name that ends in .parquet, .npy or .npz"),
        ([probe.test_csv, "--out", tmp_path / "f.parquet", "--tokens"], "expected .npy or .npz for tokens"),
        (
            [probe.test_csv, "a.mp4", "--out", tmp_path / "f.npy"],
            "expected an annotation file as the only source, got 2",
        ),
        (["a.mp4", "--root", tmp_path, "--out", tmp_path / "f.npy"], "--root: expected only with an annotation file"),
        (["gone.csv", "--out", tmp_path / "f.npy"], "gone.csv: no such annotation file"),
        ([probe.test_csv, "--format", "laserdisc", "--out", tmp_path / "f.npy"], "format: expected one of"),
        ([probe.test_csv, "--out", "/dev/null/f.npy"], "cannot write"),
    ]
    for words, said in cases:
        result = run(*words)
        assert result.exit_code == 2, words
        assert said in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_empty_stream_is_an_empty_array(tmp_path: Path) -> None:
    stream = NpyStream(tmp_path / "a.npy")
    stream.finish()
    assert np.load(tmp_path / "a.npy").shape == (0, 0)
