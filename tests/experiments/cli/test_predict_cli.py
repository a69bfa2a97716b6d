"""`timesformer predict`: names, tables, JSON, timelines, and what cannot be read."""

import json
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from tests.data.conftest import write_video
from timesformer import TimeSformer, TimeSformerConfig
from timesformer.checkpoints import load_model, save_model
from timesformer.data import Preprocessing, Sample, VideoDataset, read_annotations
from timesformer.data.probes import ProbeInfo, make_probe
from timesformer.data.video.find import find_videos
from timesformer.errors import InputError
from timesformer.evaluation.evaluate import evaluate, protocol_named
from timesformer.evaluation.prediction import UNIFORM_SECONDS, predict, stretches, timelines
from timesformer_experiments.cli.main import app

CHECKPOINT = str(Path(__file__).parents[3] / "results" / "checkpoints" / "divided-motion")


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["predict", *map(str, words)])


def found(*words: object, code: int = 0) -> dict:
    result = run(*words, "--json")
    assert result.exit_code == code, result.output
    assert result.stdout.count("\n") == 1
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> ProbeInfo:
    return make_probe("motion", tmp_path_factory.mktemp("probe"), num_train=1, num_test=16, seed=2)


@pytest.fixture(scope="module")
def videos(probe: ProbeInfo) -> list[Path]:
    return sorted((probe.folder / "test").glob("*.mp4"))


