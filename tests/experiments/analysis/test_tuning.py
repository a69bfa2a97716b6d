"""What is said of a tuning, from made-up records."""

import pytest

from timesformer.errors import InputError
from timesformer_experiments.analysis import tuning
from timesformer_experiments.report.tables import to_markdown

OVER = {"recipe.lr": "loguniform(0.0001, 0.01)"}
RATES = 2 * [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 2e-4, 5e-4, 2e-3]


def records(scheme, accuracies, test=(70.0, 72.0), search="random", over=OVER):
    """Draws (None: diverged) and final runs of a scheme."""
    variant = {"model.attention": scheme}
    found = []
    for number, value in enumerate(accuracies):
        ended = {"outcome": "failed"} if value is None else {"outcome": "done", "metrics": {"top1_percent": value}}
        note = {"variant": variant, "draw": number, "values": {"recipe.lr": RATES[number]}}
        found.append({"cell": None, "tuning": note, **ended})
    known = [value if value is not None else -1 for value in accuracies]
    selection = {"over": over, "search": search, "draws": len(accuracies), "draw": known.index(max(known))}
    finals = [
        {
            "cell": variant | {"seed": seed},
            "selection": selection,
            "outcome": "done",
            "metrics": {"top1_percent": value},
        }
        for seed, value in enumerate(test)
    ]
    return [*found, *finals]


GOOD = [90.0, 91.0, 92.0, 90.5, 91.5, 92.5, 93.0, 94.0]
BAD = [10.0, 11.0, 12.0, 10.5, 11.5, 12.5, 13.0, 14.0]


def test_the_tables_say_what_was_chosen_and_how_good_the_search_is():
    variants = tuning.variants_of([*records("divided", GOOD), *records("joint", [None, *BAD[1:]])])
    tables = tuning.tables(variants)
    chosen = tables["tuning"].frame.set_index("model.attention")
    assert chosen["recipe.lr"].to_dict() == {"divided": 2e-3, "joint": 2e-3}
    assert chosen["diverged"].to_dict() == {"divided": 0, "joint": 1}
    assert chosen["measured_validation_percent"].to_dict() == {"divided": 94.0, "joint": 14.0}
    assert chosen["measured_test_percent"].to_dict() == {"divided": 71.0, "joint": 71.0}
    best = tables["tuning_best_of"].frame
    last = best[best["draws"] == 8].set_index("model.attention")["measured_best_percent"]
    assert last["divided"] == pytest.approx(94.0)
    first = best[best["draws"] == 1].set_index("model.attention")["measured_best_percent"]
    assert first["divided"] == pytest.approx(sum(GOOD) / 8)
    assert first["joint"] == pytest.approx(sum(BAD[1:]) / 8)  # a diverged draw counts as 0 %
    assert set(tuning.figures(variants, "model.attention")) == {"tuning_best_of_draws", "tuning_learning_rate"}
    assert tables["tuning_learning_rate"].frame["best_lr"].tolist() == [2e-3, 2e-3]


def test_schemes_with_options_are_shown_as_text():
    scheme = {"name": "swin", "window": [2, 2, 2]}
    tables = tuning.tables(tuning.variants_of([*records("joint", GOOD), *records(scheme, BAD)]))
    assert tables["tuning"].frame["model.attention"].tolist() == ["joint", "swin(window=[2,2,2])"]
    assert "swin(window=[2,2,2])" in to_markdown(tables["tuning"])


def test_only_what_the_bands_show_is_said():
    """Eight draws tell nothing, however far apart they are; sixteen do."""
    few = tuning.findings(tuning.variants_of([*records("divided", GOOD), *records("joint", BAD)]))
    assert few == ["Tuning: the bands do not tell the variants apart at any budget up to 8 draws."]
    apart = tuning.findings(tuning.variants_of([*records("divided", 2 * GOOD), *records("joint", 2 * BAD)]))
    assert len(apart) == 1
    assert "Divided Space-Time beats Joint Space-Time at " in apart[0]


def test_a_grid_has_no_bands():
    variants = tuning.variants_of(records("divided", GOOD, search="grid"))
    assert set(tuning.tables(variants)) == {"tuning", "tuning_learning_rate"}
    assert set(tuning.figures(variants, None)) == {"tuning_learning_rate"}
    assert tuning.findings(variants) == []


def test_different_searches_are_no_equal_tuning():
    variants = tuning.variants_of([*records("divided", GOOD), *records("joint", BAD[:4])])
    with pytest.raises(InputError, match="2 different searches in one folder"):
        tuning.require_one_search(variants)
