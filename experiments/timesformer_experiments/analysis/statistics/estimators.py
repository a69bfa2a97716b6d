"""Accuracy over seeds and test videos: a mean or a paired difference, with an interval for new seeds and new videos.

Two designs, two estimators:

- *nested*: every seed has test videos of its own (probes, where a seed draws the data too).  The seeds' accuracies are
  then independent and hold both sources of variance: Student's t over the seeds, with one degree of freedom less than
  there are seeds.
- *crossed*: all seeds are tested on the same videos (real data).  An analysis of variance with two random factors
  (H. H. Clark, The language-as-fixed-effect fallacy, 1973): with mean squares S of seeds, V of videos and R of what is
  left, the mean's variance is (S + max(V - R, 0)) / (seeds x videos).  S has seeds - 1, V - R about videos - 1 degrees
  of freedom; `weighted_t` joins them.  Where seeds agree more than chance would have them, this error may come out
  smaller than that of the same models on new videos; as a floor, the latter made intervals cover 98 to 99 % at three to
  eight seeds.

The unit of a test set is the cluster: videos that belong together (a clip and its reversal, clips of one source or
subject) are averaged first, and every cluster counts the same.  Values go in as shares (a video is right or not), and
come out in percent (means) or points (differences); variances in points squared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from timesformer.errors import InputError
from timesformer_experiments.analysis.statistics.weighted_t import critical, matching_freedom, one_sided_p, two_sided_p

Design = Literal["nested", "crossed"]
Runs = Mapping[int, Mapping[str, float]]
"""{seed: {test video: 1 if its prediction was correct, else 0}}."""
Clusters = Mapping[str, str]
"""{test video: label of its cluster}."""

CONFIDENCE_PERCENT = 95.0
FEW_CLUSTERS = 6
"""With fewer clusters the variance between videos cannot be estimated: results then hold for these clusters only."""
NORMAL = 1.96
"""Standard errors that a 95 % interval reaches, where there are many units."""
_NOTHING = 1e-12
"""Variance in points squared that is due to rounding, where seeds or videos do not differ at all."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and test clusters.

    mean: percent, or points for a difference; points: each seed's own.
    error: standard error of the mean for new seeds and new test videos, None with one seed.
    seed_share: the seeds' part of error²; few, many: degrees of freedom of seeds and of test videos (`weighted_t`).
    seeds_variance, videos_variance, rest_variance: one seed's effect, one cluster's effect, and what is left of one
        seed's cluster; in the nested design a cluster belongs to one seed, and rest_variance holds both.  None where
        they cannot be told apart.
    videos_error, videos_freedom: for new test videos with these very models; None with a single cluster.
    bound: True if the seeds did not differ at all, so that `error` comes from the test videos only.  A p-value is then
        a bound: smaller ones cannot be claimed.
    conditional: True if the estimate holds for these test clusters only, because there are too few: errors are then
        those of new seeds and of new videos of the same clusters.
    """

    design: Design
    mean: float
    points: tuple[float, ...]
    clusters: int
    videos: int
    error: float | None
    seed_share: float
    few: float
    many: float
    seeds_variance: float | None
    videos_variance: float | None
    rest_variance: float | None
    videos_error: float | None
    videos_freedom: float
    bound: bool = False
    conditional: bool = False
    limits: tuple[float, float] = (-100.0, 100.0)

    @property
    def seeds(self) -> int:
        """Number of seeds."""
        return len(self.points)

    @property
    def freedom(self) -> float | None:
        """Degrees of freedom of the plain t with the same 95 % interval; None with one seed."""
        if self.error is None:
            return None
        return matching_freedom(1 - CONFIDENCE_PERCENT / 100, self.seed_share, self.few, self.many)

    def interval(self, percent: float = CONFIDENCE_PERCENT) -> tuple[float, float] | None:
        """Return the interval for new seeds and new test videos together; None with one seed."""
        if self.error is None:
            return None
        half = float(critical(1 - percent / 100, self.seed_share, self.few, self.many)) * self.error
        return self._within(half)

    def p_value(self) -> float | None:
        """Return the two-sided p of a mean of 0 for new seeds and test videos; None with one seed."""
        if self.error is None:
            return None
        if self.mean == 0:
            return 1.0
        return min(1.0, float(two_sided_p(self.mean / self.error, self.seed_share, self.few, self.many)))

    def above_p(self, value: float) -> float | None:
        """Return the one-sided p of a mean of at most `value` (points); small where the mean lies above it."""
        if self.error is None:
            return None
        return float(one_sided_p((self.mean - value) / self.error, self.seed_share, self.few, self.many))

    def videos_interval(self, percent: float = CONFIDENCE_PERCENT) -> tuple[float, float] | None:
        """Return the interval for new test videos with these very models; None with a single cluster."""
        if self.videos_error is None:
            return None
        return self._within(float(critical(1 - percent / 100, 1.0, self.videos_freedom, 1.0)) * self.videos_error)

    def videos_p(self) -> float | None:
        """Return the two-sided p of these very models having a mean of 0; None with a single cluster."""
        if self.videos_error is None:
            return None
        if self.mean == 0:
            return 1.0
        return float(two_sided_p(self.mean / self.videos_error, 1.0, self.videos_freedom, 1.0))

    def p_text(self) -> str:
        """Return the p-value in words, marked if it is a bound."""
        value = self.p_value()
        if value is None:
            return "no p-value: one seed"
        shown = "p < 0.001" if value < 0.001 else f"p = {value:.3f}"
        return f"p ≥ {value:.2g} (bound: the seeds do not differ)" if self.bound else shown

    def remark(self) -> str:
        """Return the restrictions of the estimate in words, for a table; empty without restrictions."""
        found = ["one seed says nothing of others"] if self.seeds == 1 else []
        if self.bound:
            of = "the test videos alone" if self.videos > 1 else "one more seed, as far from them as can be"
            found.append(f"the {self.seeds} seeds do not differ: the interval is that of {of}")
        return "; ".join([*found, *filter(None, [self.few_groups()])])

    def few_groups(self) -> str:
        """Return the sentence on too few groups of test videos; empty where there are enough."""
        if not self.conditional:
            return ""
        groups = f"these {self.clusters} groups" if self.clusters > 1 else "this one group"
        return f"conditional on {groups} of test videos, too few to speak of others"

    def _within(self, half: float) -> tuple[float, float]:
        low, high = self.limits
        return max(low, self.mean - half), min(high, self.mean + half)


def cluster_means(values: Mapping[str, float], clusters: Clusters | None = None) -> dict[str, float]:
    """Return the mean value of each cluster of test videos, in the order of their labels.

    Raises InputError for a video without a cluster.
    """
    if clusters is None:
        return {name: float(values[name]) for name in sorted(values)}
    members: dict[str, list[float]] = {}
    for name in sorted(values):
        if name not in clusters:
            raise InputError(f"test video {name}: no cluster (expected a label for each test video)")
        members.setdefault(clusters[name], []).append(float(values[name]))
    return {label: math.fsum(members[label]) / len(members[label]) for label in sorted(members)}


def nested_mean(runs: Runs, clusters: Clusters | None = None) -> Estimate:
    """Estimate one variant's accuracy where each seed has test videos of its own.  Raises InputError without runs."""
    return _nested([runs[seed] for seed in _seeds(runs)], clusters, (0.0, 100.0))


