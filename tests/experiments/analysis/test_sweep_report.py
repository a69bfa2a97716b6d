"""The report of a sweep: tables, figures, pages, sentences."""

import csv
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from tests.experiments.report.test_report import NASTY, table_html
from tests.experiments.sweep_records import (
    AXES,
    BASE,
    SCHEMES,
    SMALL,
    VIDEOS,
    jobs,
    right_answers,
    write_cell,
    write_failure,
    write_sweep,
)
from timesformer.errors import InputError
from timesformer_experiments import load_results
from timesformer_experiments.analysis.axes import axes_of, follows, groups, shown
from timesformer_experiments.analysis.comparisons import RIGHT, compare_all, read_right
from timesformer_experiments.analysis.figures import front, style, title_of
from timesformer_experiments.analysis.report import SweepReport, sweep_report, with_palette, write_sweep_report
from timesformer_experiments.analysis.summary import digits, summarise, summary_table
from timesformer_experiments.cost.measures import ACCURACY, TFLOPS, TRAINING
from timesformer_experiments.records.log import LOG
from timesformer_experiments.report.report import COLOURS, png
from timesformer_experiments.report.statistics import mean_interval, signed
from timesformer_experiments.report.tables import Column, Table, to_latex, to_markdown, to_rich

RESULTS = Path(__file__).parents[3] / "results"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 cells with scores, of which one has failed."""
    folder = tmp_path_factory.mktemp("sweep")
    cells = list(jobs(AXES).values())
    for job in cells[:-1]:
        write_cell(folder, job)
    write_failure(folder, cells[-1], f"RuntimeError: {NASTY}", "out_of_memory")
    (folder / "sweep.yaml").write_text("name: made-up\n")
    return folder


@pytest.fixture(scope="module")
def written(sweep: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[SweepReport, Path, list[Path]]:
    """Its report, in a folder of its own, with the files there."""
    out = tmp_path_factory.mktemp("written") / "out"
    report = sweep_report(sweep)
    return report, out, write_sweep_report(report, sweep, out)


def test_the_summary_has_means_and_intervals_over_seeds(sweep: Path) -> None:
    results = load_results(sweep)
    axes = axes_of(results)
    assert axes.columns == ("cell.model.attention", "cell.model.num_frames", "cell.model.image_size")
    assert axes.compared == "cell.model.attention"
    summary = summarise(results, axes)
    assert len(summary.frame) == 12
    assert list(summary.frame["attention"].unique()) == list(SCHEMES)
    row = summary.frame.iloc[0]
    runs = results[
        (results["model.attention"] == "space")
        & (results["model.num_frames"] == 4)
        & (results["model.image_height"] == 16)
    ]
    expected = mean_interval(list(runs["top1_percent"]))
    names = ("measured_top1_percent", "measured_top1_low_percent", "measured_top1_high_percent")
    assert [row[name] for name in names] == pytest.approx(expected)
    assert row["counted_params"] == 1_000_050
    assert (row["runs_done"], row["runs_failed"]) == (3, 0)
    last = summary.frame.iloc[-1]
    assert (last["runs_done"], last["runs_failed"]) == (2, 1)
    caption = sweep_report(sweep).tables["summary"].caption
    assert caption.endswith("; peak memory of a GPU with 4 clips")


def test_comparisons_are_of_pairs_under_equal_settings(sweep: Path) -> None:
    results = load_results(sweep)
    axes = axes_of(results)
    right = read_right(sweep, results)
    assert len(right) == 35
    found = compare_all(results, axes, right)
    assert len(found) == 4 * 3
    assert {each.family for each in found} == {12}
    first = found[0]
    assert (first.setting, first.first, first.second) == ({"num_frames": 4, "image_size": 16}, "space", "divided")
    assert (first.seeds, first.videos, first.method) == ((0, 1, 2), VIDEOS, "seeds and videos")
    wanted = {
        "model.attention": ["space", "divided"],
        "model.num_frames": [4],
        "model.image_size": [16],
        "seed": [0, 1, 2],
    }
    answers = [right_answers(job).mean() for job in jobs(wanted).values()]
    assert first.difference_points == pytest.approx(100 * (np.mean(answers[:3]) - np.mean(answers[3:])))
    assert first.p_value is not None
    assert first.p_value < 0.05
    assert first.verdict in ("more than noise", "unclear")
    assert found[-1].seeds == (0, 1)  # axial's third seed has failed
    same = next(each for each in found if (each.first, each.second) == ("divided", "axial"))
    assert same.sentence().endswith("within noise")


def test_all_files_are_written_and_the_same_again_from_the_copy(
    sweep: Path, written: tuple[SweepReport, Path, list[Path]]
) -> None:
    report, out, files = written
    names = {path.relative_to(out).as_posix() for path in files}
    tables = {f"{stem}.{kind}" for stem in ("summary", "comparisons", "failures") for kind in ("csv", "tex")}
    costs = ("tflops", "training_memory", "inference_memory")
    curves = {f"{name}_over_{x}" for name in ("accuracy", *costs) for x in ("frames", "resolution")}
    against = {f"accuracy_against_{cost}" for cost in costs}
    pictures = {f"figures/{name}.{kind}" for name in curves | against for kind in ("png", "pdf")}
    rest = {"results.csv", "report.md", "report.html", RIGHT, LOG, "sweep.yaml"}
    assert names == tables | pictures | rest
    before = {path: path.read_bytes() for path in files}
    again = sweep_report(out)
    assert again.comparisons == report.comparisons
    changed = write_sweep_report(again, out, out)
    assert {path.name for path in files} - {path.name for path in changed} == {LOG, "sweep.yaml"}
    assert [path for path in changed if path.read_bytes() != before[path]] == []
    assert len(list(csv.DictReader((out / "results.csv").open()))) == len(load_results(out)) == 36
    stored, copied = ([json.loads(line) for line in (place / LOG).read_text().splitlines()] for place in (sweep, out))
    assert stored == copied


def test_markdown_and_page_say_what_was_found_and_escape_what_they_are_given(
    written: tuple[SweepReport, Path, list[Path]],
) -> None:
    report, out, _ = written
    text, page = (out / "report.md").read_text(), (out / "report.html").read_text()
    assert "35 runs finished, 1 failed (out_of_memory 1)." in text
    assert "Of 12 pairs compared under equal settings," in text
    assert "within noise" in text
    assert page.count("<script") == 1
    assert "alert('x')</script>" not in page + text
    assert "Content-Security-Policy" in page
    assert page.count('<table class="sortable">') == 3
    assert page.count("<figure>") == len(report.figures)
    best = max(report.summary.frame["measured_top1_percent"])
    assert f"Highest top-1 accuracy: {best:.1f} %" in text
    assert sum(line.startswith("Pareto front of accuracy over ") for line in report.findings) == 2


def test_latex_is_escaped_and_long_tables_run_over_pages() -> None:
    columns = (Column("name", "100% [a_b]", "label"), Column("x", "X", "measured", bounds=("low", "high")))
    frame = pd.DataFrame([{"name": "a&b_c\\d#${}~^<|>", "x": 1.0, "low": 0.5, "high": 1.5}])
    text = to_latex(Table(frame, columns, "50 % of x"), "t")
    assert r"100\% [a\_b] & X \\" in text
    assert (
        r"a\&b\_c\textbackslash{}d\#\$\{\}\textasciitilde{}\textasciicircum{}\textless{}\textbar{}\textgreater{}"
        in text
    )
    assert r"1.0 $\pm$ 0.5\textsuperscript{m} \\" in text
    assert r"\caption{50 \% of x. \textsuperscript{m}\,measured here" in text
    assert text.count(r"\begin{") == text.count(r"\end{") == 2
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\label{tab:t}")] == [1, 1, 1, 1]
    long = to_latex(Table(pd.concat([frame] * 60), columns, "long"), "t")
    assert long.count(r"\begin{longtable}{@{}lr@{}}") == long.count(r"\endhead") == 1
    assert long.count(r"a\&b") == 60


def test_tables_with_missing_values_and_small_numbers() -> None:
    columns = (
        Column("n", "N", "label", decimals=None),
        Column("p", "p", "label", decimals=4, least=1e-4),
        Column("x", "X", "predicted", bounds=("low", "high")),
        Column("word", "Word", "label"),
    )
    frame = pd.DataFrame(
        {
            "n": [1234567.0, 0.00001234],
            "p": [0.00001, 0.25],
            "x": [None, 2.0],
            "low": [None, None],
            "high": [None, 3.0],
            "word": ["a", "much longer than what is kept in one line"],
        }
    )
    table = Table(frame, columns, "c")
    assert to_markdown(table).splitlines()[2:4] == [
        "| 1.23457e+06 | &lt; 0.0001 | – | a |",
        "| 1.234e-05 | 0.2500 | 2.0<sup>e</sup> | much longer than what is kept in one line |",
    ]
    page = table_html(table)
    assert 'data-kind="number">p' in page
    assert 'data-kind="text">Word' in page
    assert '<td class="label short" data-value="1e-05">&lt; 0.0001</td>' in page
    assert '<td class="predicted">–</td>' in page
    assert '<td class="label">much longer' in page
    assert "estimated: predicted without running" in page
    assert '<p class="legend">' not in table_html(Table(frame, columns[:1], "c"))
    nasty = Table(pd.DataFrame([{"n": "a\x1b[31mb"}]), columns[:1], "c")
    assert "\x1b" not in str(list(to_rich(nasty).columns[0].cells))


def test_lines_differ_in_colour_marker_and_dashes() -> None:
    looks = [style(number) for number in range(21)]
    assert len({(look["color"], look["marker"], str(look["linestyle"])) for look in looks}) == 21
    for part in ("color", "marker", "linestyle"):
        assert len({str(look[part]) for look in looks[:7]}) == 7
    assert {look["color"] for look in looks} == set(COLOURS)


def test_figures_show_every_setting_with_units(written: tuple[SweepReport, Path, list[Path]]) -> None:
    made = written[0].figures
    for name, over in (("accuracy_over_frames", "frames"), ("accuracy_over_resolution", "height of a frame [pixels]")):
        panels = [axis for axis in made[name].axes if axis.get_visible()]
        assert [axis.get_xlabel() for axis in panels] == [over] * 2
        assert panels[0].get_ylabel() == "top-1 accuracy [%]"
        assert {len(axis.containers) for axis in panels} == {3}
    assert [axis.get_title() for axis in made["accuracy_over_frames"].axes] == ["image_size 16", "image_size 32"]
    legend = made["accuracy_over_frames"].legends[0]
    assert [text.get_text() for text in legend.get_texts()] == [title_of(scheme) for scheme in SCHEMES]
    panel = made["accuracy_against_tflops"].axes[0]
    points = {
        (x, y) for line in panel.lines if line.get_linestyle() == "None" for x, y in zip(*line.get_data(), strict=True)
    }
    assert len(points) == 12
    assert {to_hex(line.get_color()).upper() for line in panel.lines[:3]} <= set(COLOURS)
    assert panel.get_xlabel() == "TFLOPs, all views"
    assert "Pareto front" in [line.get_label() for line in panel.lines]
    memory = made["training_memory_over_frames"].axes[0]
    assert memory.get_ylabel() == "training peak memory [GiB]"
    assert (memory.get_yscale(), made["tflops_over_frames"].axes[0].get_yscale()) == ("log", "linear")
    assert made["accuracy_against_training_memory"].axes[0].get_xscale() == "log"


def test_pictures_with_a_palette_look_the_same(written: tuple[SweepReport, Path, list[Path]]) -> None:
    report, folder, _ = written
    for name, figure in report.figures.items():
        whole = png(figure)
        small = (folder / "figures" / f"{name}.png").read_bytes()
        assert small == with_palette(whole)
        assert len(small) < 0.6 * len(whole)
        pixels = [np.asarray(Image.open(BytesIO(each)).convert("RGB")).astype(int) for each in (whole, small)]
        assert abs(pixels[0] - pixels[1]).mean() < 0.2  # of 255


def test_many_panels_become_several_figures(tmp_path: Path) -> None:
    axes = {"model.attention": ["space", "axial"], "model.num_frames": [4, 8], "model.depth": [1, 2, 3, 4, 5, 6, 7]}

    def accuracy_alone(metrics: dict[str, Any]) -> None:
        percent = metrics["top1_percent"]
        metrics.clear()
        metrics["top1_percent"] = percent

    write_sweep(tmp_path, axes, scores=False, change=accuracy_alone)
    made = sweep_report(tmp_path).figures
    assert set(made) == {"accuracy_over_frames", "accuracy_over_frames_2"}
    assert len([axis for axis in made["accuracy_over_frames"].axes if axis.get_visible()]) == 6
    assert len(made["accuracy_over_frames_2"].axes) == 1


def test_figures_come_before_a_long_table(tmp_path: Path, written: tuple[SweepReport, Path, list[Path]]) -> None:
    def order(folder: Path) -> bool:
        page = (folder / "report.html").read_text()
        return page.index("<img") < page.index('<section id="summary">')

    assert not order(written[1])
    write_sweep(tmp_path / "long", {"model.num_frames": list(range(1, 62))}, scores=False)
    write_sweep_report(sweep_report(tmp_path / "long"), tmp_path / "long", tmp_path / "long")
    assert order(tmp_path / "long")


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


def test_the_front_is_what_no_other_beats() -> None:
    rows = pd.DataFrame({"cost": [3, 1, 2, 2, 4, 5], "accuracy": [70, 50, 60, 65, 70, float("nan")]})
    kept = front(rows, "cost", "accuracy")
    assert list(zip(kept["cost"], kept["accuracy"], strict=True)) == [(1, 50), (2, 65), (3, 70)]


def test_axes_where_no_sweep_says_what_they_are() -> None:
    results = load_results(RESULTS / "table1" / "full")
    axes = axes_of(results)
    assert axes.columns == ("model.attention", "data.probe", "model.num_frames")
    assert axes.compared == "model.attention"
    found = compare_all(results, axes, {})
    assert len(found) == 20
    assert {each.method for each in found} == {"seeds"}
    divided = next(e for e in found if e.setting["probe"] == "motion" and (e.first, e.second) == ("divided", "axial"))
    means = results[results["data.probe"] == "motion"].groupby("model.attention")["top1_percent"].mean()
    assert divided.sentence().startswith(
        f"probe motion, num_frames 8: divided {means['divided']:.1f} % and axial {means['axial']:.1f} %: difference "
        f"{signed(means['divided'] - means['axial'])} points"
    )
    assert divided.verdict == "within noise"


def test_axes_that_move_together_and_a_chosen_comparison(tmp_path: Path) -> None:
    axes: dict[str, list[Any]] = {
        "model.num_frames": [4, 8],
        "model.image_size": [16, 32],
        "recipe.batch_size": [4, 8],
        "recipe.lr": [0.1, 0.01],
        "model.position": ["space", None],
    }
    cells = jobs(axes, zip=[["model.image_size", "recipe.batch_size"]])
    for job in cells.values():
        write_cell(tmp_path, job, scores=False, change=lambda metrics: metrics.pop("tflops_total"))
    results = load_results(tmp_path)
    found = axes_of(results)
    assert [column.removeprefix("cell.") for column in found.columns] == [
        "model.num_frames",
        "model.image_size",
        "recipe.lr",
        "model.position",
    ]
    assert found.compared == "cell.model.position"
    assert follows(results, "cell.recipe.batch_size", ["cell.model.image_size"])
    assert axes_of(results, "recipe.lr").compared == "cell.recipe.lr"
    with pytest.raises(InputError, match=r"--compare model\.depth: the runs differ in model\.num_frames, "):
        axes_of(results, "model.depth")
    report = sweep_report(tmp_path, "recipe.lr")
    assert {each.first for each in report.comparisons} == {"0.01"}
    assert {each.setting["position"] for each in report.comparisons} == {"space", "none"}
    assert all(each.method == "none" and "one seed" in each.sentence() for each in report.comparisons)


def test_groups_are_in_the_order_of_numbers_and_of_words() -> None:
    frame = pd.DataFrame({"size": pd.array([10, 2, 10, None], dtype="Int64"), "word": ["b", "a", "a", "b"]})
    assert [key for key, _ in groups(frame, ["size", "word"])] == [(2, "a"), (10, "b"), (10, "a"), ("none", "b")]
    assert [len(rows) for _, rows in groups(frame, [])] == [4]
    assert [shown(value) for value in (True, np.bool_(False), 2.0, 0.5, "x", None)] == [
        "yes",
        "no",
        2,
        0.5,
        "x",
        "none",
    ]


def test_units_suit_the_sizes(tmp_path: Path) -> None:
    job = next(iter(jobs(SMALL).values()))
    small = {"params": 2000, "tflops_total": 0.002, "train_peak_memory_bytes": 2**25}
    small |= {"inference_peak_memory_bytes": 2**24}
    write_cell(tmp_path, job, change=lambda metrics: metrics.update(small))
    results = load_results(tmp_path)
    summary = summarise(results, axes_of(results))
    assert summary.metric(TRAINING).title == "Training [MiB]"  # type: ignore[union-attr]
    assert summary.metric(TFLOPS).axis == "GFLOPs, all views"  # type: ignore[union-attr]
    table = summary_table(summary, "c")
    titles = ["attention", "depth", "Top-1 [%]", "Params [k]", "GFLOPs", "Training [MiB]", "Inference [MiB]"]
    assert [column.title for column in table.columns] == titles
    shown_row = [text for text, _ in table.cells()[0]]
    assert "32.0" in shown_row
    assert "2.00" in shown_row
    assert digits(pd.Series([0.0, float("nan")]), TFLOPS) == 0
    accuracy = summary.frame.iloc[0]
    assert accuracy["measured_top1_low_percent"] == results.iloc[0]["top1_low_percent"]  # one seed: over videos
    assert summary.metric(ACCURACY) is not None


def test_costs_alone_and_failures_alone(tmp_path: Path) -> None:
    axes = {"model.attention": ["space", "joint"], "model.num_frames": [4, 8]}
    base = {"model": {**BASE["model"], "num_classes": 4}}
    cells = list(jobs(axes, base=base, measure=["macs"]).values())
    for job in cells:
        only = {"macs_per_view": 1000 * job.spec.model.num_frames, "views": 3}
        write_cell(tmp_path / "costs", job, scores=False, change=lambda m, new=only: (m.clear(), m.update(new)))  # type: ignore[misc]
    report = sweep_report(tmp_path / "costs")
    assert set(report.figures) == {"macs_over_frames"}
    assert report.comparisons == ()
    assert report.findings == ("4 runs finished, 0 failed.",)
    assert "comparisons" not in report.tables
    for job in cells:
        write_failure(tmp_path / "failures", job)
    failed = sweep_report(tmp_path / "failures")
    assert failed.findings == ("0 runs finished, 4 failed (error 4).",)
    assert failed.figures == {}
    write_sweep_report(failed, tmp_path / "failures", tmp_path / "failures")
    (tmp_path / LOG).write_text("")
    with pytest.raises(InputError, match="no run has finished or failed yet"):
        sweep_report(tmp_path / LOG)


def test_scores_that_contradict_their_record_are_an_error(tmp_path: Path) -> None:
    first, second, *_ = jobs(SMALL).values()
    write_cell(tmp_path, first)
    key = write_cell(tmp_path, second, change=lambda metrics: metrics.update(top1_percent=1.0))
    with pytest.raises(InputError, match=rf"{key}/scores\.parquet: .* its run's record says 1\.0000 %"):
        sweep_report(tmp_path)
    (tmp_path / key / "scores.parquet").write_text("broken")
    with pytest.raises(InputError, match=r"scores\.parquet: not a readable parquet file"):
        sweep_report(tmp_path)
    (tmp_path / key / "scores.parquet").unlink()
    (tmp_path / RIGHT).write_text("broken")
    with pytest.raises(InputError, match=r"right\.parquet: not a readable file of predictions"):
        sweep_report(tmp_path)


def test_two_runs_of_one_place_are_an_error(tmp_path: Path) -> None:
    for job in jobs({"model.attention": ["space"], "seed": [0]}).values():
        write_cell(tmp_path, job, scores=False)
    (record,) = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    twin = {**record, "hash": "f" * 16}
    other = {**record, "hash": "e" * 16, "seed": 1, "cell": {**record["cell"], "model.attention": "joint", "seed": 1}}
    with (tmp_path / LOG).open("a") as log:
        log.writelines(json.dumps(each) + "\n" for each in (twin, other))
    with pytest.raises(InputError, match="two runs with seed 0 do not differ in any axis"):
        sweep_report(tmp_path)


def test_several_heads_are_right_together(tmp_path: Path) -> None:
    from timesformer.evaluation.scores import write_scores

    job = next(iter(jobs(SMALL).values()))
    key = write_cell(tmp_path, job, change=lambda metrics: metrics.update(top1_percent=50.0))
    rows = {
        "path": ["a", "b"],
        "label": [[0, 1], [1, 1]],
        "prediction": [[0, 1], [1, 0]],
        "scores": [[1.0, 0.0, 0.0, 1.0]] * 2,
    }
    write_scores(tmp_path / key / "scores.parquet", pd.DataFrame(rows), {"heads": [2, 2]})
    assert read_right(tmp_path, load_results(tmp_path)) == {key: {"a": True, "b": False}}
