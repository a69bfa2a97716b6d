"""Figure 6 evaluates Table 8's runs again: they are the same runs, and the records are those of the other protocols."""

from timesformer_experiments.paper.artefact import PROFILES
from timesformer_experiments.paper.artefacts.figures import figure6
from timesformer_experiments.paper.artefacts.figures.figure6 import ABLATION, MODELS
from timesformer_experiments.paper.artefacts.tables import table8
from timesformer_experiments.report.published import published


def test_it_trains_nothing_that_table_8_does_not() -> None:
    for profile in PROFILES:
        theirs = {spec.hash() for spec in table8.ABLATION.plan(profile)}
        ours = {spec.hash() for spec in figure6.plan(profile)}
        assert ours < theirs
        wanted = {cell.spec.hash() for cell in ABLATION.cells(profile)}
        assert not wanted & theirs  # other protocols than Table 8's
        seeds = {cell.seed for cell in ABLATION.cells(profile)}
        assert len(wanted) == 3 * 4 * len(seeds)


def test_protocols_are_clips_of_one_crop() -> None:
    found = {(cell.variant, cell.spec.protocol) for cell in ABLATION.cells("quick")}
    assert found == {(f"{name} {k}", f"{k}x1") for name in list(MODELS)[:3] for k in (1, 3, 5, 10)}


def test_every_published_point_has_its_row() -> None:
    keys = {f"{row['model']} {row['clips']}" for row in published("figure6", "clips").rows}
    assert keys == {variant.key for variant in ABLATION.variants}
