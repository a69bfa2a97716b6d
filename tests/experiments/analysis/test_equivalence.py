"""Equivalence, power and the words of claims: against scipy, by hand, and for every case."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from timesformer.errors import InputError
from timesformer_experiments.analysis.statistics.equivalence import (
    beyond_margin_p,
    direction_p,
    equivalence_p,
    judge,
    seeds_needed,
    smallest_difference,
)
from timesformer_experiments.analysis.statistics.estimators import Estimate, crossed, nested


def seeds(*points: float) -> Estimate:
    """A nested estimate of seeds with these differences, each with four test videos around it."""
    return nested([np.array([point - 1, point + 1, point - 3, point + 3]) for point in points])


def test_two_one_sided_tests_are_scipys() -> None:
    points = [0.5, -0.4, 0.9, 0.1, -0.2]
    above = stats.ttest_1samp(points, -2.0, alternative="greater").pvalue
    below = stats.ttest_1samp(points, 2.0, alternative="less").pvalue
    found = seeds(*points)
    assert equivalence_p(found) == pytest.approx(max(above, below))
    assert beyond_margin_p(found) == 1
    # At 5 % this is the 90 % interval inside the margin.
    low, high = found.interval(90) or (0, 0)
    edge = max(abs(low), abs(high))
    assert equivalence_p(found, edge) == pytest.approx(0.05)


@given(st.lists(st.floats(-10, 10), min_size=3, max_size=8), st.floats(0.5, 5))
def test_equivalence_and_beyond_the_margin_exclude_each_other(points: list[float], margin: float) -> None:
    found = seeds(*points)
    near, far = equivalence_p(found, margin), beyond_margin_p(found, margin)
    assert near is not None
    assert far is not None
    assert max(near, far) > 0.5
    assert far >= (found.p_value() or 0) - 1e-12
    assert direction_p(found, "more") == found.p_value()
    assert direction_p(found, "near") == beyond_margin_p(found)


def test_smallest_difference_has_the_power_it_says() -> None:
    points = [1.0, -2.0, 0.5, 2.5, -1.0]
    found = smallest_difference(seeds(*points))
    assert found is not None
    error = stats.sem(points)
    limit = stats.t.ppf(0.975, 4)
    assert stats.nct.sf(limit, 4, found / error) == pytest.approx(0.8)
    # Simulated: of studies with that true difference four in five are significant.
    draws = np.random.default_rng(0).normal(found, error * math.sqrt(5), (20_000, 5))
    share = (stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05).mean()
    assert share == pytest.approx(0.8, abs=0.012)
    stricter = smallest_difference(seeds(*points), alpha=0.005)
    assert stricter is not None
    assert stricter > found


def test_seeds_needed_by_hand() -> None:
    # Standard deviation 2 points between seeds, difference of 2: one standard deviation, for which a paired t-test
    # with 80 % power needs 10 (Cohen's tables: d = 1).
    spread = 2 / math.sqrt(2.5)
    found = seeds(*(spread * each for each in (-2, -1, 0, 1, 2)))
    assert seeds_needed(found) == 10
    assert seeds_needed(found, difference=4.0) < 10
    assert seeds_needed(found, alpha=0.005) > 10


def test_no_number_of_seeds_replaces_test_videos() -> None:
    random = np.random.default_rng(0)
    videos = 40 * random.standard_normal((1, 50))
    table = videos + random.standard_normal((5, 1)) + random.standard_normal((5, 50))
    assert seeds_needed(crossed(table)) is None
    assert seeds_needed(crossed(table), difference=40.0) is not None


def test_words() -> None:
    better, worse = seeds(5.0, 6.0, 5.5, 4.5, 6.5), seeds(-5.0, -6.0, -5.5, -4.5, -6.5)
    assert judge(better, 0.01, 1.0).word == "supported"
    assert judge(worse, 0.01, 1.0).word == "contradicted"
    assert judge(better, 0.06, 1.0).word == "undecided"
    assert judge(seeds(0.5, 0.6, 0.4), 0.01, 0.01).word == "equivalent"
    assert judge(seeds(0.5, 0.6, 0.4), 0.9, 0.01).word == "equivalent"
    assert judge(seeds(0.5, 0.6, 0.4), 0.9, 0.01, expected="near").word == "supported"
    assert judge(better, 0.01, 1.0, expected="near").word == "contradicted"
    assert judge(better, None, None).word == "undecided"
    assert judge(None, None, None).word == "not run"
    assert [judge(each, 0.01, 1.0).decided for each in (better, worse, None)] == [True, True, False]


def test_both_p_values_are_printed() -> None:
    text = judge(seeds(0.5, 0.6, 0.4), 0.01, 0.0001).text()
    assert text == "equivalent: +0.5 points (+0.3 to +0.7), 3 seeds, direction p = 0.010, equivalence p < 0.001"


def test_undecided_says_what_is_missing() -> None:
    found = judge(seeds(1.0, -2.0, 0.5, 2.5, -1.0), 0.8, 0.4)
    assert not found.decided
    assert found.found_with_power == pytest.approx(smallest_difference(seeds(1.0, -2.0, 0.5, 2.5, -1.0)))
    needed = seeds_needed(seeds(1.0, -2.0, 0.5, 2.5, -1.0))
    assert needed is not None
    assert found.more_seeds == needed - 5
    assert found.smallest_difference == found.found_with_power
    wide = judge(seeds(90.0, -90.0), 0.9, 0.9)
    assert wide.found_with_power > 100
    assert wide.smallest_difference is None
    assert "80 % power would have found no difference, however large" in wide.text()
    assert found.text() == (
        "undecided: +0.2 points (−2.0 to +2.4), 5 seeds, direction p = 0.800, equivalence p = 0.400; "
        f"at this spread 80 % power would have found 2.9 points, {needed - 5} more seeds would find 2"
    )
    random = np.random.default_rng(0)
    table = 40 * random.standard_normal((1, 50)) + random.standard_normal((5, 50))
    assert "no number of seeds would find 2: more test videos are needed" in judge(crossed(table), 0.9, 0.9).text()


def test_what_is_settled_by_construction_is_not_a_finding() -> None:
    found = judge(seeds(50.0, 50.5), 0.0, 1.0, bound="order-blind models cannot pass 50 %")
    assert (found.word, found.decided) == ("settled by construction", False)
    assert found.text() == "settled by construction: +50.2 points (order-blind models cannot pass 50 %)"
    assert judge(None, None, None, bound="both have the same bound").word == "settled by construction"


def test_one_seed_gives_no_verdict() -> None:
    far, near = nested([np.array([5.0, 6.0, 5.5, 4.5])]), nested([np.array([5.0, -6.0, 5.5, -4.5])])
    assert judge(far, 0.001, 0.001).word == "these two models differ"
    assert judge(near, 0.001, 0.001).word == "these two models are not told apart"
    for found in (far, near):
        assert not judge(found, 0.001, 0.001).decided
        assert judge(found, 0.001, 0.001).interval is None
        assert (equivalence_p(found), beyond_margin_p(found)) == (None, None)
        assert (smallest_difference(found), seeds_needed(found)) == (None, None)


def test_margins_are_positive() -> None:
    for function in (equivalence_p, beyond_margin_p):
        with pytest.raises(InputError, match="more than 0 points, got 0"):
            function(seeds(1.0, 2.0), 0)