def nested_difference(first: Runs, second: Runs, clusters: Clusters | None = None) -> Estimate:
    """Estimate first minus second over their common seeds, each seed with test videos of its own, the same for both.

    Raises InputError without a common seed, or where the two were tested on different videos.
    """
    return _nested(_differences(first, second), clusters, (-100.0, 100.0))


def crossed_mean(runs: Runs, clusters: Clusters | None = None) -> Estimate:
    """Estimate one variant's accuracy where all seeds have the same test videos.

    Raises InputError without runs, or where the seeds have different test videos.
    """
    return _crossed({seed: runs[seed] for seed in _seeds(runs)}, clusters, (0.0, 100.0))


def crossed_difference(first: Runs, second: Runs, clusters: Clusters | None = None) -> Estimate:
    """Estimate first minus second over their common seeds, all tested on the same videos.

    Raises InputError without a common seed, or where the test videos are not the same.
    """
    seeds = _seeds(first, second)
    return _crossed(dict(zip(seeds, _differences(first, second), strict=True)), clusters, (-100.0, 100.0))


def figure_mean(
    runs: Runs, clusters: Clusters | None, limits: tuple[float, float], design: Design, scale: float = 1.0
) -> Estimate:
    """Estimate the mean of a figure that every video has a value of, times `scale`; limits: of the scaled figure.

    Raises InputError as the estimators of accuracy do.
    """
    kept = {seed: runs[seed] for seed in _seeds(runs)}
    if design == "crossed":
        return _crossed(kept, clusters, limits, scale)
    return _nested(list(kept.values()), clusters, limits, scale)


