"""Two humps: shares and medians against scipy and written-out binomials, and when no interval is given."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from timesformer.errors import InputError
from timesformer_experiments.analysis.statistics.humps import cannot_reveal, failed_share, humps, median_interval

NINE = [88.0, 87.0, 52.0, 89.0, 86.5, 45.0, 88.5, 87.5, 86.0]


def test_share_of_failed_seeds_is_clopper_pearsons() -> None:
    found = failed_share(NINE, 70.0)
    assert (found.failed, found.seeds, found.percent) == (2, 9, pytest.approx(200 / 9))
    # The ends are where two or fewer, or two or more, failures of nine have a probability of 2.5 %.
    assert stats.binom.cdf(2, 9, found.high / 100) == pytest.approx(0.025)
    assert stats.binom.sf(1, 9, found.low / 100) == pytest.approx(0.025)
    assert failed_share([90.0] * 4, 70.0).low == 0
    assert failed_share([70.0], 70.0).failed == 0


def test_median_by_hand() -> None:
    # Nine seeds: 2nd and 8th value cover 1 - 2 (1 + 9) / 512 = 96.1 %, 3rd and 7th 1 - 2 (1 + 9 + 36) / 512 = 82 %.
    found = median_interval(NINE)
    assert (found.median, found.low, found.high) == (87.0, 52.0, 88.5)
    assert found.covers_percent == pytest.approx(100 * (1 - 20 / 512))
    six = median_interval([3.0, 1.0, 2.0, 6.0, 5.0, 4.0])
    assert (six.median, six.low, six.high) == (3.5, 1.0, 6.0)
    assert six.covers_percent == pytest.approx(100 * (1 - 2 / 64))
    five = median_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (five.median, five.low, five.high, five.covers_percent) == (3.0, None, None, None)


@given(st.lists(st.floats(0, 100), min_size=6, max_size=60))
def test_median_interval_covers_enough_and_no_more_than_it_must(values: list[float]) -> None:
    found, count = median_interval(values), len(values)
    assert found.low is not None
    assert found.high is not None
    assert found.covers_percent is not None
    assert found.low <= found.median <= found.high
    assert found.covers_percent >= 95
    rank = next(
        r for r in range(1, count) if 100 * (1 - 2 * stats.binom.cdf(r - 1, count, 0.5)) == found.covers_percent
    )
    assert found.low == sorted(values)[rank - 1]
    assert 100 * (1 - 2 * sum(math.comb(count, k) for k in range(rank + 1)) / 2**count) < 95


def test_a_training_that_diverged_has_failed() -> None:
    found = humps([88.0, 87.0, 86.0, 89.0, 85.0], 70.0, diverged=1)
    assert (found.two, found.failed.failed, found.failed.seeds, found.low) == (True, 1, 6, None)
    assert found.failed.high == pytest.approx(failed_share([88.0] * 5 + [0.0], 70.0).high)
    assert (found.median.median, found.mean) == (86.5, 87.0)
    assert "1 of 6 seeds fail (below 70 %, 1 diverged)" in found.text()
    assert found.short() == "1 of 6 below 70 % (1 diverged), median 86.5 %"


def test_no_interval_of_a_mean_with_two_humps_below_20_seeds() -> None:
    found = humps(NINE, 70.0)
    assert found.two
    assert found.low is None
    assert "2 of 9 seeds fail (below 70 %): 22 % of trainings (3 to 60 %)" in found.text()
    assert "median 87.0 % (52.0 to 88.5 %)" in found.text()
    assert "too few seeds for two humps" in found.text()
    twenty = humps(NINE + [87.0] * 11, 70.0)
    expected = stats.t.interval(0.95, 19, loc=twenty.mean, scale=stats.sem(NINE + [87.0] * 11))
    assert (twenty.low, twenty.high) == pytest.approx(expected)


def test_one_hump_keeps_its_mean_and_says_what_is_not_seen() -> None:
    values = [88.0, 87.0, 89.0, 86.5, 88.5]
    found = humps(values, 70.0)
    assert not found.two
    assert (found.low, found.high) == pytest.approx(stats.t.interval(0.95, 4, loc=87.8, scale=stats.sem(values)))
    assert found.text().endswith(cannot_reveal(5))
    assert not humps([45.0, 50.0], 70.0).two
    assert humps([88.0], 70.0).low is None


def test_five_seeds_cannot_reveal_humps() -> None:
    # 0.8 to the fifth is 0.328; a share of 1 - 0.025^(1/5) = 0.522 shows itself in none of five in 2.5 % of cases.
    assert cannot_reveal(5) == (
        "Five seeds cannot reveal humps: if one training in five fails, 33 % of such tables show no failure, and none "
        "among 5 leaves a share of up to 52 % open"
    )
    assert cannot_reveal(12).startswith("12 seeds cannot reveal humps: if one training in five fails, 7 %")


def test_no_seeds() -> None:
    for function in (failed_share, humps):
        with pytest.raises(InputError, match="expected at least one accuracy"):
            function([], 70.0)
    with pytest.raises(InputError, match="at least 1, got 0"):
        cannot_reveal(0)
