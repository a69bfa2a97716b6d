"""`timesformer audit` on real files: table, reports, exit codes, state."""

import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.data.conftest import write_video
from timesformer_experiments.cli import audit as cli_audit
from timesformer_experiments.cli.main import app


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three sound videos, one of them listed twice, an odd one and a damaged one, with spaces in names."""
    for name in ("a b.mp4", "c.mp4", "d.mp4"):
        write_video(tmp_path / name, gop=len(name))
    write_video(tmp_path / "e.mp4", rate=4)
    (tmp_path / "f.mp4").write_bytes((tmp_path / "c.mp4").read_bytes()[:-900])
    (tmp_path / "list.csv").write_text("a b.mp4 0\nc.mp4 1\nd.mp4 1\nc.mp4 1\ne.mp4 2\nf.mp4 0\n[g].mp4 0\n")
    return tmp_path


def audit(folder: Path, *words: str, code: int = 1) -> str:
    options = ["--state", str(folder / "state.jsonl"), *words]
    done = CliRunner().invoke(app, ["audit", str(folder / "list.csv"), *options])
    assert done.exit_code == code, done.output
    return done.stdout


def test_json_and_reports(folder: Path) -> None:
    out = ["--out", str(folder / "report.csv"), "--out", str(folder / "report.json")]
    found = json.loads(audit(folder, "--json", *out))
    assert found["verdicts"] == {"missing": 1, "truncated": 1, "duplicate": 2, "odd-rate": 1, "ok": 2}
    assert {row["name"]: row["verdict"] for row in found["findings"]} == {
        "c.mp4": "duplicate",
        "d.mp4": "duplicate",  # the same frames as c.mp4, under another name
        "e.mp4": "odd-rate",
        "f.mp4": "truncated",
        "[g].mp4": "missing",
    }
    assert (found["num_samples"], found["num_files"], found["num_unreadable"]) == (7, 6, 2)
    assert found["labels"] == {"0": 3, "1": 3, "2": 1}
    assert len(found["fingerprint"]) == 64
    assert found["files_per_minute"] > 0
    with (folder / "report.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["verdict"] for row in rows] == [
        "ok",
        "ok",
        "duplicate",
        "duplicate",
        "odd-rate",
        "truncated",
        "missing",
    ]
    report = json.loads((folder / "report.json").read_text())
    assert [row["name"] for row in report["samples"]] == [row["name"] for row in rows]
    assert report["fingerprint"] == found["fingerprint"]

    again = json.loads(audit(folder, "--json"))
    assert (again["files_remembered"], again["files_examined"]) == (5, 1)
    assert again["fingerprint"] == found["fingerprint"]
    assert again["findings"] == found["findings"]


def test_fingerprint_is_the_one_in_records(folder: Path) -> None:
    from timesformer.data import Preprocessing, VideoDataset, read_annotations

    record = Preprocessing(num_frames=2, short_side=32, crop=32)
    dataset = VideoDataset(read_annotations("kinetics", folder / "list.csv"), record, train=False)
    assert json.loads(audit(folder, "--json"))["fingerprint"] == dataset.audit()["fingerprint"]
    quick = json.loads(audit(folder, "--json", "--quick"))
    assert (quick["fingerprint"], quick["content_fingerprint"]) == (dataset.audit()["fingerprint"], None)


def test_screen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = audit(folder, "--decode", "--min-frames", "31")
    assert "[g].mp4" in shown
    assert "30 of at least 31 frames" in shown
    assert "labels       3, with 1 to 3 samples each" in shown
    assert "7 in 6 files, 2 unreadable" in shown
    monkeypatch.setattr(cli_audit, "MOST_ROWS", 2)
    short = audit(folder, "--quick")
    assert "first 2 shown; write all" in short
    assert "not computed with --quick" in short


def test_all_readable(folder: Path) -> None:
    (folder / "list.csv").write_text("a b.mp4 0\n")
    assert "verdicts     ok 1" in audit(folder, code=0)
    classes = folder / "classes" / "left"
    classes.mkdir(parents=True)
    write_video(classes / "a.mp4")
    done = CliRunner().invoke(app, ["audit", str(classes.parent), "--state", str(folder / "state.jsonl"), "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["verdicts"] == {"ok": 1}


def test_bad_usage(folder: Path) -> None:
    audit(folder, "--out", str(folder / "report.xml"), code=2)
    audit(folder, "--format", "unknown", code=2)
    assert not (folder / "state.jsonl").exists()
