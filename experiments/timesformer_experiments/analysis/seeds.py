"""Seeds of a variant, as their records have them, and the estimates that these allow.

The estimator follows from the test sets: where all seeds were tested on the same videos, these are crossed with the
seeds; where each seed has its own, they are nested in the seeds (see `estimators`).  Records that do not say which
videos were right allow an interval over seeds alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from timesformer.errors import InputError
from timesformer_experiments.analysis.statistics.estimators import (
    Estimate,
    cluster_means,
    crossed_difference,
    crossed_mean,
    figure_mean,
    nested,
    nested_difference,
    nested_mean,
)
from timesformer_experiments.analysis.statistics.stratified import averaged
from timesformer_experiments.records.hits import join_clusters

Over = Literal["seeds and test videos", "test videos alone", "seeds alone", "nothing"]
IN_WORDS: dict[Over, str] = {
    "seeds and test videos": "for new seeds and new test videos",
    "test videos alone": "for new test videos alone, there is one seed",
    "seeds alone": "for new seeds alone",
    "nothing": "",
}
Hits = Mapping[int, Mapping[str, bool]]
ByVideo = Mapping[int, Mapping[str, float]]
EQUAL_PERCENT = 1e-6
"""Difference of two accuracies that is due to rounding."""


@dataclass(frozen=True)
class Seeds:
    """Top-1 accuracies of one variant.

    percent: by seed.  right: by seed, which test videos were right, where that is known; videos of different test sets
    have different names.  clusters: the group of each test video, empty where each is its own.  own: the interval
    over test videos that each seed's record has [percent].
    """

    percent: Mapping[int, float]
    right: Hits = field(default_factory=dict)
    clusters: Mapping[str, str] = field(default_factory=dict)
    own: Mapping[int, tuple[float, float]] = field(default_factory=dict)

    def each(self) -> dict[int, float]:
        """Return the seeds' accuracies [percent], in the order of the seeds: where it is known which videos were
        right, the mean over groups of videos, which is another than over videos if groups are of unequal sizes."""
        found = {}
        for seed in sorted(self.percent):
            found[seed] = percent = self.percent[seed]
            if self.clusters and self.right.get(seed):
                means = cluster_means(self.right[seed], self.clusters).values()
                ours = 100 * math.fsum(means) / len(means)
                found[seed] = ours if abs(ours - percent) > EQUAL_PERCENT else percent
        return found

    def points(self) -> str:
        """Return these accuracies as they are read."""
        return " ".join(f"{percent:.1f}" for percent in self.each().values())


@dataclass(frozen=True)
class Spread:
    """A mean [percent] or difference [points] with its 95 % interval; over: what the interval holds for.

    estimate: None where there was nothing to estimate from; note: why then, or why not over test videos too.
    """

    mean: float
    low: float | None
    high: float | None
    over: Over
    estimate: Estimate | None
    note: str = ""

    def scope(self) -> str:
        """Return what the interval holds for, in words."""
        groups = self.estimate.clusters if self.estimate is not None and self.estimate.conditional else 0
        of_these = f" of these {groups} groups" if groups > 1 else " of this group" if groups else ""
        return IN_WORDS[self.over].replace("new test videos", f"new test videos{of_these}")


def design_of(*variants: ByVideo) -> Literal["nested", "crossed"]:
    """Return how seeds and test videos belong together: crossed where all seeds have the same, else nested.

    Raises InputError where some seeds share test videos and others do not.
    """
    sets = {seed: frozenset(videos) for right in variants for seed, videos in right.items()}
    if len(set(sets.values())) == 1:
        return "crossed"
    if sum(map(len, sets.values())) == len(frozenset().union(*sets.values())):
        return "nested"
    raise InputError("some seeds share test videos and others do not (expected all seeds to share them, or none)")


def mean_of(seeds: Seeds) -> Spread:
    """Estimate one variant's accuracy.  Raises InputError without seeds."""
    if not seeds.percent:
        raise InputError("no seeds: expected at least one accuracy")
    why = "which test videos were right is not known"
    if set(seeds.right) == set(seeds.percent) and not (why := _shared_in_part(seeds.right)):
        crossing = design_of(seeds.right) == "crossed"
        return _spread((crossed_mean if crossing else nested_mean)(seeds.right, seeds.clusters or None))
    if len(seeds.percent) > 1:
        return _spread(_of_seeds(list(seeds.percent.values()), (0.0, 100.0)), why)
    (seed, percent), *_ = seeds.percent.items()
    low, high = seeds.own.get(seed, (None, None))
    return Spread(percent, low, high, "nothing" if low is None else "test videos alone", None, why)


