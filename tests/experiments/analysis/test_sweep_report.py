"""The report of a sweep: its files, its page, its figures and what it says in words."""

import csv
import json
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from tests.experiments.report.test_report import NASTY, Tags
from tests.experiments.sweep_records import BASE, SCHEMES, jobs, write_cell, write_example, write_failure, write_sweep
from timesformer.errors import InputError
from timesformer_experiments import load_results
from timesformer_experiments.analysis.comparisons import RIGHT
from timesformer_experiments.analysis.figures import style, title_of
from timesformer_experiments.analysis.report import SweepReport, sweep_report, with_palette, write_sweep_report
from timesformer_experiments.records.log import LOG
from timesformer_experiments.report.style import COLOURS, png


class Written(NamedTuple):
    """A report, the folder of its records, and the folder and files that it was written to."""

    report: SweepReport
    sweep: Path
    out: Path
    files: list[Path]


def write_report(sweep: Path, out: Path) -> Written:
    report = sweep_report(sweep)
    return Written(report, sweep, out, write_sweep_report(report, sweep, out))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Of 36 cells with scores, of which one has failed, in a folder of its own; drawing it takes seconds."""
    sweep = write_example(tmp_path_factory.mktemp("sweep"), f"RuntimeError: {NASTY}")
    (sweep / "sweep.yaml").write_text("name: made-up\n")
    return write_report(sweep, tmp_path_factory.mktemp("written") / "out")


def accuracy_alone(metrics: dict[str, Any]) -> None:
    """Little to draw."""
    percent = metrics["top1_percent"]
    metrics.clear()
    metrics["top1_percent"] = percent


def without_memory(metrics: dict[str, Any]) -> None:
    del metrics["train_peak_memory_bytes"], metrics["inference_peak_memory_bytes"]


def test_the_files_are_tables_figures_pages_and_copies_of_the_records(written: Written) -> None:
    names = {path.relative_to(written.out).as_posix() for path in written.files}
    tables = {f"{stem}.{kind}" for stem in ("summary", "overall", "comparisons", "failures") for kind in ("csv", "tex")}
    costs = ("tflops", "training_memory")
    curves = {f"{name}_over_{x}" for name in ("accuracy", *costs) for x in ("frames", "resolution")}
    against = {f"accuracy_against_{cost}" for cost in costs}
    pictures = {f"figures/{name}.{kind}" for name in curves | against for kind in ("png", "pdf")}
    rest = {"results.csv", "report.md", "report.html", RIGHT, LOG, "sweep.yaml"}
    assert names == tables | pictures | rest
    results = list(csv.DictReader((written.out / "results.csv").open()))
    assert len(results) == len(load_results(written.out)) == 36


def test_from_the_copied_records_the_same_is_made_again(tmp_path: Path) -> None:
    axes = {"model.attention": ["space", "divided"], "model.num_frames": [4, 8], "seed": [0, 1]}
    write_sweep(tmp_path / "sweep", axes, change=without_memory)
    report, sweep, out, files = write_report(tmp_path / "sweep", tmp_path / "out")
    before = {path: path.read_bytes() for path in files}
    again = write_report(out, out)
    assert again.report.comparisons == report.comparisons != ()
    assert {path.name for path in files} - {path.name for path in again.files} == {LOG}
    assert [path for path in again.files if path.read_bytes() != before[path]] == []
    stored, copied = ([json.loads(line) for line in (place / LOG).read_text().splitlines()] for place in (sweep, out))
    assert stored == copied


def test_markdown_and_page_say_what_was_found(written: Written) -> None:
    report, out = written.report, written.out
    text, page = (out / "report.md").read_text(), (out / "report.html").read_text()
    assert "35 runs finished, 1 failed (out_of_memory 1)." in text
    assert "Of 12 pairs compared under equal settings: " in text
    assert " (intervals over seeds and test videos; p-values corrected together)." in text
    assert " undecided" in text
    assert "80 % power would have found " in text
    assert "Two seeds cannot reveal humps" in text  # of one pair, whose third run has failed
    assert report.tables["summary"].caption.endswith("; peak memory of a GPU with 4 clips")
    assert page.count('<table class="sortable">') == 4
    assert page.count("<figure>") == len(report.figures)
    assert page.index('<section id="summary">') < page.index("<img")
    best = max(report.summary.frame["measured_top1_percent"])
    assert f"Highest top-1 accuracy: {best:.1f} %" in text
    assert sum(line.startswith("Pareto front of accuracy over ") for line in report.findings) == 2


def test_markdown_and_page_escape_what_they_are_given(written: Written) -> None:
    text, page = ((written.out / name).read_text() for name in ("report.md", "report.html"))
    assert page.count("<script") == 1
    assert "&lt;script&gt;alert(" in page
    assert "{{ 7 * 7 }}" in page
    assert "alert('x')</script>" not in page + text
    assert "Content-Security-Policy" in page
    parser = Tags()
    parser.feed(page)
    assert all(address.startswith("data:image/png;base64,") for address in parser.loaded)


def test_lines_differ_in_colour_marker_and_dashes() -> None:
    looks = [style(number) for number in range(21)]
    assert len({(look["color"], look["marker"], str(look["linestyle"])) for look in looks}) == 21
    for part in ("color", "marker", "linestyle"):
        assert len({str(look[part]) for look in looks[:7]}) == 7
    assert {look["color"] for look in looks} == set(COLOURS)


def test_curves_show_every_setting_with_units(written: Written) -> None:
    made = written.report.figures
    for name, over in (("accuracy_over_frames", "frames"), ("accuracy_over_resolution", "height of a frame [pixels]")):
        panels = [axis for axis in made[name].axes if axis.get_visible()]
        assert [axis.get_xlabel() for axis in panels] == [over] * 2
        assert panels[0].get_ylabel() == "top-1 accuracy [%]"
        assert {len(axis.containers) for axis in panels} == {3}
    assert [axis.get_title() for axis in made["accuracy_over_frames"].axes] == ["image_size 16", "image_size 32"]
    legend = made["accuracy_over_frames"].legends[0]
    assert [text.get_text() for text in legend.get_texts()] == [title_of(scheme) for scheme in SCHEMES]
    memory = made["training_memory_over_frames"].axes[0]
    assert memory.get_ylabel() == "training peak memory [GiB]"
    assert (memory.get_yscale(), made["tflops_over_frames"].axes[0].get_yscale()) == ("log", "linear")


def test_accuracy_against_cost_shows_every_setting_and_the_front(written: Written) -> None:
    made = written.report.figures
    panel = made["accuracy_against_tflops"].axes[0]
    points = {
        (x, y) for line in panel.lines if line.get_linestyle() == "None" for x, y in zip(*line.get_data(), strict=True)
    }
    assert len(points) == 12
    assert {to_hex(line.get_color()).upper() for line in panel.lines[:3]} <= set(COLOURS)
    assert panel.get_xlabel() == "TFLOPs, all views"
    assert "Pareto front" in [line.get_label() for line in panel.lines]
    assert made["accuracy_against_training_memory"].axes[0].get_xscale() == "log"


def test_pictures_with_a_palette_look_the_same(written: Written) -> None:
    for name in ("accuracy_over_frames", "accuracy_against_tflops"):
        whole = png(written.report.figures[name])
        small = (written.out / "figures" / f"{name}.png").read_bytes()
        assert small == with_palette(whole)
        assert len(small) < 0.6 * len(whole)
        pixels = [np.asarray(Image.open(BytesIO(each)).convert("RGB")).astype(int) for each in (whole, small)]
        assert abs(pixels[0] - pixels[1]).mean() < 0.2  # of 255


def test_many_panels_become_several_figures(tmp_path: Path) -> None:
    axes = {"model.attention": ["space", "axial"], "model.num_frames": [4, 8], "model.depth": [1, 2, 3, 4, 5, 6, 7]}
    write_sweep(tmp_path, axes, scores=False, change=accuracy_alone)
    made = sweep_report(tmp_path).figures
    assert set(made) == {"accuracy_over_frames", "accuracy_over_frames_2"}
    assert len([axis for axis in made["accuracy_over_frames"].axes if axis.get_visible()]) == 6
    assert len(made["accuracy_over_frames_2"].axes) == 1


def test_figures_come_before_a_long_table(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"model.num_frames": list(range(1, 62))}, scores=False, change=accuracy_alone)
    page = (write_report(tmp_path, tmp_path).out / "report.html").read_text()
    assert page.index("<img") < page.index('<section id="summary">')


def test_one_line_where_nothing_is_compared(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"model.num_frames": [4, 8]}, scores=False)
    report = sweep_report(tmp_path)
    assert report.summary.axes.compared is None
    assert report.comparisons == ()
    figure = report.figures["accuracy_over_frames"]
    assert (len(figure.axes), figure.legends) == (1, [])
    assert [title_of(value) for value in (None, "not a scheme", 3)] == ["all", "not a scheme", "3"]


def test_two_sweeps_in_a_folder_are_told_apart(tmp_path: Path) -> None:
    for name in ("a", "b"):
        axes = {"model.attention": ["space", "divided"], "model.depth": [1 + (name == "b")]}
        for job in jobs(axes, name=name).values():
            write_cell(tmp_path / name, job, scores=False)
    report = sweep_report(tmp_path)
    assert report.title == "Sweep a, b"
    assert [column.removeprefix("cell.") for column in report.summary.axes.columns] == ["sweep", "model.attention"]
    assert [each.setting for each in report.comparisons] == [{"sweep": "a"}, {"sweep": "b"}]


def test_of_costs_alone_there_is_a_figure_and_no_comparison(tmp_path: Path) -> None:
    axes = {"model.attention": ["space", "joint"], "model.num_frames": [4, 8]}
    base = {"model": {**BASE["model"], "num_classes": 4}}
    for job in jobs(axes, base=base, measure=["macs"]).values():
        only = {"macs_per_view": 1000 * job.spec.model.num_frames, "views": 3}
        write_cell(tmp_path, job, scores=False, change=lambda m, new=only: (m.clear(), m.update(new)))  # type: ignore[misc]
    report = sweep_report(tmp_path)
    assert set(report.figures) == {"macs_over_frames"}
    assert report.comparisons == ()
    assert report.findings == ("4 runs finished, 0 failed.",)
    assert "comparisons" not in report.tables


def test_of_failures_alone_there_is_a_report(tmp_path: Path) -> None:
    for job in jobs({"model.num_frames": [4, 8]}).values():
        write_failure(tmp_path, job)
    failed = sweep_report(tmp_path)
    assert failed.findings == ("0 runs finished, 2 failed (error 2).",)
    assert failed.figures == {}
    assert tmp_path / "failures.csv" in write_sweep_report(failed, tmp_path, tmp_path)


def test_records_without_runs_are_an_error(tmp_path: Path) -> None:
    (tmp_path / LOG).write_text("")
    with pytest.raises(InputError, match="no run has finished or failed yet"):
        sweep_report(tmp_path)
