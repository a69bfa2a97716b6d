"""Seeds whose accuracies fall into two humps: some trainings fail, the others do not.

A mean with Student's t describes neither hump.  Reported instead: the share of failed seeds with its Clopper-Pearson
interval (C. J. Clopper, E. S. Pearson, Biometrika 26, 1934; scipy's `binomtest`), below a level that was registered
before the runs, and the median with an interval between order statistics (W. J. Conover, Practical Nonparametric
Statistics, 3rd edition 1999, section 3.2), which supposes nothing about the shape.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from timesformer.errors import InputError

CONFIDENCE_PERCENT = 95.0
MEDIAN_FROM_SEEDS = 6
"""With five seeds even their whole range covers the median in 93.75 % of cases only."""
MEAN_FROM_SEEDS = 20
"""With two humps no interval of a mean is given below."""


@dataclass(frozen=True)
class FailedShare:
    """Number of seeds below a level, and interval of the share of all trainings that would be below it [percent]."""

    failed: int
    seeds: int
    percent: float
    low: float
    high: float


@dataclass(frozen=True)
class Median:
    """Median over seeds with the narrowest symmetric interval of order statistics with sufficient coverage.

    It also has the coverage [percent].  With fewer than six seeds there is no interval.
    """

    seeds: int
    median: float
    low: float | None
    high: float | None
    covers_percent: float | None


@dataclass(frozen=True)
class Humps:
    """Accuracies of one variant's seeds [percent], judged by a registered level.

    two: True if seeds lie on both sides of the level.  mean, low, high: mean with Student's t interval over seeds; with
    two humps and fewer than 20 seeds there is no interval.  diverged: trainings without an accuracy among those that
    failed: below every level, and in the median; the mean leaves them out.
    """

    level: float
    two: bool
    failed: FailedShare
    median: Median
    mean: float
    low: float | None
    high: float | None
    diverged: int = 0

    @property
    def hides_the_mean(self) -> bool:
        """True if there are two humps and too few seeds for an interval of the mean."""
        return self.two and self.failed.seeds < MEAN_FROM_SEEDS

    def short(self) -> str | None:
        """Return the failed seeds for a table's cell; None where there are not two humps."""
        if not self.two:
            return None
        said = f"{self.failed.failed} of {self.failed.seeds} below {self.level:g} %"
        diverged = f" ({self.diverged} diverged)" if self.diverged else ""
        return f"{said}{diverged}, median {self.median.median:.1f} %"

    def text(self) -> str:
        """Return the description in words."""
        share = (
            f"{self.failed.failed} of {self.failed.seeds} seeds fail (below {self.level:g} %"
            f"{f', {self.diverged} diverged' if self.diverged else ''}): "
            f"{self.failed.percent:.0f} % of trainings ({self.failed.low:.0f} to {self.failed.high:.0f} %)"
        )
        median = f"median {self.median.median:.1f} %"
        if self.median.low is not None:
            median += f" ({self.median.low:.1f} to {self.median.high:.1f} %)"
        if self.low is not None:
            mean = f"mean {self.mean:.1f} % ({self.low:.1f} to {self.high:.1f} %)"
        else:
            mean = "no interval of the mean: too few seeds" + (" for two humps" if self.two else "")
        return "; ".join([share, median, mean] + ([] if self.two else [cannot_reveal(self.failed.seeds)]))


def failed_share(accuracies: Sequence[float], level: float, percent: float = CONFIDENCE_PERCENT) -> FailedShare:
    """Count the seeds below a level [percent] and bound the share of trainings that fail.

    Raises InputError without seeds.
    """
    _require_seeds(accuracies)
    failed, seeds = sum(each < level for each in accuracies), len(accuracies)
    ends = stats.binomtest(failed, seeds).proportion_ci(percent / 100, method="exact")
    return FailedShare(failed, seeds, 100 * failed / seeds, 100 * float(ends.low), 100 * float(ends.high))


def median_interval(accuracies: Sequence[float], percent: float = CONFIDENCE_PERCENT) -> Median:
    """Return the median with its interval: from the r-th smallest to the r-th largest value, r as large as the binomial
    distribution allows.

    Raises InputError without seeds.
    """
    _require_seeds(accuracies)
    ordered, seeds = sorted(map(float, accuracies)), len(accuracies)
    rank = 0
    while _covered(rank + 1, seeds) >= percent / 100:
        rank += 1
    median = float(np.median(ordered))
    if rank == 0 or seeds < MEDIAN_FROM_SEEDS:
        return Median(seeds, median, None, None, None)
    return Median(seeds, median, ordered[rank - 1], ordered[-rank], 100 * _covered(rank, seeds))


def _covered(rank: int, seeds: int) -> float:
    """Return how often the median lies between the rank-th smallest and largest of the seeds."""
    if 2 * rank > seeds:
        return 0.0
    return 1 - 2 * float(stats.binom.cdf(rank - 1, seeds, 0.5))


def humps(accuracies: Sequence[float], level: float, diverged: int = 0) -> Humps:
    """Describe the seeds of one variant [percent] by a level that was registered before they ran.

    diverged: trainings that have no accuracy.  Raises InputError without seeds.
    """
    every = [*accuracies, *[0.0] * diverged]
    failed, ended = failed_share(every, level), len(accuracies)
    two = 0 < failed.failed < failed.seeds
    values = np.asarray(accuracies, float)
    mean = float(values.mean()) if ended else 0.0
    low = high = None
    if ended >= 2 and (not two or failed.seeds >= MEAN_FROM_SEEDS):
        half = float(stats.t.ppf(0.5 + CONFIDENCE_PERCENT / 200, ended - 1) * values.std(ddof=1)) / math.sqrt(ended)
        low, high = mean - half, mean + half
    return Humps(level, two, failed, median_interval(every), mean, low, high, diverged)


def cannot_reveal(seeds: int) -> str:
    """Return the sentence on what so few seeds cannot show: a share of trainings that fail.

    Raises InputError for less than one seed.
    """
    if seeds < 1:
        raise InputError(f"seeds must be at least 1, got {seeds}")
    unseen = failed_share([0.0] * seeds, 0.0).high
    missed = 100 * 0.8**seeds
    return (
        f"{_number(seeds)} cannot reveal humps: if one training in five fails, {missed:.0f} % of such tables show no "
        f"failure, and none among {seeds} leaves a share of up to {unseen:.0f} % open"
    )


def _number(seeds: int) -> str:
    words = ("one seed", "two seeds", "three seeds", "four seeds", "five seeds", "six seeds", "seven seeds")
    return (words[seeds - 1] if seeds <= len(words) else f"{seeds} seeds").capitalize()


def _require_seeds(accuracies: Sequence[float]) -> None:
    if len(accuracies) == 0:
        raise InputError("no seeds: expected at least one accuracy")
