"""Table 1 anew: what it trains under both budgets, that recipes are those of the committed draws, and its page."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from tests.experiments.paper.experiments_records import record_of
from timesformer.config.counting import macs_per_view
from timesformer_experiments.cli.main import app
from timesformer_experiments.cost import count as cost
from timesformer_experiments.paper.artefacts.tables.table1_tuned import ARTEFACT, MACS, ORDERS, STEPS
from timesformer_experiments.paper.choose import SCHEME
from timesformer_experiments.paper.tuned import PROBES, SEEDS, equal_steps, recipes, spec_of
from timesformer_experiments.specs.run import ProbeData
from timesformer_experiments.specs.sweep import load_sweep

ROOT = Path(__file__).parents[3]
SCHEMES = ("space", "joint", "divided", "local_global", "axial", *ORDERS)


@pytest.fixture(autouse=True)
def one_count() -> Iterator[None]:
    """Without the second count of MACs, which is tested elsewhere and takes most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost, "fvcore_macs", lambda model, inputs, repeats=None: macs_per_view(model.model.config))
        yield


def test_full_trains_seven_variants_on_five_fresh_seeds_under_both_budgets() -> None:
    steps, macs = STEPS.cells("full"), MACS.cells("full")
    assert len(steps) == len(macs) == 7 * 2 * 5
    assert {cell.seed for cell in steps} == {10, 11, 12, 13, 14}
    # The three orders cost the same, and have one run for both budgets; each seed has one image model.
    assert len(ARTEFACT.plan("full")) == 5 + 2 * 5 * (7 + 4)
    for cell in steps:
        assert isinstance(cell.spec.data, ProbeData)
        assert cell.spec.data.seed == cell.spec.seed == cell.seed
        assert cell.spec.selection is not None
        assert cell.spec.selection.on == "validation"
        start = cell.spec.init_from
        assert (start is None) == (cell.part == "match")
        assert cell.part == "match" or (start.seed, start.data.seed, start.data.stills) == (cell.seed, cell.seed, True)


def test_quick_trains_the_five_schemes_on_three_seeds_at_equal_steps() -> None:
    assert MACS.cells("quick") == []
    assert {cell.variant for cell in STEPS.cells("quick")} == set(SCHEMES) - set(ORDERS)
    assert len(ARTEFACT.plan("quick")) == 3 * (1 + 2 * 5)


@pytest.mark.parametrize("probe", PROBES)
def test_steps_of_equal_macs_cost_what_divided_costs(probe: str) -> None:
    """Within half a step, with the same recipe otherwise."""
    base = spec_of("full", probe, "divided", 10)
    assert spec_of("full", probe, "divided", 10, "macs").hash() == base.hash()
    for scheme in set(SCHEMES) - {"divided"}:
        equal, steps = (spec_of("full", probe, scheme, 10, budget) for budget in ("macs", "steps"))
        own = macs_per_view(equal.model)
        cost_points = abs(equal.recipe.steps * own - base.recipe.steps * macs_per_view(base.model))
        assert cost_points <= own / 2
        assert equal.recipe.lr == steps.recipe.lr
        assert equal.recipe.batch_size == base.recipe.batch_size
    assert equal_steps(base, base) == base.recipe.steps


@pytest.mark.parametrize("probe", PROBES)
def test_committed_recipes_are_the_best_of_the_committed_draws(probe: str) -> None:
    """Of eight draws for every scheme, from the committed sweep, none of whose videos a final run sees."""
    sweep = load_sweep(ROOT / "experiments" / "sweeps" / "table1" / f"{probe}.yaml")
    draws = pd.read_csv(ROOT / "results" / "table1_tuned" / "tuning" / f"{probe}.csv")
    cells = {key for key, job in sweep.jobs().items() if job.cell is not None}
    assert set(draws["hash"]) == cells
    assert sweep.base["evaluate_on"] == "validation"
    assert sweep.base["seed"] == sweep.base["data"]["seed"]
    assert sweep.base["seed"] not in SEEDS["full"]
    chosen = recipes().root[probe]
    assert set(chosen) == set(SCHEMES)
    for scheme, recipe in chosen.items():
        table = draws[draws[SCHEME] == scheme].reset_index(drop=True)
        assert len(table) == recipe.selection.draws == 8
        best = table.loc[table["validation_percent"].idxmax()]
        assert recipe.selection.over is not None
        assert all(recipe.fields[name] == best[name] for name in recipe.selection.over)
        assert recipe.selection.validation_percent == pytest.approx(best["validation_percent"])
        # What is not drawn is what the final run has.
        assert spec_of("full", probe, scheme, 10).recipe.steps == sweep.base["recipe"]["steps"]


MATCH = {"space": 100, "joint": 396, "divided": 104, "local_global": 400, "axial": 108, "divided_st": 100,
         "divided_parallel": 96}  # fmt: skip
"""Of 400 test videos of `match`, those that are right; with each seed one more."""


def records() -> list[dict[str, Any]]:
    found = {}
    for cell in [*STEPS.cells("full"), *MACS.cells("full")]:
        count = min(400, MATCH[cell.variant] + cell.seed - 10) if cell.part == "match" else 300
        found[cell.spec.hash()] = record_of(cell.spec, [video < count for video in range(400)])
    return list(found.values())


def test_the_page_has_both_budgets_and_names_schemes_that_lie_apart() -> None:
    report = ARTEFACT.report(records(), "full")
    frame = report.table.frame.set_index("variant")
    assert list(frame.index) == list(SCHEMES)
    assert frame["published_ssv2_top1_percent"].tolist()[:5] == [36.6, 58.5, 59.5, 56.3, 56.2]
    assert frame["counted_tflops_total"]["divided"] == pytest.approx(0.59, abs=0.005)
    assert set(frame["measured_match_seeds"]) == {5}
    text = " ".join(report.findings)
    assert "of 8 draws for every scheme and probe" in text
    assert "joint above divided by 73.0 points" in text
    assert "points or more apart, of 5 seeds each: no two lie 20 points apart." in text
    (macs,) = report.parts
    assert macs.table is not None
    of_macs = macs.table.frame.set_index("variant")
    assert of_macs.loc["divided", "counted_match_steps"] == 150
    assert of_macs.loc["joint", "counted_match_steps"] > 150 > of_macs.loc["axial", "counted_match_steps"]
    assert of_macs["measured_match_top1_percent"].notna().all()


def test_cheap_classifiers_may_forbid_a_ranking() -> None:
    cheap = {"kind": "cheap classifier", "probe": "match", "classifier": "moments", "top1_percent": 97.0}
    assert any(
        "On match schemes are not ranked" in line for line in ARTEFACT.report([*records(), cheap], "full").findings
    )


@pytest.mark.slow
def test_reproduce_at_smoke(tmp_path: Path) -> None:
    words = ["reproduce", "table1_tuned", "--profile", "smoke", "--jobs", "1", "--out", str(tmp_path / "results")]
    done = CliRunner().invoke(app, [*words, "--runs", str(tmp_path / "runs"), "--json"])
    assert done.exit_code == 0, done.output
    folder = tmp_path / "results" / "table1_tuned" / "smoke"
    assert {"table1_tuned.csv", "macs.csv", "table1_tuned.md", "report.html"} <= {
        path.name for path in folder.iterdir()
    }
    assert len((folder / "records.jsonl").read_text().splitlines()) == len(ARTEFACT.plan("smoke"))
    assert json.loads((tmp_path / "results" / "probes" / "match-smoke.json").read_text())["cheap_classifiers"]
