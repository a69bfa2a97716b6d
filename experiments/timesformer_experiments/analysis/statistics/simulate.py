"""Simulation of the statistics of claims with simulated trainings: error rates, coverage and power.

    python -m timesformer_experiments.analysis.statistics.simulate --out results/simulation

writes simulation.csv and simulation.md: how often intervals cover, how wide they are, how often a family of claims has
a false positive over all looks, false equivalence, power, and what becomes of it where some trainings fail.  The
spreads between seeds are those of nine trainings on `motion` (joint 3.6, divided 0.6, local-global 0.8, axial 5.3
points).  The seed is fixed; the same versions of numpy and scipy give the same table.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from timesformer.files import write_atomic
from timesformer_experiments.analysis.statistics.equivalence import MARGIN_POINTS
from timesformer_experiments.analysis.statistics.estimators import mean_squares
from timesformer_experiments.analysis.statistics.humps import MEDIAN_FROM_SEEDS, failed_share, median_interval
from timesformer_experiments.analysis.statistics.looks import ALPHA, LOOKS, Course, follow
from timesformer_experiments.analysis.statistics.simulated_runs import (
    crossed_differences,
    crossed_right,
    humped,
    nested_accuracies,
    nested_differences,
)
from timesformer_experiments.analysis.statistics.simulation_table import Row, to_csv, to_markdown
from timesformer_experiments.analysis.statistics.weighted_t import critical, one_sided_p

TRIALS = 10_000
SEED = 20
MEAN_PERCENT = 85.0
SPREADS_POINTS = (0.6, 0.8, 3.6, 5.3)
SEEDS = (3, 5, 8, 12, 20)
FAMILIES = (1, 5, 10)
NESTED_VIDEOS, CROSSED_VIDEOS = 512, 256
FAILS, LOWER_POINTS = 2 / 9, 40.0
SMALL, LARGE = 0.8, 5.0
COVERAGE_GOAL = (93.0, 97.0)
ERRORS_GOAL = (0.0, 100 * ALPHA)
AT_LEAST = (95.0, 100.0)


@dataclass(frozen=True)
class Means:
    """Means of many studies with what their intervals need; arrays of one shape (see `estimators.Estimate`)."""

    mean: np.ndarray
    error: np.ndarray
    share: np.ndarray
    few: float
    many: float

    def half(self, level: float = ALPHA) -> np.ndarray:
        """Return half the width of the intervals."""
        return critical(level, self.share, self.few, self.many) * self.error

    def one_sided(self, value: float, least: float = LOOKS[-1].alpha) -> np.ndarray:
        """Return the one-sided p of a mean of at most `value`, 1 where it is above `least`, which no look spends."""
        statistic = (self.mean - value) / self.error
        small = statistic > critical(2 * least, self.share, self.few, self.many)
        found = np.ones(statistic.shape)
        found[small] = one_sided_p(statistic[small], self.share[small], self.few, self.many)
        return found

    def mirrored(self) -> Means:
        """Return the differences with opposite sign."""
        return replace(self, mean=-self.mean)

    def direction(self) -> np.ndarray:
        """Return the two-sided p of no difference, 1 where it is above what a look spends."""
        return self._either_side(0.0)

    def beyond(self) -> np.ndarray:
        """Return the two-sided p of none beyond the margin, 1 where it is above what a look spends."""
        return self._either_side(MARGIN_POINTS)

    def equivalence(self) -> np.ndarray:
        """Return the larger p of both one-sided tests, 1 where it is above what a look spends."""
        return np.maximum(self.one_sided(-MARGIN_POINTS), self.mirrored().one_sided(-MARGIN_POINTS))

    def _either_side(self, value: float) -> np.ndarray:
        return np.minimum(2 * np.minimum(self.one_sided(value), self.mirrored().one_sided(value)), 1.0)


def nested_means(points: np.ndarray) -> Means:
    """Return the nested estimates of studies (…, seeds)."""
    seeds = points.shape[-1]
    error = points.std(-1, ddof=1) / np.sqrt(seeds)
    return Means(points.mean(-1), np.maximum(error, 1e-9), np.ones(error.shape), seeds - 1.0, seeds - 1.0)


def _crossed_means(moments: Sequence[Sequence[np.ndarray]], seeds: int, videos: int = CROSSED_VIDEOS) -> Means:
    mean, of_seeds, of_videos, rest = (np.concatenate(each).astype(float) for each in zip(*moments, strict=True))
    square = np.maximum(of_seeds + np.maximum(of_videos - rest, 0.0), 1e-9)
    return Means(mean, np.sqrt(square / (seeds * videos)), of_seeds / square, seeds - 1.0, videos - 1.0)


def _at(tables: Iterable[np.ndarray], seeds: Sequence[int]) -> list[Means]:
    """Return the crossed estimates at each number of seeds, from tables that are drawn once."""
    moments: list[list[Sequence[np.ndarray]]] = [[] for _ in seeds]
    for table in tables:
        for found, count in zip(moments, seeds, strict=True):
            found.append(mean_squares(table[..., :count, :]))
    return [_crossed_means(found, count) for found, count in zip(moments, seeds, strict=True)]


def coverage(rng: np.random.Generator, trials: int) -> list[Row]:
    """Return how often the 95 % intervals cover the true mean and the true difference, and how wide they are."""
    rows = []
    no_difference = np.zeros(1)
    for spread in SPREADS_POINTS:
        nested = nested_accuracies(rng, trials, MEAN_PERCENT, spread, SEEDS[-1], NESTED_VIDEOS)
        paired = nested_differences(
            rng, trials, MEAN_PERCENT, no_difference, spread, SEEDS[-1], NESTED_VIDEOS, one_baseline=True
        )[:, 0]
        right = _at(crossed_right(rng, trials, MEAN_PERCENT, spread, SEEDS[-1], CROSSED_VIDEOS), SEEDS)
        tables = crossed_differences(rng, trials, MEAN_PERCENT, no_difference, spread, SEEDS[-1], CROSSED_VIDEOS)
        both = _at((each[:, 0] for each in tables), SEEDS)
        for place, seeds in enumerate(SEEDS):
            rows += [
                _covered("nested", "mean", spread, seeds, nested_means(nested[:, :seeds]), MEAN_PERCENT),
                _covered("nested", "difference", spread, seeds, nested_means(paired[:, :seeds]), 0.0),
                _covered("crossed", "mean", spread, seeds, right[place], MEAN_PERCENT),
                _covered("crossed", "difference", spread, seeds, both[place], 0.0),
                *_strict(spread, seeds, both[place]),
            ]
    return rows


def _covered(design: str, what: str, spread: float, seeds: int, means: Means, truth: float) -> Row:
    half = means.half()
    share = 100 * float((np.abs(means.mean - truth) <= half).mean())
    return Row(
        "coverage", f"{design}, {what}", spread, seeds, share, len(half), COVERAGE_GOAL, width=2 * float(half.mean())
    )


def _strict(spread: float, seeds: int, means: Means) -> list[Row]:
    """Return how often equal variants differ at the level of the first look, by the weighted t and by Satterthwaite."""
    single = 1 / (means.share**2 / means.few + (1 - means.share) ** 2 / means.many)
    rows, level = [], LOOKS[0].alpha
    for text, limit in (
        ("crossed, weighted t (in use)", critical(level, means.share, means.few, means.many)),
        ("crossed, Satterthwaite (not used)", stats.t.isf(level / 2, single)),
    ):
        wrong = 100 * float((np.abs(means.mean) > limit * means.error).mean())
        rows.append(Row("the level of the first look", text, spread, seeds, wrong, len(means.mean), None))
    return rows


def _looks(
    design: str, rng: np.random.Generator, trials: int, truth: np.ndarray, spread: float, *, one_baseline: bool = True
) -> list[Means]:
    """Return families of claims (trials, claims) with these true differences at each look."""
    seeds = [look.seeds for look in LOOKS]
    if design == "nested":
        points = nested_differences(
            rng, trials, MEAN_PERCENT, truth, spread, seeds[-1], NESTED_VIDEOS, one_baseline=one_baseline
        )
        return [nested_means(points[..., :count]) for count in seeds]
    tables = crossed_differences(rng, trials, MEAN_PERCENT, truth, spread, seeds[-1], CROSSED_VIDEOS)
    return _at(tables, seeds)


def _tests(looks: Sequence[Means], *, near: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the p-values of direction, equivalence and beyond; near: of claims that two are within the margin."""
    direction, equivalence, beyond = (
        np.stack([test(each) for each in looks], -1) for test in (Means.direction, Means.equivalence, Means.beyond)
    )
    return beyond if near else direction, equivalence, beyond


