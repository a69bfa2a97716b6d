"""A difference averaged over several settings: stratified and paired, with the seed as the unit.

The settings (numbers of frames, resolutions) are strata that are given, not drawn: each counts the same, and nothing is
said of settings that were not run.  Within a seed the difference is averaged over the settings first, on the same test
videos for both variants.  What a seed does in all settings alike (its data, its initial weights) is thereby part of the
variance between seeds, and not taken for independent evidence: four settings of two seeds are two units, not eight.
The averages are then estimated as the accuracies of a single setting are (`estimators`).  To take all pairs of runs for
independent would give more degrees of freedom, but errs more often than it says where a seed has an effect in several
settings.

A test video's part of an average is its influence on it, so that settings may share all test videos, some or none: its
mean over the videos is the average, and its variance over them that of the average.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from timesformer.errors import InputError
from timesformer_experiments.analysis.statistics.estimators import Clusters, cluster_means


def averaged(settings: Sequence[Mapping[str, float]], clusters: Clusters) -> dict[str, float]:
    """Return the test videos' parts of one seed's mean over settings, by video, in the unit of the values.

    settings: {test video: value} of each setting.  Averaged within clusters and then over these, the parts give the
    mean of the settings' means.  Where all settings have the same videos, a video's part is its mean over the settings.

    Raises InputError without settings, for a setting without videos, and for a video without a cluster.
    """
    if not settings or not all(settings):
        raise InputError("no settings, or one without test videos: expected at least one of each")
    means = [cluster_means(each, clusters) for each in settings]
    levels = [math.fsum(each.values()) / len(each) for each in means]
    level = math.fsum(levels) / len(levels)
    videos: dict[str, set[str]] = {}
    for name in sorted(set[str]().union(*settings)):
        videos.setdefault(clusters[name], set()).add(name)
    weights = [len(videos) / (len(settings) * len(each)) for each in means]
    parts = {
        label: level
        + math.fsum(
            weight * (each[label] - of_all)
            for weight, each, of_all in zip(weights, means, levels, strict=True)
            if label in each
        )
        for label in videos
    }
    found = {name: parts[label] for label, names in videos.items() for name in names}
    for weight, each, values in zip(weights, means, settings, strict=True):
        counts: dict[str, int] = {}
        for name in values:
            counts[clusters[name]] = counts.get(clusters[name], 0) + 1
        for name, value in values.items():
            label = clusters[name]
            found[name] += weight * len(videos[label]) / counts[label] * (value - each[label])
    return dict(sorted(found.items()))


def common_block(seeds: Sequence[set[int]]) -> tuple[list[int], list[int]]:
    """Return which settings are averaged and over which seeds: places and seeds, in order.

    Seeds are those that all settings have.  Where fewer than two are common, the setting that shares the fewest with
    the others (of several the last) is left out, and so on; where no two settings share two, one common seed is enough.
    Empty without any seed.
    """
    found: tuple[list[int], list[int]] = ([], [])
    for wanted in (2, 1):
        found = _block(seeds, wanted)
        if len(found[0]) > 1:
            break
    return found


def _block(seeds: Sequence[set[int]], wanted: int) -> tuple[list[int], list[int]]:
    kept = [place for place, each in enumerate(seeds) if each]
    while kept:
        common = set[int].intersection(*(seeds[place] for place in kept))
        if len(common) >= wanted or len(kept) == 1:
            return kept, sorted(common)
        shared = {place: sum(len(seeds[place] & seeds[other]) for other in kept) for place in kept}
        kept.remove(max(place for place in kept if shared[place] == min(shared.values())))
    return [], []
