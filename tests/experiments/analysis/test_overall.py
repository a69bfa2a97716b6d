"""One answer over all settings: its estimator by hand, how often its interval covers, and what a report says of it."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from tests.experiments.sweep_records import BASE, VIDEOS, jobs, right_answers, write_cell, write_failure, write_sweep
from timesformer.errors import InputError
from timesformer_experiments.analysis.overall import ESTIMATOR, UNIT
from timesformer_experiments.analysis.report import sweep_report, write_sweep_report
from timesformer_experiments.analysis.seeds import Seeds, averaged_difference, difference_of
from timesformer_experiments.analysis.statistics.estimators import cluster_means, crossed
from timesformer_experiments.analysis.statistics.stratified import averaged, common_block

OWN = {name: name for name in "abcdef"}


# The estimator


def test_videos_of_all_settings_have_their_mean() -> None:
    found = averaged([{"a": 1.0, "b": 0.0}, {"a": 0.0, "b": -1.0}, {"a": 1.0, "b": 0.0}], OWN)
    assert found == pytest.approx({"a": 2 / 3, "b": -1 / 3})


def test_settings_count_the_same_whatever_their_test_sets() -> None:
    """Other videos in each setting: the mean is that of the settings, the variance of it the strata's own."""
    one, other = {"a": 1.0, "b": 0.0}, {"c": 1.0, "d": 1.0, "e": 0.0, "f": -1.0}
    found = np.array(list(averaged([one, other], OWN).values()))
    assert found.mean() == pytest.approx((0.5 + 0.25) / 2)
    strata = [np.array(list(each.values())) for each in (one, other)]
    of_strata = sum(((each - each.mean()) ** 2).mean() / len(each) for each in strata) / 4
    assert ((found - found.mean()) ** 2).mean() / len(found) == pytest.approx(of_strata)


def test_settings_may_share_some_videos_and_videos_may_belong_together() -> None:
    settings = [{"a": 1.0, "b": 0.0, "c": 0.0}, {"b": 1.0, "c": -1.0, "d": 1.0}]
    together = {"a": "x", "b": "x", "c": "y", "d": "z"}
    means = [np.mean(list(cluster_means(each, together).values())) for each in settings]
    found = averaged(settings, together)
    assert np.mean(list(cluster_means(found, together).values())) == pytest.approx(np.mean(means))
    assert list(found) == ["a", "b", "c", "d"]
    for wrong in ([], [{}], [{"a": 1.0}, {}]):
        with pytest.raises(InputError, match="expected at least one of each"):
            averaged(wrong, OWN)


def test_seeds_that_all_settings_have() -> None:
    assert common_block([{0, 1, 2}, {0, 1, 2}]) == ([0, 1], [0, 1, 2])
    assert common_block([{0, 1, 2}, {1, 2}]) == ([0, 1], [1, 2])
    assert common_block([{0, 1, 2}, {0}, {0, 1, 2}]) == ([0, 2], [0, 1, 2])  # else one seed would be left
    assert common_block([{0, 1}, {2, 3}, {0, 1}]) == ([0, 2], [0, 1])
    assert common_block([{0, 1}, {2, 3}]) == ([0], [0, 1])
    assert common_block([{0}, {0, 1}]) == ([0, 1], [0])  # better one seed than one setting
    assert common_block([{0}, {0}, set()]) == ([0, 1], [0])
    assert common_block([]) == common_block([set()]) == ([], [])


def variant(right: np.ndarray, *, own: bool = False, together: int = 1) -> Seeds:
    """Of hits (seeds, videos); own: each seed has test videos of its own."""
    hits = {
        seed: {f"{seed if own else 0}:{place:02}": bool(hit) for place, hit in enumerate(row)}
        for seed, row in enumerate(right)
    }
    clusters = {name: f"{name[0]}:{int(name[2:]) // together}" for each in hits.values() for name in each}
    return Seeds({seed: 100 * float(row.mean()) for seed, row in enumerate(right)}, hits, clusters)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("together", [1, 3])
