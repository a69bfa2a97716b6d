"""Seeds added in looks, on trainings that never ran: what is asked for; order and later seeds do not matter."""

import random

import numpy as np
import pytest

from timesformer.errors import InputError
from timesformer_experiments.analysis.statistics.equivalence import seeds_needed, smallest_difference
from timesformer_experiments.analysis.statistics.estimators import nested
from timesformer_experiments.specs.claims import parse_claims
from timesformer_experiments.specs.sweep import parse_sweep
from timesformer_experiments.sweep.tune import key_of
from timesformer_experiments.sweep.until import look

SCHEMES = ("joint", "divided", "space")
CLAIMS = [
    {"name": "far", "family": "one", "first": "joint", "second": "space"},
    {"name": "close", "family": "one", "first": "joint", "second": "divided"},
]
SWEEP = parse_sweep(
    {
        "name": "s",
        "base": {"data": {"probe": "motion", "num_train": 8, "num_test": 8}, "model": {}},
        "axes": {"model.attention": list(SCHEMES)},
        "until": {"claims": CLAIMS},
    }
)
VARIANTS = [key_of(variant) for variant in SWEEP.variants()]
KEY = dict(zip(SCHEMES, VARIANTS, strict=True))


def runs_of(seeds):
    return {variant: [f"{variant} {seed}" for seed in range(count)] for variant, count in seeds.items()}


def estimate(first, second):
    pairs = [np.array([first[seed]["points"] - second[seed]["points"]]) for seed in first]
    return nested(pairs)


def trainings(rng, levels, spread=1.0):
    """An outcome for each seed of each scheme."""
    return {
        f"{KEY[scheme]} {seed}": {"outcome": "done", "points": level + spread * rng.standard_normal()}
        for scheme, level in levels.items()
        for seed in range(20)
    }


def carry_out(outcomes, claims=CLAIMS, order=None):
    """Runs what is asked for, at once or one at a time in a random order, until nothing more is."""
    registered, done = parse_claims({"claims": claims}, "claims"), {}
    while True:
        looked = look(SWEEP, registered, VARIANTS, runs_of, done, estimate)
        missing = [key for keys in runs_of(looked.seeds).values() for key in keys if key not in done]
        if not missing:
            return looked
        done |= {key: outcomes[key] for key in (missing if order is None else [order.choice(missing)])}


def said(looked):
    return looked.seeds, [each.to_dict() for each in looked.standings]


LEVELS = {"joint": 80.0, "divided": 79.0, "space": 50.0}


@pytest.fixture(scope="module")
def outcomes():
    return trainings(np.random.default_rng(2), LEVELS, spread=4.0)


@pytest.fixture(scope="module")
def looked(outcomes):
    return carry_out(outcomes)


def test_seeds_are_added_for_open_claims_alone(looked):
    far, close = (each.to_dict() for each in looked.standings)
    assert (far["verdict"], far["decided_at_seeds"], far["seeds"]) == ("supported", 5, 5)
    assert (close["verdict"], close["decided_at_seeds"], close["seeds"]) == ("undecided", None, 20)
    assert looked.seeds == {KEY["joint"]: 20, KEY["divided"]: 20, KEY["space"]: 5}


@pytest.mark.parametrize("seed", [0, 1])
def test_the_order_in_which_runs_end_does_not_matter(outcomes, looked, seed):
    assert said(carry_out(outcomes, order=random.Random(seed))) == said(looked)


def test_a_decided_claim_ignores_later_seeds(outcomes, looked):
    """`far` is decided at five seeds; its first side has twenty, whatever they are."""
    other = {key: dict(record) for key, record in outcomes.items()}
    for seed in range(5, 20):
        other[f"{KEY['joint']} {seed}"]["points"] += 0.5
    again = carry_out(other)
    assert again.standings[0].to_dict() == looked.standings[0].to_dict()
    assert again.standings[1].to_dict() != looked.standings[1].to_dict()


def test_a_claim_has_no_more_seeds_than_it_is_registered_for(outcomes):
    looked = carry_out(outcomes, [CLAIMS[0], CLAIMS[1] | {"most_seeds": 8}])
    assert looked.seeds == {KEY["joint"]: 8, KEY["divided"]: 8, KEY["space"]: 5}
    assert looked.standings[1].to_dict()["seeds"] == 8


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"most_seeds": 4}, r"claim 'close': most_seeds: expected at least 5, the seeds of the first look, got 4"),
        ({"margin": 1}, r"claim 'close': margin: expected 2, as of the first claim, got 1"),
    ],
)
def test_a_claim_that_no_look_can_judge_is_refused(outcomes, fields, message):
    with pytest.raises(InputError, match=message):
        carry_out(outcomes, [CLAIMS[0], CLAIMS[1] | fields])


