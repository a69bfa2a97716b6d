"""Quality of a random search after k draws, and width of the plateau of learning rates.

Best-of-k: the expected maximum of k draws of a search space (J. Dodge et al., Show Your Work, EMNLP 2019), with bands
that hold for all k at once (N. Lourie, K. Cho, H. He, Show Your Work with Confidence, NAACL 2024; the library `opda`).
The draws must be independent and from the same space: the bands do not hold for a grid.  They speak of the draws alone,
with the seeds and validation videos that each had.  Accuracies in percent.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from opda.nonparametric import EmpiricalDistribution
from scipy import special

from timesformer.errors import InputError

CONFIDENCE_PERCENT = 95.0
LEAST_PERCENT, MOST_PERCENT = 0.0, 100.0
PLATEAU_POINTS = 2.0


@dataclass(frozen=True)
class BestOf:
    """Expected best accuracy [percent] of k draws, k = 1 … n, with a band that holds for all k at once."""

    budgets: np.ndarray
    expected: np.ndarray
    low: np.ndarray
    high: np.ndarray


def best_of(accuracies: Sequence[float], percent: float = CONFIDENCE_PERCENT) -> BestOf:
    """Return the curve of a random search from the validation accuracies of its n draws, in any order.

    The expectation is the mean over all choices of k of the draws (unbiased).  Raises InputError for fewer than two
    draws and for accuracies that are not percent.
    """
    values = _percent(accuracies, "accuracies")
    if len(values) < 2:
        raise InputError(f"{len(values)} draws: expected at least 2")
    with warnings.catch_warnings():
        # Draws with equal accuracy only make the band hold more often than it says.
        warnings.filterwarnings("ignore", message="Duplicates detected", category=RuntimeWarning)
        below, point, above = EmpiricalDistribution.confidence_bands(
            values, percent / 100, a=LEAST_PERCENT, b=MOST_PERCENT, method="ld_equal_tailed", n_jobs=1
        )
    budgets = np.arange(1, len(values) + 1)
    # A higher distribution function is that of worse draws.
    return BestOf(
        budgets,
        np.asarray(point.u_tuning_curve(budgets)),
        np.asarray(above.average_tuning_curve(budgets)),
        np.asarray(below.average_tuning_curve(budgets)),
    )


def chosen_on_validation(validation: Sequence[float], test: Sequence[float]) -> np.ndarray:
    """Return the expected test accuracy of the draw that is best on validation among k, for k = 1 … n [percent].

    Mean over all choices of k of the draws; draws with equal validation accuracy share their test accuracy.  It has no
    band: the maximum is taken of another value than is reported.  Raises InputError where the two do not go together.
    """
    first, second = _percent(validation, "validation"), _percent(test, "test")
    if len(first) != len(second) or len(first) == 0:
        raise InputError(f"{len(first)} validation and {len(second)} test accuracies: expected as many, at least one")
    order = np.argsort(first, kind="stable")
    ranked, scores = first[order], second[order].copy()
    for value in np.unique(ranked):
        scores[ranked == value] = scores[ranked == value].mean()
    count = len(scores)
    ranks, budgets = np.arange(count), np.arange(1, count + 1)
    # The draw of rank r (from 0) is the best of k where the other k - 1 are among the r below it.
    weights = special.comb(ranks[None, :], budgets[:, None] - 1) / special.comb(count, budgets)[:, None]
    return np.asarray(weights @ scores)


@dataclass(frozen=True)
class Dominance:
    """Budgets k at which one search's band lies above the other's; both bands hold together at `percent`.

    difference: of the expected best accuracies [points], by budget.
    """

    budgets: np.ndarray
    difference: np.ndarray
    wins: tuple[int, ...]
    losses: tuple[int, ...]
    percent: float

    @property
    def at_every_budget(self) -> bool:
        """True if the first search is better for each k."""
        return len(self.wins) == len(self.budgets)

    def text(self, first: str, second: str) -> str:
        """Return the comparison in words."""
        most, said = len(self.budgets), []
        for better, other, places in ((first, second, self.wins), (second, first, self.losses)):
            if len(places) == most:
                return f"{better} beats {other} at every budget up to {most} draws"
            if places:
                said.append(f"{better} beats {other} at budgets {_ranges(places)} of {most}")
        return "; ".join(said) or f"the bands do not tell {first} and {second} apart at any budget up to {most} draws"


def compare(first: Sequence[float], second: Sequence[float], percent: float = CONFIDENCE_PERCENT) -> Dominance:
    """Compare two random searches with the same number of draws: validation accuracies, in any order [percent].

    Each band errs with half of what both may (Bonferroni), so paired draws are allowed.  Raises InputError for
    different numbers of draws.
    """
    if len(first) != len(second):
        raise InputError(f"{len(first)} and {len(second)} draws: expected an equal budget")
    one, other = (best_of(each, 100 - (100 - percent) / 2) for each in (first, second))
    wins, losses = (
        tuple(int(budget) for budget in one.budgets[low > high])
        for low, high in ((one.low, other.high), (other.low, one.high))
    )
    return Dominance(one.budgets, one.expected - other.expected, wins, losses, percent)


@dataclass(frozen=True)
class Plateau:
    """Accuracy over learning rate of one variant.

    learning_rates, accuracies: in order, equal rates averaged.  share: of the searched range on a logarithmic scale,
    where the accuracy, interpolated between neighbours, is within `points` of the best.
    """

    learning_rates: np.ndarray
    accuracies: np.ndarray
    best_learning_rate: float
    best: float
    share: float
    points: float


def plateau(
    learning_rates: Sequence[float],
    accuracies: Sequence[float],
    searched: tuple[float, float],
    points: float = PLATEAU_POINTS,
) -> Plateau:
    """Describe a search along the learning rate; searched: the ends of its range.

    Nothing is claimed beyond the outermost draws.  Other settings that were drawn too show as noise.  Raises InputError
    for rates outside the range, or not as many rates as accuracies.
    """
    low, high = searched
    values = _percent(accuracies, "accuracies")
    if not 0 < low < high:
        raise InputError(f"searched range {low:g} to {high:g}: expected two rates above 0 in order")
    if len(values) != len(learning_rates) or len(values) == 0:
        raise InputError(f"{len(learning_rates)} learning rates and {len(values)} accuracies: expected as many")
    if not points >= 0:
        raise InputError(f"points must not be negative, got {points}")
    for rate in learning_rates:
        if not low <= rate <= high:
            raise InputError(f"learning rate {rate:g}: expected {low:g} to {high:g}, the searched range")
    rates, places = np.unique(np.asarray(learning_rates, float), return_inverse=True)
    means = np.bincount(places, values) / np.bincount(places)
    best = int(np.argmax(means))
    level, width = means[best] - points, 0.0
    for left, right, start, end in zip(means[:-1], means[1:], rates[:-1], rates[1:], strict=True):
        width += np.log(end / start) * _share_above(left - level, right - level)
    return Plateau(rates, means, float(rates[best]), float(means[best]), float(width / np.log(high / low)), points)


def _share_above(left: float, right: float) -> float:
    """Return the share of a straight line between two heights that is not below 0."""
    if left >= 0 and right >= 0:
        return 1.0
    if left < 0 and right < 0:
        return 0.0
    return max(left, right) / abs(left - right)


def _percent(values: Sequence[float], field: str) -> np.ndarray:
    found = np.asarray(values, float)
    wrong = found[~((found >= LEAST_PERCENT) & (found <= MOST_PERCENT))]
    if len(wrong):
        raise InputError(f"{field}: {wrong[0]:g} is not a percentage (expected 0 to 100)")
    return found


def _ranges(places: tuple[int, ...]) -> str:
    """Return 1-3, 5 for 1, 2, 3, 5."""
    parts: list[list[int]] = []
    for place in places:
        if parts and place == parts[-1][-1] + 1:
            parts[-1].append(place)
        else:
            parts.append([place])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)