def difference_of(first: Seeds, second: Seeds) -> Spread:
    """Estimate first minus second over their common seeds.  Raises InputError if they have none in common,
    and where they group test videos differently."""
    common = sorted(set(first.percent) & set(second.percent))
    if not common:
        raise InputError("no seed in common: expected at least one seed of each variant")
    why = _not_paired(first, second, common)
    if not why:
        one, other = ({seed: each.right[seed] for seed in common} for each in (first, second))
        groups = dict(first.clusters)
        join_clusters(groups, second.clusters)
        crossing = design_of(one, other) == "crossed"
        return _spread((crossed_difference if crossing else nested_difference)(one, other, groups or None))
    differences = [first.percent[seed] - second.percent[seed] for seed in common]
    if len(common) > 1:
        return _spread(_of_seeds(differences, (-100.0, 100.0)), why)
    return Spread(differences[0], None, None, "nothing", None, f"one seed, and {why}")


def averaged_difference(settings: Sequence[tuple[Seeds, Seeds]]) -> Spread:
    """Estimate first minus second averaged over settings, each counted the same; the unit is the seed (`stratified`).

    settings: both variants in each setting, all with the same seeds.  Where test videos cannot be paired in one of the
    settings, the estimate is over seeds alone.

    Raises InputError without settings, where the seeds are not the same, and for different groups of test videos.
    """
    common = sorted(settings[0][0].percent) if settings else []
    if not common or any(set(each.percent) != set(common) for pair in settings for each in pair):
        raise InputError("averaged difference: expected settings with the same seeds, at least one")
    why = next(filter(None, (_not_paired(*pair, common) for pair in settings)), "")
    if not why:
        groups: dict[str, str] = {}
        for variant in itertools.chain(*settings):
            join_clusters(groups, variant.clusters)
        names = {name for one, _ in settings for seed in common for name in one.right[seed]}
        groups = {name: groups.get(name, name) for name in sorted(names)}
        by_video = {
            seed: averaged([_subtracted(one.right[seed], other.right[seed]) for one, other in settings], groups)
            for seed in common
        }
        why = _shared_in_part(by_video)
        if not why:
            return _spread(figure_mean(by_video, groups, (-100.0, 100.0), design_of(by_video), scale=100.0))
    points = [math.fsum(one.percent[seed] - other.percent[seed] for one, other in settings) / len(settings)
              for seed in common]  # fmt: skip
    if len(common) > 1:
        return _spread(_of_seeds(points, (-100.0, 100.0)), why)
    return Spread(points[0], None, None, "nothing", None, f"one seed, and {why}")


def _subtracted(first: Mapping[str, bool], second: Mapping[str, bool]) -> dict[str, float]:
    return {name: float(value) - float(second[name]) for name, value in first.items()}


def _not_paired(first: Seeds, second: Seeds, common: list[int]) -> str:
    """Return why test videos cannot be paired; empty where they can."""
    if any(seed not in each.right for seed in common for each in (first, second)):
        return "which test videos were right is not known"
    if any(set(first.right[seed]) != set(second.right[seed]) for seed in common):
        return "the test videos are not the same"
    return _shared_in_part({seed: first.right[seed] for seed in common})


def _shared_in_part(right: ByVideo) -> str:
    """Return why seeds and test videos belong together in neither way, such as a video that one seed could not read."""
    try:
        design_of(right)
    except InputError:
        return "some seeds share test videos and others do not"
    return ""


def _of_seeds(values: list[float], limits: tuple[float, float]) -> Estimate:
    return nested([np.array([value]) for value in values], limits=limits)


def _spread(estimate: Estimate, why: str = "") -> Spread:
    over: Over = "seeds alone" if why else "seeds and test videos" if estimate.seeds > 1 else "test videos alone"
    ends = estimate.interval() if estimate.seeds > 1 else estimate.videos_interval()
    if ends is None:
        return Spread(estimate.mean, None, None, "nothing", estimate, why or "a single group of test videos")
    return Spread(estimate.mean, *ends, over, estimate, why)


def spread_of_figure(
    values: Mapping[int, Mapping[str, float]], clusters: Mapping[str, str], limits: tuple[float, float]
) -> Spread:
    """Estimate the mean of a figure that is no accuracy, by seed and test video.

    Raises InputError where some seeds share test videos and others do not.
    """
    return _spread(figure_mean(values, clusters, limits, design_of(values)))


def students_interval(values: list[float]) -> tuple[float, float] | None:
    """Return the ends of Student's 95 % interval of a mean over seeds, of a figure that is no accuracy.

    None for a single value and for values that do not differ: they say nothing of others.
    """
    from scipy import stats  # here, for its import takes about a second

    count, mean = len(values), math.fsum(values) / max(len(values), 1)
    if count < 2 or all(math.isclose(value, mean, rel_tol=1e-12, abs_tol=0.0) for value in values):
        return None
    half = float(stats.t.ppf(0.975, count - 1) * np.std(values, ddof=1)) / math.sqrt(count)
    return mean - half, mean + half
