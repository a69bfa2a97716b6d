"""A probe that a cheap classifier nearly solves does not rank schemes."""

from pathlib import Path

import pytest

from timesformer.errors import InputError
from timesformer_experiments.paper.gate import cheap_classifiers, not_ranked, reasons


def test_five_points_decide() -> None:
    assert not_ranked(43.4, 88.1) == ""
    assert not_ranked(82.9, 88.0) == ""
    assert not_ranked(83.0, 88.0) == "a cheap classifier reaches 83.0 %, the best scheme 88.0 %"
    assert not_ranked(99.0, 88.0, "a forest") == "a forest reaches 99.0 %, the best scheme 88.0 %"


def test_the_best_classifier_of_a_probe_is_taken(tmp_path: Path) -> None:
    folder = tmp_path / "probes"
    folder.mkdir()
    rows = "classifier,measured_top1_percent\nmean frame,40.0\nframe differences,86.5\n"
    (folder / "motion-full.csv").write_text(rows)
    found = cheap_classifiers(tmp_path, "full", ["motion", "order"])
    assert [(each["probe"], each["classifier"], each["top1_percent"]) for each in found] == [
        ("motion", "frame differences", 86.5)
    ]
    said = "a classifier of frame differences reaches 86.5 %, the best scheme 87.0 %"
    assert reasons(found, {"motion": 87.0, "appearance": 80.0}) == {"motion": said}
    assert reasons(found, {"motion": 95.0}) == {}
    (folder / "motion-full.csv").write_text("name\nx\n")
    with pytest.raises(InputError, match=r"motion-full\.csv: no classifier and no measured_top1_percent"):
        cheap_classifiers(tmp_path, "full", ["motion"])
