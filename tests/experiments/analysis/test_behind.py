"""What lies behind a table: classes of committed records, confusions and learning curves of those that have them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from timesformer.data.probes import make_probe
from timesformer_experiments.analysis.behind import CLASSES, behind, runs_by_part
from timesformer_experiments.analysis.curves import CURVES, kept_curves, thinned, together
from timesformer_experiments.records.hits import confusions_of, hits_of
from timesformer_experiments.records.log import read_records

RECORDS = Path(__file__).parents[3] / "results" / "table1" / "full" / "records.jsonl"
NOTHING = together([])


@pytest.fixture(scope="module")
def records() -> list[dict[str, Any]]:
    return read_records(RECORDS)


def with_confusion(record: dict[str, Any]) -> dict[str, Any]:
    """The same, with every wrong video taken for the next class."""
    (each,) = confusions_of(record)
    size = len(each.classes)
    counts = np.diag(each.right) + np.roll(np.diag(each.videos - each.right), 1, axis=1)
    return record | {
        "confusion": [{"head": None, "classes": list(each.classes), "counts": counts.tolist()}] * (size > 0)
    }


def test_which_videos_were_right_tells_the_classes_of_a_probe(records: list[dict[str, Any]]) -> None:
    for record in records:
        (found,) = confusions_of(record)
        assert found.videos.tolist() == list(record["dataset"]["test"]["labels"].values())
        assert found.right.sum() == sum(hits_of(record).values())
        assert found.counts is None
    motion = next(record for record in records if record["name"] == "table1-full-motion-divided-s0")
    other = motion | {"spec": motion["spec"] | {"data": {"train_csv": "a.csv"}}}
    assert confusions_of(other) == []


def test_the_videos_of_a_class_are_those_of_the_probe_s_list(records: list[dict[str, Any]], tmp_path: Path) -> None:
    probe = make_probe("motion", tmp_path, num_train=1, num_test=16)
    labels = [sample.label for sample in sorted(probe.annotations("test"), key=lambda sample: sample.name)]
    motion = next(record for record in records if record["name"] == "table1-full-motion-divided-s0")
    right = [label in (0, 3) for label in labels]
    part = motion | {"test_right": np.packbits(right).tobytes().hex(), "metrics": {"test_videos": 16}}
    (found,) = confusions_of(part)
    assert found.right.tolist() == [2, 0, 0, 2, 0, 0, 0, 0]


def test_runs_are_told_apart_by_probe_and_variant(records: list[dict[str, Any]]) -> None:
    found = runs_by_part("table1", records)
    assert list(found) == ["stills of appearance", "appearance", "motion"]
    assert {part: len(variants) for part, variants in found.items()} == {
        "stills of appearance": 1, "appearance": 5, "motion": 5,
    }  # fmt: skip
    assert all(len(seeds) == 3 for variants in found.values() for seeds in variants.values())
    other = runs_by_part("table4", [records[-1] | {"name": "figure4-quick-motion-slowfast-s0"}])
    assert list(other["motion"]) == ["figure4 slowfast"]


def test_tables_and_notes_of_records_without_confusions(records: list[dict[str, Any]]) -> None:
    (part,) = behind("table1", records, NOTHING)
    tables = [each.table for each in part.within if each.table is not None]
    assert [table.caption.partition(",")[0] for table in tables] == [
        "Accuracy of each class on stills of appearance",
        "Accuracy of each class on appearance",
        "Accuracy of each class on motion",
    ]
    frame = tables[2].frame
    assert frame["measured_divided_percent"].mean() == pytest.approx(86.75, abs=0.01)  # classes have as many videos
    assert len(part.within) == len(tables)
    assert len(part.findings) == 2
    assert set(part.contents()) == {CLASSES}
    assert part.markdown() == []
    (beside,) = behind("table1", records, NOTHING, elsewhere=True)
    assert len(beside.findings) == 1
    assert behind("table1", [], NOTHING) == ()


def test_confusions_and_curves_are_drawn_where_there_are_some(records: list[dict[str, Any]], tmp_path: Path) -> None:
    runs = [with_confusion(record) for record in records if "-motion-" in record["name"]][:4]
    curves = []
    for number, record in enumerate(runs):
        steps = np.arange(100)
        curve = pd.DataFrame({"step": steps, "loss": 2 - steps / 100, "accuracy": steps / 100})
        if number:
            curve["validation_percent"] = np.where(steps % 50 == 49, 40.0 + steps / 10, np.nan)
        curves.append(thinned(curve).assign(hash=record["hash"]))
    (part,) = behind("table1", runs, together(curves))
    figures = {each.name: each.figure for each in part.within if each.figure is not None}
    assert set(figures) == {"confusion", "learning_curves_motion"}
    assert set(part.contents()) == {CLASSES, CURVES, "confusion.png", "learning_curves_motion.png"}
    assert part.findings == ()
    panels = figures["learning_curves_motion"].axes
    assert [axis.get_ylabel() for axis in panels if axis.get_ylabel()] == [
        "training loss", "training accuracy [%]", "validation accuracy [%]",
    ]  # fmt: skip
    lines = [line for line in panels[6].get_lines() if len(line.get_xdata())]
    assert {tuple(line.get_xdata()) for line in lines} == {(51.0, 100.0)}
    (tmp_path / CURVES).write_bytes(part.files[CURVES])
    (again,) = behind("table1", json.loads(json.dumps(runs)), kept_curves(tmp_path / CURVES))
    assert again.files == part.files
