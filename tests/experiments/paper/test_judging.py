"""Five verdicts on committed runs of `motion`, with the arithmetic written out: crossed, nested, in groups, two looks.

Runs of one scheme, from Table 1 and from the other machine of the localisation, stand for seeds.  All were tested on
the same 1024 videos, in which every clip is followed by its reversal.  Intervals and p-values are computed here from
pairs of clips by the mean squares themselves.
"""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy import optimize, stats

from timesformer_experiments.analysis.seeds import Seeds, mean_of
from timesformer_experiments.paper.accuracy import Accuracy, seeds_of
from timesformer_experiments.paper.judging import Answer, Asked, Limit, answers
from timesformer_experiments.specs.paper_claims import PaperClaim

RESULTS = Path(__file__).parents[3] / "results"


@cache
def runs(scheme: str) -> Seeds:
    """Return the six runs of a scheme on the full probe: seeds 0 to 2 of Table 1, then those of the other machine."""
    found = {}
    for number, name in enumerate(("table1", "localisation")):
        for line in (RESULTS / name / "full" / "records.jsonl").read_text().splitlines():
            record = json.loads(line)
            if record["name"].startswith(f"table1-full-motion-{scheme}-s") and record["kind"] == "accuracy":
                found[3 * number + record["seed"]] = record
    return seeds_of(dict(sorted(found.items())))


def joined(*parts: Seeds) -> Seeds:
    """Return the runs of several as if they were seeds of one."""
    right = dict(enumerate(hits for part in parts for hits in part.right.values()))
    percent = {place: 100 * sum(hits.values()) / len(hits) for place, hits in right.items()}
    return Seeds(percent, right, parts[0].clusters)


def first_of(seeds: Seeds, count: int) -> Seeds:
    """Return the first so many seeds."""
    kept = range(count)
    percent, right = ({seed: each[seed] for seed in kept} for each in (seeds.percent, seeds.right))
    return Seeds(percent, right, seeds.clusters)


def part_of(seeds: Seeds, size: int) -> Seeds:
    """Return the same with test videos of its own for each seed: the first `size` for the first, and so on."""
    right = {}
    for place, hits in enumerate(seeds.right.values()):
        names = sorted(hits)[place * size : (place + 1) * size]
        right[place] = {name: hits[name] for name in names}
    return Seeds({seed: 100 * sum(h.values()) / size for seed, h in right.items()}, right, seeds.clusters)


def claim(name: str, expected: str = "more", family: str = "a") -> PaperClaim:
    fields = {"text": name, "artefact": "table1", "on": "motion", "first": "a", "second": "b", "family": family}
    return PaperClaim.model_validate(fields | {"expected": expected})


def side(seeds: Seeds) -> Accuracy:
    found = mean_of(seeds)
    return Accuracy(found.mean, found.low, found.high, found.over, 1024, 512, 12.5, seeds)


def answer(first: Seeds, second: Seeds, expected: str = "more") -> Answer:
    """Return the answer to a claim that is alone in its family."""
    (found,) = answers([Asked(claim("x", expected), side(first), side(second))])
    return found


def table(first: Seeds, second: Seeds, count: int) -> np.ndarray:
    """Return differences of pairs of clips in points, a row a seed."""
    rows = []
    for seed in range(count):
        one, other = ([float(each.right[seed][name]) for name in sorted(each.right[seed])] for each in (first, second))
        differences = 100 * (np.array(one) - np.array(other))
        rows.append((differences[0::2] + differences[1::2]) / 2)
    return np.array(rows)


def crossed_p(found: np.ndarray, null: float = 0.0) -> tuple[float, float]:
    """Return p, one-sided and two-sided, of a mean of at most `null`, from mean squares."""
    seeds, pairs = found.shape
    mean, rows, columns = found.mean(), found.mean(1), found.mean(0)
    of_seeds = pairs * ((rows - mean) ** 2).sum() / (seeds - 1)
    of_pairs = seeds * ((columns - mean) ** 2).sum() / (pairs - 1)
    rest = ((found - rows[:, None] - columns + mean) ** 2).sum() / ((seeds - 1) * (pairs - 1))
    square = of_seeds + max(of_pairs - rest, 0)
    share, statistic = of_seeds / square, (mean - null) / np.sqrt(square / found.size)

    def missing(log_p: float) -> float:
        few, many = (stats.t.isf(np.exp(log_p), freedom) for freedom in (seeds - 1, pairs - 1))
        return float(share * few + (1 - share) * many - abs(statistic))

    tail = float(np.exp(optimize.brentq(missing, -200, np.log(0.5))))
    return (tail if statistic > 0 else 1 - tail), 2 * tail


def power(found: np.ndarray, level: float) -> float:
    """Return the difference that is found with 80 % power: where the noncentral t has a fifth below the critical value
    of the plain t with the same limit."""
    seeds, pairs = found.shape
    mean, rows, columns = found.mean(), found.mean(1), found.mean(0)
    of_seeds = pairs * ((rows - mean) ** 2).sum() / (seeds - 1)
    of_pairs = seeds * ((columns - mean) ** 2).sum() / (pairs - 1)
    rest = ((found - rows[:, None] - columns + mean) ** 2).sum() / ((seeds - 1) * (pairs - 1))
    square = of_seeds + max(of_pairs - rest, 0)
    share = of_seeds / square
    limit = share * stats.t.isf(level / 2, seeds - 1) + (1 - share) * stats.t.isf(level / 2, pairs - 1)
    freedom = optimize.brentq(lambda each: stats.t.isf(level / 2, each) - limit, 1, pairs)
    difference = optimize.brentq(lambda each: stats.nct.sf(limit, freedom, each) - 0.8, 0, 50)
    return float(difference * np.sqrt(square / found.size))


