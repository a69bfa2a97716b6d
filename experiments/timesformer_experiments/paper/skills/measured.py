"""Results of the runs of `skills`: accuracies of parts of test sets, and a row for every prediction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from timesformer.data.probes.kinds.contact import Contact
from timesformer.errors import InputError
from timesformer_experiments.analysis.seeds import Seeds, Spread, mean_of
from timesformer_experiments.paper.accuracy import accuracy
from timesformer_experiments.paper.gate import not_ranked
from timesformer_experiments.paper.skills.bounds import ALL, part_of
from timesformer_experiments.paper.skills.plan import Cell, cells, followups
from timesformer_experiments.paper.skills.registered import Followup, Prediction, Profile, Value, skills

CHEAP, CURVE = "cheap classifier of a skill", "curve of a skill"
"""Kinds of entries from the files beside the records."""
TEST = 1
"""The split of a probe's test clips."""
Point = tuple[str, Value, str, int]


@dataclass(frozen=True)
class Found:
    """Accuracies of the seeds of a scheme at a value of a dial, with the records that they come from."""

    seeds: Seeds
    chance: float
    records: tuple[Mapping[str, Any], ...]


def found(records: Iterable[Mapping[str, Any]], profile: Profile) -> dict[Point, Found]:
    """Return what was measured by probe, value of the dial, scheme and depth.

    Raises InputError if a run has no finished record.
    """
    by_point = _by_seed(records, cells(profile))
    measured: dict[Point, Found] = {}
    for (probe, value, scheme, depth), of_seeds in by_point.items():
        whole = accuracy({seed: dict(record) for seed, record in of_seeds.items()})
        skill = skills().probes[probe]
        values = skill.values if skill.within == "clips" else (value,)
        for each in values:
            seeds = whole.seeds if each == value else _part(whole.seeds, of_seeds, str(each))
            measured[probe, each, scheme, depth] = Found(seeds, whole.chance, tuple(of_seeds.values()))
    return measured


def followed(records: Iterable[Mapping[str, Any]], profile: Profile) -> list[tuple[Followup, float]]:
    """Return the follow-ups, each with its accuracy [percent].  Raises InputError if one has no finished record."""
    wanted = followups(profile)
    by_hash = {record["hash"]: record for record in records if record["outcome"] == "done"}
    result = []
    for cell in wanted:
        record = by_hash.get(cell.spec.hash())
        if record is None:
            raise InputError(f"skills: no finished run of {cell.spec.name} among the records")
        assert cell.follow is not None
        seeds = accuracy({0: dict(record)}).seeds
        if skills().probes[cell.probe].within == "clips" and cell.value != ALL:
            seeds = _part(seeds, {0: record}, str(cell.value))
        result.append((cell.follow, seeds.percent[0]))
    return result


def _by_seed(records: Iterable[Mapping[str, Any]], wanted: Sequence[Cell]) -> dict[Point, dict[int, Mapping[str, Any]]]:
    by_hash = {record["hash"]: record for record in records if record["outcome"] == "done"}
    result: dict[Point, dict[int, Mapping[str, Any]]] = {}
    missing = []
    for cell in wanted:
        record = by_hash.get(cell.spec.hash())
        if record is None:
            missing.append(cell.spec.name)
        else:
            result.setdefault(cell.point, {})[cell.seed] = record
    if missing:
        raise InputError(f"skills: no finished run of {', '.join(missing)} among the records")
    return result


def kept(seeds: Seeds, numbers: set[int]) -> Seeds:
    """Return the same of the test videos with these numbers, in the order of their paths."""
    right = {
        seed: {name: hit for name, hit in videos.items() if int(name.rpartition(":")[2]) in numbers}
        for seed, videos in seeds.right.items()
    }
    percent = {seed: 100 * sum(videos.values()) / len(videos) for seed, videos in right.items()}
    return Seeds(percent, right, seeds.clusters)


def offsets_of(record: Mapping[str, Any]) -> list[tuple[int, int, int]]:
    """Return the offset of each test video of a run on `contact`, in the order of the videos' paths."""
    data = record["spec"]["data"]
    kind = Contact(**{name: data[name] for name in Contact().dials() if data.get(name) is not None})
    clips = sorted(kind.clips(TEST, int(data["num_test"])), key=lambda clip: clip.name)
    return [kind.offset(clip) for clip in clips]


def _part(seeds: Seeds, records: Mapping[int, Mapping[str, Any]], part: str) -> Seeds:
    if part == ALL:
        return seeds
    offsets = offsets_of(next(iter(records.values())))
    return kept(seeds, {number for number, offset in enumerate(offsets) if part_of(offset) == part})


@dataclass(frozen=True)
class Row:
    """A prediction with what was measured.

    cheap: accuracy of the best classifier without attention on the same videos [percent], None where it is not known.
    """

    probe: str
    value: Value
    scheme: str
    depth: int
    predicted: Prediction
    found: Found
    cheap: float | None = None

    @cached_property
    def spread(self) -> Spread:
        """Mean over the seeds with its interval."""
        return mean_of(self.found.seeds)

    @property
    def percent(self) -> float:
        """Mean over the seeds."""
        return self.spread.mean

    @property
    def hit(self) -> bool:
        """True if the prediction counts as a hit."""
        return skills().hit.is_hit(self.percent, self.predicted.predicted_percent, self.found.chance)

    @property
    def level(self) -> str:
        """Level of the measured accuracy."""
        return skills().hit.level(self.percent, self.found.chance)

    @property
    def dial(self) -> str:
        """The dial and its value."""
        return dial_said(self.probe, self.value)

    @property
    def place(self) -> str:
        """The row in words."""
        blocks = f"{self.depth} block{'s' if self.depth > 1 else ''}"
        return f"{self.probe}, {self.dial}, {self.scheme}, {blocks}"

    def contradicts_proof(self) -> bool:
        """Return True if the interval lies above the bound."""
        low = self.spread.low
        return low is not None and low > self.predicted.bound_percent


