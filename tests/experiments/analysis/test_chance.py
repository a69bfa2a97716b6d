"""Reports know chance, show seeds, and say how much of a sweep is there."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.experiments.sweep_records import BASE, jobs, write_cell
from timesformer_experiments.analysis.chance import chance_of
from timesformer_experiments.analysis.report import SweepReport, sweep_report, write_sweep_report
from timesformer_experiments.report.tables import to_markdown

AXES: dict[str, list[Any]] = {"model.attention": ["space", "divided"], "model.num_frames": [4, 8], "seed": [0, 1]}
CHANCE = {"data": BASE["data"], "model": {**BASE["model"], "num_classes": 8}, "recipe": BASE["recipe"]}
PERCENT = {
    ("space", 4): (9.4, 15.6),
    ("space", 8): (12.5, 12.5),
    ("divided", 4): (10.0, 17.0),
    ("divided", 8): (60, 66),
}


def written(folder: Path, percent: dict[tuple[str, int], tuple[float, ...]], cells: int | None = None) -> SweepReport:
    """The report of a sweep with these accuracies, of which only the first cells have finished."""
    every = jobs(AXES, base=CHANCE)
    for job in list(every.values())[:cells]:
        top1 = percent[job.spec.model.attention, job.spec.model.num_frames][job.spec.seed]

        def change(metrics: dict[str, Any], top1: float = top1) -> None:
            metrics |= {"top1_percent": top1, "top1_low_percent": top1 - 8, "top1_high_percent": top1 + 8}

        write_cell(folder, job, scores=False, change=change)
    entries = [{"hash": key, "name": job.spec.name, "cell": job.belongs["cell"]} for key, job in every.items()]
    (folder / "cells.json").write_text(json.dumps({"sweep": "made-up", "cells": entries, "starts": []}))
    return sweep_report(folder)


def labelled(report: SweepReport, name: str, label: str) -> list[Any]:
    return [line for line in report.figures[name].axes[0].lines if line.get_label() == label]


def test_settings_at_chance_are_marked_and_on_no_front(tmp_path: Path) -> None:
    report = written(tmp_path, PERCENT)
    frame = report.summary.frame
    assert set(frame["chance_percent"]) == {12.5}
    assert frame["above_chance"].tolist() == ["no", "no", "no", "yes"]
    said = "\n".join(report.findings)
    assert "Not above chance (12.5 %): 3 of 4 settings (attention space, num_frames 4; " in said
    assert "Highest top-1 accuracy: 63.0 % (attention divided, num_frames 8)" in said
    assert "s, all views: attention divided, num_frames 8: 63.0 %." in said
    (front,) = labelled(report, "accuracy_against_tflops", "Pareto front")
    assert len(front.get_xdata()) == 1
    assert "| Above chance |" in to_markdown(report.tables["summary"])
    assert "Two seeds: " in said


def test_nothing_above_chance_has_no_highest(tmp_path: Path) -> None:
    report = written(tmp_path, dict.fromkeys(PERCENT, (11.0, 14.0)))
    said = "\n".join(report.findings)
    assert "Not above chance (12.5 %): 4 of 4 settings" in said
    assert "Highest" not in said
    assert "Pareto front of" not in said
    assert write_sweep_report(report, tmp_path, tmp_path)


def test_all_above_chance_need_no_mark(tmp_path: Path) -> None:
    report = written(tmp_path, dict.fromkeys(PERCENT, (70.0, 72.0)))
    assert set(report.summary.frame["above_chance"]) == {"yes"}
    assert "Above chance" not in to_markdown(report.tables["summary"])


def test_figures_have_chance_seeds_and_intervals_within_the_scale(tmp_path: Path) -> None:
    """Two seeds at 9.4 and 15.6 % have an interval that reaches far below 0."""
    report = written(tmp_path, PERCENT)
    assert report.summary.frame["measured_top1_low_percent"].min() < 0 or report.summary.frame[
        "measured_top1_low_percent"
    ].min() == pytest.approx(0)
    for name in ("accuracy_over_frames", "accuracy_against_tflops"):
        (chance,) = labelled(report, name, "_chance")
        assert set(chance.get_ydata()) == {12.5}
        axis = report.figures[name].axes[0]
        ends = [
            point[1] for each in axis.containers for bars in each[2] for part in bars.get_segments() for point in part
        ]
        assert ends, name
        assert min(ends) >= 0
        assert max(ends) <= 100
    seeds = labelled(report, "accuracy_over_frames", "_seeds")
    every = [each for some in PERCENT.values() for each in some]
    assert sorted(np.concatenate([line.get_ydata() for line in seeds])) == sorted(every)


def test_an_unfinished_sweep_says_so_and_keeps_its_axes(tmp_path: Path) -> None:
    report = written(tmp_path, PERCENT, cells=3)
    assert report.findings[0] == (
        "3 of 8 runs finished, 0 failed, 5 are still to come: this is a report of an unfinished sweep."
    )
    assert report.summary.axes.columns == ("cell.model.attention", "cell.model.num_frames")
    assert report.summary.axes.compared == "cell.model.attention"
    assert [column.title for column in report.tables["summary"].columns[:2]] == ["attention", "num_frames"]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"dataset": {"test": {"labels": {"0": 30, "1": 10}}}}, 75.0),
        ({"dataset": {"validation": {"labels": {"0": 1, "1": 1}}}, "evaluated_on": "validation"}, 50.0),
        ({"dataset": {"test": {"labels": {}}}, "spec": {"model": {"num_classes": 8}}}, 12.5),
        ({"dataset": {}, "spec": {"model": {"num_classes": [4, 5]}}}, 5.0),
        ({"dataset": {}, "spec": {"model": {}}}, None),
    ],
)
def test_chance_is_the_best_constant_answer(record: dict[str, Any], expected: float | None) -> None:
    assert chance_of(record) == expected
