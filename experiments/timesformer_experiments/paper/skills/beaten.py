"""For each scheme and each other: the probe on which the other is furthest ahead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations

import pandas as pd

from timesformer_experiments.analysis.pairs import Comparison, compare, judged
from timesformer_experiments.paper.skills.measured import Row, Value, dial_said
from timesformer_experiments.paper.skills.registered import skills
from timesformer_experiments.report.report import Part
from timesformer_experiments.report.tables import Column, Table

ONE_SEED = "one seed; these two models differ"
COLUMNS = (
    Column("scheme", "Scheme", "label"),
    Column("other", "The other", "label"),
    Column("probe", "Probe", "label"),
    Column("dial", "Dial", "label"),
    Column(
        "measured_ahead_points",
        "The other is ahead by [points]",
        "measured",
        bounds=("measured_ahead_low_points", "measured_ahead_high_points"),
    ),
    Column("verdict", "Verdict", "label"),
    Column("measured_points_tried", "Values of dials tried", "measured", decimals=0),
)


def part(rows: Sequence[Row], shut: Mapping[tuple[str, Value, int], str]) -> Part | None:
    """Return the table; None where no probe may rank schemes.  shut: why a probe ranks nothing, by value and depth."""
    compared = comparisons(rows, shut)
    if not compared:
        return None
    found = pd.DataFrame(
        [_best(first, second, compared) for first, second in permutations(skills().schemes, 2) if first != "space"]
    )
    seeds = {len(each.seeds) for each in compared}
    interval = "95 % intervals for new test videos alone: one seed" if seeds == {1} else "95 % intervals"
    caption = (
        "For each scheme and each other: the value of a dial at which the other is furthest ahead, among those that "
        f"may rank schemes; the probes' first depth; {interval}"
    )
    return Part("beaten", "Where one scheme sees what another does not", Table(found, COLUMNS, caption))


def comparisons(rows: Sequence[Row], shut: Mapping[tuple[str, Value, int], str]) -> list[Comparison]:
    """Compare all pairs of schemes wherever a probe may rank them, judged as one family."""
    by_place: dict[tuple[str, Value], dict[str, Row]] = {}
    for row in rows:
        if row.depth == skills().probes[row.probe].expected[0].depth and not shut[row.probe, row.value, row.depth]:
            by_place.setdefault((row.probe, row.value), {})[row.scheme] = row
    found = []
    for (probe, value), of_schemes in by_place.items():
        for first, second in permutations(of_schemes, 2):
            if skills().schemes.index(first) < skills().schemes.index(second):
                pair = of_schemes[first].found.seeds, of_schemes[second].found.seeds
                setting = {"probe": probe, "dial": dial_said(probe, value)}
                found.append(compare(*pair, names=(first, second), setting=setting))
    return judged(found)


def _best(scheme: str, other: str, compared: Sequence[Comparison]) -> dict[str, object]:
    """Return the comparison in which the other is furthest ahead, of those that tell the two apart if there are any."""
    own = [each for each in compared if {each.first, each.second} == {scheme, other}]
    ahead = [(-_of(each, scheme)[0], each) for each in own]
    apart = [(points, each) for points, each in ahead if points > 0 and told_apart(each)]
    points, best = max(apart or ahead, key=lambda pair: pair[0])
    _, low, high = _of(best, scheme)
    return {
        "scheme": scheme,
        "other": other,
        "probe": best.setting["probe"],
        "dial": best.setting["dial"],
        "measured_ahead_points": points,
        "measured_ahead_low_points": None if high is None else -high,
        "measured_ahead_high_points": None if low is None else -low,
        "verdict": said(best) if points > 0 else "not seen ahead on any of them",
        "measured_points_tried": len(own),
    }


def told_apart(compared: Comparison) -> bool:
    """Return True if the two models, or with several seeds the two schemes, are told apart."""
    return compared.apart or compared.verdict == "these two models differ"


def said(compared: Comparison) -> str:
    """Return the verdict in words; with one seed it is on two models alone."""
    return ONE_SEED if compared.verdict == "these two models differ" else compared.verdict


def _of(compared: Comparison, first: str) -> tuple[float, float | None, float | None]:
    """Return the difference with its interval, `first` minus the other."""
    points, low, high = compared.difference_points, compared.low_points, compared.high_points
    if compared.first == first:
        return points, low, high
    return -points, None if high is None else -high, None if low is None else -low