def test_one_setting_is_its_own_average(own: bool, together: int) -> None:
    random = np.random.default_rng(0)
    one, other = (variant(random.random((3, 24)) < share, own=own, together=together) for share in (0.8, 0.6))
    found, alone = averaged_difference([(one, other)]), difference_of(one, other)
    assert (found.mean, found.low, found.high, found.over) == pytest.approx(
        (alone.mean, alone.low, alone.high, alone.over)
    )
    assert found.estimate is not None
    assert alone.estimate is not None
    assert found.estimate.p_value() == pytest.approx(alone.estimate.p_value())


def test_the_unit_is_the_seed() -> None:
    """Test videos of each seed's own: Student's t over the seeds' averages, not over all pairs of runs."""
    random = np.random.default_rng(1)
    tables = random.random((4, 2, 3, 40)) < np.array([0.8, 0.6])[None, :, None, None]
    pairs = [(variant(one, own=True), variant(other, own=True)) for one, other in tables]
    found = averaged_difference(pairs)
    means = 100 * (tables[:, 0].astype(float) - tables[:, 1]).mean((0, 2))
    expected = stats.t.interval(0.95, 2, loc=means.mean(), scale=stats.sem(means))
    assert (found.low, found.high) == pytest.approx(expected)
    assert found.estimate is not None
    assert found.estimate.p_value() == pytest.approx(stats.ttest_1samp(means, 0).pvalue)
    assert found.over == "seeds and test videos"


def test_shared_test_videos_are_a_source_of_variance_too() -> None:
    random = np.random.default_rng(2)
    tables = random.random((3, 2, 4, 30)) < np.array([0.8, 0.6])[None, :, None, None]
    found = averaged_difference([(variant(one), variant(other)) for one, other in tables])
    expected = crossed(100 * (tables[:, 0].astype(float) - tables[:, 1]).mean(0))
    assert (found.mean, found.low, found.high) == pytest.approx((expected.mean, *(expected.interval() or ())))


def test_without_the_videos_it_is_over_seeds_alone() -> None:
    pairs = [
        (Seeds({0: 70.0 + 3 * number, 1: 72.0, 2: 74.0}), Seeds({0: 60.0, 1: 61.0, 2: 59.0})) for number in range(3)
    ]
    found = averaged_difference(pairs)
    assert (found.over, found.note) == ("seeds alone", "which test videos were right is not known")
    expected = stats.t.interval(0.95, 2, loc=(13 + 11 + 15) / 3, scale=stats.sem([13, 11, 15]))
    assert (found.low, found.high) == pytest.approx(expected)
    one = averaged_difference([(Seeds({0: 70.0}), Seeds({0: 60.0})), (Seeds({0: 80.0}), Seeds({0: 60.0}))])
    assert (one.mean, one.over) == (15, "nothing")
    for wrong in ([], [(Seeds({0: 1.0}), Seeds({1: 1.0}))], [(Seeds({}), Seeds({}))]):
        with pytest.raises(InputError, match="expected settings with the same seeds"):
            averaged_difference(wrong)


# How often the interval covers the true difference


def simulated(random: np.random.Generator, *, own: bool, spread: float, seeds: int = 3, settings: int = 4) -> Any:
    """Two equal variants: each seed has an effect in all settings and one in each, each video one for each variant."""
    shape = (settings, 2, seeds, 1)
    value = spread * random.standard_normal((1, 2, seeds, 1)) + 0.3 * random.standard_normal(shape)
    videos = 24
    of_video = random.standard_normal((1, 1, seeds if own else 1, videos))
    for_variant = 0.5 * random.standard_normal((1, 2, seeds if own else 1, videos))
    right = value + of_video + for_variant + random.standard_normal((settings, 2, seeds, videos)) > -0.5
    return [(variant(one, own=own), variant(other, own=own)) for one, other in right]


