"""A slice of the fuzz: damaged files are read right or reported, in a watched process."""

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from tests.data.video import fuzz
from tests.data.video.made import encode
from tests.data.video.matrix import PLAIN

SLICE_SECONDS = 60.0


@pytest.mark.slow
def test_damaged_files_are_read_right_or_reported(tmp_path: Path) -> None:
    found = list(fuzz.fuzz(range(100_000, 200_000), tmp_path, SLICE_SECONDS))
    failed = [(seed, source.case, outcome) for seed, source, _, outcome in found if outcome not in fuzz.FINE]
    assert failed == []
    assert len(found) > 50
    assert {outcome for *_, outcome in found} >= {fuzz.RIGHT, fuzz.REPORTED}


def test_a_seed_makes_one_file() -> None:
    (source,) = fuzz.sources(PLAIN[:1])
    first, names = fuzz.damaged(source, 3)
    assert (first, names) == fuzz.damaged(source, 3)
    assert first != source.content
    assert len({fuzz.damaged(source, seed)[0] for seed in range(20)}) == 20


def test_what_a_reader_can_do_wrong_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(tmp_path / "a.mp4")
    assert fuzz.judge_apart(path, 0) == fuzz.RIGHT
    (tmp_path / "b.mp4").write_bytes(path.read_bytes()[:99])
    assert fuzz.judge_apart(tmp_path / "b.mp4", 0) == fuzz.REPORTED
    monkeypatch.setattr(fuzz, "SECONDS", 0.5)
    wrong = {
        "traceback (KeyError: 1)": lambda *_: {}[1],
        "crash (signal 9)": lambda *_: os.kill(os.getpid(), 9),
        "hangs: not read in 0.5 seconds": lambda *_: time.sleep(5),
    }
    for said, judge in wrong.items():
        monkeypatch.setattr(fuzz, "judge", judge)
        assert fuzz.judge_apart(path, 0) == said


def test_other_pictures_are_seen(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4")
    frames = fuzz.pictures(path, 60)
    assert fuzz.compare(path, frames, 20) == ""
    assert fuzz.compare(path, [*frames[:5], frames[4], *frames[5:]], 21) == ""  # repeated
    assert "differs" in fuzz.compare(path, frames[::-1], 20)
    assert fuzz.compare(path, frames[:9], 9) == "9 frames, in sequence 10"
    assert fuzz.excused(path) == ""
    assert np.array_equal(fuzz.pictures(path, 60, poison=7), frames)


def test_the_documentation_has_the_records_numbers() -> None:
    root = Path(__file__).parents[3]
    record = json.loads((root / "results" / "video" / "fuzz.json").read_text())
    page = (root / "docs" / "videos.md").read_text(encoding="utf-8")
    assert record["files"] == sum(record["outcomes"].values()) >= 5000
    assert f"of {record['files']:,} damaged files" in page
    assert all(f"| {count:,} |" in page for count in record["outcomes"].values())
    assert len(record["failures"]) == record["outcomes"].get("failed", 0)
    wrong = ("crash", "hangs", "traceback", "memory")
    assert not [each for each in record["failures"] if each["outcome"].startswith(wrong)]
