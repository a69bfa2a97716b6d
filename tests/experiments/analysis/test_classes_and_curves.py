"""Classes and learning curves in the report of a sweep, from records and what runs have left."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.experiments.sweep_records import jobs, write_cell
from timesformer.errors import InputError
from timesformer_experiments.analysis import classes
from timesformer_experiments.analysis.classes import class_report
from timesformer_experiments.analysis.curves import CURVES, POINTS, curve_figure, read_curves, thinned
from timesformer_experiments.analysis.report import SweepReport, sweep_report, write_sweep_report
from timesformer_experiments.cost.training import train_macs
from timesformer_experiments.records.log import LOG, read_records
from timesformer_experiments.records.read import load_results

AXES: dict[str, list[Any]] = {"model.attention": ["space", "divided"], "seed": [0, 1]}
STEPS = 90
MATRICES = {("space", 0): [[3, 1], [2, 2]], ("space", 1): [[1, 3], [0, 4]], ("divided", 0): [[4, 0], [1, 3]],
            ("divided", 1): [[4, 0], [0, 4]]}  # fmt: skip


def accuracy_alone(metrics: dict[str, Any]) -> None:
    kept = {name: metrics[name] for name in ("top1_percent", "macs_per_view")}
    metrics.clear()
    metrics |= kept


def write_runs(folder: Path, confusion: bool = True, curves: bool = True) -> Path:
    """Four cells of a sweep; the loss of a run falls from 2 to 1 in even steps."""
    for job in jobs(AXES).values():
        key = write_cell(folder, job, change=accuracy_alone, scores=False)
        if curves:
            (folder / key).mkdir()
            loss = np.linspace(2, 1, STEPS) + 0.1 * (job.spec.seed or 0)
            curve = pd.DataFrame({"step": range(STEPS), "loss": loss, "accuracy": 2 - loss, "learning_rate": 0.1})
            curve.to_parquet(folder / key / "curve.parquet", index=False)
    if confusion:
        records = read_records(folder / LOG)
        for record in records:
            counts = MATRICES[record["cell"]["model.attention"], record["seed"]]
            record["confusion"] = [{"head": None, "classes": ["up", "down"], "counts": counts}]
        (folder / LOG).write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[SweepReport, Path, Path]:
    sweep, out = write_runs(tmp_path_factory.mktemp("sweep")), tmp_path_factory.mktemp("report")
    report = sweep_report(sweep)
    write_sweep_report(report, sweep, out)
    return report, sweep, out


def test_classes_over_all_seeds_together(written: tuple[SweepReport, Path, Path]) -> None:
    report, _, out = written
    rows = rows_of(out / "per_class.csv")
    assert [(r["attention"], r["class"], r["seeds"], r["videos"], r["right"]) for r in rows] == [
        ("space", "up", "2", "8", "4"), ("space", "down", "2", "8", "6"),
        ("divided", "up", "2", "8", "8"), ("divided", "down", "2", "8", "7"),
    ]  # fmt: skip
    assert [float(row["measured_top1_percent"]) for row in rows] == [50.0, 75.0, 100.0, 87.5]
    taken = [(r["attention"], r["class"], r["predicted"], int(r["videos"])) for r in rows_of(out / "confusion.csv")]
    assert taken == [
        ("space", "up", "up", 4), ("space", "up", "down", 4), ("space", "down", "up", 2), ("space", "down", "down", 6),
        ("divided", "up", "up", 8), ("divided", "down", "up", 1), ("divided", "down", "down", 7),
    ]  # fmt: skip
    figure = report.figures["confusion"]
    percent = [axis.images[0].get_array().tolist() for axis in figure.axes if axis.images]
    assert percent == [[[50, 50], [25, 75]], [[100, 0], [12.5, 87.5]]]
    assert "| up | 50.0<sup>m</sup> | 100.0<sup>m</sup> |" in (out / "report.md").read_text()
    assert '<section id="per_class">' in (out / "report.html").read_text()


def test_curves_over_steps_videos_and_macs(written: tuple[SweepReport, Path, Path]) -> None:
    report, _, _ = written
    figure = report.figures["learning_curves"]
    assert [axis.get_xlabel() for axis in figure.axes[3:]] == [
        "steps", "training videos", "training GMACs (forward and backward)",
    ]  # fmt: skip
    macs = 1000 * report.results["model.num_frames"].iloc[0] * report.results["model.image_height"].iloc[0] ** 2
    ends = [STEPS, STEPS * 4, float(train_macs(macs, STEPS * 4)) / 1e9]
    for axis, end in zip(figure.axes[:3], ends, strict=True):
        named = {line.get_label(): line for line in axis.lines if not str(line.get_label()).startswith("_")}
        assert list(named) == ["Space", "Divided Space-Time"]
        for line in named.values():  # the mean of two seeds
            assert np.asarray(line.get_xdata())[-1] == pytest.approx(end)
            assert np.asarray(line.get_ydata()).mean() == pytest.approx(1.55, abs=0.01)
        assert len(axis.lines) == 2 + 4


@pytest.mark.parametrize("seeds", [2, 3])
def test_a_band_is_drawn_from_three_seeds_on(seeds: int) -> None:
    """Student's t of the mean: of 10, 20 and 30 % in the last place 4.303 standard errors, 5.77 points each."""
    curves = [
        pd.DataFrame(
            {"step": [1, 2], "videos": [4, 8], "macs": [1e6, 2e6], "loss": 1.0, "accuracy_percent": [50.0, 10.0 * n]}
        )
        for n in range(1, seeds + 1)
    ]
    figure = curve_figure([("joint", {"color": "#0000ff", "marker": "none", "linestyle": "-"}, curves)], "")
    bands = [axis.collections for axis in figure.axes]
    if seeds == 2:
        assert not any(bands)
        return
    assert all(len(each) == 1 for each in bands)
    corners = bands[3][0].get_paths()[0].vertices
    assert corners[corners[:, 0] == 1][:, 1] == pytest.approx(50.0)
    last = corners[corners[:, 0] == 2][:, 1]
    assert (last.min(), last.max()) == pytest.approx((0.0, 20 + 4.3027 * 10 / np.sqrt(3)), abs=1e-3)