def _apart(direction: np.ndarray, equivalence: np.ndarray) -> Course:
    """Return the course under two separate Holm corrections, one for directions and one for equivalences."""
    unasked, unknown = np.full(direction.shape, np.nan), np.ones(direction.shape)
    first, second = follow(direction, unasked, unknown), follow(equivalence, unasked, unknown)
    return replace(first, equivalence_corrected=second.direction_corrected)


def families(rng: np.random.Generator, trials: int) -> list[Row]:
    """Return how often a family of claims has a false direction or a false equivalence over all looks."""
    rows = []
    for spread in SPREADS_POINTS:
        for claims in FAMILIES:
            null, part = np.zeros(claims), (claims + 1) // 2
            settings = [("nested", "all null", null, True)]
            if claims > 1:
                settings.append(("nested", "all null, each its baseline", null, False))
                for other in (MARGIN_POINTS, LARGE):
                    mixed = np.r_[null[:part], np.full(claims - part, other)]
                    settings.append(("nested", f"{part} null, {claims - part} at {other:g} points", mixed, True))
            settings.append(("nested", f"all at {MARGIN_POINTS:g} points", null + MARGIN_POINTS, True))
            settings.append(("crossed", "all null", null, True))
            for design, text, truth, one_baseline in settings:
                tests = _tests(_looks(design, rng, trials, truth, spread, one_baseline=one_baseline))
                rows += _errors(f"{design}, {text}", spread, truth, follow(*tests), _apart(*tests[:2]))
    return rows