def _seeds(*runs: Runs) -> list[int]:
    common = sorted(set.intersection(*(set(each) for each in runs)))
    if not common:
        raise InputError("no seed in common: expected at least one seed of each variant")
    return common


def _differences(first: Runs, second: Runs) -> list[dict[str, float]]:
    found = []
    for seed in _seeds(first, second):
        if set(first[seed]) != set(second[seed]):
            raise InputError(f"seed {seed}: the two variants were tested on different videos (expected the same)")
        found.append({name: float(value) - float(second[seed][name]) for name, value in first[seed].items()})
    return found


def _nested(
    runs: Sequence[Mapping[str, float]], clusters: Clusters | None, limits: tuple[float, float], scale: float = 100.0
) -> Estimate:
    tables = [scale * np.array(list(cluster_means(each, clusters).values())) for each in runs]
    return nested(tables, videos=min(map(len, runs)), limits=limits)


def nested(
    tables: Sequence[np.ndarray], *, videos: int | None = None, limits: tuple[float, float] = (-100.0, 100.0)
) -> Estimate:
    """Estimate from each seed's own cluster values (percent or points).  videos: per seed, where clusters hold several.

    Raises InputError where a seed has no test video.
    """
    if not tables or min(map(len, tables)) == 0:
        raise InputError("a seed without test videos: expected at least one seed, each with at least one")
    count, points = len(tables), np.array([table.mean() for table in tables])
    several = [table for table in tables if len(table) > 1]
    within = float(np.mean([table.var(ddof=1) for table in several])) if several else None
    own = None if within is None else float(np.mean([within / len(table) for table in tables]))
    between = float(points.var(ddof=1)) if count > 1 else None
    mean = float(points.mean())
    videos_error = None if own is None else _error(own / count, mean, sum(map(len, tables)), limits)
    bound = between is not None and between <= _NOTHING
    error = None if between is None else math.sqrt(between / count)
    if bound:
        error = videos_error if videos_error is not None else _error(0.0, mean, count, limits)
    return Estimate(
        design="nested",
        mean=mean,
        points=tuple(map(float, points)),
        clusters=min(map(len, tables)),
        videos=videos or min(map(len, tables)),
        error=error,
        seed_share=1.0,
        few=float(max(count - 1, 1)),
        many=float(max(count - 1, 1)),
        seeds_variance=None if between is None or own is None else max(0.0, between - own),
        videos_variance=None,
        rest_variance=within,
        videos_error=videos_error,
        videos_freedom=float(max(sum(len(table) - 1 for table in several), 1)),
        bound=bound,
        limits=limits,
    )


def _crossed(
    runs: Mapping[int, Mapping[str, float]],
    clusters: Clusters | None,
    limits: tuple[float, float],
    scale: float = 100.0,
) -> Estimate:
    (start, first), *others = runs.items()
    for seed, each in others:
        if set(each) != set(first):
            raise InputError(
                f"seed {seed}: other test videos than seed {start} (expected the same for all seeds; `nested` is the "
                "estimator where each seed has its own)"
            )
    table = scale * np.array([list(cluster_means(each, clusters).values()) for each in runs.values()])
    members: list[np.ndarray] = []
    if table.shape[1] < min(FEW_CLUSTERS, len(first)) and clusters is not None:
        of_cluster: dict[str, list[str]] = {}
        for name in sorted(first):
            of_cluster.setdefault(clusters[name], []).append(name)
        members = [
            scale * np.array([[float(each[name]) for name in names] for each in runs.values()])
            for names in of_cluster.values()
        ]
    return crossed(table, videos=len(first), limits=limits, members=members)


