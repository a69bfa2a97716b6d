"""From the records of runs to accuracies of cells over seeds and test videos, and tests between them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from timesformer.errors import InputError
from timesformer_experiments.analysis.pairs import Comparison, compare, judged
from timesformer_experiments.analysis.seeds import Over, Seeds, mean_of
from timesformer_experiments.analysis.statistics.estimators import Estimate
from timesformer_experiments.analysis.statistics.humps import Humps, humps
from timesformer_experiments.paper.registered import registered
from timesformer_experiments.records.hits import clusters_of, hits_of, join_clusters
from timesformer_experiments.specs.levels import level_of
from timesformer_experiments.specs.run import RunSpec

Key = tuple[str, str]
TOLERANCE_PERCENT = 0.01
"""Largest difference between an accuracy and the count of correct videos, due to rounding."""


@dataclass(frozen=True)
class Cell:
    """Run with its place in a table: variant, probe or dataset, and seed."""

    variant: str
    part: str
    seed: int
    spec: RunSpec


@dataclass(frozen=True)
class Accuracy:
    """Top-1 accuracy in percent.

    mean, low, high: with its 95 % interval, which holds for what `over` says; no interval where the seeds fall into two
    humps and are few.  videos, groups: of one test set.  chance: in percent.  seeds: what it was made from.  humps: by
    the level that is registered for the probe, None without one or with one seed.  note: what restricts the interval.
    """

    mean: float
    low: float | None
    high: float | None
    over: Over
    videos: int
    groups: int
    chance: float
    seeds: Seeds
    humps: Humps | None = None
    note: str = ""

    @property
    def above_chance(self) -> bool:
        """True if the interval lies above chance; without one, if all seeds do."""
        return (min(self.seeds.percent.values()) if self.low is None else self.low) > self.chance


def decided(found: Mapping[str, Accuracy]) -> str | None:
    """Return "yes" if all accuracies (by probe) are above chance, else the undecided probes; None without any."""
    below = [probe for probe, each in found.items() if not each.above_chance]
    if below:
        return f"undecided on {', '.join(below)}"
    return "yes" if found else None


def columns_of(found: Accuracy | None, key: str) -> dict[str, Any]:
    """Columns of a frame, which begin with `key`; empty ones where nothing was measured."""
    several = found is not None and len(found.seeds.percent) > 1
    return {
        f"{key}_top1_percent": None if found is None else found.mean,
        f"{key}_top1_low_percent": None if found is None else found.low,
        f"{key}_top1_high_percent": None if found is None else found.high,
        f"{key}_interval_over": None if found is None else found.over,
        f"{key}_each_seed_percent": found.seeds.points() if found is not None and several else None,
        f"{key}_two_humps": None if found is None or found.humps is None else found.humps.short(),
        f"{key}_seeds": None if found is None else len(found.seeds.percent),
        f"{key}_test_videos": None if found is None else found.videos,
        f"{key}_test_groups": None if found is None else found.groups,
    }


def accuracy(records: Mapping[int, dict[str, Any]], level: float | None = None) -> Accuracy:
    """Accuracy from the records of the seeds, all of the same configuration.

    level: registered, below it a training has failed.

    Raises InputError for an accuracy that is none, or that is not that of the videos which the record has as right.
    """
    for record in records.values():
        _require_possible(record)
    seeds = seeds_of(records)
    found = mean_of(seeds)
    several = len(seeds.percent) > 1
    fallen = humps(list(seeds.each().values()), level) if level is not None and several else None
    hidden = fallen is not None and fallen.hides_the_mean
    first = next(iter(records.values()))
    videos = int(first["metrics"]["test_videos"])
    known = found.estimate is not None and found.over != "seeds alone"
    return Accuracy(
        mean=found.mean,
        low=None if hidden else found.low,
        high=None if hidden else found.high,
        over=found.over,
        videos=videos,
        groups=found.estimate.clusters if known and found.estimate is not None else videos,
        chance=100 / first["spec"]["model"]["num_classes"],
        seeds=seeds,
        humps=fallen,
        note=_note(found.estimate, several),
    )


def _note(estimate: Estimate | None, several: bool) -> str:
    if estimate is None:
        return ""
    return estimate.remark() if several else estimate.few_groups()


def seeds_of(records: Mapping[int, dict[str, Any]]) -> Seeds:
    """Return what the records of a variant's seeds say of accuracy."""
    clusters: dict[str, str] = {}
    for record in records.values():
        join_clusters(clusters, clusters_of(record))
    return Seeds(
        percent={seed: float(record["metrics"]["top1_percent"]) for seed, record in records.items()},
        right={seed: hits for seed, record in records.items() if (hits := hits_of(record))},
        clusters=clusters,
        own={
            seed: (float(record["metrics"]["top1_low_percent"]), float(record["metrics"]["top1_high_percent"]))
            for seed, record in records.items()
        },
    )


def _require_possible(record: Mapping[str, Any]) -> None:
    percent, hits = float(record["metrics"]["top1_percent"]), hits_of(record)
    if not 0 <= percent <= 100:
        raise InputError(f"run {record['hash']}: top1_percent: expected 0 to 100, got {percent:g}")
    if hits and abs(percent - 100 * sum(hits.values()) / len(hits)) > TOLERANCE_PERCENT:
        raise InputError(
            f"run {record['hash']}: top1_percent is {percent:g}, but according to test_right {sum(hits.values())} of "
            f"{len(hits)} videos are correct"
        )


def accuracies(cells: Sequence[Cell], records: Iterable[dict[str, Any]], name: str) -> dict[Key, Accuracy]:
    """Return accuracies by variant and part (probe or dataset); `name` is the artefact's, for errors.

    Raises InputError if a run has no finished record.
    """
    by_hash = {record["hash"]: record for record in records if record["outcome"] == "done"}
    found: dict[Key, dict[int, dict[str, Any]]] = {}
    levels: dict[Key, float | None] = {}
    missing = []
    for cell in cells:
        record = by_hash.get(cell.spec.hash())
        if record is None:
            missing.append(f"{cell.variant} on {cell.part} with seed {cell.seed}")
        else:
            found.setdefault((cell.variant, cell.part), {})[cell.seed] = record
            levels[cell.variant, cell.part] = level_of(registered().claims.failed_below_percent, cell.spec)
    if missing:
        raise InputError(f"{name}: no finished run of {', '.join(missing)} among the records")
    return {key: accuracy(of_seeds, levels[key]) for key, of_seeds in found.items()}


def comparisons(
    measured: Mapping[Key, Accuracy], pairs: Sequence[tuple[str, str]], labels: Mapping[str, str]
) -> list[Comparison]:
    """The variants of each pair against one another on every part that both have, judged as one family."""
    parts = dict.fromkeys(part for _, part in measured)
    found = []
    for part in parts:
        for first, second in pairs:
            if (first, part) in measured and (second, part) in measured:
                one, two = measured[first, part], measured[second, part]
                names = (labels.get(first, first), labels.get(second, second))
                found.append(compare(one.seeds, two.seeds, names=names, setting={"on": part}))
    return judged(found)
