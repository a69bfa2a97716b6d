"""The choice of a recipe from the records of its draws."""

from timesformer_experiments.sweep.tune import choose


def outcomes(*accuracies):
    """A record for each draw: its accuracy, or why it failed."""
    return {
        str(number): {"outcome": "failed", "reason_kind": value}
        if isinstance(value, str)
        else {"outcome": "done", "metrics": {"top1_percent": value}}
        for number, value in enumerate(accuracies)
    }


def chosen(*accuracies):
    return choose([str(number) for number in range(len(accuracies))], outcomes(*accuracies))


def test_the_best_and_of_equal_ones_the_earlier():
    assert chosen(25.0, 50.0, 50.0).draw == 1
    assert chosen(0.0, 0.0).draw == 0


def test_a_loss_that_is_not_finite_comes_last():
    assert chosen("diverged", 0.0).draw == 1
    assert chosen("diverged", 0.0).percents == (None, 0.0)
    assert chosen("diverged", "diverged").draw is None


def test_no_choice_while_the_budget_is_not_equal():
    assert chosen(25.0, "killed") is None
    assert choose(["0", "1"], outcomes(25.0)) is None


def test_the_digest_tells_what_was_seen():
    assert chosen(25.0, 50.0).digest == chosen(25.0, 50.0).digest != chosen(25.0, 51.0).digest
