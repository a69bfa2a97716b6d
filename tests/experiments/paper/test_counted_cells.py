"""Every published figure that can be counted, against our count: agreement to the printed digit, or the reason."""

import json
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from timesformer.config.counting import macs_per_view
from timesformer_experiments.cli.main import app
from timesformer_experiments.cost import count as cost
from timesformer_experiments.paper.artefacts.tables import counted
from timesformer_experiments.paper.registry import load
from timesformer_experiments.report.published import published
from timesformer_experiments.report.report import Report, write

CELLS = counted.cells()


@pytest.fixture(scope="module")
def made() -> Report:
    return load("counted").report([], "smoke")


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: f"{cell.artefact}: {cell.row}, {cell.quantity}")
def test_agrees_to_the_printed_digit_or_says_why_not(cell: counted.Cell) -> None:
    # A reason for what does agree would be a list that has gone stale.
    assert cell.agrees == (not cell.reason), (cell.counted, cell.printed)
    assert cell.error is not None or cell.counted == pytest.approx(cell.printed, rel=0.02)


def test_every_cell_is_there() -> None:
    """By hand: parameters of five schemes; two figures of three models; TFLOPs of three; two panels of two curves of
    four points; two figures of five models of ViViT; two of two CNNs."""
    expected = {"Table 1": 5, "Table 2": 6, "Table 5": 3, "Figure 3": 16, "ViViT, Table 2": 10, "PyTorchVideo": 4}
    assert Counter(cell.artefact for cell in CELLS) == expected


def test_the_i3d_of_the_paper_is_the_one_without_norms() -> None:
    """1.11 is not 37.53 x 30, which rounds to 1.13, but it is the matrix products of this network times 30."""
    by_cell = {(cell.artefact, cell.row, cell.quantity): cell for cell in CELLS}
    view = by_cell["PyTorchVideo", "I3D 8x8 R50", "gmacs_per_view"]
    total = by_cell["Table 2", "I3D 8x8 R50", "tflops_total"]
    assert round(30 * view.printed / 1e3, 2) == 1.13 != total.printed
    assert round(30 * view.counted / 1e3, 2) == total.printed == 1.11


@pytest.mark.parametrize(("model", "frames"), [("TimeSformer", 8), ("TimeSformer-HR", 16), ("TimeSformer-L", 96)])
def test_with_the_class_tokens_copies_all_three_models_agree(model: str, frames: int) -> None:
    (cell,) = (cell for cell in CELLS if (cell.artefact, cell.row) == ("Table 5", model))
    copies = 12 * 4 * (frames - 1) * 768**2
    derived = next(row for row in published("counts", "tflops").rows if row["model"] == model)
    assert cell.counted * 1e3 / 3 + copies / 1e9 == pytest.approx(derived["gmacs_per_view"], abs=0.01)
    assert round(cell.counted + 3 * copies / 1e12, 2) == cell.printed


def test_attention_scores_make_up_for_vivits_differences() -> None:
    """What its first model has above the fourth is two for each score more, within the rounding of the figures."""
    lacking = {
        cell.row[-2]: cell.printed - cell.counted
        for cell in CELLS
        if cell.artefact == "ViViT, Table 2" and cell.quantity == "gmacs_per_view" and cell.row.endswith(")")
    }
    scores = {"1": 3137**2 * 12, "4": 6 * 16 * 196 * (196 + 16)}
    more = 12 * (scores["1"] - scores["4"]) / 1e9
    assert lacking["1"] - lacking["4"] == pytest.approx(2 * more, abs=0.1)


@pytest.mark.parametrize(
    "scheme",
    [
        ("joint", "--position", "table"),
        ("factorised_encoder",),
        ("factorised_self_attention",),
        ("factorised_dot_product",),
    ],
    ids=lambda scheme: scheme[0],
)
def test_vivits_costs_by_command(scheme: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    # The second count is test_cost's; here it would take most of the time.
    monkeypatch.setattr(cost, "fvcore_macs", lambda model, inputs, repeats=None: macs_per_view(model.model.config))
    sizes = ["--tubelet-size", "2", "--num-frames", "32", "--image-size", "224", "--num-classes", "400", "--json"]
    found = CliRunner().invoke(app, ["cost", "--attention", *scheme, *sizes])
    assert found.exit_code == 0, found.output
    ours, theirs = json.loads(found.stdout), published("vivit", "models").rows[scheme[0]]
    assert ours["params"] / 1e6 == pytest.approx(theirs["params_millions"], rel=0.001)
    assert ours["macs_per_view"] / 1e9 == pytest.approx(theirs["gmacs_per_view"], rel=0.02)


def test_the_report_lists_what_does_not_agree(made: Report, tmp_path: Path) -> None:
    disagreeing = [cell for cell in CELLS if cell.reason]
    assert made.findings[0].startswith(f"{len(CELLS) - len(disagreeing)} of {len(CELLS)} figures agree")
    assert len(made.findings) == 1 + len({cell.reason for cell in disagreeing})
    for cell in disagreeing:
        assert any(cell.row in line and cell.reason in line for line in made.findings)
    files = {path.name for path in write(made, tmp_path)}
    assert files == {"counted.csv", "counted.md", "counted.png", "report.html"}


def test_nothing_is_trained_for_it() -> None:
    assert load("counted").plan("full") == ()