def _errors(text: str, spread: float, truth: np.ndarray, course: Course, apart: Course) -> list[Row]:
    rows, trials, claims = [], len(course.look), len(truth)
    equal, far = truth == 0, np.abs(truth) >= MARGIN_POINTS

    def wrong(of: Course) -> tuple[np.ndarray, np.ndarray]:
        direction, equivalence = of.direction_corrected <= ALPHA, of.equivalence_corrected <= ALPHA
        return (direction & equal).any(-1), (equivalence & far).any(-1)

    def row(part: str, what: str, found: np.ndarray, goal: tuple[float, float] | None = ERRORS_GOAL) -> None:
        rows.append(Row(part, what, spread, None, 100 * float(found.mean()), trials, goal, claims))

    direction, equivalence = wrong(course)
    if equal.any():
        row("false direction in a family", text, direction)
    if far.any():
        row("false equivalence in a family", text, equivalence)
    if equal.any() and far.any():
        row("either in a family", text, direction | equivalence)
        row("either in a family", f"{text}, two corrections apart (not used)", np.logical_or(*wrong(apart)), None)
        found = (course.direction_corrected <= ALPHA) & (course.equivalence_corrected > ALPHA)
        row("directions found in a family", text, found[:, far], None)
    return rows


def power(rng: np.random.Generator, trials: int) -> list[Row]:
    """Return the outcomes of a single claim by its true difference, and the number of seeds that it takes."""
    rows = []
    for design in ("nested", "crossed"):
        for spread in SPREADS_POINTS:
            for difference in (0.0, 1.0, MARGIN_POINTS, 3.0, LARGE):
                looks = _looks(design, rng, trials, np.array([difference]), spread)
                course = follow(*_tests(looks))
                seeds = np.where(course.look < 0, LOOKS[-1].seeds, np.array([k.seeds for k in LOOKS])[course.look])
                equivalent = course.equivalence_corrected[:, 0] <= ALPHA
                directed = (course.direction_corrected[:, 0] <= ALPHA) & ~equivalent
                text = f"{design}, true difference {difference:g} points"
                used = float(seeds.mean())
                for word, found in (("direction", directed), ("equivalent", equivalent)):
                    share = 100 * float(found.mean())
                    rows.append(Row(f"power: {word}", text, spread, None, share, trials, None, 1, seeds_used=used))
    return rows


