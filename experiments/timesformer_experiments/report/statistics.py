"""Means over seeds with intervals, and tests between two schemes trained from the same seeds and tested on the same
videos.

The test uses a table with one row per seed and one column per video: 1 where only the first scheme is right, -1 where
only the second is, else 0.  Seeds and videos are both random samples.  Their variances are separated as in an analysis
of variance with two crossed random factors, and the mean of the table is tested by Student's t with Satterthwaite's
degrees of freedom (the quasi-F of H. H. Clark, The language-as-fixed-effect fallacy, 1973).  The interval therefore
holds over seeds and videos, not over one of them alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats

LEVEL_PERCENT = 95.0
SIGNIFICANCE = 0.05
PERMUTATIONS = 10_000

Method = Literal["seeds and videos", "videos", "seeds", "none"]
Verdict = Literal["within noise", "more than noise", "unclear", "not tested"]
IN_WORDS: dict[Verdict, str] = {
    "within noise": "within noise",
    "more than noise": "more than noise",
    "unclear": "more than noise if this were the only comparison, within noise among all",
    "not tested": "not tested",
}


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean and the ends of its 95 % interval, by Student's t over at least two values (seeds)."""
    # Not scipy's ttest_1samp: it rounds differently in the last bit, and published tables hold these values in full.
    count = len(values)
    if count < 2:
        raise ValueError(f"an interval over seeds needs at least two values, got {count}")
    mean = math.fsum(values) / count
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    half = _quantile(count - 1) * deviation / math.sqrt(count)
    return mean, mean - half, mean + half


def _quantile(freedom: float) -> float:
    return float(stats.t.ppf(0.5 + LEVEL_PERCENT / 200, freedom))


@dataclass(frozen=True)
class Estimate:
    """A mean difference in units of the input, with its 95 % interval and the two-sided p-value of no difference."""

    difference: float
    low: float | None
    high: float | None
    p_value: float | None
    freedom: float | None


def student(differences: Sequence[float]) -> Estimate:
    """Test the differences of at least two pairs with a paired t-test."""
    mean, _, _ = mean_interval(differences)
    return _judged(mean, float(np.var(differences, ddof=1)) / len(differences), len(differences) - 1)


def crossed(table: np.ndarray) -> Estimate:
    """Estimate the mean of a table (seeds, videos) of differences over both, or over videos alone for one seed.

    The variance of the mean is (S + V - R) / n for mean squares S of seeds, V of videos and R of the residual, but at
    least S / n and V / n, so that seeds that agree by chance do not make it small.  At a nominal level of 5 %, the rate
    of false positives is 2 to 7 % with three seeds or more, and up to 10 % with two (simulated in
    tests/experiments/report/test_statistics.py).
    """
    seeds, videos = table.shape
    if videos < 2:
        raise ValueError(f"an interval over videos needs at least two, got {videos}")
    mean = float(table.mean())
    of_seeds, of_videos = table.mean(1), table.mean(0)
    mean_square_videos = seeds * float(((of_videos - mean) ** 2).sum()) / (videos - 1)
    if seeds == 1:
        return _judged(mean, mean_square_videos / videos, videos - 1)
    mean_square_seeds = videos * float(((of_seeds - mean) ** 2).sum()) / (seeds - 1)
    left = table - of_seeds[:, None] - of_videos[None, :] + mean
    rest = float((left**2).sum()) / ((seeds - 1) * (videos - 1))
    parts = (mean_square_seeds, mean_square_videos, -rest)
    freedoms = (seeds - 1, videos - 1, (seeds - 1) * (videos - 1))
    square = max(sum(parts), mean_square_seeds, mean_square_videos)
    if square <= 0:
        return _judged(mean, 0.0, seeds - 1)
    freedom = square**2 / sum(part**2 / each for part, each in zip(parts, freedoms, strict=True))
    return _judged(mean, square / table.size, max(freedom, seeds - 1))


