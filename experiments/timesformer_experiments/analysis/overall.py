"""One answer over all settings of a sweep: for each two variants the mean of their differences, with one interval and
one p-value, beside the tests of the single settings.

Estimator and unit: `statistics.stratified`.  Averaged are all axes other than the compared one and those that name a
task (`TASK`: probes, lists of videos, protocols), of which each value has an answer of its own.  The pairs of variants
are judged as one family, by the rules of `pairs`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from timesformer_experiments.analysis.axes import CELL, Axes, groups
from timesformer_experiments.analysis.comparisons import ACCURACY, Right, seeds_of
from timesformer_experiments.analysis.pairs import Comparison, judged
from timesformer_experiments.analysis.seeds import Seeds, Spread, averaged_difference, difference_of
from timesformer_experiments.analysis.statistics.equivalence import MARGIN_POINTS
from timesformer_experiments.analysis.statistics.stratified import common_block
from timesformer_experiments.report.statistics import signed
from timesformer_experiments.report.tables import Column, Table

TASK = (
    "sweep",
    "protocol",
    "evaluate_on",
    "evaluated_on",
    *(
        f"data.{name}"
        for name in ("probe", "train", "train_csv", "test", "test_csv", "val", "val_csv", "root", "format", "version")
    ),
)
"""Axes that are not averaged over: accuracies on different tasks have no common mean."""
ESTIMATOR = "mean of the settings' paired differences, each setting counted the same"
UNIT = "seed, averaged over the settings"
MOST_VALUES = 6
"""Largest number of values of an axis that are written out."""


@dataclass(frozen=True)
class Overall:
    """Two variants over several settings.

    pair: the averaged difference, judged among all pairs; its setting is the task.  pooled: what was averaged over, in
    words.  settings: their values on the averaged axes; points: their own differences.  left_out: settings and seeds
    that other settings lack, in words.
    """

    pair: Comparison
    pooled: str
    settings: tuple[Mapping[str, Any], ...]
    points: tuple[float, ...]
    left_out: str = ""

    @property
    def verdict(self) -> str:
        """Verdict on the two; with one seed there are several models of each."""
        return self.pair.verdict.replace("these two models", "these models")

    def sentence(self) -> str:
        """Verdict in words, with what was averaged over and the range of the single settings' differences."""
        seeds = f"{len(self.pair.seeds)} seed{'s' * (len(self.pair.seeds) != 1)}"
        said = f"Over {len(self.settings)} settings ({self.pooled}) and {seeds}: "
        said += self.pair.sentence().replace("these two models", "these models")
        said += f"; in the single settings {signed(min(self.points))} to {signed(max(self.points))} points"
        return f"{said}; {self.left_out}" if self.left_out else said

    def to_dict(self) -> dict[str, Any]:
        """Plain data: those of the pair, with estimator, unit, and the settings with their own differences."""
        return self.pair.to_dict() | {
            "verdict": self.verdict,
            "estimator": ESTIMATOR,
            "unit": UNIT,
            "pooled": self.pooled,
            "settings": [
                {**place, "difference_points": points} for place, points in zip(self.settings, self.points, strict=True)
            ],
            "left_out": self.left_out,
        }


@dataclass(frozen=True)
class _Stratum:
    """A setting: its values on the averaged axes, and the seeds of each variant."""

    place: dict[str, Any]
    variants: dict[str, Seeds]

    def pair(self, names: tuple[str, str]) -> tuple[Seeds, Seeds]:
        return self.variants[names[0]], self.variants[names[1]]


def overall(frame: pd.DataFrame, axes: Axes, right: Right) -> list[Overall]:
    """Compare every two values of the compared axis over all settings that both have, for each task.

    Empty where a task has a single setting: its own test is then the answer.  Without scores the answer is over the
    accuracies of the seeds.
    """
    if axes.compared is None or ACCURACY not in frame:
        return []
    task = [column for column in axes.others if column.removeprefix(CELL) in TASK]
    pooled = [column for column in axes.others if column not in task]
    done = frame[(frame["outcome"] == "done") & frame[ACCURACY].notna()]
    found: list[Overall] = []
    for _, rows in groups(done, task):
        where = axes.values(rows.iloc[0].to_dict(), task)
        strata = [
            _Stratum(
                axes.values(setting.iloc[0].to_dict(), pooled),
                {str(key[0]): seeds_of(part, right) for key, part in groups(setting, [axes.compared])},
            )
            for _, setting in groups(rows, pooled)
        ]
        names = [str(key[0]) for key, _ in groups(rows, [axes.compared])]
        each = (_averaged(strata, pair, where) for pair in itertools.combinations(names, 2))
        found += [one for one in each if one is not None]
    pairs = judged([each.pair for each in found])
    return [replace(each, pair=pair) for each, pair in zip(found, pairs, strict=True)]


def _averaged(strata: Sequence[_Stratum], names: tuple[str, str], where: dict[str, Any]) -> Overall | None:
    """Average two variants over the settings that both have; None where these are fewer than two."""
    both = [each for each in strata if all(name in each.variants for name in names)]
    common = [set(one.percent) & set(other.percent) for one, other in (each.pair(names) for each in both)]
    places, seeds = common_block(common)
    if len(places) < 2:
        return None
    kept = [both[place] for place in places]
    restricted = [(_of(one, seeds), _of(other, seeds)) for one, other in (each.pair(names) for each in kept)]
    spread: Spread = averaged_difference(restricted)
    paired = spread.over in ("seeds and test videos", "test videos alone")
    means = [
        float(np.mean([value for pair in restricted for value in _points(pair[side], paired).values()]))
        for side in (0, 1)
    ]
    pair = Comparison(where, *names, tuple(seeds), means[0], means[1], spread)
    points = tuple(difference_of(*each).mean for each in restricted)
    settings = tuple(each.place for each in kept)
    return Overall(pair, _ranges(settings), settings, points, _left_out(both, places, common, seeds))


