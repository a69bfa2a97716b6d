"""Verdict on a claim: its direction, equivalence within a margin, or undecided with the number of seeds still needed.

Equivalence: two one-sided tests (D. J. Schuirmann, Journal of Pharmacokinetics and Biopharmaceutics 15, 1987): the
difference lies above -2 and below +2 points, each at 5 %.  The margin is the same for all claims.  Detectable
difference: the difference that the two-sided test would find with a power of 80 %, by the noncentral t distribution (J.
Cohen, Statistical Power Analysis, 2nd edition 1988).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from scipy import optimize, stats

from timesformer.errors import InputError
from timesformer_experiments.analysis.statistics.estimators import Estimate
from timesformer_experiments.analysis.statistics.weighted_t import matching_freedom

MARGIN_POINTS = 2.0
ALPHA = 0.05
POWER = 0.8
MOST_POINTS = 100.0
"""Largest possible difference of accuracies, in points."""
MOST_SEEDS = 1000
"""Largest number of seeds that is searched; beyond it no number is reported."""

Verdict = Literal["supported", "contradicted", "equivalent", "undecided", "settled by construction", "not run"]
Word = Verdict | Literal["these two models differ", "these two models are not told apart"]
Expected = Literal["more", "near"]
"""Kind of claim: "more", the first is better than the second; "near", the two are within the margin."""
DECIDED: tuple[Verdict, ...] = ("supported", "contradicted", "equivalent")
"""Verdicts found by measurement; claims that are settled by construction are counted separately."""


def equivalence_p(estimate: Estimate, margin: float = MARGIN_POINTS) -> float | None:
    """Return the larger p of the two one-sided tests against -margin and +margin points; None with one seed."""
    _require_margin(margin)
    above, not_below = estimate.above_p(-margin), estimate.above_p(margin)
    return None if above is None or not_below is None else max(above, 1 - not_below)


def beyond_margin_p(estimate: Estimate, margin: float = MARGIN_POINTS) -> float | None:
    """Return the p of a difference of at most the margin in size, both directions counted; None with one seed."""
    _require_margin(margin)
    above, not_below = estimate.above_p(margin), estimate.above_p(-margin)
    return None if above is None or not_below is None else min(1.0, 2 * min(above, 1 - not_below))


def direction_p(estimate: Estimate, expected: Expected, margin: float = MARGIN_POINTS) -> float | None:
    """Return the p that a claim's direction is judged by: of no difference, or where the claim is that the two are
    near, of none beyond the margin."""
    return estimate.p_value() if expected == "more" else beyond_margin_p(estimate, margin)


def smallest_difference(estimate: Estimate, alpha: float = ALPHA, power: float = POWER) -> float | None:
    """Return the difference [points] that a study with this error would find with this power; None with one seed."""
    if estimate.error is None:
        return None
    freedom = matching_freedom(alpha, estimate.seed_share, estimate.few, estimate.many)
    return estimate.error * _detectable(freedom, alpha, power)


def seeds_needed(
    estimate: Estimate, difference: float = MARGIN_POINTS, alpha: float = ALPHA, power: float = POWER
) -> int | None:
    """Return how many seeds in all would find a difference [points] with this power, the variances being as estimated.

    None with one seed, and where no number of seeds up to `MOST_SEEDS` does: in the crossed design the test videos
    themselves then vary too much.
    """
    _require_margin(difference)
    if estimate.error is None:
        return None
    if _detected(estimate, MOST_SEEDS, alpha, power) > difference:
        return None
    low, high = 1, MOST_SEEDS  # one seed never suffices
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _detected(estimate, middle, alpha, power) <= difference else (middle, high)
    return high


def _detected(estimate: Estimate, seeds: int, alpha: float, power: float) -> float:
    """Return the difference that this number of seeds detects."""
    assert estimate.error is not None
    square, scale = estimate.error**2, estimate.seeds / seeds
    videos = 0.0
    if estimate.design == "crossed" and not estimate.conditional and estimate.videos_variance is not None:
        videos = estimate.videos_variance / estimate.clusters
    elif estimate.conditional and not estimate.bound:
        videos = square * (1 - estimate.seed_share)
    of_seeds = max(square - videos, 0.0) * scale  # what is left of a seed's clusters shrinks with the seeds too
    total = of_seeds + videos
    share = of_seeds / total if total > 0 else 1.0
    few = float(seeds - 1)
    many = few if estimate.design == "nested" else estimate.many
    return math.sqrt(total) * _detectable(matching_freedom(alpha, share, few, many), alpha, power)


def _detectable(freedom: float, alpha: float, power: float) -> float:
    """Return the difference in standard errors that is found with this power."""
    limit = float(stats.t.isf(alpha / 2, freedom))

    def missing(difference: float) -> float:
        return float(stats.nct.sf(limit, freedom, difference)) - power

    return float(optimize.brentq(missing, 0.0, 3 * limit + 5))


@dataclass(frozen=True)
class Judgement:
    """Verdict on a claim, with the numbers behind it.

    interval: 95 %, for new seeds and test videos; points.  direction_p, equivalence_p: as they were judged, corrected
    for looks and family.  found_with_power: the smallest difference [points] that 80 % power would have found.
    more_seeds: still needed for a difference of the margin, None where no number of seeds is enough or it is decided;
    both suppose that the spread of the seeds is what these few show.
    nested: True if each seed has test videos of its own, so that more seeds bring more of them.
    bound: what settles it by construction.  margin: points within which two variants count as equal.
    """

    word: Word
    difference: float | None = None
    interval: tuple[float, float] | None = None
    seeds: int = 0
    direction_p: float | None = None
    equivalence_p: float | None = None
    found_with_power: float | None = None
    more_seeds: int | None = None
    nested: bool = False
    bound: str = ""
    margin: float = MARGIN_POINTS

    @property
    def decided(self) -> bool:
        """True if the measurements decide the claim."""
        return self.word in DECIDED

    @property
    def smallest_difference(self) -> float | None:
        """The difference that so many seeds find with 80 % power [points]; None where they find none, however large."""
        return None if self.found_with_power is None or self.found_with_power > MOST_POINTS else self.found_with_power

    def text(self) -> str:
        """Return the sentence for a table's reader."""
        if self.difference is None:
            return f"{self.word} ({self.bound})" if self.bound else self.word
        said = f"{self.word}: {_points(self.difference)} points"
        if self.interval is not None:
            said += f" ({_points(self.interval[0])} to {_points(self.interval[1])}), {self.seeds} seeds"
        tests = (("direction", self.direction_p), ("equivalence", self.equivalence_p))
        said += "".join(f", {name} {_p(value)}" for name, value in tests if value is not None)
        if self.word == "undecided" and self.found_with_power is not None:
            said += f"; {self.lacking()}"
        return f"{said} ({self.bound})" if self.bound else said

    def lacking(self) -> str:
        """Return what power there was and how many seeds are still needed; empty where it is decided or not run."""
        if self.found_with_power is None:
            return ""
        smallest = self.smallest_difference
        found = "no difference, however large" if smallest is None else f"{smallest:.1f} points"
        said = f"at this spread 80 % power would have found {found}, "
        if self.more_seeds is None:
            if self.nested:
                return f"{said}not even {MOST_SEEDS} seeds would find {self.margin:g}"
            return f"{said}no number of seeds would find {self.margin:g}: more test videos are needed"
        return f"{said}{self.more_seeds} more seed{'s' * (self.more_seeds != 1)} would find {self.margin:g}"