def test_the_same_is_made_again_from_the_copy(written: tuple[SweepReport, Path, Path], tmp_path: Path) -> None:
    _, _, out = written
    write_sweep_report(sweep_report(out), out, tmp_path)
    files = {path.relative_to(out) for path in out.rglob("*") if path.is_file()}
    assert {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()} == files
    for name in files:
        assert (tmp_path / name).read_bytes() == (out / name).read_bytes(), name


def test_records_without_classes_and_curves_have_no_such_files(tmp_path: Path) -> None:
    sweep = write_runs(tmp_path / "sweep", confusion=False, curves=False)
    report = sweep_report(sweep)
    names = {path.name for path in write_sweep_report(report, sweep, tmp_path / "out")}
    assert not names & {"per_class.csv", "confusion.csv", CURVES}
    assert not {"confusion", "learning_curves"} & set(report.figures)
    (sweep / CURVES).write_text("no parquet")
    with pytest.raises(InputError, match=r"curves\.parquet: not a readable learning curve"):
        read_curves(sweep, load_results(sweep))


@pytest.mark.parametrize("steps", [1, POINTS, POINTS + 1, 1000])
def test_thinned_curves_are_means_over_stretches(steps: int) -> None:
    loss = np.arange(steps, dtype=float)
    found = thinned(pd.DataFrame({"step": range(steps), "loss": loss, "accuracy": loss / steps}))
    assert len(found) <= POINTS
    assert found["step"].iloc[-1] == steps
    widths = np.diff([0, *found["step"]])
    assert set(widths[:-1]) <= {widths[0]}
    assert 1 <= widths[-1] <= widths[0] <= steps // POINTS + 1
    assert (found["loss"] * widths).sum() == pytest.approx(loss.sum())
    assert (found["accuracy_percent"] * widths).sum() == pytest.approx(100 * loss.sum() / steps)


def test_heads_are_rows_and_what_is_too_much_for_a_page_is_said(
    written: tuple[SweepReport, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    report, _, _ = written
    verb = {"head": "verb", "classes": ["cut", "mix"], "counts": [[1, 1], [0, 2]]}
    noun = {"head": "noun", "classes": ["egg", "tea", "pan"], "videos": [2, 2, 0], "right": [1, 2, 0]}
    records: dict[str, Any] = {key: {"confusion": [verb, noun]} for key in report.results["hash"].astype(str)}
    found = class_report(report.results, report.summary, records)
    assert found is not None
    assert found.table is not None
    assert found.table.frame["head"].tolist() == ["verb"] * 2 + ["noun"] * 3
    shown = [cells[2:] for cells in ([text for text, _ in row] for row in found.table.cells())]
    assert shown == [["50.0"] * 2, ["100.0"] * 2, ["50.0"] * 2, ["100.0"] * 2, ["–"] * 2]
    assert found.files["confusion.csv"].count(b"noun") == 0  # its matrix is not kept
    monkeypatch.setattr(classes, "MOST_ROWS", 4)
    monkeypatch.setattr(classes, "MOST_PANELS", 1)
    less = class_report(report.results, report.summary, records)
    assert less is not None
    assert less.table is None
    assert less.findings == (
        "The accuracy of each class is in per_class.csv.",
        "Confusion matrices of 1 of 2 settings are drawn; confusion.csv has all.",
    )
    assert len([axis for axis in less.figures["confusion"].axes if axis.images]) == 1
