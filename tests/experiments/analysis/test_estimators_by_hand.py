"""Committed cells and comparisons of Table 1 recomputed with the arithmetic written out.

The counts below are how many test videos (or pairs of a clip and its reversal) have which value, counted in the bits of
`results/table1/full/records.jsonl`.  All its runs share one draw of the test videos, so that `crossed` is their
estimator; `nested` is shown on the same numbers for its arithmetic.
"""

import json
from collections import Counter
from functools import cache
from math import sqrt
from pathlib import Path

import pytest

from timesformer_experiments.analysis.statistics.estimators import (
    Estimate,
    Runs,
    crossed_difference,
    crossed_mean,
    nested_difference,
    nested_mean,
)
from timesformer_experiments.records.hits import hits_of

RECORDS = Path(__file__).parents[3] / "results" / "table1" / "full" / "records.jsonl"
# Two-sided 5 % of Student's t, from its table: for 2, 511 and 1023 degrees of freedom.
T2, T511, T1023 = 4.30265, 1.96463, 1.96229


@cache
def table1() -> dict[str, dict[int, dict[str, bool]]]:
    """Return which test videos were right, by variant and seed."""
    found: dict[str, dict[int, dict[str, bool]]] = {}
    for line in RECORDS.read_text().splitlines():
        record = json.loads(line)
        name = record["name"].removeprefix("table1-full-").rsplit("-s", 1)[0]
        found.setdefault(name, {})[record["seed"]] = hits_of(record)
    return found


def pairs(runs: Runs) -> dict[str, str]:
    """Return the cluster of each test video of `motion`: every clip is followed by its reversal."""
    return {name: f"{int(name.split(':')[1]) // 2:06d}" for name in runs[0]}


def counted(first: str, second: str | None = None, together: int = 1) -> tuple[list[dict[int, int]], dict[int, int]]:
    """Count the videos or pairs by value, for each seed and summed over the seeds."""
    rows = []
    for seed in range(3):
        names = sorted(table1()[first][seed])
        taken = table1()[second][seed] if second is not None else dict.fromkeys(names, False)
        values = [table1()[first][seed][name] - taken[name] for name in names]
        rows.append([sum(values[i : i + together]) for i in range(0, 1024, together)])
    return [dict(Counter(row)) for row in rows], dict(Counter(map(sum, zip(*rows, strict=True))))


def agrees(found: Estimate, mean: float, error: float, half: float) -> None:
    assert found.mean == pytest.approx(mean, abs=1e-9)
    assert found.error == pytest.approx(error, rel=1e-9)
    low, high = found.interval() or (0.0, 0.0)
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=2e-3)
    assert (found.seeds, found.videos) == (3, 1024)


def test_cell_nested_divided_on_motion() -> None:
    assert [sum(row.values()) for row in table1()["motion-divided"].values()] == [886, 887, 892]
    a, b, c = 100 * 886 / 1024, 100 * 887 / 1024, 100 * 892 / 1024
    mean = (a + b + c) / 3
    variance = ((a - mean) ** 2 + (b - mean) ** 2 + (c - mean) ** 2) / 2
    error = sqrt(variance / 3)
    agrees(nested_mean(table1()["motion-divided"]), mean, error, T2 * error)


def test_cell_crossed_divided_on_appearance() -> None:
    rows, columns = counted("appearance-divided")
    assert [row[1] for row in rows] == [827, 833, 832]
    assert columns == {0: 126, 1: 66, 2: 70, 3: 762}  # right for none, one, two, all three seeds
    total = 827 + 833 + 832
    correction = total**2 / 3072
    seeds = (827**2 + 833**2 + 832**2) / 1024 - correction
    videos = (66 * 1 + 70 * 4 + 762 * 9) / 3 - correction
    rest = total - correction - seeds - videos  # a right video is 1, its square too
    square_seeds, square_videos, square_rest = seeds / 2, videos / 1023, rest / 2046
    variance = (square_seeds + square_videos - square_rest) / 3072
    share = square_seeds / (square_seeds + square_videos - square_rest)
    error = 100 * sqrt(variance)
    half = (share * T2 + (1 - share) * T1023) * error
    agrees(crossed_mean(table1()["appearance-divided"]), 100 * total / 3072, error, half)