def _points(seeds: Seeds, paired: bool) -> Mapping[int, float]:
    return seeds.each() if paired else seeds.percent


def _of(seeds: Seeds, kept: Sequence[int]) -> Seeds:
    """Restrict a variant to some of its seeds."""
    return replace(
        seeds,
        percent={seed: seeds.percent[seed] for seed in kept},
        right={seed: seeds.right[seed] for seed in kept if seed in seeds.right},
    )


def _ranges(settings: Sequence[Mapping[str, Any]]) -> str:
    """Return the averaged axes with their values, in words."""
    said = []
    for name in settings[0]:
        values = list(dict.fromkeys(place[name] for place in settings))
        if len(values) > 1:
            few = len(values) <= MOST_VALUES
            said.append(f"{name} {' or '.join(map(str, values))}" if few else f"{len(values)} values of {name}")
    return ", ".join(said)


def _left_out(
    strata: Sequence[_Stratum], places: Sequence[int], common: Sequence[set[int]], seeds: Sequence[int]
) -> str:
    """Return what is not averaged because it is not there everywhere."""
    said = []
    settings = [each.place for place, each in enumerate(strata) if place not in places]
    for place in settings[:MOST_VALUES]:
        said.append(f"{', '.join(f'{name} {value}' for name, value in place.items())} left out: too few common seeds")
    if len(settings) > MOST_VALUES:
        said.append(f"and {len(settings) - MOST_VALUES} more settings")
    missing = sorted(set[int]().union(*(common[place] for place in places)) - set(seeds))
    if missing:
        few = len(missing) == 1
        numbers = ", ".join(map(str, missing[:MOST_VALUES])) + ", …" * (len(missing) > MOST_VALUES)
        said.append(f"seed{'s' * (not few)} {numbers} left out: not in all settings")
    return "; ".join(said)


def overall_table(found: Sequence[Overall]) -> Table | None:
    """Make the table of answers, a row per pair and task; None if there are none."""
    if not found:
        return None
    rows = []
    for each in found:
        plain = each.to_dict()
        rows.append(
            {
                **each.pair.setting,
                "first": each.pair.first,
                "second": each.pair.second,
                "settings": len(each.settings),
                "seeds": len(each.pair.seeds),
                "measured_first_percent": each.pair.first_percent,
                "measured_second_percent": each.pair.second_percent,
                "measured_difference_points": each.pair.difference_points,
                "measured_difference_low_points": each.pair.low_points,
                "measured_difference_high_points": each.pair.high_points,
                "measured_least_setting_points": min(each.points),
                "measured_greatest_setting_points": max(each.points),
                **{name: plain[name] for name in ("direction_p", "equivalence_p")},
                **{name: plain[name] for name in ("smallest_difference_points", "more_seeds")},
                "interval_over": each.pair.spread.over,
                **{name: plain[name] for name in ("design", "estimator", "unit", "pooled", "left_out", "verdict")},
            }
        )
    frame = pd.DataFrame(rows)
    bounds = ("measured_difference_low_points", "measured_difference_high_points")
    columns = (
        *(Column(name, name, "label", decimals=0) for name in found[0].pair.setting),
        Column("first", "First", "label"),
        Column("second", "Second", "label"),
        Column("measured_difference_points", "First − second [points]", "measured", bounds=bounds),
        Column("measured_least_setting_points", "Least setting [points]", "measured"),
        Column("measured_greatest_setting_points", "Greatest setting [points]", "measured"),
        Column("settings", "Settings", "label", decimals=0),
        Column("seeds", "Seeds", "label", decimals=0),
        Column("direction_p", "p, direction", "label", decimals=4, least=1e-4),
        Column("equivalence_p", "p, equivalence", "label", decimals=4, least=1e-4),
        Column("smallest_difference_points", "80 % power [points]", "label"),
        Column("more_seeds", "Seeds still needed", "label", decimals=0),
        Column("verdict", "Verdict", "label"),
    )
    kept = tuple(column for column in columns if column.key in ("first", "second") or frame[column.key].notna().any())
    return Table(frame, kept, _caption(found), measured="measured here")


def _caption(found: Sequence[Overall]) -> str:
    over = " or ".join(dict.fromkeys(each.pair.spread.over for each in found if each.pair.spread.over != "nothing"))
    pooled = "; or ".join(dict.fromkeys(each.pooled for each in found))
    seeds = [len(each.pair.seeds) for each in found]
    said = (
        f"One answer over all settings ({pooled}): {ESTIMATOR}; unit: {UNIT}; top-1 accuracy, 95 % intervals over "
        f"{over or 'nothing'}"
    )
    if max(seeds) > 1:
        many = max(each.pair.family for each in found)
        said += f"; p-values of no difference and of one of {MARGIN_POINTS:g} points or more, corrected together for "
        said += f"{many} pair{'s' * (many != 1)}"
    return f"{said}; one seed gives no p-value: it says nothing of others" if min(seeds) == 1 else said
