"""Draws of a recipe: the same for all variants, from the space that is stated, and what cannot be drawn."""

import math

import pytest
import yaml

from timesformer.errors import InputError
from timesformer_experiments.specs.run import RunSpec
from timesformer_experiments.specs.sweep import parse_sweep
from timesformer_experiments.specs.tune import DEFAULT, Space, Tune

BASE = {"data": {"probe": "motion", "num_train": 8, "num_test": 8, "num_val": 8}, "recipe": {"steps": 2}}
SWEEP = {"name": "s", "base": BASE, "axes": {"model.attention": ["divided", "joint"], "seed": [1, 2]}}


def test_draws_depend_on_the_seed_and_their_number_alone():
    eight = Tune(budget=8).draws()
    assert Tune(budget=3).draws() == eight[:3]
    assert Tune(budget=8, seed=1).draws() != eight
    (path,) = {"recipe.lr"}
    alone = Tune.model_validate({"budget": 8, "over": {path: DEFAULT[path]}}).draws()
    assert [draw[path] for draw in alone] == [draw[path] for draw in eight]


def test_a_run_takes_the_default_draws():
    for draw in Tune(budget=4).draws():
        fields = {"recipe": {"steps": 2}, "model": {}}
        for path, value in draw.items():
            part, name = path.split(".")
            fields[part][name] = value
        spec = RunSpec.parse({"name": "x", "data": BASE["data"], **fields})
        assert spec.recipe.lr == draw["recipe.lr"]


def test_ranges_are_drawn_evenly_on_their_scale():
    space, number = Space.parse("loguniform(1e-4, 1e-2)"), 400
    draws = Tune.model_validate({"budget": number, "over": {"recipe.lr": "loguniform(1e-4, 1e-2)"}}).draws()
    values = sorted(draw["recipe.lr"] for draw in draws)
    assert space.low <= values[0] < 1.1e-4
    assert 0.9e-2 < values[-1] <= space.high
    # The middle of a logarithmic range is its geometric mean; half of the draws lie below, within four standard errors.
    below = sum(value < 1e-3 for value in values)
    assert abs(below - number / 2) < 4 * math.sqrt(number) / 2
    assert Space.parse("uniform(0, 1)").at(0.25) == 0.25
    assert [Space.parse(["a", "b"]).at(share) for share in (0.0, 0.49, 0.5, 0.999)] == ["a", "a", "b", "b"]


def test_a_grid_is_whole():
    over = {"recipe.lr": "loguniform(1e-4, 1e-2)", "recipe.optimiser": ["adamw", "sgd"]}
    tune = Tune.model_validate({"budget": 6, "over": over, "search": "grid"})
    draws = [tuple(draw.values()) for draw in tune.draws()]
    assert draws == [(lr, name) for lr in (1e-4, 1e-3, 1e-2) for name in ("adamw", "sgd")]
    with pytest.raises(InputError, match=r"budget: a grid over .* has 2 · points\^1 draws, got 5"):
        parse_sweep(SWEEP | {"tune": {"budget": 5, "over": over, "search": "grid"}})


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"recipe.lr": "loguniform(0, 1)"}, "two numbers in order, above 0"),
        ({"recipe.lr": "uniform(1, 0)"}, "two numbers in order, got"),
        ({"recipe.lr": "normal(0, 1)"}, r"expected uniform\(a, b\), loguniform\(a, b\) or a list"),
        ({"data.num_test": [8, 16]}, "data.num_test: expected a field of recipe., model."),
        ({"model.attention": ["space"]}, "tune.over.model.attention: it is an axis"),
        ({}, "over"),
    ],
)
def test_what_cannot_be_drawn(over, message):
    with pytest.raises(InputError, match=message):
        parse_sweep(SWEEP | {"tune": {"budget": 2, "over": over}})


def test_no_final_run_draws_the_data_of_the_tuning():
    zipped = SWEEP["axes"] | {"data.seed": [100, 101]}
    sweep = SWEEP | {"axes": zipped, "zip": [["seed", "data.seed"]], "tune": {"budget": 2, "seed": 100}}
    with pytest.raises(InputError, match=r"tune.seed: 100 is a value of data.seed of the final runs too \(100, 101\)"):
        parse_sweep(sweep)
    assert parse_sweep(sweep | {"tune": {"budget": 2, "seed": 7}}).tuning_seed() == {"seed": 7, "data.seed": 7}


def test_a_range_in_braces_stands_in_quotes():
    text = "{budget: 2, over: {recipe.lr: %s}}"
    quoted = yaml.safe_load(text % "'loguniform(1e-4, 1e-2)'")
    assert parse_sweep(SWEEP | {"tune": quoted}).tune.space() == {"recipe.lr": "loguniform(0.0001, 0.01)"}
    with pytest.raises(InputError, match=r"within \{…\} a range stands in quotes"):
        parse_sweep(SWEEP | {"tune": yaml.safe_load(text % "loguniform(1e-4, 1e-2)")})