def crossed(
    table: np.ndarray,
    *,
    videos: int | None = None,
    limits: tuple[float, float] = (-100.0, 100.0),
    members: Sequence[np.ndarray] = (),
) -> Estimate:
    """Estimate from a table (seeds, clusters) of percent or points.

    videos: in the test set, where clusters hold several.  members: (seeds, videos) of each of few clusters.

    Raises InputError for an empty table.
    """
    if table.ndim != 2 or table.size == 0:
        raise InputError(f"a table of shape {table.shape}: expected seeds by test clusters, at least one of each")
    count, clusters = table.shape
    moments = mean_squares(table[None])
    mean, of_seeds, of_videos, rest = (float(each[0]) for each in moments)
    conditional = clusters < FEW_CLUSTERS
    videos_error = None if clusters < 2 else _error(of_videos / table.size, mean, clusters, limits)
    many = videos_freedom = float(max(clusters - 1, 1))
    square = of_seeds if conditional else of_seeds + max(of_videos - rest, 0.0)
    if conditional and any(each.shape[1] > 1 for each in members):
        own, left, many = _within(members)
        square = of_seeds + max(own - left, 0.0) * table.size
        videos_error = _error(own, mean, sum(each.shape[1] for each in members), limits)
        videos_freedom = many
    share = of_seeds / square if square > _NOTHING else 1.0
    bound = count > 1 and of_seeds / table.size <= _NOTHING
    error = None if count == 1 else math.sqrt(square / table.size)
    if bound:
        error, share = (videos_error if videos_error is not None else _error(0.0, mean, count, limits)), 1.0
    told_apart = count > 1 and clusters > 1
    return Estimate(
        design="crossed",
        mean=mean,
        points=tuple(map(float, table.mean(1))),
        clusters=clusters,
        videos=videos or clusters,
        error=error,
        seed_share=share,
        few=float(max(count - 1, 1)),
        many=many,
        seeds_variance=max(0.0, (of_seeds - rest) / clusters) if told_apart else None,
        videos_variance=max(0.0, (of_videos - rest) / count) if told_apart else None,
        rest_variance=rest if told_apart else None,
        videos_error=videos_error,
        videos_freedom=videos_freedom,
        bound=bound,
        conditional=conditional,
        limits=limits,
    )


def _within(members: Sequence[np.ndarray]) -> tuple[float, float, float]:
    """Return the variance of the mean over these very clusters that is due to their videos, the part of it that is
    what seeds and videos leave over, and its degrees of freedom.

    Videos of all clusters vary alike, so that a cluster of one video counts too.
    """
    several = [each for each in members if each.shape[1] > 1]
    freedom = sum(each.shape[1] - 1 for each in several)
    squares = [mean_squares(each)[2:] for each in several]
    weights = [(each.shape[1] - 1) / freedom for each in several]
    of_videos, rest = (
        sum(weight * float(found[place]) for weight, found in zip(weights, squares, strict=True)) for place in (0, 1)
    )
    scale = sum(1 / each.shape[1] for each in members) / (len(members) ** 2 * len(members[0]))
    return of_videos * scale, rest * scale, float(freedom)


def mean_squares(tables: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return mean, and mean squares of seeds, of clusters and of the rest, of tables (…, seeds, clusters).

    A factor with a single level has a mean square of 0.
    """
    count, clusters = tables.shape[-2:]
    mean, of_seeds, of_clusters = tables.mean((-2, -1)), tables.mean(-1), tables.mean(-2)
    between_seeds = clusters * ((of_seeds - mean[..., None]) ** 2).sum(-1)
    between_clusters = count * ((of_clusters - mean[..., None]) ** 2).sum(-1)
    total = ((tables - mean[..., None, None]) ** 2).sum((-2, -1))
    rest = np.maximum(total - between_seeds - between_clusters, 0.0)
    freedoms = (max(count - 1, 1), max(clusters - 1, 1))
    return mean, between_seeds / freedoms[0], between_clusters / freedoms[1], rest / (freedoms[0] * freedoms[1])


def _error(variance: float, mean: float, units: int, limits: tuple[float, float]) -> float:
    """Return the standard error of a mean whose variance over `units` units is known; never 0.

    Units that do not vary at all say little of those unseen: a 95 % interval then reaches as far as that of Clopper and
    Pearson does where none of so many units differs and one could lie at the far end of what is possible.
    """
    if variance > _NOTHING:
        return math.sqrt(variance)
    unseen = 1 - ((1 - CONFIDENCE_PERCENT / 100) / 2) ** (1 / units)
    return max(mean - limits[0], limits[1] - mean) * unseen / NORMAL
