"""Intervals for new seeds and new test videos: against scipy, against written-out cases, and where nothing varies."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from timesformer.errors import InputError
from timesformer_experiments.analysis.statistics.estimators import (
    Estimate,
    Runs,
    cluster_means,
    crossed,
    crossed_difference,
    crossed_mean,
    mean_squares,
    nested,
    nested_difference,
    nested_mean,
)
from timesformer_experiments.analysis.statistics.weighted_t import critical, matching_freedom, one_sided_p, two_sided_p


def runs(*rows: str) -> dict[int, dict[str, float]]:
    """Return runs from a row a seed: + for a video that is right, - for one that is not."""
    return {seed: {f"v{i}": float(sign == "+") for i, sign in enumerate(row)} for seed, row in enumerate(rows)}


@given(st.floats(-40, 40), st.integers(1, 30))
def test_with_one_estimate_the_weighted_t_is_students(statistic: float, freedom: int) -> None:
    expected = stats.t.sf(statistic, freedom)
    assert float(one_sided_p(statistic, 1.0, freedom, 500)) == pytest.approx(expected, rel=1e-9)
    assert float(one_sided_p(statistic, 0.0, 2, freedom)) == pytest.approx(expected, rel=1e-9)
    assert float(critical(0.05, 1.0, freedom, 9)) == pytest.approx(stats.t.ppf(0.975, freedom))


@given(st.floats(0.01, 20), st.floats(0, 1), st.integers(1, 20), st.integers(20, 100_000))
def test_p_is_the_level_whose_critical_value_the_statistic_is(size: float, share: float, few: int, many: int) -> None:
    p_value = float(two_sided_p(size, share, few, many))
    assert 2 * stats.t.sf(size, many) * (1 - 1e-6) <= p_value <= 2 * stats.t.sf(size, few) * (1 + 1e-6)
    assert float(critical(p_value, share, few, many)) == pytest.approx(size, rel=1e-6)
    assert float(one_sided_p(-size, share, few, many)) == pytest.approx(1 - p_value / 2)
    assert float(two_sided_p(size * 1.1, share, few, many)) < p_value


def test_critical_value_by_hand() -> None:
    # 95 %: t of 2 degrees 4.302653, of 100 degrees 1.983972; three quarters of the first, one of the second
    assert float(critical(0.05, 0.75, 2, 100)) == pytest.approx(0.75 * 4.302653 + 0.25 * 1.983972, abs=1e-5)
    freedom = matching_freedom(0.05, 0.75, 2, 100)
    assert stats.t.ppf(0.975, freedom) == pytest.approx(0.75 * 4.302653 + 0.25 * 1.983972, abs=1e-5)


def test_weighted_t_works_element_by_element() -> None:
    size, share = np.array([[0.5, -2.0], [3.0, 8.0]]), np.array([[0.0, 0.3], [0.9, 1.0]])
    found = one_sided_p(size, share, 4, 200)
    alone = [float(one_sided_p(a, b, 4, 200)) for a, b in zip(size.ravel(), share.ravel(), strict=True)]
    assert found.ravel() == pytest.approx(alone)


def test_videos_that_belong_together_are_averaged() -> None:
    values = {"a0": 1.0, "a1": 0.0, "b0": 1.0}
    assert cluster_means(values, {"a0": "a", "a1": "a", "b0": "b"}) == {"a": 0.5, "b": 1.0}
    assert cluster_means(values) == values
    with pytest.raises(InputError, match="b0: no cluster"):
        cluster_means(values, {"a0": "a", "a1": "a"})


@given(st.lists(st.lists(st.floats(0, 100), min_size=2, max_size=6), min_size=2, max_size=6))
def test_nested_is_students_t_over_the_seeds(rows: list[list[float]]) -> None:
    points = [float(np.mean(row)) for row in rows]
    found = nested([np.array(row) for row in rows], limits=(-1e9, 1e9))
    assert found.mean == pytest.approx(np.mean(points), abs=1e-9)
    assert found.seeds == len(rows)
    interval = found.interval()
    assert interval is not None
    if np.var(points, ddof=1) > 1e-9:
        assert not found.bound
        expected = stats.t.interval(0.95, len(rows) - 1, loc=np.mean(points), scale=stats.sem(points))
        assert interval == pytest.approx(expected, rel=1e-6)
        assert found.p_value() == pytest.approx(stats.ttest_1samp(points, 0).pvalue, rel=1e-6)


def test_nested_variance_has_both_parts_by_hand() -> None:
    # seeds 50 and 75 %; within: values 0 100 0 100 (variance 3333.3), 100 100 100 0 (2500): mean 2916.7, over 4 729.2
    found = nested_mean(runs("-+-+", "+++-"))
    assert found.points == (50.0, 75.0)
    assert found.rest_variance == pytest.approx((10000 / 3 + 2500) / 2)
    assert found.seeds_variance == pytest.approx(max(0.0, 312.5 - (10000 / 3 + 2500) / 8))
    assert found.error == pytest.approx(math.sqrt(312.5 / 2))
    assert found.freedom == pytest.approx(1)
    assert found.videos_error == pytest.approx(math.sqrt((10000 / 3 + 2500) / 2 / 4 / 2))


@given(st.integers(2, 6), st.integers(6, 20), st.integers(0, 10_000))
def test_mean_squares_are_those_of_an_analysis_of_variance(seeds: int, videos: int, seed: int) -> None:
    table = np.random.default_rng(seed).normal(size=(seeds, videos))
    mean, of_seeds, of_videos, rest = (float(each[0]) for each in mean_squares(table[None]))
    total = ((table - table.mean()) ** 2).sum()
    parts = of_seeds * (seeds - 1) + of_videos * (videos - 1) + rest * (seeds - 1) * (videos - 1)
    assert parts == pytest.approx(total)
    assert of_seeds == pytest.approx(videos * np.var(table.mean(1), ddof=1))
    assert of_videos == pytest.approx(seeds * np.var(table.mean(0), ddof=1))
    found = crossed(table)
    assert found.mean == pytest.approx(mean)
    assert found.error == pytest.approx(math.sqrt((of_seeds + max(of_videos - rest, 0)) / table.size))


def test_crossed_parts_are_told_apart() -> None:
    random = np.random.default_rng(1)
    seeds, videos = random.normal(size=(4, 1)), random.normal(size=(1, 30))
    only_seeds, only_videos = crossed(np.repeat(seeds, 30, 1)), crossed(np.repeat(videos, 4, 0))
    assert only_seeds.p_value() == pytest.approx(stats.ttest_1samp(seeds[:, 0], 0).pvalue)
    assert only_videos.videos_p() == pytest.approx(stats.ttest_1samp(videos[0], 0).pvalue)
    both = crossed(seeds + videos)
    assert both.seeds_variance == pytest.approx(np.var(seeds, ddof=1))
    assert both.videos_variance == pytest.approx(np.var(videos, ddof=1))
    assert both.error == pytest.approx(math.sqrt(np.var(seeds, ddof=1) / 4 + np.var(videos, ddof=1) / 30))
    assert both.seed_share == pytest.approx(np.var(seeds, ddof=1) / 4 / both.error**2)
    assert both.freedom is not None
    assert 3 <= both.freedom <= 29


def test_one_seed_says_nothing_of_new_seeds() -> None:
    first, second = runs("++++++++--"), runs("++--------")
    for found in (nested_difference(first, second), crossed_difference(first, second)):
        assert (found.interval(), found.p_value(), found.above_p(0.0), found.freedom) == (None, None, None, None)
        expected = stats.ttest_1samp([0, 0, 1, 1, 1, 1, 1, 1, 0, 0], 0)
        assert found.videos_p() == pytest.approx(expected.pvalue)
        assert found.p_text() == "no p-value: one seed"
        assert found.remark() == "one seed says nothing of others"


@pytest.mark.parametrize("estimator", [nested_difference, crossed_difference])
def test_two_seeds_that_differ_by_the_same_do_not_give_p_0(estimator: Callable[[Runs, Runs], Estimate]) -> None:
    first, second = runs("++++++++--", "++++++++--"), runs("++++++----", "++++++----")
    found = estimator(first, second)
    assert found.points == (pytest.approx(20.0), pytest.approx(20.0))
    assert found.bound
    assert found.error == found.videos_error > 0
    # With the error that the test videos alone give, and one degree of freedom for two seeds.
    assert found.p_value() == pytest.approx(2 * stats.t.sf(20.0 / found.videos_error, 1))
    assert found.p_value() > 0.05
    assert found.p_text().startswith("p ≥ 0.")
    assert found.remark() == "the 2 seeds do not differ: the interval is that of the test videos alone"


def test_nothing_varies_at_all() -> None:
    always = nested_difference(runs("++++", "++++"), runs("----", "----"))
    assert always.mean == 100
    exact = 1 - 0.025 ** (1 / 8)  # none of eight videos differs: the share that could, by Clopper and Pearson
    assert always.error == pytest.approx(200 * exact / 1.96)
    assert always.p_value() == pytest.approx(2 * stats.t.sf(1.96 / (2 * exact), 1))
    never = crossed_difference(runs("++++++", "++++++"), runs("++++++", "++++++"))
    assert never.p_value() == 1
    low, high = never.interval() or (0, 0)
    assert low < 0 < high
    perfect = nested_mean(runs("++++", "++++"))
    low, high = perfect.interval() or (0, 0)
    assert 0 <= low < high == 100


@pytest.mark.parametrize("videos", [1, 2, 8, 64, 512])
def test_where_no_video_differs_the_interval_reaches_as_far_as_clopper_pearsons(videos: int) -> None:
    """All right: with many videos the exact lower end of the share, with few no nearer."""
    found = crossed_mean({0: {str(number): 1.0 for number in range(videos)}})
    exact = 100 * stats.beta.ppf(0.025, videos, 1)
    interval = found.videos_interval()
    if videos == 1:
        assert interval is None
        return
    assert interval is not None
    assert interval[0] <= exact + 1e-6
    assert interval[1] == 100
    if videos >= 64:
        assert interval[0] == pytest.approx(exact, rel=0.005)


def test_few_clusters_are_taken_as_given() -> None:
    table = np.array([[90.0, 50.0], [80.0, 44.0], [85.0, 46.0]])
    found = crossed(table)
    assert found.conditional
    assert found.seed_share == 1
    assert found.error == pytest.approx(stats.sem(table.mean(1)))
    assert found.remark() == "conditional on these 2 groups of test videos, too few to speak of others"
    assert crossed(np.random.default_rng(0).normal(size=(3, 6))).remark() == ""
    assert not crossed(np.random.default_rng(0).normal(size=(3, 6))).conditional


def test_videos_of_few_clusters_vary_within_them() -> None:
    """Two subjects with three and two videos, one seed: the error is that of the videos of these very subjects."""
    groups = {"v0": "a", "v1": "a", "v2": "a", "v3": "b", "v4": "b"}
    one = crossed_mean(runs("++-+-"), groups)
    assert one.mean == pytest.approx(100 * (2 / 3 + 1 / 2) / 2)
    variance = 100**2 * (2 / 3 + 1 / 2) / 3  # squared deviations of three and two videos, with three degrees of freedom
    error = math.sqrt(variance * (1 / 3 + 1 / 2) / 4)
    half = stats.t.ppf(0.975, 3) * error
    assert one.videos_interval() == pytest.approx((max(0, one.mean - half), min(100, one.mean + half)))
    assert one.conditional
    assert "conditional on these 2 groups of test videos" in one.remark()
    alone = crossed_mean(runs("++-+-"), dict.fromkeys(groups, "a"))
    assert alone.mean == pytest.approx(60)
    assert alone.videos_error == pytest.approx(100 * math.sqrt(0.3 / 5))
    assert alone.few_groups().startswith("conditional on this one group")


def test_new_seeds_on_few_clusters_have_the_error_of_their_videos_too() -> None:
    rows = runs("++-+-+", "+--+-+", "++++--")
    groups = {f"v{number}": "ab"[number // 3] for number in range(6)}
    found, apart = crossed_mean(rows, groups), crossed_mean(rows)
    assert (found.clusters, found.mean) == (2, pytest.approx(apart.mean))
    table = 100 * np.array([list(each.values()) for each in rows.values()])
    parts = [mean_squares(table[:, first : first + 3]) for first in (0, 3)]
    within, rest = (np.mean([float(part[place]) for part in parts]) for place in (2, 3))  # equal clusters
    of_seeds = 3 * table.mean(1).var(ddof=1) / 9  # the variance of the mean of three seeds
    expected = of_seeds + max(within - rest, 0) / 18
    assert found.error == pytest.approx(math.sqrt(expected))
    assert found.seed_share == pytest.approx(of_seeds / expected)
    assert (found.many, found.videos_freedom) == (4, 4)


def test_what_does_not_go_together_is_named() -> None:
    with pytest.raises(InputError, match="no seed in common"):
        nested_difference({0: {"a": 1.0}}, {1: {"a": 1.0}})
    with pytest.raises(InputError, match="seed 0: the two variants"):
        crossed_difference({0: {"a": 1.0}}, {0: {"b": 1.0}})
    with pytest.raises(InputError, match="seed 1: other test videos than seed 0"):
        crossed_mean({0: {"a": 1.0}, 1: {"b": 1.0}})
    with pytest.raises(InputError, match="without test videos"):
        nested_mean({0: {}})


@given(st.integers(0, 10_000))
def test_a_difference_changes_sign_with_its_order(seed: int) -> None:
    random = np.random.default_rng(seed)
    first, second = ({s: {f"v{i}": float(random.integers(2)) for i in range(12)} for s in range(3)} for _ in range(2))
    for estimator in (nested_difference, crossed_difference):
        one, other = estimator(first, second), estimator(second, first)
        assert one.mean == pytest.approx(-other.mean)
        assert one.p_value() == pytest.approx(other.p_value())
        assert one.above_p(1.0) == pytest.approx(1 - other.above_p(-1.0))
