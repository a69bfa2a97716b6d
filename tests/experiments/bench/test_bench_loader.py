"""The loader's benchmark at a tiny size: all sides read the same frames, and the record says what was reached."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from timesformer.data import FrameCache, Video
from timesformer_experiments.bench import loader as bench_loader
from timesformer_experiments.bench.loader import CASES, Case, Source
from timesformer_experiments.bench.readers import peers
from timesformer_experiments.cli.main import app
from timesformer_experiments.report.tables import to_markdown

TINY = Source(2, 12, height=48, width=64)
SMALL = {"clips": 2, "num_frames": 4, "frame_rate": 4}


def test_cases_are_those_asked_for() -> None:
    assert {case.label for case in CASES} >= {
        "10 s, key frame every 60",
        "60 s, key frame every 60, from the middle",
        "10 s, key frame every 60, second epoch, cached",
    }
    ten, middle = CASES[0].clip_indices(), next(c for c in CASES if c.source.seconds == 60).clip_indices()
    assert [clip[0] for clip in ten] == [0, 11, 22, 33, 44]
    assert [clip[-1] for clip in ten] == [255, 266, 277, 288, 299]
    assert (ten[0] == [0, 36, 72, 109, 145, 182, 218, 255]).all()
    assert all(abs((clip[0] + clip[-1]) / 2 - 900) < 80 for clip in middle)


def test_video_is_made_once_and_moves(tmp_path: Path) -> None:
    path = bench_loader.make_video(TINY, tmp_path)
    before = path.stat()
    assert bench_loader.make_video(TINY, tmp_path) == path
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert bench_loader.make_video(Source(1, 12, height=48, width=64), tmp_path) != path
    with Video(path) as video:
        assert (video.num_frames, video.fps, video.key_frames) == (60, 30.0, [0, 12, 24, 36, 48])
        frames = video.all_frames().astype(np.int64)
    assert np.abs(np.diff(frames, axis=0)).mean() > 2


def test_record_and_table(tmp_path: Path) -> None:
    cases = (
        Case(TINY, wanted_to_best=1e-9, **SMALL),
        Case(TINY, wanted_to_plain=1e9, spread=0.05, **SMALL),
        Case(TINY, "cached", wanted_to_best=None, **SMALL),
    )
    said: list[str] = []
    threads = torch.get_num_threads()
    record = bench_loader.run(cases, tmp_path, repetitions=2, loader_clips=3, progress=said.append)
    assert torch.get_num_threads() == threads
    plain, middle, cached = record["results"]
    assert (plain["reached"], middle["reached"], cached["reached"]) == (True, False, True)
    for side in ("ours", "plain", "seeking"):
        assert len(plain[f"{side}_clips_per_second"]) == 2
        assert min(plain[f"{side}_clips_per_second"]) > 0
    assert "cached_clips_per_second" not in plain
    assert "ours_clips_per_second" not in cached
    others = ("plain", "seeking", *peers()[0])
    best = max(plain[f"{side}_median_clips_per_second"] for side in others)
    assert plain["ratio_to_best"] == plain["ours_median_clips_per_second"] / best
    assert plain[f"{plain['best_of_the_others']}_median_clips_per_second"] == best
    assert {"decord", "opencv-python-headless", "torchcodec"} == set(record["peers"])
    assert min(v for k, v in record["whole_loader"].items() if k.endswith("per_second")) > 0
    assert "whole" in said[-1]
    text = to_markdown(bench_loader.table(json.loads(json.dumps(record))))
    assert "1e+09 x plain" in text
    assert "NO" in text
    assert "one worker reads ahead" in text
    assert "OpenCV (faster way)" in text
    assert "| decord |" in text


@pytest.mark.parametrize("side", ["decord", "opencv_seek", "opencv_grab"])
def test_peers_read_the_same_frames(tmp_path: Path, side: str) -> None:
    path = bench_loader.make_video(TINY, tmp_path)
    found = peers()[0][side](path, [3, 17, 41])
    assert bench_loader._differ(found, bench_loader.read_ours(path, [3, 17, 41])) < 1
    assert bench_loader._differ(found, bench_loader.read_ours(path, [4, 18, 42])) > 2
    assert bench_loader._differ(found[:2], found) == float("inf")


def test_a_library_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "decord", None)
    readers, said = peers()
    assert "decord" not in readers
    assert said["decord"].startswith("cannot be imported (")
    assert set(readers) >= {"opencv_seek", "opencv_grab"}


def test_different_frames_are_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        bench_loader, "read_seeking", lambda path, indices: bench_loader.read_plain(path, indices)[::-1]
    )
    path = bench_loader.make_video(TINY, tmp_path)
    with pytest.raises(RuntimeError, match="seeking and plain read different frames"):
        bench_loader.measure(Case(TINY, **SMALL), path, FrameCache(tmp_path / "frames"), 1)


def test_one_core_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    before = os.sched_getaffinity(0)
    with bench_loader.one_core():
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == before
    monkeypatch.delattr(os, "sched_setaffinity")
    with bench_loader.one_core():
        assert os.sched_getaffinity(0) == before


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_loader, "CASES", (Case(TINY, **SMALL),))
    options = ["--data-dir", str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--repetitions", "1"]
    done = CliRunner().invoke(app, ["bench", "--only", "loader", "--json", *options])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == json.loads((tmp_path / "out" / "loader.json").read_text())
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"loader.json", "loader.csv", "loader.md"}
    assert CliRunner().invoke(app, ["bench", "--only", "nothing", *options]).exit_code == 2


def test_the_documentation_says_what_the_committed_record_says() -> None:
    root = Path(__file__).parents[3]
    rows = json.loads((root / "results" / "bench" / "loader.json").read_text())["results"]
    assert all(row["reached"] for row in rows)
    of_files = [row["ratio_to_best"] for row in rows if row["side"] == "ours"]
    cost, videos = (" ".join((root / "docs" / name).read_text().split()) for name in ("cost.md", "videos.md"))
    assert f"{min(of_files):.2f} to {max(of_files):.2f} times as fast as the best of them" in cost
    long = [row for row in rows if row["source"]["seconds"] == 60]
    plain, ours = ([row[f"{side}_median_clips_per_second"] for row in long] for side in ("plain", "ours"))
    assert f"reads {min(plain):.1f} to {max(plain):.1f} clips a second" in videos
    assert f"ours with seeking {min(ours):.0f} to {max(ours):.0f}" in videos
