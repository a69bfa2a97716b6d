"""Intervals and tests: against scipy, against written-out counts, and how often they err where nothing differs."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from timesformer_experiments.report.statistics import (
    Comparison,
    compare,
    corrected,
    crossed,
    exact_mcnemar,
    holm,
    mean_interval,
    p_text,
    permutation,
    signed,
    student,
)


def test_interval_over_seeds_is_students() -> None:
    values = [90.0, 92.0, 97.0]
    mean, low, high = mean_interval(values)
    expected = stats.t.interval(0.95, 2, loc=mean, scale=stats.sem(values))
    assert mean == pytest.approx(93.0)
    assert (low, high) == pytest.approx(expected)
    with pytest.raises(ValueError, match="at least two"):
        mean_interval([1.0])


def test_paired_t_is_scipys() -> None:
    first, second = np.array([90.0, 92.0, 97.0, 88.0]), np.array([85.0, 93.0, 90.0, 80.0])
    found, expected = student(list(first - second)), stats.ttest_rel(first, second)
    interval = expected.confidence_interval(0.95)
    assert found.p_value == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.freedom == 3


def test_one_seed_is_a_paired_t_over_videos() -> None:
    table = np.random.default_rng(0).integers(-1, 2, (1, 40))
    found, expected = crossed(table), stats.ttest_1samp(table[0], 0)
    assert found.p_value == pytest.approx(expected.pvalue)
    assert found.freedom == 39
    with pytest.raises(ValueError, match="at least two"):
        crossed(table[:, :1])


def test_the_variance_has_both_parts() -> None:
    random = np.random.default_rng(1)
    seeds, videos = random.normal(size=(4, 1)), random.normal(size=(1, 30))
    assert crossed(np.repeat(seeds, 30, 1)).p_value == pytest.approx(student(list(seeds[:, 0])).p_value)
    only_videos = crossed(np.repeat(videos, 4, 0))
    expected = stats.ttest_1samp(videos[0], 0)
    assert only_videos.p_value == pytest.approx(expected.pvalue)
    both = crossed(seeds + videos)
    parts = np.var(seeds, ddof=1) / 4 + np.var(videos, ddof=1) / 30
    half = (both.high - both.low) / 2
    assert half == pytest.approx(stats.t.ppf(0.975, both.freedom) * math.sqrt(parts))
    assert 3 <= both.freedom <= 32


def test_what_never_differs_is_no_difference() -> None:
    for shape in ((1, 5), (3, 5)):
        found = crossed(np.zeros(shape))
        assert (found.difference, found.low, found.high, found.p_value) == (0, 0, 0, 1)
    always = crossed(np.ones((2, 4)))
    assert (always.low, always.high, always.p_value) == (1, 1, 0)
    assert permutation(np.zeros((2, 3))) == 1
    assert exact_mcnemar(np.zeros(3)) == 1


@pytest.mark.parametrize(("seeds", "limit"), [(1, 0.08), (2, 0.13), (3, 0.09), (5, 0.08)])
@pytest.mark.parametrize(("of_seeds", "of_videos"), [(0.0, 0.3), (0.1, 0.2), (0.3, 0.1)])
def test_how_often_it_errs_where_nothing_differs(seeds: int, limit: float, of_seeds: float, of_videos: float) -> None:
    random = np.random.default_rng([seeds, int(100 * of_seeds)])
    if seeds == 1:
        of_seeds = 0.0  # one seed says nothing about others
    trials, videos, wrong = 1000, 100, 0
    for _ in range(trials):
        table = (
            of_seeds * random.standard_normal((seeds, 1))
            + of_videos * random.standard_normal((1, videos))
            + 0.5 * random.standard_normal((seeds, videos))
        )
        found = crossed(np.round(np.clip(table, -1, 1)))
        assert found.p_value is not None
        wrong += found.p_value < 0.05
    assert 0.005 < wrong / trials < limit


def test_a_real_difference_is_found() -> None:
    random = np.random.default_rng(0)
    table = np.round(
        np.clip(0.15 + 0.05 * random.standard_normal((3, 1)) + 0.5 * random.standard_normal((3, 256)), -1, 1)
    )
    found = crossed(table)
    assert found.p_value < 0.01 < found.low < found.difference < found.high
    assert permutation(np.round(np.clip(table, -1, 1))) < 0.001


def test_permutation_counts_all_exchanges_where_there_are_few() -> None:
    table = np.array([[1, 1, 0, 1, -1], [1, 0, 0, 1, 0]])
    sums = [2, 1, 2, -1]
    totals = [abs(sum(sign * value for sign, value in zip(signs, sums, strict=True)))
              for signs in itertools.product((1, -1), repeat=4)]  # fmt: skip
    assert permutation(table) == sum(total >= 4 for total in totals) / 16


def test_permutation_draws_are_keyed() -> None:
    table = np.random.default_rng(0).integers(-1, 2, (2, 200))
    assert permutation(table) == permutation(table.copy())
    assert permutation(table, seed=1) != permutation(table)
    assert permutation(table) == pytest.approx(stats.ttest_1samp(table.mean(0), 0).pvalue, abs=0.02)


def test_mcnemar_is_the_exact_binomial_test() -> None:
    row = np.array([1] * 8 + [-1] * 2 + [0] * 90)
    assert exact_mcnemar(row) == pytest.approx(2 * sum(math.comb(10, k) for k in (8, 9, 10)) / 2**10)


def test_holm_by_hand() -> None:
    assert holm([0.01, None, 0.04, 0.03, 0.005]) == pytest.approx([0.03, None, 0.06, 0.06, 0.02], nan_ok=True)
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_the_order_and_is_between_no_correction_and_bonferroni(values: list[float]) -> None:
    found = holm(values)
    for value, more in zip(values, found, strict=True):
        assert more is not None
        assert value <= more <= min(1.0, value * len(values)) + 1e-12
    ordered = [found[index] for index in sorted(range(len(values)), key=lambda i: values[i])]
    assert ordered == sorted(ordered)  # type: ignore[type-var]


def answers(*rows: str) -> dict[int, dict[str, bool]]:
    """A row a seed: + for right, - for wrong."""
    return {seed: {f"v{i}": sign == "+" for i, sign in enumerate(row)} for seed, row in enumerate(rows)}


def percent(right: dict[int, dict[str, bool]]) -> dict[int, float]:
    return {seed: 100 * sum(found.values()) / len(found) for seed, found in right.items()}


def test_compare_over_seeds_and_videos() -> None:
    first, second = answers("++++++++--", "+++++++---"), answers("+++-------", "++--------")
    found = compare(percent(first), percent(second), first, second, names=("a", "b"), setting={"frames": 8})
    assert (found.method, found.seeds, found.videos) == ("seeds and videos", (0, 1), 10)
    assert found.difference_points == pytest.approx(50)
    assert found.mcnemar_p == pytest.approx((2 / 2**5, 2 / 2**5))
    assert found.permutation_p == pytest.approx(2 / 2**6)
    assert found.verdict == "more than noise"
    assert found.sentence() == (
        f"frames 8: a 75.0 % and b 25.0 %: difference 50.0 points, 95 % interval {signed(found.low_points)} to "
        f"{signed(found.high_points)}, {p_text(found.p_value)}: more than noise"
    )
    assert found.to_dict()["verdict"] == "more than noise"


def test_compare_takes_what_there_is() -> None:
    first, second = answers("++-+", "+++-"), answers("+-+-", "-++-")
    over_seeds = compare(percent(first), percent(second))
    assert (over_seeds.method, over_seeds.note) == ("seeds", "no scores of videos")
    assert over_seeds.sentence().endswith("(over seeds only)")
    one = compare({0: 75.0}, {0: 50.0}, first, second)
    assert one.method == "videos"
    assert one.sentence().endswith("within noise (over videos only)")
    untested = compare({0: 75.0, 2: 1.0}, {0: 50.0, 3: 1.0})
    assert (untested.method, untested.p_value, untested.verdict) == ("none", None, "not tested")
    assert untested.sentence() == (
        "first 75.0 % and second 50.0 %: difference 25.0 points, not tested (one seed, and no scores of videos)"
    )
    other = {0: {"x": True, "y": False}}
    assert compare({0: 75.0}, {0: 50.0}, first, other).note == "one seed, and the videos are not the same"
    short = {0: {"x": True}}
    assert compare({0: 100.0}, {0: 100.0}, short, short).note == "one seed, and less than two videos"
    with pytest.raises(ValueError, match="no seed in common"):
        compare({0: 1.0}, {1: 1.0})


def test_a_verdict_is_unclear_where_only_the_correction_takes_it_away() -> None:
    def made(p_value: float | None) -> Comparison:
        return Comparison({}, "a", "b", (0, 1), None, 60.0, 50.0, 10.0, 1.0, 19.0, p_value, "seeds")

    found = corrected([made(0.001), made(0.03), made(0.04), made(0.5), made(None)])
    assert [each.verdict for each in found] == [
        "more than noise",
        "unclear",
        "unclear",
        "within noise",
        "not tested",
    ]
    assert [each.family for each in found] == [4] * 5
    assert found[1].sentence() == (
        "a 60.0 % and b 50.0 %: difference 10.0 points, 95 % interval 1.0 to 19.0, p = 0.03 (p = 0.09 for 4 "
        "comparisons): more than noise if this were the only comparison, within noise among all (over seeds only)"
    )


def test_numbers_in_sentences() -> None:
    assert [signed(value) for value in (-1.06, 1.71, -0.04)] == ["−1.1", "1.7", "0.0"]
    assert [p_text(value) for value in (0.0004, 0.0312, 0.05, 0.6)] == [
        "p < 0.001",
        "p = 0.031",
        "p = 0.05",
        "p = 0.60",
    ]