def failures(rng: np.random.Generator, trials: int) -> list[Row]:
    """Return what happens where two trainings of nine fail, 40 points below the others."""
    rows: list[Row] = []
    upper = nested_accuracies(rng, trials, MEAN_PERCENT, SMALL, 20, NESTED_VIDEOS)
    points = humped(rng, upper, FAILS, LOWER_POINTS)
    truth = MEAN_PERCENT - FAILS * LOWER_POINTS
    many = nested_accuracies(rng, 1, MEAN_PERCENT, SMALL, 10**6, NESTED_VIDEOS)
    median = float(np.median(humped(rng, many, FAILS, LOWER_POINTS)))
    level = MEAN_PERCENT - LOWER_POINTS / 2
    for seeds in (3, 5, 6, 9, 12, 20):
        part = points[:, :seeds]
        failed = (part < level).sum(1)
        rows.append(_humps("no seed fails: the humps are not seen", seeds, failed == 0))
        means = nested_means(part)
        shown = "given" if seeds >= 20 else "not given"
        inside = np.abs(means.mean - truth) <= means.half()
        rows.append(_humps(f"mean, Student's t ({shown} with two humps)", seeds, inside, 2 * means.half()))
        ends = [failed_share([0.0] * int(k) + [100.0] * int(seeds - k), 50.0) for k in range(seeds + 1)]
        low, high = np.array([each.low for each in ends])[failed], np.array([each.high for each in ends])[failed]
        covers = (low <= 100 * FAILS) & (high >= 100 * FAILS)
        rows.append(_humps("share of failed trainings, Clopper-Pearson", seeds, covers, high - low, AT_LEAST))
        if seeds >= MEDIAN_FROM_SEEDS:
            ranks = median_interval(range(seeds))  # the interval of ranks gives those of its ends
            assert ranks.low is not None
            assert ranks.high is not None
            bounds = np.sort(part, 1)[:, [int(ranks.low), int(ranks.high)]]
            covers = (bounds[:, 0] <= median) & (median <= bounds[:, 1])
            rows.append(_humps("median, order statistics", seeds, covers, bounds[:, 1] - bounds[:, 0], AT_LEAST))
    one, other = (humped(rng, each, FAILS, LOWER_POINTS) for each in (upper, upper[::-1]))
    both = one - other
    for seeds in SEEDS:
        means = nested_means(both[:, :seeds])
        covers = np.abs(means.mean) <= means.half()
        rows.append(_humps("difference of two equal variants, nested", seeds, covers, 2 * means.half()))
    looks = [nested_means(both[:, None, : look.seeds]) for look in LOOKS]
    course = follow(*_tests(looks))
    wrong = 100 * float((course.direction_corrected <= ALPHA).mean())
    text = "nested, two equal variants of which two trainings in nine fail"
    rows.append(Row("false direction in a family", text, SMALL, None, wrong, trials, ERRORS_GOAL, 1))
    return rows


def _humps(
    text: str,
    seeds: int,
    found: np.ndarray,
    width: np.ndarray | None = None,
    goal: tuple[float, float] | None = None,
) -> Row:
    mean = None if width is None else float(width.mean())
    return Row("two of nine fail", text, SMALL, seeds, 100 * float(found.mean()), len(found), goal, width=mean)


def near_claims(rng: np.random.Generator, trials: int) -> list[Row]:
    """Return how often a family of claims that two are near errs, all true differences being exactly the margin."""
    rows = []
    for spread in SPREADS_POINTS:
        for claims in FAMILIES:
            looks = _looks("nested", rng, trials, np.full(claims, MARGIN_POINTS), spread)
            course = follow(*_tests(looks, near=True))
            for word, p_values in (
                ("contradicted", course.direction_corrected),
                ("supported", course.equivalence_corrected),
            ):
                wrong = 100 * float((p_values <= ALPHA).any(-1).mean())
                rows.append(Row("near claims", f"nested, {word}", spread, None, wrong, trials, ERRORS_GOAL, claims))
    return rows


def stopping(rng: np.random.Generator, trials: int) -> list[Row]:
    """Return how often the interval that a claim is reported with covers, whose number of seeds follows from them."""
    rows = []
    for spread in SPREADS_POINTS:
        for claims in (1, 5):
            for difference in (0.0, 1.0, MARGIN_POINTS, 3.0, LARGE):
                looks = _looks("nested", rng, trials, np.full(claims, difference), spread)
                course = follow(*_tests(looks))
                at = np.where(course.look < 0, len(LOOKS) - 1, course.look)[..., None]
                means, halves = (
                    np.take_along_axis(np.stack(each, -1), at, -1)[..., 0]
                    for each in ([look.mean for look in looks], [look.half() for look in looks])
                )
                covers = 100 * float((np.abs(means - difference) <= halves).mean())
                text = f"nested, true difference {difference:g} points"
                width = float(2 * halves.mean())
                rows.append(
                    Row("coverage where the looks end", text, spread, None, covers, trials, None, claims, width)
                )
    return rows


Part = Callable[[np.random.Generator, int], list[Row]]
PARTS: tuple[Part, ...] = (coverage, families, power, failures, near_claims, stopping)
"""In the order of their streams of random numbers: a new one comes last."""


def simulate(trials: int = TRIALS, seed: int = SEED) -> pd.DataFrame:
    """Return the whole table.  Each part has its own stream of random numbers."""
    streams = np.random.default_rng(seed).spawn(len(PARTS))
    rows = [row for part, rng in zip(PARTS, streams, strict=True) for row in part(rng, trials)]
    return pd.DataFrame([row.to_dict() for row in rows])


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description="Simulate how the statistics of claims err, cover and find.")
    parser.add_argument("--out", type=Path, required=True, help="folder for simulation.csv and simulation.md")
    parser.add_argument("--trials", type=int, default=TRIALS)
    arguments = parser.parse_args()
    frame = simulate(arguments.trials)
    write_atomic(arguments.out / "simulation.csv", to_csv(frame))
    write_atomic(arguments.out / "simulation.md", to_markdown(frame, arguments.trials))


if __name__ == "__main__":
    main()
