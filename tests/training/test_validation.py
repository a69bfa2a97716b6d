"""Validation while training: which weights are kept, when training ends, and that a killed run ends the same."""

from dataclasses import replace

import pytest
import torch

from tests.training.training_fakes import FakeDataset, FakeModel
from timesformer.errors import InputError
from timesformer.training.averaging import decay_of
from timesformer.training.loop import fit
from timesformer.training.recipe import Recipe

RECIPE = Recipe(steps=10, batch_size=8, lr=0.05, validate_every=2, checkpoint_every=3)


class Killed(Exception):
    """The process ended."""


class Script:
    """A validation with accuracies from a list, which remembers the weights that it saw."""

    def __init__(self, *percents, kill_at=None):
        self.percents, self.kill_at, self.seen = percents, kill_at, []

    def __call__(self, model):
        if len(self.seen) == self.kill_at:
            raise Killed
        self.seen.append(weights(model))
        return {"top1_percent": self.percents[len(self.seen) - 1]}


def weights(model):
    return torch.cat([value.detach().flatten().clone() for value in model.state_dict().values()])


def trained(folder, validation, **changes):
    model = FakeModel(dropout=0.5)
    return model, fit(model, FakeDataset(), replace(RECIPE, **changes), folder, validation=validation, progress=False)


def test_the_first_of_the_best_weights_are_kept(tmp_path):
    script = Script(10, 50, 30, 50, 20)
    model, result = trained(tmp_path, script, keep="best")
    assert torch.equal(weights(model), script.seen[1])
    assert (result.kept_step, result.steps) == (4, 10)
    assert [each["step"] for each in result.validation] == [2, 4, 6, 8, 10]
    again, repeated = trained(tmp_path, Script(), keep="best")  # a finished run, read from its checkpoint
    assert torch.equal(weights(again), script.seen[1])
    assert repeated.kept_step == 4


def test_the_last_weights_are_kept_unless_the_recipe_says_so(tmp_path):
    script = Script(10, 50, 30, 50, 20)
    model, result = trained(tmp_path, script)
    assert torch.equal(weights(model), script.seen[-1])
    assert result.kept_step == 10


def test_training_ends_where_patience_does(tmp_path):
    model, result = trained(tmp_path, Script(10, 50, 50, 40), patience=2)
    assert result.steps == len(result.losses) == 8
    assert all(loss == loss for loss in result.losses)
    other, resumed = trained(tmp_path, Script(), patience=2)  # it stays ended
    assert resumed.steps == 8
    assert torch.equal(weights(model), weights(other))


def test_the_average_is_what_is_validated_and_kept(tmp_path):
    script, plain = Script(*range(5)), Script(*range(10))
    model, _ = trained(tmp_path / "average", script, ema_decay=0.5)
    trained(tmp_path / "plain", plain, validate_every=1)  # the same course, with the weights after every step
    average = weights(FakeModel(dropout=0.5))
    for step, now in enumerate(plain.seen, start=1):
        decay = decay_of(step, 0.5)
        average = decay * average + (1 - decay) * now
        if step == 4:
            torch.testing.assert_close(script.seen[1], average)
    torch.testing.assert_close(weights(model), average)
    assert not torch.equal(weights(model), plain.seen[-1])


def test_the_decay_rises():
    assert decay_of(1, 0.99) == pytest.approx(2 / 11)
    assert decay_of(10**6, 0.99) == 0.99


@pytest.mark.parametrize("changes", [{"keep": "best"}, {"patience": 2}, {"ema_decay": 0.9, "keep": "best"}])
@pytest.mark.parametrize("kill_at", [0, 1, 3])
def test_a_killed_run_ends_as_an_undisturbed_one(tmp_path, changes, kill_at):
    percents = (10, 50, 30, 20, 20)
    model, result = trained(tmp_path / "whole", whole := Script(*percents), **changes)
    with pytest.raises(Killed):
        trained(tmp_path / "killed", Script(*percents, kill_at=kill_at), **changes)
    again = Script(*percents[kill_at:])  # the last checkpoint, of step 0, 3 or 6, knows all validations before
    other, resumed = trained(tmp_path / "killed", again, **changes)
    assert torch.equal(weights(model), weights(other))
    assert resumed.validation == result.validation
    assert (resumed.steps, resumed.kept_step, resumed.losses) == (result.steps, result.kept_step, result.losses)
    assert torch.equal(again.seen[-1], whole.seen[-1])


def test_validating_changes_no_result(tmp_path):
    model, _ = trained(tmp_path / "a", Script(*range(5)))
    other, _ = trained(tmp_path / "b", None, validate_every=None)
    assert torch.equal(weights(model), weights(other))
    assert RECIPE.defining() == replace(RECIPE, validate_every=None).defining()


@pytest.mark.parametrize("changes", [{"keep": "best"}, {"patience": 1}])
def test_how_often_is_part_of_the_run_where_it_chooses(changes):
    assert replace(RECIPE, **changes).defining()["validate_every"] == 2


def test_bad_fields_are_named(tmp_path):
    for changes, said in (
        ({"keep": "best"}, "keep, patience: nothing is validated; expected validate_every beside them"),
        ({"keep": "first"}, "keep: expected one of last, best"),
        ({"ema_decay": 1}, "ema_decay: expected a number below 1"),
        ({"validate_every": 0}, "validate_every: expected an integer of at least 1"),
        ({"validate_every": 2, "patience": True}, "patience: expected an integer of at least 1"),
    ):
        with pytest.raises(InputError, match=said):
            Recipe(**{"steps": 1, **changes})
    with pytest.raises(InputError, match="validate_every: there is nothing to validate on"):
        trained(tmp_path, None)
