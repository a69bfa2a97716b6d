"""Looks, the correction for a family, and the states of claims: by hand, against Holm's method, and in general."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from timesformer.errors import InputError
from timesformer_experiments.analysis.statistics.looks import (
    ALPHA,
    LOOKS,
    Taken,
    corrected,
    decide,
    follow,
    looks_taken,
    over_looks,
)

P_VALUES = st.floats(0, 1)


def holm(p_values: list[float]) -> list[float]:
    """Return the p-values corrected as S. Holm has it: the smallest times their number, the next times one less, …"""
    found, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        highest = max(highest, min(1.0, p_values[place] * (len(p_values) - rank)))
        found[place] = highest
    return found


def test_the_looks_spend_5_percent() -> None:
    assert [(look.seeds, look.alpha) for look in LOOKS] == [(5, 0.005), (8, 0.01), (12, 0.015), (20, 0.02)]
    assert sum(look.alpha for look in LOOKS) == pytest.approx(ALPHA)


def test_looks_that_seeds_allow() -> None:
    assert looks_taken(4) == ()
    assert looks_taken(9) == LOOKS[:2]
    assert looks_taken(20, most_seeds=12) == LOOKS[:3]
    assert looks_taken(30) == LOOKS


def test_p_over_two_looks_by_hand() -> None:
    # 0.004 · 0.05 / 0.005 = 0.04; 0.006 · 0.05 / 0.01 = 0.03
    assert over_looks([0.004]) == pytest.approx(0.04)
    assert over_looks([0.004, 0.006]) == pytest.approx(0.03)
    assert over_looks([0.004, 0.9]) == pytest.approx(0.04)
    assert over_looks([None, 0.006]) == pytest.approx(0.03)
    assert over_looks([]) == over_looks([0.5]) == over_looks([None]) == 1
    with pytest.raises(InputError, match="at most 4"):
        over_looks([0.1] * 5)


@given(st.lists(P_VALUES, min_size=1, max_size=8))
def test_without_equivalence_it_is_holms_method(p_values: list[float]) -> None:
    values = np.array(p_values)
    direction, equivalence = corrected(values, np.full(len(values), np.nan), np.ones(len(values)))
    assert direction == pytest.approx(holm(p_values))
    assert (equivalence == 1).all()


def test_family_with_both_questions_by_hand() -> None:
    direction, equivalence = np.array([0.001, 0.02, 0.6]), np.array([0.9, 0.004, 0.012])
    beyond = np.array([0.008, 1.0, 1.0])
    # In order: 0.001 · 3; 0.004 · 3; beyond 0.008 · 3, by which the first claim counts no more; 0.012 · 2 = 0.024;
    # 0.02 · 2 = 0.04, by which the second is answered twice; 0.6 · 1; 0.9 · 1.
    found = corrected(direction, equivalence, beyond)
    assert found[0] == pytest.approx([0.003, 0.04, 0.6])
    assert found[1] == pytest.approx([0.9, 0.012, 0.024])


@given(st.lists(st.tuples(P_VALUES, P_VALUES, P_VALUES), min_size=1, max_size=6))
def test_correction_lies_between_holm_and_bonferroni(
    rows: list[tuple[float, float, float]],
) -> None:
    values = np.array(rows).T
    direction, equivalence = corrected(*values)
    for raw, found in ((values[0], direction), (values[1], equivalence)):
        assert (found >= raw - 1e-12).all()
        assert (found <= np.minimum(1, raw * len(rows)) + 1e-12).all()
        assert (np.diff(found[np.argsort(raw, kind="stable")]) >= 0).all()
    assert (direction >= np.array(holm(list(values[0])), float) - 1e-12).all()


def test_families_are_followed_side_by_side() -> None:
    random = np.random.default_rng(0)
    p_values = random.random((3, 50, 4, 4)) ** 3
    together = follow(*p_values)
    for trial in range(50):
        alone = follow(*p_values[:, trial])
        assert together.look[trial].tolist() == alone.look.tolist()
        assert together.direction_corrected[trial] == pytest.approx(alone.direction_corrected)
        assert together.equivalence_corrected[trial] == pytest.approx(alone.equivalence_corrected)


def test_decisions_at_two_looks_by_hand() -> None:
    claims = [
        Taken("early", "table", (0.0001, 0.9), (0.9, 0.0), seeds=8),  # 0.001 · 3
        Taken("late", "table", (0.004, 0.0008), (1.0, 1.0), seeds=8),  # 0.04, then 0.004; both · 3
        Taken("not run", "table"),
        Taken("other", "figure", (0.004,), None, seeds=7),  # 0.04 in a family of its own
        Taken("open", "second figure", (0.006,), (0.7,), seeds=7),  # 0.06
    ]
    early, late, missing, other, still_open = decide(claims)
    # A decided claim ignores later seeds: neither its 0.9 nor its equivalence at the second look counts.
    assert (early.decided_by, early.decided_at, early.more_seeds) == ("direction", 5, 0)
    assert (early.direction_p, early.equivalence_p) == pytest.approx((0.001, 1.0))
    assert (early.direction_corrected, late.direction_corrected) == pytest.approx((0.003, 0.012))
    assert (late.decided_by, late.decided_at) == ("direction", 8)
    assert (missing.decided_by, missing.direction_p, missing.more_seeds) == (None, 1.0, 5)
    assert (other.decided_by, other.decided_at, other.equivalence_corrected) == ("direction", 5, 1.0)
    assert (still_open.decided_by, still_open.decided_at, still_open.more_seeds) == (None, None, 1)


def test_both_questions_may_be_answered() -> None:
    (found,) = decide([Taken("near", "table", (0.001,), (0.002,), seeds=5)])
    assert (found.decided_by, found.direction_p, found.equivalence_p) == (
        "both",
        pytest.approx(0.01),
        pytest.approx(0.02),
    )
    (found,) = decide([Taken("near", "table", (0.9,), (0.002,), seeds=5)])
    assert found.decided_by == "equivalence"


def test_claims_end_at_their_registered_maximum() -> None:
    (found,) = decide([Taken("short", "table", (0.5, 0.5), (1.0, 1.0), seeds=9, most_seeds=8)])
    assert (found.decided_by, found.more_seeds) == (None, 0)
    (found,) = decide([Taken("long", "table", (0.5, 0.5), (1.0, 1.0), seeds=9)])
    assert found.more_seeds == 3


@given(st.lists(st.tuples(P_VALUES, P_VALUES), min_size=4, max_size=4), st.integers(0, 3))
def test_later_looks_change_nothing_of_a_decided_claim(values: list[tuple[float, float]], upto: int) -> None:
    def taken(count: int) -> Taken:
        part = values[:count]
        return Taken("a", "f", tuple(p for p, _ in part), tuple(q for _, q in part), seeds=LOOKS[count - 1].seeds)

    (before,), (after,) = decide([taken(upto + 1)]), decide([taken(4)])
    if before.decided_by is not None:
        assert after == before
    elif after.decided_at is not None:
        assert after.decided_at > LOOKS[upto].seeds


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(InputError, match=r"claim 'a': 1 p-values of direction, expected 2 \(looks that 8"):
        decide([Taken("a", "f", (0.1,), (0.1, 0.1), seeds=8)])
    with pytest.raises(InputError, match=r"beyond has p = 1\.5"):
        decide([Taken("a", "f", (0.1,), (0.1,), (1.5,), seeds=5)])
    with pytest.raises(InputError, match="claim 'a': twice in family 'f'"):
        decide([Taken("a", "f"), Taken("a", "f")])