def test_supported_by_one_look_at_crossed_pairs() -> None:
    first, second = runs("joint"), runs("space")
    assert [sum(hits.values()) for hits in first.right.values()] == [881, 860, 768, 891, 863, 855]
    found = answer(first, second)
    _, p_value = crossed_p(table(first, second, 5))  # the look sees five of the six
    assert found.decision is not None
    assert found.decision.direction_p == pytest.approx(10 * p_value, rel=1e-6)  # 0.05 / 0.005
    assert (found.word, found.decision.decided_at, found.judgement.seeds) == ("supported", 5, 5)
    assert found.spread is not None
    assert found.spread.mean == pytest.approx(table(first, second, 5).mean())


def test_equivalence_by_one_look_at_crossed_pairs() -> None:
    first, second = runs("divided"), runs("local_global")
    found, near = answer(first, second), answer(first, second, "near")
    differences = table(first, second, 5)
    above, _ = crossed_p(differences, -2.0)
    not_below = 1 - crossed_p(differences, 2.0)[0]
    expected = min(1.0, 10 * max(above, not_below))
    for each in (found, near):
        assert each.decision is not None
        assert each.decision.equivalence_p == pytest.approx(expected, rel=1e-6)
    assert expected == pytest.approx(0.0109, abs=1e-4)
    assert (found.word, near.word) == ("equivalent", "supported")


def test_undecided_where_each_seed_has_test_videos_of_its_own() -> None:
    first, second = part_of(runs("divided"), 170), part_of(runs("axial"), 170)
    found = answer(first, second)
    points = [
        100 * (sum(first.right[seed].values()) - sum(second.right[seed].values())) / 170
        for seed in range(5)
    ]  # fmt: skip
    assert found.spread is not None
    assert found.spread.estimate is not None
    assert (found.spread.estimate.design, found.spread.estimate.clusters) == ("nested", 85)
    assert found.decision is not None
    assert found.decision.direction_p == pytest.approx(min(1.0, 10 * stats.ttest_1samp(points, 0).pvalue))
    # Six seeds were run; the look saw five, and so do interval and power.
    assert (found.word, found.judgement.seeds, found.seeds) == ("undecided", 5, 5)
    interval = stats.ttest_1samp(points, 0).confidence_interval(0.95)
    assert (found.spread.low, found.spread.high) == pytest.approx((interval.low, interval.high))


def test_two_looks_take_the_smaller_of_what_they_spent() -> None:
    first = first_of(joined(runs("divided"), runs("local_global")), 8)
    second = first_of(joined(runs("joint"), runs("axial")), 8)
    looks = [crossed_p(table(first, second, count))[1] for count in (5, 8)]
    assert looks == pytest.approx([0.1726, 0.0842], abs=1e-4)
    found = answer(first, second)
    assert found.decision is not None
    # 0.05 / 0.005 times the first, at most 1, and 0.05 / 0.01 times the second.
    assert found.decision.direction_p == pytest.approx(5 * looks[1], rel=1e-6)
    assert (found.word, found.decision.decided_at, found.decision.more_seeds) == ("undecided", None, 4)
    assert found.judgement.seeds == 8
    assert found.judgement.found_with_power == pytest.approx(power(table(first, second, 8), 0.01), rel=1e-3)


def test_one_seed_tells_two_models_apart_and_has_no_verdict() -> None:
    first, second = (
        Seeds({0: each.percent[0]}, {0: each.right[0]}, each.clusters) for each in (runs("divided"), runs("space"))
    )
    found = answer(first, second)
    values = table(first, second, 1)[0]
    expected = stats.ttest_1samp(values, 0)
    assert found.word == "these two models differ"
    assert found.spread is not None
    interval = expected.confidence_interval(0.95)
    assert (found.spread.low, found.spread.high) == pytest.approx((interval.low, interval.high))
    assert (found.decision, found.judgement.direction_p, found.judgement.found_with_power) == (None, None, None)


def test_what_is_not_measured_does_not_change_the_family() -> None:
    joint, space = side(runs("joint")), side(runs("space"))
    both = answers([Asked(claim("x"), joint, space), Asked(claim("y"))])
    assert [each.word for each in both] == ["supported", "not run"]
    (alone,) = answers([Asked(claim("x"), joint, space)])
    assert both[0].judgement.direction_p == pytest.approx(2 * (alone.judgement.direction_p or 0))
    fields = claim("z").model_dump(exclude={"name", "bound"})
    settled = PaperClaim.model_validate(fields | {"bound": {"first": "clips", "second": "clips"}})
    with_bound = answers(
        [
            Asked(claim("x"), joint, space),
            Asked(settled, joint, space, (Limit(75.0, "clips"), Limit(50.0, "clips")), settled=True),
        ]
    )
    assert with_bound[0].judgement.direction_p == alone.judgement.direction_p  # what is settled is in no family
    assert with_bound[1].word == "settled by construction"
    assert "no model that reads these clips can pass 50.0 % on the second side" in with_bound[1].judgement.bound
    gated = answers([Asked(claim("x"), joint, space, not_ranked="a forest reaches 86 %, the best scheme 87 %")])
    assert gated[0].word == "not ranked: a forest reaches 86 %, the best scheme 87 %"
    assert gated[0].decision is None