def test_power_is_that_of_the_look_within_the_family(looked):
    close = looked.standings[1]
    found = close.to_dict()
    assert found["smallest_difference_points"] == pytest.approx(smallest_difference(close.estimate, 0.02 / 2))
    assert found["more_seeds"] == max(0, seeds_needed(close.estimate, 2.0, 0.02 / 2) - 20)
    assert f"{found['more_seeds']} more seeds would find 2" in found["sentence"]
    wide = carry_out(
        trainings(np.random.default_rng(2), LEVELS, spread=4.0), [each | {"margin": 3} for each in CLAIMS]
    ).standings[1]
    assert wide.to_dict()["more_seeds"] == max(0, seeds_needed(wide.estimate, 3.0, 0.02 / 2) - wide.estimate.seeds)
    assert "would find 3" in wide.sentence()


def test_what_restricts_a_claim_is_said(outcomes):
    none = look(SWEEP, parse_claims({"claims": CLAIMS}, "claims"), VARIANTS, runs_of, {}, estimate).standings[0]
    assert (none.to_dict()["verdict"], none.to_dict()["seeds"]) == ("undecided", 0)
    assert none.sentence() == "undecided: no look yet, as runs of the first are missing or have failed"
    same = {key: dict(record) for key, record in outcomes.items()}
    for key, record in same.items():
        record["points"] = LEVELS[next(scheme for scheme in SCHEMES if key.startswith(KEY[scheme]))]
    said = carry_out(same).standings[0].sentence()
    assert said.startswith("undecided: +30.0 points")  # so few seeds that are all the same say little
    assert "the 20 seeds do not differ: the interval is that of one more seed, as far from them as can be" in said


def test_at_chance_nothing_is_decided():
    """Two schemes that learn nothing are equal to a hair; that says nothing of them."""
    made = trainings(np.random.default_rng(0), {"joint": 12.5, "divided": 12.5, "space": 12.5}, spread=0.3)
    for record in made.values():
        low, high = record["points"] - 2, record["points"] + 2
        record["metrics"] = {"top1_percent": record["points"], "top1_low_percent": low, "top1_high_percent": high}
        record["dataset"] = {"test": {"labels": {str(label): 4 for label in range(8)}}}
    near = [CLAIMS[0], CLAIMS[1] | {"expected": "near"}]
    looked = carry_out(made, near)
    for each in looked.standings:
        assert (each.to_dict()["verdict"], each.to_dict()["direction_p"]) == ("undecided", 1.0)
        assert "neither side is above chance" in each.sentence()
    for key, record in made.items():
        if key.startswith(KEY["joint"]):
            record["metrics"] = {"top1_percent": 12.5, "top1_low_percent": 12.6, "top1_high_percent": 15.0}
    assert carry_out(made, near).standings[1].to_dict()["verdict"] == "supported"


def test_near_claims_end_once_they_are_shown():
    outcomes = trainings(np.random.default_rng(0), {"joint": 80.0, "divided": 80.0, "space": 50.0}, spread=0.3)
    looked = carry_out(outcomes, [CLAIMS[0], CLAIMS[1] | {"expected": "near"}])
    assert looked.standings[1].to_dict()["verdict"] == "supported"
    assert set(looked.seeds.values()) == {5}


def test_a_failed_run_holds_its_claim_until_it_is_made_again(outcomes, looked):
    key = f"{KEY['divided']} 6"
    failing = outcomes | {key: {"outcome": "failed"}}
    held = carry_out(failing)
    far, close = (each.to_dict() for each in held.standings)
    assert far == looked.standings[0].to_dict()
    assert (close["seeds"], close["verdict"]) == (5, "undecided")
    assert held.seeds == {KEY["joint"]: 8, KEY["divided"]: 8, KEY["space"]: 5}
    assert said(carry_out(outcomes)) == said(looked)


def test_false_positives_over_all_looks_stay_within_the_level():
    """A family of two claims where nothing differs: at most 5 % of the families find a direction.

    If 5 % did, more than 8 of 60 would with a probability below 1 in 100.
    """
    rng, wrong = np.random.default_rng(7), 0
    for _ in range(60):
        looked = carry_out(trainings(rng, dict.fromkeys(SCHEMES, 80.0), spread=3.0))
        wrong += any(each.decision.decided_by in ("direction", "both") for each in looked.standings)
    assert wrong <= 8