@pytest.mark.parametrize("own", [False, True], ids=["crossed", "nested"])
@pytest.mark.parametrize("spread", [0.0, 0.6])
def test_the_interval_covers_as_often_as_it_says(own: bool, spread: float) -> None:
    random, trials = np.random.default_rng(20260101), 150
    covered, as_if_independent = 0, 0
    for _ in range(trials):
        pairs = simulated(random, own=own, spread=spread)
        found = averaged_difference(pairs)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0 <= found.high
        every = [one.percent[seed] - other.percent[seed] for one, other in pairs for seed in one.percent]
        as_if_independent += stats.ttest_1samp(every, 0).pvalue >= 0.05
    # 95 % of 150 trials has a standard error of 1.8 points.
    assert 0.91 <= covered / trials < 1
    if spread:  # the pairs of runs are no sample of their own where seeds do the same in all settings
        assert as_if_independent / trials < 0.85


# The report


AXES: dict[str, list[Any]] = {
    "model.attention": ["space", "divided", "axial"],
    "model.num_frames": [4, 8],
    "model.image_size": [16, 32],
    "seed": [0, 1, 2],
}


def plain(metrics: dict[str, Any]) -> None:
    """Nothing to draw but accuracy."""
    for name in [name for name in metrics if not name.startswith("top1")]:
        del metrics[name]


def points_of(of: Callable[[Any], float], folder: Path, axes: dict[str, list[Any]]) -> None:
    """A sweep whose accuracies are given, without scores."""
    for job in jobs(axes).values():

        def change(metrics: dict[str, Any], percent: float = of(job.spec)) -> None:
            metrics.clear()
            metrics["top1_percent"] = percent

        write_cell(folder, job, scores=False, change=change)