def dial_said(probe: str, value: Value) -> str:
    """Return a dial and its value."""
    return f"{skills().probes[probe].dial}={value}"


def rows(measured: Mapping[Point, Found], cheap: Mapping[tuple[str, str], float], profile: Profile) -> list[Row]:
    """Return a row for each prediction of a profile, in the order of the file.

    cheap: as `best_cheap` gives it.
    """
    result = []
    for probe, skill in skills().probes.items():
        for depth, value in skill.points(profile):
            for scheme in skills().schemes:
                own = cheap.get((probe, str(skill.registered if skill.within == "clips" else value)))
                predicted = skill.prediction(scheme, depth, value)
                result.append(Row(probe, value, scheme, depth, predicted, measured[probe, value, scheme, depth], own))
    return result


def best_cheap(entries: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], float]:
    """Return the accuracy of the best classifier without attention [percent] by probe and value of its dial."""
    best: dict[tuple[str, str], float] = {}
    for entry in entries:
        if entry.get("kind") == CHEAP:
            key = entry["probe"], str(entry["value"])
            best[key] = max(best.get(key, 0.0), float(entry["top1_percent"]))
    return best


def gates(found_rows: Sequence[Row]) -> dict[tuple[str, Value, int], str]:
    """Return by probe, value of its dial and depth why it ranks nothing; empty where it may rank schemes."""
    best: dict[tuple[str, Value, int], float] = {}
    for row in found_rows:
        key = row.probe, row.value, row.depth
        best[key] = max(best.get(key, 0.0), row.percent)
    cheap = {(row.probe, row.value, row.depth): row.cheap for row in found_rows}
    unknown = "accuracies of classifiers without attention are not known"
    return {
        key: unknown if (own := cheap[key]) is None else not_ranked(own, percent, "a classifier without attention")
        for key, percent in best.items()
    }


def frame(found_rows: Sequence[Row], results: Sequence[tuple[Followup, float]]) -> pd.DataFrame:
    """Return the rows as a data frame, with what the follow-ups say of the misses."""
    shut = gates(found_rows)
    return pd.DataFrame([_columns(row, shut[row.probe, row.value, row.depth], results) for row in found_rows])


def _columns(row: Row, gate: str, results: Sequence[tuple[Followup, float]]) -> dict[str, Any]:
    spread, hit = row.spread, skills().hit
    seconds = [float(record["metrics"]["train_seconds"]) for record in row.found.records]
    trained = [float(record["metrics"]["train_top1_percent"]) for record in row.found.records]
    return {
        "probe": row.probe,
        "dial": row.dial,
        "scheme": row.scheme,
        "depth": row.depth,
        "seeds": len(row.found.seeds.percent),
        "measured_top1_percent": spread.mean,
        "measured_top1_low_percent": spread.low,
        "measured_top1_high_percent": spread.high,
        "bound_percent": row.predicted.bound_percent,
        "predicted_percent": row.predicted.predicted_percent,
        "cheap_best_percent": row.cheap,
        "chance_percent": row.found.chance,
        "outcome": "hit" if row.hit else "miss",
        "measured_level": row.level,
        "predicted_level": hit.level(row.predicted.predicted_percent, row.found.chance),
        "ranks_nothing": gate or None,
        "followup": None if row.hit else followup_said(row, results),
        "measured_each_seed_percent": row.found.seeds.points(),
        "measured_interval_over": spread.over,
        "measured_test_videos": len(next(iter(row.found.seeds.right.values()), ())) or None,
        "measured_train_top1_percent": sum(trained) / len(trained),
        "measured_train_seconds": sum(seconds) / len(seconds),
        "why": row.predicted.why,
    }


def followup_said(row: Row, results: Sequence[tuple[Followup, float]]) -> str:
    """Return what the experiments on a miss showed; without any, that it is left open."""
    said = [
        _one_said(row, follow, percent)
        for follow, percent in results
        if (follow.probe, follow.value, follow.scheme, follow.depth) == (row.probe, row.value, row.scheme, row.depth)
    ]
    return "; ".join(said) or "left open: no experiment was made on it"


def _one_said(row: Row, follow: Followup, percent: float) -> str:
    """Say whether a scheme that missed its prediction reached it with the changes, or fell back to it."""
    hit, predicted, chance = skills().hit, row.predicted.predicted_percent, row.found.chance
    reached = hit.is_hit(percent, predicted, chance) or (percent > predicted) == (row.percent < predicted)
    if row.percent < predicted:
        word = (
            ("learns slowly" if follow.start is None else "learns from another start")
            if reached
            else "not seen to learn"
        )
    else:
        word = "falls back to the prediction" if reached else "stays above the prediction"
    return f"{word}: {percent:.1f} % with {changes_said(follow)}"


def changes_said(follow: Followup) -> str:
    """Return what a follow-up changed."""
    said = [f"{path}={value}" for path, value in follow.change.items()]
    if follow.start is not None:
        said.append(f"weights of {dial_said(follow.probe, follow.start)}")
    return ", ".join(said)