def _judged(mean: float, variance: float, freedom: float) -> Estimate:
    """Return the estimate for a mean; variance: variance of the mean."""
    if variance <= 0:  # all pairs have the same difference
        return Estimate(mean, mean, mean, 1.0 if mean == 0 else 0.0, freedom)
    error = math.sqrt(variance)
    half = _quantile(freedom) * error
    p_value = float(2 * stats.t.sf(abs(mean) / error, freedom))
    return Estimate(mean, mean - half, mean + half, p_value, freedom)


def exact_mcnemar(table: np.ndarray) -> float:
    """Return the exact p-value of McNemar's test for one seed's differences (videos,)."""
    first, second = int((table > 0).sum()), int((table < 0).sum())
    if first + second == 0:
        return 1.0
    return float(stats.binomtest(first, first + second, 0.5).pvalue)


def permutation(table: np.ndarray, seed: int = 0) -> float:
    """Return the permutation p-value of the mean of a table (seeds, videos), for these trained models.

    On each video the two schemes are exchanged at random, in all seeds together; the p-value is the share of exchanges
    whose mean is at least as far from 0.  There are `PERMUTATIONS` random draws, or all exchanges if those are fewer.
    seed: random seed of the draws.
    """
    sums = table.sum(0)
    sums = np.abs(sums[sums != 0]).astype(np.float64)
    observed = abs(float(table.sum()))
    if len(sums) == 0:
        return 1.0
    if 2 ** len(sums) <= PERMUTATIONS:
        bits = (np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums))) & 1
        drawn = np.abs((1 - 2 * bits) @ sums)
        return float((drawn >= observed - 1e-9).mean())
    random = np.random.default_rng(seed)
    hits = 0
    for count in _chunks(PERMUTATIONS, 1000):
        signs = random.integers(0, 2, (count, len(sums)), dtype=np.int8).astype(np.float64)
        hits += int((np.abs((1 - 2 * signs) @ sums) >= observed - 1e-9).sum())
    return (hits + 1) / (PERMUTATIONS + 1)


def _chunks(total: int, size: int) -> list[int]:
    return [min(size, total - done) for done in range(0, total, size)]


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Correct p-values for their number by Holm's method; None values are not counted."""
    order = sorted((value, index) for index, value in enumerate(p_values) if value is not None)
    found: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (value, index) in enumerate(order):
        highest = max(highest, min(1.0, value * (len(order) - rank)))
        found[index] = highest
    return found


@dataclass(frozen=True)
class Comparison:
    """Comparison of two schemes under otherwise equal settings.

    first_percent, second_percent: means over the common seeds; difference_points: first minus second, with interval.
    p_value: by `method` (see `compare`); p_holm: corrected for the number of comparisons, `family`.
    permutation_p: see `permutation`; mcnemar_p: one for each seed, see `exact_mcnemar`; both empty without scores of
    videos.  note: reason why something could not be tested.
    """

    setting: dict[str, Any]
    first: str
    second: str
    seeds: tuple[int, ...]
    videos: int | None
    first_percent: float
    second_percent: float
    difference_points: float
    low_points: float | None
    high_points: float | None
    p_value: float | None
    method: Method
    permutation_p: float | None = None
    mcnemar_p: tuple[float, ...] = ()
    p_holm: float | None = None
    family: int = 1
    note: str = ""

    @property
    def verdict(self) -> Verdict:
        """Verdict on the difference; "unclear" if it is significant only without correction for other comparisons."""
        if self.p_value is None:
            return "not tested"
        if self.p_value >= SIGNIFICANCE:
            return "within noise"
        return "more than noise" if self.p_holm is None or self.p_holm < SIGNIFICANCE else "unclear"

    def sentence(self) -> str:
        """Return the result as a sentence."""
        where = ", ".join(f"{name} {value}" for name, value in self.setting.items())
        start = f"{where}: " if where else ""
        start += f"{self.first} {self.first_percent:.1f} % and {self.second} {self.second_percent:.1f} %: "
        start += f"difference {signed(self.difference_points)} points"
        if self.p_value is None:
            return f"{start}, not tested ({self.note})"
        assert self.low_points is not None
        assert self.high_points is not None
        said = f"{start}, 95 % interval {signed(self.low_points)} to {signed(self.high_points)}, {p_text(self.p_value)}"
        if self.p_holm is not None and self.family > 1:
            said += f" ({p_text(self.p_holm)} for {self.family} comparisons)"
        over = f" (over {self.method} only)" if self.method in ("videos", "seeds") else ""
        return f"{said}: {IN_WORDS[self.verdict]}{over}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, with the verdict."""
        return asdict(self) | {"verdict": self.verdict}