def test_cell_crossed_in_pairs_joint_on_motion() -> None:
    rows, columns = counted("motion-joint", together=2)
    # Pairs of which none, one or both clips are right; then by how many of the six clips over all seeds.
    assert rows == [{0: 25, 1: 93, 2: 394}, {0: 46, 1: 72, 2: 394}, {0: 72, 1: 112, 2: 328}]
    assert columns == {0: 3, 1: 16, 2: 43, 3: 50, 4: 51, 5: 41, 6: 308}
    # A pair's value is half of its right clips: squares are a quarter of those counted here.
    total = (93 + 2 * 394 + 72 + 2 * 394 + 112 + 2 * 328) / 2
    squares = (93 + 4 * 394 + 72 + 4 * 394 + 112 + 4 * 328) / 4
    correction = total**2 / (3 * 512)
    seeds = (440.5**2 + 430**2 + 384**2) / 512 - correction
    of_pairs = (16 * 1 + 43 * 4 + 50 * 9 + 51 * 16 + 41 * 25 + 308 * 36) / 4 / 3 - correction
    rest = squares - correction - seeds - of_pairs
    square_seeds, square_pairs, square_rest = seeds / 2, of_pairs / 511, rest / 1022
    square = square_seeds + square_pairs - square_rest
    error = 100 * sqrt(square / (3 * 512))
    half = (square_seeds / square * T2 + (1 - square_seeds / square) * T511) * error
    found = crossed_mean(table1()["motion-joint"], pairs(table1()["motion-joint"]))
    agrees(found, 100 * total / (3 * 512), error, half)
    assert found.clusters == 512


def test_comparison_nested_divided_and_axial_on_motion() -> None:
    assert [sum(row.values()) for row in table1()["motion-axial"].values()] == [883, 899, 891]
    a, b, c = 100 * (886 - 883) / 1024, 100 * (887 - 899) / 1024, 100 * (892 - 891) / 1024
    mean = (a + b + c) / 3
    error = sqrt(((a - mean) ** 2 + (b - mean) ** 2 + (c - mean) ** 2) / 2 / 3)
    found = nested_difference(table1()["motion-divided"], table1()["motion-axial"])
    agrees(found, mean, error, T2 * error)
    # The t distribution with two degrees of freedom is known: P(|T| > t) = 1 - t / sqrt(t² + 2).
    statistic = abs(mean) / error
    assert found.p_value() == pytest.approx(1 - statistic / sqrt(statistic**2 + 2))


def test_comparison_crossed_joint_and_divided_on_appearance() -> None:
    rows, columns = counted("appearance-joint", "appearance-divided")
    assert [(row[1], row[-1]) for row in rows] == [(36, 24), (29, 20), (25, 19)]  # right for one of the two alone
    assert columns == {-2: 4, -1: 47, 0: 912, 1: 42, 2: 17, 3: 2}
    total = 12 + 9 + 6
    correction = total**2 / 3072
    seeds = (12**2 + 9**2 + 6**2) / 1024 - correction
    videos = (4 * 4 + 47 + 42 + 17 * 4 + 2 * 9) / 3 - correction
    rest = (36 + 24 + 29 + 20 + 25 + 19) - correction - seeds - videos
    square_seeds, square_videos, square_rest = seeds / 2, videos / 1023, rest / 2046
    square = square_seeds + square_videos - square_rest
    error = 100 * sqrt(square / 3072)
    half = (square_seeds / square * T2 + (1 - square_seeds / square) * T1023) * error
    found = crossed_difference(table1()["appearance-joint"], table1()["appearance-divided"])
    agrees(found, 100 * 27 / 3072, error, half)
    assert found.seed_share == pytest.approx(square_seeds / square)


def test_comparison_crossed_in_pairs_divided_and_space_on_motion() -> None:
    rows, columns = counted("motion-divided", "motion-space", together=2)
    assert rows == [
        {-1: 4, 0: 84, 1: 134, 2: 290},
        {-1: 9, 0: 79, 1: 114, 2: 310},
        {-1: 14, 0: 59, 1: 139, 2: 300},
    ]
    assert columns == {-2: 1, -1: 12, 0: 40, 1: 36, 2: 21, 3: 46, 4: 42, 5: 94, 6: 220}
    total = (710 + 725 + 725) / 2
    squares = (4 + 134 + 4 * 290 + 9 + 114 + 4 * 310 + 14 + 139 + 4 * 300) / 4
    correction = total**2 / 1536
    seeds = (355**2 + 362.5**2 + 362.5**2) / 512 - correction
    of_pairs = (4 + 12 + 36 + 21 * 4 + 46 * 9 + 42 * 16 + 94 * 25 + 220 * 36) / 12 - correction
    rest = squares - correction - seeds - of_pairs
    square_seeds, square_pairs, square_rest = seeds / 2, of_pairs / 511, rest / 1022
    square = square_seeds + square_pairs - square_rest
    error = 100 * sqrt(square / 1536)
    half = (square_seeds / square * T2 + (1 - square_seeds / square) * T511) * error
    runs = table1()
    found = crossed_difference(runs["motion-divided"], runs["motion-space"], pairs(runs["motion-space"]))
    agrees(found, 100 * total / 1536, error, half)
    # Clips of a pair tell less than clips alone: taken as independent, the error would be smaller.
    alone = crossed_difference(runs["motion-divided"], runs["motion-space"])
    assert alone.error is not None
    assert alone.error < error