def test_a_sweep_has_one_answer_for_each_pair_of_schemes(tmp_path: Path) -> None:
    cells = write_sweep(tmp_path / "sweep", AXES, change=plain)
    report = sweep_report(tmp_path / "sweep")
    assert [(each.pair.first, each.pair.second) for each in report.overall] == [
        ("space", "divided"),
        ("space", "axial"),
        ("divided", "axial"),
    ]
    first = report.overall[0]
    table = np.zeros((4, 3, VIDEOS))
    for job in cells.values():
        model, side = job.spec.model, {"space": 1, "divided": -1}.get(job.spec.model.attention, 0)
        place = 2 * (model.num_frames == 8) + (model.height_width[0] == 32)
        table[place, job.spec.seed or 0] += side * right_answers(job).astype(float)
    expected = crossed(100 * table.mean(0).reshape(3, VIDEOS // 2, 2).mean(2))  # a clip and its reversal are one
    assert first.pair.difference_points == pytest.approx(expected.mean)
    assert (first.pair.low_points, first.pair.high_points) == pytest.approx(expected.interval())
    assert first.points == pytest.approx(100 * table.mean((1, 2)))
    assert first.pair.first_percent - first.pair.second_percent == pytest.approx(expected.mean)
    assert first.pair.family == 3
    assert first.pooled == "num_frames 4 or 8, image_size 16 or 32"
    sentence = first.sentence()
    assert sentence.startswith("Over 4 settings (num_frames 4 or 8, image_size 16 or 32) and 3 seeds: space ")
    assert "divided is better" in sentence
    assert "among 3 comparisons" in sentence
    assert sentence + "." in report.findings

    files = write_sweep_report(report, tmp_path / "sweep", tmp_path / "out")
    assert {"overall.csv", "overall.tex"} <= {path.name for path in files}
    (row, *others) = csv.DictReader((tmp_path / "out" / "overall.csv").open())
    assert len(others) == 2
    assert float(row["measured_difference_points"]) == pytest.approx(expected.mean)
    assert (row["settings"], row["seeds"], row["unit"], row["estimator"]) == ("4", "3", UNIT, ESTIMATOR)
    assert float(row["measured_least_setting_points"]) == pytest.approx(min(first.points))
    text = (tmp_path / "out" / "report.md").read_text()
    assert f"- {sentence}" in text
    assert "unit: seed, averaged over the settings" in text
    assert '<section id="overall">' in (tmp_path / "out" / "report.html").read_text()
    shown = json.loads(json.dumps(report.to_dict(), allow_nan=False))["overall"][0]
    assert {name: shown[name] for name in ("first", "second", "unit", "verdict")} == {
        "first": "space",
        "second": "divided",
        "unit": UNIT,
        "verdict": "divided is better",
    }
    assert shown["direction_p"] < 0.05
    assert len(shown["settings"]) == 4
    assert shown["settings"][0] == {"num_frames": 4, "image_size": 16, "difference_points": first.points[0]}
    again = sweep_report(tmp_path / "out")
    assert [each.to_dict() for each in again.overall] == [each.to_dict() for each in report.overall]


def test_differences_that_are_undecided_one_by_one_are_found_together(tmp_path: Path) -> None:
    """Four settings of +13 to +22 points, three seeds, each setting within its noise."""

    def percent(spec: Any) -> float:
        place = 2 * (spec.model.num_frames == 8) + (spec.model.height_width[0] == 32)
        noise = [(-9, 0, 9), (9, -9, 0), (0, 9, -9), (8, 0, -8)][place][spec.seed]
        return 50.0 if spec.model.attention == "space" else 50 + (13, 16, 19, 22)[place] + noise + 0.5 * spec.seed

    points_of(percent, tmp_path, AXES | {"model.attention": ["divided", "space"]})
    report = sweep_report(tmp_path)
    assert {each.verdict for each in report.comparisons} == {"undecided"}
    (answer,) = report.overall
    assert answer.pair.difference_points == pytest.approx(18.0, abs=0.5)
    assert answer.verdict == "divided is better"
    assert "in the single settings 13.5 to 22.5 points" in answer.sentence()


def test_tasks_have_answers_of_their_own(tmp_path: Path) -> None:
    axes = {"model.attention": ["space", "divided"], "data.probe": ["motion", "appearance"]}
    points_of(lambda spec: 50.0 + spec.seed, tmp_path, axes | {"model.num_frames": [4, 8], "seed": [0, 1]})
    report = sweep_report(tmp_path)
    assert [each.pair.setting for each in report.overall] == [{"probe": "motion"}, {"probe": "appearance"}]
    assert {each.pooled for each in report.overall} == {"num_frames 4 or 8"}
    assert report.tables["overall"].frame["probe"].tolist() == ["motion", "appearance"]


def test_a_seed_that_failed_somewhere_is_left_out_and_named(tmp_path: Path) -> None:
    for number, job in enumerate(jobs(AXES).values()):
        if number:
            write_cell(tmp_path, job, change=plain)
        else:
            write_failure(tmp_path, job)
    answers = {(each.pair.first, each.pair.second): each for each in sweep_report(tmp_path).overall}
    assert answers["space", "divided"].pair.seeds == (1, 2)
    assert answers["space", "divided"].left_out == "seed 0 left out: not in all settings"
    assert answers["space", "divided"].sentence().endswith("seed 0 left out: not in all settings")
    assert answers["divided", "axial"].pair.seeds == (0, 1, 2)
    assert len(answers["space", "divided"].settings) == 4


def test_one_seed_gives_no_verdict_and_one_setting_no_second_answer(tmp_path: Path) -> None:
    write_sweep(tmp_path / "one", AXES | {"seed": [0]}, change=plain)
    answer = sweep_report(tmp_path / "one").overall[0]
    assert answer.to_dict()["direction_p"] is None
    assert answer.verdict in ("these models differ", "these models are not told apart")
    assert answer.sentence().count(answer.verdict) == 1
    write_sweep(tmp_path / "setting", {"model.attention": ["space", "divided"], "seed": [0, 1]}, change=plain)
    report = sweep_report(tmp_path / "setting")
    assert (report.overall, report.to_dict()["overall"]) == ((), [])
    assert "overall" not in report.tables
    assert len(report.comparisons) == 1
    costs = jobs({"model.attention": ["space", "divided"], "model.num_frames": [4, 8]},
                 base={"model": {**BASE["model"], "num_classes": 4}}, measure=["macs"])  # fmt: skip
    for job in costs.values():
        write_cell(tmp_path / "cost", job, scores=False,
                   change=lambda metrics: (metrics.clear(), metrics.update(macs_per_view=1, views=1)))  # type: ignore[arg-type,func-returns-value]  # fmt: skip
    assert sweep_report(tmp_path / "cost").overall == ()
