"""The simulation: what it draws has the mean and spread that it says, few trials give its rows, and the committed table
agrees with itself."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from timesformer_experiments.analysis.statistics import simulate
from timesformer_experiments.analysis.statistics.equivalence import beyond_margin_p, equivalence_p
from timesformer_experiments.analysis.statistics.estimators import crossed, nested
from timesformer_experiments.analysis.statistics.simulated_runs import (
    Level,
    crossed_differences,
    crossed_right,
    humped,
    nested_accuracies,
    nested_differences,
)
from timesformer_experiments.analysis.statistics.simulation_table import Row, to_csv, to_markdown

COMMITTED = Path(__file__).parents[3] / "results" / "simulation"


def test_seeds_have_the_mean_and_spread_that_are_asked_for() -> None:
    random = np.random.default_rng(0)
    level = Level.of(85.0, 5.3)
    truth = 100 * stats.norm.cdf(level.centre + level.spread * random.standard_normal(200_000))
    assert truth.mean() == pytest.approx(85.0, abs=0.05)
    assert truth.std() == pytest.approx(5.3, abs=0.05)
    found = nested_accuracies(random, 20_000, 85.0, 3.6, 1, 512)
    assert found.mean() == pytest.approx(85.0, abs=0.1)
    assert found.var() == pytest.approx(3.6**2 + (85 * 15 - 3.6**2) / 512, rel=0.05)


def test_differences_have_the_mean_that_is_asked_for() -> None:
    truth = np.array([0.0, 2.0, 5.0])
    points = nested_differences(np.random.default_rng(0), 4000, 85.0, truth, 0.8, 2, 256, one_baseline=True)
    assert points.mean((0, 2)) == pytest.approx(truth, abs=0.15)
    assert np.corrcoef(points[:, 0, 0], points[:, 1, 0])[0, 1] > 0.3  # they share their baseline
    apart = nested_differences(np.random.default_rng(0), 4000, 85.0, truth, 0.8, 2, 256, one_baseline=False)
    assert abs(np.corrcoef(apart[:, 0, 0], apart[:, 1, 0])[0, 1]) < 0.1
    tables = np.concatenate(list(crossed_differences(np.random.default_rng(0), 400, 85.0, truth, 0.8, 2, 128)))
    assert tables.shape == (400, 3, 2, 128)
    assert set(np.unique(tables)) == {-100.0, 0.0, 100.0}
    assert tables.mean((0, 2, 3)) == pytest.approx(truth, abs=0.6)
    right = np.concatenate(list(crossed_right(np.random.default_rng(0), 400, 85.0, 0.8, 2, 128)))
    assert right.mean() == pytest.approx(85.0, abs=0.5)
    shared = np.corrcoef(right[:, 0].ravel(), right[:, 1].ravel())[0, 1]
    assert 0.15 < shared < 0.6  # the seeds' errors fall on the same videos


def test_failures_fall_on_the_share_that_is_asked_for() -> None:
    values = humped(np.random.default_rng(0), np.full((2000, 9), 85.0), 2 / 9, 40.0)
    assert set(np.unique(values)) == {45.0, 85.0}
    assert (values == 45.0).mean() == pytest.approx(2 / 9, abs=0.01)


def test_studies_are_judged_as_the_estimators_judge_one() -> None:
    random = np.random.default_rng(0)
    points = 3 + random.standard_normal((30, 5))
    tables = 100.0 * random.integers(-1, 2, (30, 5, simulate.CROSSED_VIDEOS)) + 8 * random.standard_normal((30, 5, 1))
    both = (
        (simulate.nested_means(points), [nested([np.array([each]) for each in row]) for row in points]),
        (simulate._at([tables], [5])[0], [crossed(table) for table in tables]),
    )
    for many, single in both:
        assert many.mean == pytest.approx([each.mean for each in single])
        assert many.half() == pytest.approx([(each.interval()[1] - each.interval()[0]) / 2 for each in single])
        for found, alone in (
            (many.direction(), [each.p_value() for each in single]),
            (many.beyond(), [beyond_margin_p(each) for each in single]),
            (many.equivalence(), [equivalence_p(each) for each in single]),
        ):
            spent = np.array(alone) <= 0.02
            assert found[spent] == pytest.approx(np.array(alone)[spent], rel=1e-6)
            assert (found[~spent] > 0.02).all()


def test_coverage_and_errors_of_few_trials() -> None:
    rows = simulate.coverage(np.random.default_rng(0), 40)
    covered = np.array([row.percent for row in rows if row.part == "coverage"])
    assert 92 < covered.mean() < 98.5
    truth = np.zeros(5)
    looks = simulate._looks("nested", np.random.default_rng(1), 300, truth, 0.8)
    tests = simulate._tests(looks)
    course, apart = simulate.follow(*tests), simulate._apart(*tests[:2])
    (direction,) = simulate._errors("all null", 0.8, truth, course, apart)
    assert direction.part == "false direction in a family"
    assert direction.percent < 8
    far = simulate.follow(*simulate._tests(simulate._looks("nested", np.random.default_rng(2), 100, truth + 8, 0.8)))
    assert (far.direction_corrected <= 0.05).mean() > 0.99
    assert (far.look >= 0).mean() > 0.99


def test_failing_trainings() -> None:
    rows = {(row.what, row.seeds): row for row in simulate.failures(np.random.default_rng(0), 300)}
    unseen = rows["no seed fails: the humps are not seen", 5].percent
    assert unseen == pytest.approx(100 * (7 / 9) ** 5, abs=8)
    assert rows["mean, Student's t (not given with two humps)", 5].percent < 85
    assert rows["median, order statistics", 9].percent > 90
    assert rows["share of failed trainings, Clopper-Pearson", 9].percent > 92


def test_near_claims_and_intervals_where_the_looks_end() -> None:
    near = simulate.near_claims(np.random.default_rng(0), 200)
    assert {(row.what, row.claims) for row in near} == {
        (f"nested, {word}", claims) for word in ("supported", "contradicted") for claims in simulate.FAMILIES
    }
    assert max(row.percent for row in near) < 9  # of 200 families 5 % are 10; 18 or more come with less than 1 in 100
    ends = simulate.stopping(np.random.default_rng(0), 200)
    assert all(row.goal is None and row.width is not None for row in ends)
    assert 90 < np.mean([row.percent for row in ends]) < 97


def test_the_same_seed_gives_the_same_rows() -> None:
    first, second = (simulate.failures(np.random.default_rng(3), 20) for _ in range(2))
    assert first == second


def test_table_as_it_is_read() -> None:
    rows = [
        Row("coverage", "nested, mean", 0.6, 3, 95.25, 400, (93.0, 97.0), width=7.46),
        Row("coverage", "nested, mean", 3.6, 3, 98.0, 400, (93.0, 97.0), width=17.04),
        Row("power: direction", "nested", 0.6, None, 3.5, 400, None, 1, seeds_used=12.26),
    ]
    frame = pd.DataFrame([row.to_dict() for row in rows])
    text = to_markdown(frame, 400)
    assert "| nested, mean | 3 |  | 95.2 (7.5) | **98.0** (17.0) |" in text
    assert "| nested |  | 1 | 3.50 (12.3) |" in text
    assert "1 of 2 shares with a goal are within it; the farthest of the others: coverage, nested, mean, SD 3.6" in text
    lines = to_csv(frame).splitlines()
    assert lines[1].startswith('coverage,"nested, mean",0.6,3,,95.25,')
    assert len(lines) == 4


def test_the_committed_table_agrees_with_itself() -> None:
    frame = pd.read_csv(COMMITTED / "simulation.csv")
    judged = frame[frame["holds"].notna()]
    within = judged["percent"].between(judged["goal_low_percent"], judged["goal_high_percent"])
    assert within.tolist() == judged["holds"].astype(bool).tolist()
    text = (COMMITTED / "simulation.md").read_text()
    assert f"{int(within.sum())} of {len(judged)} shares with a goal are within it" in text
    assert text.startswith("# What the statistics keep of what they promise\n\n10,000 simulated trials each")