def judge(
    estimate: Estimate | None,
    direction: float | None,
    equivalence: float | None,
    *,
    expected: Expected = "more",
    bound: str = "",
    alpha: float = ALPHA,
    margin: float = MARGIN_POINTS,
) -> Judgement:
    """Return the word for a claim that the first of two variants is better, or that they are near.

    estimate: first minus second [points], None where it was not run.  direction, equivalence: p-values corrected for
    looks and family (`looks.decide`).  bound: of a claim that is settled by construction, what settles it; nothing
    measured changes that word.  alpha: level of the power that is reported.  margin: of the equivalence [points].

    Better: supported or contradicted by the direction; where equivalence holds, equivalent, whatever the direction.
    Near: supported by equivalence, contradicted by a difference beyond the margin (`direction_p`).
    """
    if bound:
        measured = None if estimate is None else estimate.mean
        return Judgement("settled by construction", measured, bound=bound, seeds=estimate.seeds if estimate else 0)
    if estimate is None:
        return Judgement("not run")
    if estimate.seeds == 1:
        p_value = estimate.videos_p()
        differ = p_value is not None and p_value <= ALPHA
        word: Word = "these two models differ" if differ else "these two models are not told apart"
        return Judgement(word, estimate.mean, seeds=1)
    word = _word(estimate.mean, direction, equivalence, expected)
    open_ = word == "undecided"
    needed = seeds_needed(estimate, margin, alpha=alpha) if open_ else None
    return Judgement(
        word=word,
        difference=estimate.mean,
        interval=estimate.interval(),
        seeds=estimate.seeds,
        direction_p=direction,
        equivalence_p=equivalence,
        found_with_power=smallest_difference(estimate, alpha) if open_ else None,
        more_seeds=None if needed is None else max(0, needed - estimate.seeds),
        nested=estimate.design == "nested",
        margin=margin,
    )


def _word(difference: float, direction: float | None, equivalence: float | None, expected: Expected) -> Verdict:
    directed = direction is not None and direction <= ALPHA
    if equivalence is not None and equivalence <= ALPHA:
        return "equivalent" if expected == "more" else "supported"
    if not directed:
        return "undecided"
    if expected == "near":
        return "contradicted"
    return "supported" if difference > 0 else "contradicted"


def _require_margin(margin: float) -> None:
    if not margin > 0:
        raise InputError(f"margin must be more than 0 points, got {margin}")


def _points(value: float) -> str:
    text = f"{value:+.1f}".replace("-", "−")
    return "0.0" if text in ("+0.0", "−0.0") else text


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"
