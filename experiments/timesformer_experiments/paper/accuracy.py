"""Accuracies of cells over seeds from the records of runs, and tests between cells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from timesformer.errors import InputError
from timesformer_experiments.records.hits import hits_of
from timesformer_experiments.report.statistics import Comparison, compare, corrected, mean_interval
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

    mean, low, high: mean with its 95 % interval over seeds, or over test videos with one seed. percent: accuracy by
        seed.
    right: by seed, {video: whether its prediction was correct}, where the records have it. chance: chance in percent.
    """

    mean: float
    low: float
    high: float
    videos: int
    chance: float
    percent: Mapping[int, float]
    right: Mapping[int, Mapping[str, bool]]

    @property
    def above_chance(self) -> bool:
        """True if the interval lies above chance."""
        return self.low > self.chance


def decided(found: Mapping[str, Accuracy]) -> str | None:
    """Return "yes" if all accuracies (by probe) are above chance, else the undecided probes; None without any."""
    below = [probe for probe, each in found.items() if not each.above_chance]
    if below:
        return f"undecided on {', '.join(below)}"
    return "yes" if found else None


def columns_of(found: Accuracy | None, key: str) -> dict[str, Any]:
    """Return the columns of a frame that begin with `key`; their values are None where nothing was measured."""
    return {
        f"{key}_top1_percent": None if found is None else found.mean,
        f"{key}_top1_low_percent": None if found is None else found.low,
        f"{key}_top1_high_percent": None if found is None else found.high,
        f"{key}_seeds": None if found is None else len(found.percent),
        f"{key}_test_videos": None if found is None else found.videos,
    }


def accuracy(records: Mapping[int, dict[str, Any]]) -> Accuracy:
    """Compute the accuracy from the records of the seeds, all of the same configuration.

    Raises InputError for an accuracy outside 0 to 100 %, or that disagrees with the correct videos in the record.
    """
    for record in records.values():
        _require_possible(record)
    metrics = {seed: record["metrics"] for seed, record in records.items()}
    percent = {seed: float(found["top1_percent"]) for seed, found in metrics.items()}
    first = next(iter(metrics.values()))
    if len(percent) == 1:
        mean, low, high = (float(first[f"top1_{end}percent"]) for end in ("", "low_", "high_"))
    else:
        mean, low, high = mean_interval(list(percent.values()))
    right = {seed: hits for seed, record in records.items() if (hits := hits_of(record))}
    classes = next(iter(records.values()))["spec"]["model"]["num_classes"]
    return Accuracy(mean, low, high, int(first["test_videos"]), 100 / classes, percent, right)


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
    missing = []
    for cell in cells:
        record = by_hash.get(cell.spec.hash())
        if record is None:
            missing.append(f"{cell.variant} on {cell.part} with seed {cell.seed}")
        else:
            found.setdefault((cell.variant, cell.part), {})[cell.seed] = record
    if missing:
        raise InputError(f"{name}: the records have no finished run of {', '.join(missing)}")
    return {key: accuracy(of_seeds) for key, of_seeds in found.items()}


def comparisons(
    measured: Mapping[Key, Accuracy], pairs: Sequence[tuple[str, str]], labels: Mapping[str, str]
) -> list[Comparison]:
    """Compare the variants of each pair on every part that both have, corrected for the number of comparisons."""
    parts = dict.fromkeys(part for _, part in measured)
    found = []
    for part in parts:
        for first, second in pairs:
            if (first, part) in measured and (second, part) in measured:
                one, two = measured[first, part], measured[second, part]
                names = (labels.get(first, first), labels.get(second, second))
                setting = {"on": part}
                found.append(compare(one.percent, two.percent, one.right, two.right, names=names, setting=setting))
    return corrected(found)