def signed(value: float) -> str:
    """Format with one decimal and a typographic minus sign; values that round to zero have no sign."""
    text = f"{value:.1f}"
    return "0.0" if text == "-0.0" else text.replace("-", "−")


def p_text(value: float) -> str:
    """Format a p-value as in p = 0.6, p = 0.03, p < 0.001."""
    if value < 0.001:
        return "p < 0.001"
    return f"p = {value:.2f}" if value >= 0.1 else f"p = {value:.3f}".rstrip("0")


def compare(
    first: Mapping[int, float],
    second: Mapping[int, float],
    right_first: Mapping[int, Mapping[str, bool]] | None = None,
    right_second: Mapping[int, Mapping[str, bool]] | None = None,
    *,
    names: tuple[str, str] = ("first", "second"),
    setting: Mapping[str, Any] | None = None,
) -> Comparison:
    """Compare two schemes by their accuracy in percent for each seed and, if known, by the videos that were right.

    The test is over seeds and videos if both schemes have scores of the same videos for all common seeds (over videos
    alone with one seed), else over seeds if there are at least two.

    Raises ValueError if they have no seed in common.
    """
    seeds = tuple(sorted(set(first) & set(second)))
    if not seeds:
        raise ValueError(f"{names[0]} and {names[1]} have no seed in common")
    means = [math.fsum(of[seed] for seed in seeds) / len(seeds) for of in (first, second)]
    common: dict[str, Any] = {
        "setting": dict(setting or {}),
        "first": names[0],
        "second": names[1],
        "seeds": seeds,
        "first_percent": means[0],
        "second_percent": means[1],
    }
    table, why = _table(seeds, right_first or {}, right_second or {})
    if table is not None:
        found = crossed(100.0 * table)
        return Comparison(
            **common,
            videos=table.shape[1],
            difference_points=found.difference,
            low_points=found.low,
            high_points=found.high,
            p_value=found.p_value,
            method="seeds and videos" if len(seeds) > 1 else "videos",
            permutation_p=permutation(table),
            mcnemar_p=tuple(exact_mcnemar(row) for row in table),
        )
    differences = [first[seed] - second[seed] for seed in seeds]
    if len(seeds) == 1:
        return Comparison(
            **common,
            videos=None,
            difference_points=differences[0],
            low_points=None,
            high_points=None,
            p_value=None,
            method="none",
            note=f"one seed, and {why}",
        )
    found = student(differences)
    return Comparison(
        **common,
        videos=None,
        difference_points=found.difference,
        low_points=found.low,
        high_points=found.high,
        p_value=found.p_value,
        method="seeds",
        note=why,
    )


def _table(
    seeds: Sequence[int], first: Mapping[int, Mapping[str, bool]], second: Mapping[int, Mapping[str, bool]]
) -> tuple[np.ndarray | None, str]:
    """Return the differences (seeds, videos), -1, 0 or 1; or None and the reason."""
    if any(seed not in of for seed in seeds for of in (first, second)):
        return None, "no scores of videos"
    videos = sorted(first[seeds[0]])
    if any(sorted(of[seed]) != videos for seed in seeds for of in (first, second)):
        return None, "the videos are not the same"
    if len(videos) < 2:
        return None, "less than two videos"
    rows = [[int(first[seed][video]) - int(second[seed][video]) for video in videos] for seed in seeds]
    return np.array(rows, dtype=np.int8), ""


def corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Return the comparisons with Holm's correction over all of them."""
    tested = sum(each.p_value is not None for each in comparisons)
    p_values = holm([each.p_value for each in comparisons])
    return [
        Comparison(**{**vars(each), "p_holm": value, "family": tested})
        for each, value in zip(comparisons, p_values, strict=True)
    ]
