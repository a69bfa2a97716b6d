"""`timesformer evaluate` on annotation files and folders of small encoded videos, damaged ones among them."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner, Result

from tests.data.conftest import write_video
from timesformer import TimeSformer, TimeSformerConfig
from timesformer.checkpoints import load_model, save_model
from timesformer.data import Preprocessing, VideoDataset, read_annotations
from timesformer.evaluation.evaluate import PROTOCOLS, evaluate
from timesformer.evaluation.frame_order import FRAME_ORDERS
from timesformer.evaluation.scores import merge_scores, read_scores
from timesformer_experiments.cli.main import app

RECORD = Preprocessing(num_frames=2, short_side=32, crop=32, sampling="dense", frame_rate=4)
DAMAGED = {
    "zero.mp4": "the file is empty",
    "cut.mp4": "not a video that can be opened",
    "text.mp4": "not a video that can be opened",
    "missing.mp4": "no such file",
}


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, words)], env={"COLUMNS": "200"})


def found(*words: object) -> dict:
    done = run(*words, "--json")
    assert done.exit_code == 0, done.output
    (evaluation,) = json.loads(done.stdout)["evaluations"]
    return evaluation


def refused(*words: object) -> str:
    done = run(*words)
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    return done.stderr


def model(folder: Path, classes: int = 3, labels: list[str] | None = None) -> Path:
    torch.manual_seed(0)
    config = TimeSformerConfig(
        attention="divided", num_frames=2, image_size=32, patch_size=16, embed_dim=16, depth=1, num_heads=2,
        num_classes=classes,
    )  # fmt: skip
    return save_model(folder, TimeSformer(config), preprocessing=RECORD.to_dict(), labels=labels)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """good.csv: five videos of 8 to 40 frames, odd sizes among them; bad.csv: those and damaged ones; a model."""
    folder = tmp_path_factory.mktemp("evaluate")
    good = []
    for number in range(5):
        path = write_video(folder / f"v {number}.mp4", frames=8 * (number + 1), size=(48 - 2 * number, 64))
        good.append(f"{path.name} {number % 3}\n")
    whole = (folder / "v 4.mp4").read_bytes()
    (folder / "zero.mp4").write_bytes(b"")
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "text.mp4").write_text("these are words\n" * 50)
    bad = [f"{name} 0\n" for name in DAMAGED]
    (folder / "good.csv").write_text("".join(good))
    (folder / "bad.csv").write_text("".join([*bad[:2], *good, *bad[2:]]))
    model(folder / "model")
    return folder


def test_agrees_with_the_library(place: Path) -> None:
    evaluation = found(place / "good.csv", "--checkpoint", place / "model", "--protocol", "fair-code")
    dataset = VideoDataset(
        read_annotations("kinetics", place / "good.csv"), RECORD, train=False, views=PROTOCOLS["fair-code"].views
    )
    result = evaluate(load_model(place / "model").model, dataset, "fair-code")
    assert evaluation["top1_percent"] == result.top1_percent
    for key, value in result.statement().items():
        assert evaluation[key] == value
    assert (evaluation["protocol"], evaluation["merge"], evaluation["videos"]) == ("fair-code", "sum_logits", 5)
    assert (evaluation["videos_unreadable"], evaluation["videos_substituted"], evaluation["views"]) == (0, 0, 15)
    assert evaluation["fingerprint"] == dataset.audit()["fingerprint"]
    assert evaluation["preprocessing"] == RECORD.to_dict()


def test_refuses_unreadable_videos_and_names_them_all(place: Path) -> None:
    said = refused(place / "bad.csv", "--checkpoint", place / "model")
    assert "4 of 9 videos cannot be read" in said
    for name, reason in DAMAGED.items():
        (line,) = [line for line in said.splitlines() if name in line]
        assert reason in line
    assert "use --allow-unreadable to list these" in said


def test_evaluates_the_others_where_it_may(place: Path, tmp_path: Path) -> None:
    scores = tmp_path / "scores.parquet"
    words = ["--checkpoint", place / "model", "--protocol", "clip"]
    evaluation = found(place / "bad.csv", *words, "--allow-unreadable", "--scores", scores)
    whole = found(place / "good.csv", *words)
    assert (evaluation["videos"], evaluation["videos_unreadable"], evaluation["videos_substituted"]) == (5, 4, 0)
    assert {Path(video["path"]).name: video["reason"] for video in evaluation["unreadable"]}.keys() == DAMAGED.keys()
    for video in evaluation["unreadable"]:
        assert DAMAGED[Path(video["path"]).name] in video["reason"]
    assert evaluation["top1_percent"] == whole["top1_percent"]
    assert read_scores(scores).per_video.path.tolist() == [f"v {number}.mp4" for number in range(5)]
    shown = run(place / "bad.csv", *words, "--allow-unreadable").stdout
    assert shown.count("unreadable, not evaluated:") == 4
    assert "missing.mp4: no such file" in shown
    assert "m measured here" in shown
    assert "probes" not in shown


@pytest.mark.parametrize("workers", [0, 1])
def test_a_video_that_breaks_off_behind_a_good_header_is_found_while_decoding(
    place: Path, tmp_path: Path, workers: int
) -> None:
    whole = bytearray((place / "v 4.mp4").read_bytes())
    begin = whole.index(b"mdat") + 4
    whole[begin + 200 : whole.index(b"moov") - 8] = bytes(whole.index(b"moov") - 8 - begin - 200)
    (tmp_path / "hollow.mp4").write_bytes(whole)
    (tmp_path / "list.csv").write_text(f"hollow.mp4 0\n{place / 'v 1.mp4'} 1\n{place / 'v 2.mp4'} 2\n")
    words = [tmp_path / "list.csv", "--checkpoint", place / "model", "--workers", workers, "--batch-size", 1]
    said = refused(*words)
    assert "1 of 3 videos cannot be read" in said
    assert "hollow.mp4" in said
    assert found(*words, "--allow-unreadable")["videos"] == 2


def test_scores_with_what_they_were_measured_with(place: Path, tmp_path: Path) -> None:
    files = []
    for protocol in ("clip", "3x1"):
        path = tmp_path / f"{protocol}.parquet"
        evaluation = found(
            place / "good.csv", "--checkpoint", place / "model", "--protocol", protocol, "--scores", path
        )
        stated = read_scores(path).metadata
        for key in ("protocol", "merge", "clips", "checkpoint", "fingerprint", "videos", "preprocessing"):
            assert stated[key] == evaluation[key]
        assert read_scores(path).accuracy()["top1_percent"] == evaluation["top1_percent"]
        files.append(path)
    assert len(merge_scores(files).per_video) == 5
    run(place / "good.csv", "--checkpoint", place / "model", "--scores", tmp_path / "scores.csv")
    assert len(pd.read_csv(tmp_path / "scores.csv")) == 5


def test_clips_crops_and_merging(place: Path) -> None:
    words = [place / "good.csv", "--checkpoint", place / "model"]
    changed = found(*words, "--clips", 2, "--crops", 5, "--merge", "mean_logits")
    assert changed["protocol"] == "paper 2x5 mean_logits"
    assert (changed["clips"], changed["crops"], changed["merge"], changed["views"]) == (2, 5, "mean_logits", 50)
    named = found(*words, "--protocol", "2x5", "--merge", "mean_logits")
    assert named["top1_percent"] == changed["top1_percent"]
    # A clip spans 8 frames, the videos have 8, 16, … 40.
    covering = found(*words, "--clips", "cover", "--crops", 1, "--batch-size", 2)
    assert covering["views"] == 1 + 2 + 3 + 4 + 5


def test_other_frames_and_sizes(place: Path) -> None:
    words = [place / "good.csv", "--checkpoint", place / "model", "--protocol", "clip"]
    other = found(*words, "--num-frames", 4, "--image-size", 48, "--short-side", 50, "--frame-rate", 2)
    record = other["preprocessing"]
    assert (record["num_frames"], record["crop"], record["short_side"], record["frame_rate"]) == (4, [48, 48], 50, 2)
    assert found(*words, "--sampling", "uniform", "--precision", "bf16")["preprocessing"]["sampling"] == "uniform"


@pytest.fixture
def classes(place: Path, tmp_path: Path) -> Path:
    for number, name in enumerate(("jump", "run", "sit")):
        (tmp_path / "videos" / name).mkdir(parents=True)
        (tmp_path / "videos" / name / "a.mp4").write_bytes((place / f"v {number}.mp4").read_bytes())
    return tmp_path / "videos"


def test_a_folder_for_each_class_means_the_checkpoints_classes(classes: Path, tmp_path: Path) -> None:
    named = model(tmp_path / "named", 3, ["sit", "run", "jump"])
    scores = tmp_path / "scores.parquet"
    found(classes, "--checkpoint", named, "--scores", scores)
    table = read_scores(scores).per_video
    assert dict(zip(table.path, table.label, strict=True)) == {"jump/a.mp4": 2, "run/a.mp4": 1, "sit/a.mp4": 0}
    said = refused(classes, "--checkpoint", model(tmp_path / "other", 3, ["sit", "run", "swim"]))
    assert "has no class 'jump'" in " ".join(said.split())
    said = refused(classes, "--checkpoint", model(tmp_path / "unnamed", 4))
    assert "the data have 3 classes, the checkpoint" in said
    assert "has 4 without names" in said


def test_what_cannot_be_evaluated(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, checkpoint = place / "good.csv", ["--checkpoint", place / "model"]
    two = model(tmp_path / "two", 2)
    (tmp_path / "run.yaml").write_text("name: x\n")
    for words, said in (
        ([good], "expected --checkpoint (folder, file or hub name)"),
        ([good, "--checkpoint", two], "v 2.mp4 has label 2, the checkpoint"),
        ([place / "none.csv", *checkpoint], "none.csv: no such file or folder"),
        ([good, *checkpoint, "--protocol", "best"], "unknown name 'best'"),
        ([good, *checkpoint, "--clips", "some"], "clips: expected a number"),
        ([good, *checkpoint, "--merge", "max"], "--merge max: expected one of mean_softmax, sum_logits, mean_logits"),
        ([good, *checkpoint, "--precision", "int8"], "--precision int8: expected one of fp32, bf16"),
        ([good, *checkpoint, "--device", "abacus"], "--device abacus: not available on this machine"),
        ([good, *checkpoint, "--format", "vhs"], "format: expected one of diving48"),
        ([good, *checkpoint, "--scores", "a.txt"], "--scores a.txt"),
        ([good, *checkpoint, "--sampling", "uniform", "--clips", "cover"], "needs dense sampling"),
        ([tmp_path / "run.yaml", "--num-frames", "4"], "--num-frames: expected only with an annotation file"),
        ([tmp_path / "run.yaml", "--root", tmp_path], "--root: expected only with an annotation file"),
    ):
        assert said in refused(*words), words
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert found(good, *checkpoint, "--device", "auto", "--root", place)["videos"] == 5


def test_an_unreadable_file_that_is_listed_twice_counts_twice(place: Path, tmp_path: Path) -> None:
    twice = place / "twice.csv"
    twice.write_text("v 0.mp4 0\nzero.mp4 0\nzero.mp4 1\nv 0.mp4 1\n")
    words = (twice, "--checkpoint", place / "model", "--runs", tmp_path, "--protocol", "clip")
    evaluation = found(*words, "--allow-unreadable")
    assert (evaluation["test_videos"], evaluation["test_videos_unreadable"]) == (2, 2)
    assert [video["path"] for video in evaluation["unreadable"]] == [str(place / "zero.mp4")] * 2
    assert "2 of 4 videos cannot be read" in refused(*words)


def test_an_order_of_frames_is_stated_and_all_make_a_table(place: Path, tmp_path: Path) -> None:
    words = [place / "good.csv", "--checkpoint", place / "model", "--protocol", "clip"]
    scores = tmp_path / "scores.parquet"
    done = run(*words, "--frame-order", "reversed", "--per-class", "--scores", scores, "--json")
    (alone,) = json.loads(done.stdout)["evaluations"]
    assert json.loads(done.stdout)["top1_percent"] == alone["top1_percent"]
    assert alone["frame_order"] == read_scores(scores).metadata["frame_order"] == "reversed"
    assert sum(map(sum, alone["confusion"][0]["counts"])) == 5
    dataset = VideoDataset(read_annotations("kinetics", place / "good.csv"), RECORD, train=False)
    expected = evaluate(load_model(place / "model").model, dataset, "clip", frame_order="reversed")
    assert read_scores(scores).per_video.scores.map(list).tolist() == expected.per_video.scores.tolist()
    # Classes 0, 1 and 2 have 2, 2 and 1 of the five videos.
    together = json.loads(run(*words, "--frame-order", "all", "--per-class", "--json").stdout)
    assert [each["frame_order"] for each in together["evaluations"]] == list(FRAME_ORDERS)
    (orders,) = together["frame_orders"]
    whole, *classes = orders["rows"]
    assert (whole["class"], [row["videos"] for row in classes]) == ("all videos", [2, 2, 1])
    for each in together["evaluations"]:
        assert whole[f"{each['frame_order']}_percent"] == pytest.approx(each["top1_percent"])
    gain = whole["normal_percent"] - whole["middle_percent"]
    assert whole["gain_from_frames_points"] == pytest.approx(gain)
    assert whole["gain_from_frames_low_points"] <= gain <= whole["gain_from_frames_high_points"]
    shown = run(*words, "--frame-order", "all").stdout
    assert "all videos" in shown
    assert "class 0" not in shown
    assert "class 2" in run(*words, "--per-class").stdout
    assert "expected one of normal, reversed" in refused(*words, "--frame-order", "sideways")
    assert "--scores: it is for one order" in refused(*words, "--frame-order", "all", "--scores", scores)
