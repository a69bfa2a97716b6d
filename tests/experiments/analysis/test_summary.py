"""What is said of a sweep's records: along which axes they differ, means over seeds, tests, which videos were right."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.experiments.sweep_records import (
    SCHEMES,
    SMALL,
    VIDEOS,
    jobs,
    right_answers,
    write_cell,
    write_example,
    write_failure,
)
from timesformer.errors import InputError
from timesformer.evaluation.scores import write_scores
from timesformer_experiments import load_results
from timesformer_experiments.analysis.axes import also_differ, axes_of, follows, groups, shown
from timesformer_experiments.analysis.comparisons import RIGHT, compare_all, read_right
from timesformer_experiments.analysis.figures import front
from timesformer_experiments.analysis.pairs import judged
from timesformer_experiments.analysis.report import sweep_report
from timesformer_experiments.analysis.statistics.estimators import crossed_mean
from timesformer_experiments.analysis.summary import digits, summarise, summary_table
from timesformer_experiments.cost.measures import ACCURACY, TFLOPS, TRAINING
from timesformer_experiments.records.log import LOG
from timesformer_experiments.report.statistics import signed

RESULTS = Path(__file__).parents[3] / "results"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 cells with scores, of which one has failed."""
    return write_example(tmp_path_factory.mktemp("sweep"))