@pytest.fixture(scope="module")
def long_video(videos: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight videos of the probe, one after the other, a frame every eighth of a second."""
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=8, options={"crf": "12"})
        stream.height = stream.width = 40
        stream.pix_fmt = "yuv420p"
        for video in videos[:8]:
            with av.open(str(video)) as file:
                for frame in file.decode(video=0):
                    pixels = frame.to_ndarray(format="rgb24")
                    out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        out.mux(stream.encode(None))
    return path


def frames_of(video: Path) -> int:
    with av.open(str(video)) as file:
        return sum(1 for _ in file.decode(video=0))


def small_model(folder: Path, labels: list[str] | dict[str, list[str]], record: dict | None = None) -> Path:
    """A tiny model with random weights and given labels."""
    torch.manual_seed(0)
    classes = tuple(map(len, labels.values())) if isinstance(labels, dict) else len(labels)
    sizes = {"num_frames": 2, "image_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}
    model = TimeSformer(TimeSformerConfig(num_classes=classes, **sizes))
    preprocessing = {"num_frames": 2, "short_side": 16, "crop": 16} | (record or {})
    return save_model(folder, model, preprocessing=preprocessing, labels=labels)


@pytest.mark.parametrize("protocol", ["paper", "fair-code", "clip", "2x1"])
def test_the_predictions_are_those_of_the_evaluation(probe: ProbeInfo, videos: list[Path], protocol: str) -> None:
    loaded = load_model(CHECKPOINT)
    record = Preprocessing.from_dict(loaded.preprocessing)
    samples = read_annotations("kinetics", probe.test_csv)
    views = protocol_named(protocol).views
    measured = evaluate(loaded.model, VideoDataset(samples, record, train=False, views=views), protocol)
    shown = found(*[sample.path for sample in samples], "--checkpoint", CHECKPOINT, "--protocol", protocol, "--top", 8)
    assert shown["protocol"] == protocol
    assert [video["top"][0]["index"] for video in shown["videos"]] == measured.per_video["prediction"].tolist()
    for video, scores in zip(shown["videos"], measured.per_video["scores"], strict=True):
        probabilities = np.empty(8)
        for guess in video["top"]:
            assert guess["label"] == loaded.labels[guess["index"]]
            probabilities[guess["index"]] = guess["probability"]
        assert probabilities.sum() == pytest.approx(1)
        assert video["top"] == sorted(video["top"], key=lambda guess: -guess["probability"])
        logits = torch.tensor(scores, dtype=torch.float64) / (3 if protocol == "fair-code" else 1)
        expected = logits.softmax(0) if protocol == "fair-code" else logits
        np.testing.assert_allclose(probabilities, expected, atol=1e-5)


def test_a_folder_and_a_table(probe: ProbeInfo, videos: list[Path]) -> None:
    result = run(probe.folder / "test", "--checkpoint", CHECKPOINT, "--top", 1)
    assert result.exit_code == 0, result.output
    assert result.stdout.count(".mp4") == 16
    assert "anticlockwise" in result.stdout
    assert len(found(probe.folder / "test", videos[0], "--checkpoint", CHECKPOINT)["videos"]) == 17


def test_clips_and_crops(videos: list[Path]) -> None:
    shown = found(videos[0], "--checkpoint", CHECKPOINT, "--clips", 2, "--crops", 1)
    assert (shown["protocol"], shown["clips"], shown["crops"]) == ("paper 2x1", 2, 1)
    one = found(videos[0], "--checkpoint", CHECKPOINT, "--protocol", "2x1")
    assert shown["videos"] == one["videos"]


def test_unreadable_videos_are_listed(videos: list[Path], tmp_path: Path) -> None:
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(videos[0].read_bytes()[:700])
    words = [tmp_path / "gone.mp4", videos[0], cut, videos[1], "--checkpoint", CHECKPOINT]
    shown = found(*words, code=1)
    assert [Path(video["path"]) for video in shown["videos"]] == videos[:2]
    assert [Path(item["path"]).name for item in shown["unreadable"]] == ["gone.mp4", "cut.mp4"]
    assert shown["unreadable"][0]["reason"] == "no such file"
    result = run(*words)
    assert result.exit_code == 1
    assert "gone.mp4: no such file" in result.stderr
    assert videos[1].name in result.stdout
    assert found(*words, "--allow-unreadable") == shown
    none = run(cut, "--checkpoint", CHECKPOINT, "--allow-unreadable")
    assert none.exit_code == 1
    assert none.stdout == ""


HOSTILE = ["[red]a[/red]", "[/bold]", "\x1b[31m", "_hidden", "$x^$", "two\nlines", "[link=file:///]x", "\\[b]"]


def test_hostile_names_are_text(videos: list[Path], tmp_path: Path) -> None:
    model = small_model(tmp_path / "model", HOSTILE)
    video = tmp_path / "[bold]v[_bold]\x1b]8;;\x07$a_{$\n.mp4"
    shutil.copy(videos[0], video)
    for words in ([video, tmp_path / "[/x]\x1b.mp4"], [video, "--timeline", "--plot", tmp_path / "plot.png"]):
        result = run(*words, "--checkpoint", model, "--top", 8)
        assert result.exception is None or isinstance(result.exception, SystemExit)
        for text in ("[bold]v[_bold]", "[red]a[/red]", "[/bold]", "\\x1b[31m", "two\\nlines"):
            assert text in result.stdout.replace("\n", ""), text
        assert "\x1b" not in result.output
    assert (tmp_path / "plot.png").stat().st_size > 1000
    assert [guess["label"] for guess in found(video, "--checkpoint", model, "--top", 8)["videos"][0]["top"]] != HOSTILE


def test_a_timeline(videos: list[Path], long_video: Path, tmp_path: Path) -> None:
    """Each of the eight joined videos is a stretch, and named as by itself."""
    plot = tmp_path / "plots" / "timeline.png"
    length = frames_of(videos[0]) / 8
    words = ["--checkpoint", CHECKPOINT, "--timeline", "--stretch", length, "--top", 2]
    shown = found(long_video, *words, "--plot", plot)
    (video,) = shown["videos"]
    assert video["seconds"] == 8 * length
    bounds = [(part["start_seconds"], part["end_seconds"]) for part in video["stretches"]]
    assert bounds == [(i * length, (i + 1) * length) for i in range(8)]
    alone = found(*videos[:8], "--checkpoint", CHECKPOINT, "--protocol", "clip")["videos"]
    sure = [i for i in range(8) if alone[i]["top"][0]["probability"] > 0.9]
    assert len(sure) >= 6
    for i in sure:
        assert video["stretches"][i]["top"][0]["label"] == alone[i]["top"][0]["label"]
    mean = {guess["label"]: guess["probability"] for guess in video["top"]}
    assert len(mean) == 2
    assert max(mean.values()) < 0.6
    assert plot.read_bytes().startswith(b"\x89PNG")
    table = run(long_video, *words)
    assert f"{length:.1f} – {2 * length:.1f}" in table.stdout
    assert "all, on average" in table.stdout


def test_a_stretch_that_cannot_be_read_is_listed(long_video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import timesformer.data.dataset as module
    from timesformer.data import VideoError

    real = module.open_video

    def broken(sample: Sample):
        if sample.start_frame == 16:
            raise VideoError(sample.place, "cut off or damaged")
        return real(sample)

    monkeypatch.setattr(module, "open_video", broken)
    shown = found(long_video, "--checkpoint", CHECKPOINT, "--timeline", "--stretch", 2, code=1)
    assert shown["unreadable"] == [{"path": f"{long_video}[16:32]", "reason": "cut off or damaged"}]
    starts = [part["start_seconds"] for part in shown["videos"][0]["stretches"]]
    assert starts[:3] == [0.0, 4.0, 6.0]


def test_a_timeline_of_what_cannot_be_opened(long_video: Path, tmp_path: Path) -> None:
    words = [tmp_path / "gone.mp4", "--checkpoint", CHECKPOINT, "--timeline", "--plot", tmp_path / "plot.png"]
    shown = found(*words, code=1)
    assert shown["videos"] == []
    assert shown["unreadable"] == [{"path": str(tmp_path / "gone.mp4"), "reason": "no such file"}]
    assert not (tmp_path / "plot.png").exists()
    assert len(found(long_video, *words, "--allow-unreadable")["videos"]) == 1


def test_the_picture_shows_what_was_found(long_video: Path, tmp_path: Path) -> None:
    from timesformer.maps import draw_timelines

    loaded = load_model(CHECKPOINT)
    record = Preprocessing.from_dict(loaded.preprocessing)
    result = timelines(loaded.model, [long_video], record, loaded.labels, seconds=2.0)
    gap = [part for part in result.videos[0].stretches if part.start_seconds != 4.0]
    from dataclasses import replace

    figure = draw_timelines([result.videos[0], replace(result.videos[0], stretches=tuple(gap))])
    first, second = figure.axes
    assert (first.get_xlabel(), first.get_ylabel()) == ("time [s]", "probability")
    assert first.get_xlim() == (0, result.videos[0].seconds)
    lines = first.patches
    assert len({str(line.get_linestyle()) for line in lines}) == len(lines) == 5
    assert len({line.get_edgecolor() for line in lines}) == 5
    names = [text.get_text() for text in first.get_legend().get_texts()]
    column = loaded.labels.index(names[0])
    values = lines[0].get_data().values
    np.testing.assert_array_equal(values, [part.probabilities[column] for part in result.videos[0].stretches])
    assert np.isnan(second.patches[0].get_data().values).sum() == 1


@pytest.mark.parametrize(
    ("frames", "length", "expected"),
    [
        (100, 25.0, [(0, 25), (25, 50), (50, 75), (75, 100)]),
        (110, 25.0, [(0, 25), (25, 50), (50, 75), (75, 110)]),
        (115, 25.0, [(0, 25), (25, 50), (50, 75), (75, 100), (100, 115)]),
        (10, 25.0, [(0, 10)]),
        (3, 0.1, [(0, 1), (1, 2), (2, 3)]),
        (10, 3.4, [(0, 3), (3, 7), (7, 10)]),
    ],
)
def test_stretches(frames: int, length: float, expected: list[tuple[int, int]]) -> None:
    assert stretches(frames, length) == expected


def test_stretches_are_a_clip_long(videos: list[Path], long_video: Path, tmp_path: Path) -> None:
    """Dense sampling: 2 frames, 15 apart at 30 frames a second, last a second; otherwise four seconds."""
    dense = small_model(tmp_path / "dense", ["a", "b"], {"sampling": "dense", "frame_rate": 15})
    shown = found(long_video, "--checkpoint", dense, "--timeline")
    assert shown["stretch_seconds"] == 1.0
    assert len(shown["videos"][0]["stretches"]) == round(shown["videos"][0]["seconds"])
    uniform = found(long_video, "--checkpoint", CHECKPOINT, "--timeline")
    assert uniform["stretch_seconds"] == UNIFORM_SECONDS
    covered = found(long_video, "--checkpoint", dense, "--clips", "cover")
    assert covered["clips"] == "cover"


def test_a_short_video_has_more_than_two_stretches(long_video: Path, videos: list[Path], tmp_path: Path) -> None:
    """Eight seconds: a quarter of them each, whatever the model's clips would cover; fewer where frames are lacking."""
    eight = tmp_path / "eight.mp4"
    write_video(eight, frames=32, size=(32, 32), rate=4)
    for settings in ({"sampling": "dense", "frame_rate": 300}, {"sampling": "uniform"}):
        model = small_model(tmp_path / settings["sampling"], ["a", "b"], settings)
        shown = found(eight, "--checkpoint", model, "--timeline")
        (video,) = shown["videos"]
        assert video["seconds"] == 8.0
        spans = [(part["start_seconds"], part["end_seconds"]) for part in video["stretches"]]
        assert spans == [(0.0, 2.0), (2.0, 4.0), (4.0, 6.0), (6.0, 8.0)]
        assert shown["stretch_seconds"] == video["stretch_seconds"] == 2.0
    both = found(eight, long_video, "--checkpoint", model, "--timeline")
    assert [each["stretch_seconds"] for each in both["videos"]] == [2.0, UNIFORM_SECONDS]
    assert both["stretch_seconds"] == UNIFORM_SECONDS
    loaded = load_model(CHECKPOINT)
    record = Preprocessing.from_dict(loaded.preprocessing)
    (few,) = timelines(loaded.model, [videos[0]], record, loaded.labels).videos
    assert len(few.stretches) == frames_of(videos[0]) // record.num_frames  # a clip of frames of its own each


def test_several_heads(videos: list[Path], tmp_path: Path) -> None:
    model = small_model(tmp_path, {"verb": ["take", "put"], "noun": ["cup", "pan", "[i]lid"]})
    (video,) = found(videos[0], "--checkpoint", model, "--top", 2)["videos"]
    assert [guess["head"] for guess in video["top"]] == ["verb", "verb", "noun", "noun"]
    assert sum(guess["probability"] for guess in video["top"][:2]) == pytest.approx(1)
    result = run(videos[0], "--checkpoint", model, "--timeline", "--plot", tmp_path / "heads.svg")
    assert "noun: [i]lid" in result.stdout
    assert (tmp_path / "heads.svg").exists()


def test_folders_of_videos_and_of_frames(videos: list[Path], tmp_path: Path) -> None:
    for name in ("b/clip10.mp4", "b/clip9.MP4", "a/.hidden/x.mp4", "b/.part.mp4", "b/notes.txt", "c.webm"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(videos[0], tmp_path / name)
    (tmp_path / "frames").mkdir()
    for number in (1, 2):
        pixels = np.full((16, 16, 3), 60 * number, np.uint8)
        from PIL import Image

        Image.fromarray(pixels).save(tmp_path / "frames" / f"{number}.png")
    names = [str(path.relative_to(tmp_path)) for path in find_videos([tmp_path])]
    assert names == ["b/clip9.MP4", "b/clip10.mp4", "c.webm", "frames"]
    assert find_videos([tmp_path / "frames", "gone.mp4"]) == [tmp_path / "frames", Path("gone.mp4")]
    model = small_model(tmp_path / "model", ["a", "b"])
    assert len(found(tmp_path / "b", tmp_path / "frames", "--checkpoint", model)["videos"]) == 3


def test_bad_usage(videos: list[Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "two.yaml").write_text(
        "defaults: {data: {probe: appearance, num_train: 8, num_test: 8}, recipe: {steps: 1},\n"
        "  model: {num_frames: 2, image_size: 32, patch_size: 16, embed_dim: 16, depth: 1, num_heads: 2}}\n"
        "runs: [{name: a}, {name: b, seed: 1}]\n"
    )
    one = (tmp_path / "two.yaml").read_text().replace(", {name: b, seed: 1}", "")
    (tmp_path / "one.yaml").write_text(one)
    cases = [
        (["--plot", "x.png"], "--plot, --stretch: expected only with --timeline"),
        (["--timeline", "--clips", 2], "--clips: a timeline has one clip per stretch"),
        (["--timeline", "--plot", "x.gif"], "--plot x.gif: expected a name that ends in .png"),
        (["--timeline", "--stretch", "-1"], "stretch: expected a number of seconds above 0, got -1"),
        (["--protocol", "fastest"], "unknown name 'fastest'"),
        (["--device", "cuda:77"], "--device cuda:77: not available on this machine"),
        (["--checkpoint", tmp_path / "empty"], "no model here"),
        (["--checkpoint", tmp_path / "two.yaml"], "expected a file with one run, got 2"),
        (["--checkpoint", tmp_path / "one.yaml", "--runs", tmp_path], "`timesformer train"),
        ([tmp_path / "empty"], "this folder contains no video"),
        (
            ["--timeline", "--plot", "x.png", *[f"{i}.mp4" for i in range(13)]],
            "--plot: expected at most 12 videos, got 14",
        ),
    ]
    for words, said in cases:
        result = run(videos[0], "--checkpoint", CHECKPOINT, *words)
        assert result.exit_code == 2, words
        assert said in result.stderr


def test_the_library_refuses_what_does_not_fit(videos: list[Path]) -> None:
    loaded = load_model(CHECKPOINT)
    record = Preprocessing.from_dict(loaded.preprocessing)
    with pytest.raises(InputError, match="expected 8 names"):
        predict(loaded.model, videos[:1], record, ["a", "b"])
    with pytest.raises(InputError, match="top: expected at least 1, got 0"):
        predict(loaded.model, videos[:1], record, loaded.labels, top=0)
    with torch.no_grad():
        loaded.model.head.bias[0] = torch.nan
    with pytest.raises(InputError, match=r"000000\.mp4: the model's scores are not finite"):
        predict(loaded.model, videos[:1], record, loaded.labels)


def test_one_portrait_video_stops_nothing(tmp_path: Path) -> None:
    """The crop of a landscape model does not fit into it: it is enlarged, and said to be; only damage is listed."""
    model = small_model(tmp_path / "model", ["a", "b"], {"short_side": 16, "crop": [16, 24]})
    (tmp_path / "in").mkdir()
    for name, size in (("landscape", (24, 48)), ("portrait", (48, 24)), ("square", (32, 32))):
        write_video(tmp_path / "in" / f"{name}.mp4", 6, size)
    (tmp_path / "in" / "torn.mp4").write_bytes(b"no video")
    printed = found(tmp_path / "in", "--checkpoint", model, "--protocol", "paper", code=1)
    assert [Path(video["path"]).stem for video in printed["videos"]] == ["landscape", "portrait", "square"]
    assert [Path(path).stem for path in printed["enlarged"]] == ["portrait", "square"]
    assert [Path(each["path"]).stem for each in printed["unreadable"]] == ["torn"]
    assert found(tmp_path / "in", "--checkpoint", model, "--timeline", code=1)["enlarged"]
    record = json.loads((model / "preprocessing.json").read_text()) | {"too_narrow": "refuse"}
    (model / "preprocessing.json").write_text(json.dumps(record))
    printed = found(tmp_path / "in", "--checkpoint", model, "--allow-unreadable")
    assert [Path(video["path"]).stem for video in printed["videos"]] == ["landscape"]
    reasons = {Path(each["path"]).stem: each["reason"] for each in printed["unreadable"]}
    assert set(reasons) == {"portrait", "square", "torn"}
    assert "too_narrow: refuse" in reasons["portrait"]
