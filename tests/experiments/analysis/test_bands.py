"""Random searches: expectations by enumeration, bands that hold, and plateaus by hand."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timesformer.errors import InputError
from timesformer_experiments.analysis.statistics.bands import best_of, chosen_on_validation, compare, plateau

ACCURACIES = st.lists(st.floats(1, 99), min_size=2, max_size=6)


@settings(max_examples=20, deadline=None)
@given(ACCURACIES)
def test_expected_best_is_the_mean_over_all_choices(values: list[float]) -> None:
    found = best_of(values)
    for budget in found.budgets:
        expected = np.mean([max(each) for each in itertools.combinations(values, int(budget))])
        assert found.expected[budget - 1] == pytest.approx(expected)
    assert (found.low <= found.expected + 1e-9).all()
    assert (found.expected <= found.high + 1e-9).all()
    assert (np.diff(found.expected) >= -1e-9).all()
    assert (found.low >= 0).all()
    assert (found.high <= 100).all()


def test_bands_hold_at_all_budgets_at_once() -> None:
    random, inside, trials = np.random.default_rng(0), 0, 150
    budgets = np.arange(1, 9)
    truth = 60 + 30 * budgets / (budgets + 1)  # expected maximum of draws that are uniform from 60 to 90
    for _ in range(trials):
        found = best_of(random.uniform(60, 90, 8), percent=80)
        inside += bool(((found.low <= truth) & (truth <= found.high)).all())
    assert inside / trials >= 0.74  # 80 % are meant; 0.74 is two standard errors less


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 100)), min_size=1, max_size=6))
def test_test_accuracy_of_the_draw_chosen_on_validation(rows: list[tuple[int, float]]) -> None:
    validation, test = [float(each) for each, _ in rows], [each for _, each in rows]
    found = chosen_on_validation(validation, test)
    shared = [float(np.mean([b for a, b in rows if a == each])) for each, _ in rows]
    for budget in range(1, len(rows) + 1):
        picked = [max(each, key=lambda i: validation[i]) for each in itertools.combinations(range(len(rows)), budget)]
        assert found[budget - 1] == pytest.approx(np.mean([shared[i] for i in picked]))


def test_better_at_every_budget_is_said_only_where_the_bands_say_so() -> None:
    random = np.random.default_rng(0)
    good, poor = random.uniform(90, 95, 16), random.uniform(20, 60, 16)
    found = compare(good, poor)
    low, high = best_of(good, percent=97.5).low, best_of(poor, percent=97.5).high
    assert found.wins == tuple(k for k in range(1, 17) if low[k - 1] > high[k - 1]) == (2, 3)
    assert found.losses == ()
    assert not found.at_every_budget  # so few draws of the poor one do not exclude that it has good ones
    assert found.text("A", "B") == compare(poor, good).text("B", "A") == "A beats B at budgets 2-3 of 16"
    near = compare(good, good - 1)
    assert near.text("A", "B") == "the bands do not tell A and B apart at any budget up to 16 draws"
    assert near.difference == pytest.approx(np.ones(16))


def test_few_draws_never_win() -> None:
    found = compare([90.0, 91.0, 92.0, 93.0], [10.0, 11.0, 12.0, 13.0])
    assert not found.at_every_budget


def test_equal_accuracies_are_no_error(recwarn: pytest.WarningsRecorder) -> None:
    found = best_of([70.0, 70.0, 70.0, 80.0])
    assert found.expected.tolist() == pytest.approx([72.5, 75.0, 77.5, 80.0])
    assert len(recwarn) == 0


def test_plateau_by_hand() -> None:
    # Four decades searched.  From 1e-3 (90) the accuracy falls by 4 to 1e-2 and by 10 to 1e-4: within 2 points of the
    # best for half a decade above and a fifth of one below.
    found = plateau([1e-2, 1e-4, 1e-3, 1e-3], [86.0, 80.0, 89.0, 91.0], (1e-5, 1e-1))
    assert found.learning_rates.tolist() == [1e-4, 1e-3, 1e-2]
    assert found.accuracies.tolist() == [80.0, 90.0, 86.0]
    assert (found.best_learning_rate, found.best) == (1e-3, 90.0)
    assert found.share == pytest.approx((0.5 + 0.2) / 4)
    flat = plateau([1e-4, 1e-3], [90.0, 90.0], (1e-4, 1e-3))
    assert flat.share == pytest.approx(1)
    assert plateau([1e-3], [90.0], (1e-4, 1e-2)).share == 0


@given(st.lists(st.tuples(st.floats(-5, -1), st.floats(0, 100)), min_size=1, max_size=8), st.floats(0, 10))
def test_plateau_grows_with_what_is_allowed(rows: list[tuple[float, float]], points: float) -> None:
    rates, values = [10**each for each, _ in rows], [each for _, each in rows]
    searched = (1e-6, 1.0)
    less, more = (plateau(rates, values, searched, each).share for each in (points, points + 1))
    assert 0 <= less <= more + 1e-12
    width = np.log(max(rates) / min(rates)) / np.log(1e6)
    assert plateau(rates, values, searched, 100.0).share == pytest.approx(width)


def test_what_is_wrong_is_named() -> None:
    with pytest.raises(InputError, match="1 draws: expected at least 2"):
        best_of([50.0])
    with pytest.raises(InputError, match="accuracies: 101 is not a percentage"):
        best_of([50.0, 101.0])
    with pytest.raises(InputError, match="2 and 3 draws: expected an equal budget"):
        compare([1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(InputError, match="2 validation and 1 test"):
        chosen_on_validation([1.0, 2.0], [1.0])
    with pytest.raises(InputError, match=r"learning rate 1: expected 0\.001 to 0\.1"):
        plateau([1.0], [50.0], (1e-3, 1e-1))
    with pytest.raises(InputError, match="expected two rates above 0 in order"):
        plateau([1.0], [50.0], (1.0, 1e-1))