def test_the_summary_has_means_and_intervals_over_seeds(sweep: Path) -> None:
    results = load_results(sweep)
    axes = axes_of(results)
    assert axes.columns == ("cell.model.attention", "cell.model.num_frames", "cell.model.image_size")
    assert axes.compared == "cell.model.attention"
    right = read_right(sweep, results)
    summary = summarise(results, axes, right)
    assert len(summary.frame) == 12
    assert list(summary.frame["attention"].unique()) == list(SCHEMES)
    row = summary.frame.iloc[0]
    runs = results[
        (results["model.attention"] == "space")
        & (results["model.num_frames"] == 4)
        & (results["model.image_height"] == 16)
    ]
    answers = {seed: right[key] for seed, key in zip(runs["seed"], runs["hash"], strict=True)}
    pairs = {name: f"{int(name[:3]) // 2}" for name in answers[0]}
    expected = crossed_mean(answers, pairs)  # all seeds have the same test videos; motion has them in pairs
    names = ("measured_top1_percent", "measured_top1_low_percent", "measured_top1_high_percent")
    assert [row[name] for name in names] == pytest.approx((expected.mean, *expected.interval()))  # type: ignore[misc]
    assert row["measured_top1_interval_over"] == "seeds and test videos"
    assert row["measured_top1_each_seed_percent"] == " ".join(f"{value:.1f}" for value in runs["top1_percent"])
    alone = summarise(results, axes).frame.iloc[0]
    assert alone["measured_top1_interval_over"] == "seeds alone"
    assert row["counted_params"] == 1_000_050
    assert (row["runs_done"], row["runs_failed"]) == (3, 0)
    last = summary.frame.iloc[-1]
    assert (last["runs_done"], last["runs_failed"]) == (2, 1)


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
    facts = first.to_dict()
    assert (first.seeds, facts["videos"], facts["groups"]) == ((0, 1, 2), VIDEOS, VIDEOS // 2)
    assert (first.spread.over, facts["design"]) == ("seeds and test videos", "crossed")
    wanted = {
        "model.attention": ["space", "divided"],
        "model.num_frames": [4],
        "model.image_size": [16],
        "seed": [0, 1, 2],
    }
    answers = [right_answers(job).mean() for job in jobs(wanted).values()]
    assert first.difference_points == pytest.approx(100 * (np.mean(answers[:3]) - np.mean(answers[3:])))
    assert first.verdict == "undecided"  # among twelve, with three seeds
    assert judged([first])[0].verdict == "divided is better"
    assert found[-1].seeds == (0, 1)  # axial's third seed has failed
    same = next(each for each in found if (each.first, each.second) == ("divided", "axial"))
    assert same.verdict == "undecided"
    assert "80 % power would have found" in same.sentence()


def test_axes_where_no_sweep_says_what_they_are() -> None:
    results = load_results(RESULTS / "table1" / "full")
    axes = axes_of(results)
    assert axes.columns == ("model.attention", "data.probe", "model.num_frames")
    assert axes.compared == "model.attention"
    found = compare_all(results, axes, {})
    assert len(found) == 20
    assert {each.spread.over for each in found} == {"seeds alone"}
    divided = next(e for e in found if e.setting["probe"] == "motion" and (e.first, e.second) == ("divided", "axial"))
    means = results[results["data.probe"] == "motion"].groupby("model.attention")["top1_percent"].mean()
    assert divided.sentence().startswith(
        f"probe motion, num_frames 8: divided {means['divided']:.1f} % and axial {means['axial']:.1f} %: difference "
        f"{signed(means['divided'] - means['axial'])} points"
    )
    assert divided.verdict == "undecided"


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
        write_cell(tmp_path, job, scores=False)
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
    compared = compare_all(results, axes_of(results, "recipe.lr"), {})
    assert {each.first for each in compared} == {"0.01"}
    assert {each.setting["position"] for each in compared} == {"space", "none"}
    assert all(each.verdict == "not tested" and "one seed" in each.sentence() for each in compared)


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


def test_the_front_is_what_no_other_beats() -> None:
    rows = pd.DataFrame({"cost": [3, 1, 2, 2, 4, 5], "accuracy": [70, 50, 60, 65, 70, float("nan")]})
    kept = front(rows, "cost", "accuracy")
    assert list(zip(kept["cost"], kept["accuracy"], strict=True)) == [(1, 50), (2, 65), (3, 70)]


def test_scores_that_contradict_their_record_are_an_error(tmp_path: Path) -> None:
    key = write_cell(
        tmp_path, next(iter(jobs(SMALL).values())), change=lambda metrics: metrics.update(top1_percent=1.0)
    )
    with pytest.raises(InputError, match=rf"{key}/scores\.parquet: .* its run's record says 1\.0000 %"):
        read_right(tmp_path, load_results(tmp_path))


def test_broken_scores_and_predictions_are_an_error(tmp_path: Path) -> None:
    key = write_cell(tmp_path, next(iter(jobs(SMALL).values())))
    (tmp_path / key / "scores.parquet").write_text("broken")
    with pytest.raises(InputError, match=r"scores\.parquet: expected a readable parquet file"):
        read_right(tmp_path, load_results(tmp_path))
    (tmp_path / key / "scores.parquet").unlink()
    (tmp_path / RIGHT).write_text("broken")
    with pytest.raises(InputError, match=r"right\.parquet: not a readable file of predictions"):
        read_right(tmp_path, load_results(tmp_path))


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


def test_what_differs_with_the_compared_field_is_named(tmp_path: Path) -> None:
    """Each scheme has its own learning rate: settings are not equal."""
    axes = {"model.attention": ["space", "divided"], "recipe.lr": [0.1, 0.01], "seed": [0, 1]}
    for job in jobs(axes, zip=[["model.attention", "recipe.lr"]]).values():
        write_cell(tmp_path / "zipped", job)
    results = load_results(tmp_path / "zipped")
    assert also_differ(results, axes_of(results)) == ["recipe.lr"]
    said = " ".join(sweep_report(tmp_path / "zipped").findings)
    assert "compared under settings that are equal but for recipe.lr: " in said
    for job in jobs(SMALL).values():
        write_cell(tmp_path / "crossed", job)
    results = load_results(tmp_path / "crossed")
    assert also_differ(results, axes_of(results)) == []
    assert "compared under equal settings: " in " ".join(sweep_report(tmp_path / "crossed").findings)


def test_trainings_that_diverged_count_as_failed_and_means_say_that_they_lack_them(tmp_path: Path) -> None:
    for number, job in enumerate(jobs({"model.attention": ["divided"], "seed": [0, 1, 2, 3]}).values()):
        noted = replace(job, notes={"failed_below_percent": 40.0})
        if number < 3:
            write_cell(tmp_path, noted)
        else:
            write_failure(tmp_path, noted, "loss of step 1", "diverged")
    report = sweep_report(tmp_path)
    said = " ".join(report.findings)
    assert "1 training diverged and has no accuracy: means, intervals and tests are over the others alone" in said
    assert report.summary.frame["measured_top1_two_humps"][0].startswith("1 of 4 below 40 % (1 diverged), median")
    assert "1 of 4 seeds fail (below 40 %, 1 diverged): 25 % of trainings (1 to 81 %)" in said
