"""Pairs of variants compared: the difference with its interval, p-values of direction and of equivalence within the
family of pairs, and a word.

The number of seeds of a table or sweep was settled before it ran, so there is a single look; claims that are looked at
while seeds are still running are decided by `looks`, and pairs of such a sweep are not tested besides: how many seeds
they have depends on what came of the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from timesformer_experiments.analysis.seeds import Seeds, Spread, difference_of
from timesformer_experiments.analysis.statistics.equivalence import (
    ALPHA,
    Judgement,
    beyond_margin_p,
    direction_p,
    equivalence_p,
    judge,
)
from timesformer_experiments.analysis.statistics.looks import corrected
from timesformer_experiments.report.statistics import p_text, signed

NOT_TESTED = "not tested"


@dataclass(frozen=True)
class Comparison:
    """Two variants under otherwise equal settings.

    first_percent, second_percent: means over the common seeds.  spread: first minus second [points].  judgement: within
    the family, None where nothing was tested; its p-values are corrected.  family: comparisons that were tested
    together.
    """

    setting: Mapping[str, Any]
    first: str
    second: str
    seeds: tuple[int, ...]
    first_percent: float
    second_percent: float
    spread: Spread
    judgement: Judgement | None = None
    family: int = 1
    untested: str = ""

    @property
    def difference_points(self) -> float:
        """First minus second."""
        return self.spread.mean

    @property
    def low_points(self) -> float | None:
        """Lower end of the 95 % interval."""
        return self.spread.low

    @property
    def high_points(self) -> float | None:
        """Upper end of the 95 % interval."""
        return self.spread.high

    @property
    def verdict(self) -> str:
        """Verdict on the two: which is better, or the word of `equivalence.judge`."""
        if self.judgement is None:
            return NOT_TESTED
        named = {"supported": f"{self.first} is better", "contradicted": f"{self.second} is better"}
        return named.get(self.judgement.word, self.judgement.word)

    @property
    def apart(self) -> bool:
        """True if one of the two is better."""
        return self.judgement is not None and self.judgement.word in ("supported", "contradicted")

    def sentence(self) -> str:
        """Verdict in words."""
        where = ", ".join(f"{name} {value}" for name, value in self.setting.items())
        said = f"{where}: " if where else ""
        said += f"{self.first} {self.first_percent:.1f} % and {self.second} {self.second_percent:.1f} %: "
        said += f"difference {signed(self.difference_points)} points"
        found, spread = self.judgement, self.spread
        if spread.low is not None and spread.high is not None:
            said += f", 95 % interval {signed(spread.low)} to {signed(spread.high)} {spread.scope()}"
        if found is None:
            return f"{said}, not tested ({self.untested or spread.note})"
        p_values = (("direction", found.direction_p), ("equivalence", found.equivalence_p))
        tests = [f"{name} {p_text(value)}" for name, value in p_values if value is not None]
        if tests:
            among = f" among {self.family} comparisons" if self.family > 1 else ""
            said += f" ({', '.join(tests)}{among})"
        said += f": {self.verdict}"
        said += f"; {found.lacking()}" if found.word == "undecided" else ""
        remark = ""
        if spread.estimate is not None:
            remark = spread.estimate.remark() if len(self.seeds) > 1 else spread.estimate.few_groups()
        return f"{said} ({remark})" if remark else said

    def to_dict(self) -> dict[str, Any]:
        """Plain data, with the verdict."""
        found, estimate = self.judgement, self.spread.estimate
        return {
            "setting": dict(self.setting),
            "first": self.first,
            "second": self.second,
            "seeds": list(self.seeds),
            "videos": None if estimate is None or self.spread.over == "seeds alone" else estimate.videos,
            "groups": None if estimate is None or self.spread.over == "seeds alone" else estimate.clusters,
            "first_percent": self.first_percent,
            "second_percent": self.second_percent,
            "difference_points": self.difference_points,
            "low_points": self.low_points,
            "high_points": self.high_points,
            "direction_p": found.direction_p if found else None,
            "equivalence_p": found.equivalence_p if found else None,
            "smallest_difference_points": found.smallest_difference if found else None,
            "more_seeds": found.more_seeds if found else None,
            "interval_over": self.spread.over,
            "design": None if estimate is None or self.spread.over == "seeds alone" else estimate.design,
            "family": self.family,
            "verdict": self.verdict,
            "note": self.untested or self.spread.note,
        }


def compare(
    first: Seeds,
    second: Seeds,
    *,
    names: tuple[str, str] = ("first", "second"),
    setting: Mapping[str, Any] | None = None,
) -> Comparison:
    """Compare two variants over their common seeds, not yet judged: see `judged`.

    Raises InputError if they have no seed in common.
    """
    spread = difference_of(first, second)
    seeds = tuple(sorted(set(first.percent) & set(second.percent)))
    paired = spread.over in ("seeds and test videos", "test videos alone")
    points = [each.each() if paired else each.percent for each in (first, second)]
    means = [float(np.mean([each[seed] for seed in seeds])) for each in points]
    return Comparison(dict(setting or {}), *names, seeds, means[0], means[1], spread)


def judged(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Judge comparisons as one family: p-values of direction and equivalence are corrected for all of them together."""
    tested = [each for each in comparisons if each.spread.estimate is not None and len(each.seeds) > 1]
    estimates = [each.spread.estimate for each in tested if each.spread.estimate is not None]
    tests = [
        [test if test is not None else 1.0 for test in tests]
        for tests in (
            [direction_p(estimate, "more") for estimate in estimates],
            [equivalence_p(estimate) for estimate in estimates],
            [beyond_margin_p(estimate) for estimate in estimates],
        )
    ]
    direction, equivalence = corrected(*(np.array(each, float) for each in tests)) if tested else (np.empty(0),) * 2
    p_values = {id(each): pair for each, *pair in zip(tested, direction, equivalence, strict=True)}
    found = []
    for each in comparisons:
        if each.spread.estimate is None:
            found.append(each)
            continue
        one, other = map(float, p_values[id(each)]) if id(each) in p_values else (None, None)
        judgement = judge(each.spread.estimate, one, other, alpha=ALPHA / max(len(tested), 1))
        found.append(replace(each, judgement=judgement, family=max(len(tested), 1)))
    return found
