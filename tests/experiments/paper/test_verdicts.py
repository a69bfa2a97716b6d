"""The verdicts: each claim is about runs that there are, and is judged by its difference and nothing else."""

from typing import Any

import pandas as pd
import pytest

from tests.experiments.paper.experiments_records import record_of
from timesformer_experiments.paper.ablation import Ablation
from timesformer_experiments.paper.artefact import Profile
from timesformer_experiments.paper.artefacts.verdicts import verdicts
from timesformer_experiments.paper.artefacts.verdicts.verdicts import CLAIMS, ablations, rows
from timesformer_experiments.paper.registry import load

VIDEOS = 400


def records(
    right: dict[tuple[str, str, str], int], default: int = 240, profile: Profile = "quick"
) -> list[dict[str, Any]]:
    """Of every run of a profile; `right[artefact, variant, probe]` of the videos are right, else `default`."""
    found: dict[str, dict[str, Any]] = {}
    for ablation in ablations(profile):
        for cell in ablation.cells(profile):
            count = right.get((ablation.name, cell.variant, cell.part), default)
            if cell.spec.hash() not in found or count != default:
                found[cell.spec.hash()] = record_of(cell.spec, [video < count for video in range(VIDEOS)])
    return list(found.values())


def frame(right: dict[tuple[str, str, str], int], default: int = 240) -> pd.DataFrame:
    return rows(records(right, default), "quick")


def verdict(found: pd.DataFrame, text: str, probe: str) -> str:
    (row,) = found[found["claim"].str.startswith(text) & (found["probe"] == probe)].to_dict(orient="records")
    return str(row["measured_verdict"])


@pytest.fixture(scope="module")
def level() -> pd.DataFrame:
    """Everything reaches the same."""
    return frame({})


def test_every_claim_is_about_variants_that_are_trained() -> None:
    for claim in CLAIMS:
        keys = {variant.key for variant in claim.ablation.variants if variant.trained}
        assert {claim.first, claim.second} <= keys, claim.text
        assert claim.part in claim.ablation.probes, claim.text
    assert len({(claim.text, claim.part) for claim in CLAIMS}) == len(CLAIMS)


def test_the_plan_is_that_of_the_artefacts(level: pd.DataFrame) -> None:
    planned = {spec.hash() for spec in verdicts.plan("quick")}
    for ablation in ablations("quick"):
        own = {spec.hash() for spec in load(ablation.name).plan("quick")}
        assert {spec.hash() for spec in ablation.plan("quick")} <= own
        assert own & planned


def test_where_nothing_differs_nothing_is_better_and_all_is_near(level: pd.DataFrame) -> None:
    run = level[level["measured_verdict"] != "not run"]
    expected = run["expected"].map({"more": "undecided"}).fillna("supported")
    assert run["measured_verdict"].tolist() == expected.tolist()


def test_claims_whose_runs_a_profile_leaves_out_are_not_judged(level: pd.DataFrame) -> None:
    trained = {
        (ablation.name, key, part)
        for ablation in ablations("quick")
        for key, part in {(cell.variant, cell.part) for cell in ablation.cells("quick")}
    }
    left_out = [
        not {(claim.ablation.name, key, claim.part) for key in (claim.first, claim.second)} <= trained
        for claim in CLAIMS
    ]
    assert (level["measured_verdict"] == "not run").tolist() == left_out
    assert {claim.text for claim, left in zip(CLAIMS, left_out, strict=True) if left} == {
        "ViT-L is worse than ViT-B",
        "TimeSformer beats SlowFast with 75 % of the videos",
        "Time beside space is within noise",
    }
    assert level["measured_difference_points"].isna().tolist() == left_out


def test_full_judges_the_tables_that_it_trains() -> None:
    found = rows(records({("table1", "space", "motion"): 80}, profile="full"), "full")
    assert verdict(found, "Joint beats space-only", "motion") == "supported"
    assert verdict(found, "Smaller patches", "motion") == "not run"
    assert set(found[found["measured_verdict"] != "not run"]["from"]) == {
        "table1",
        "table4",
        "table8",
        "figure5",
        "order",
    }
    report = load("verdicts").report(records({}, profile="full"), "full")
    assert "not run" in report.findings[0]
    assert len(report.figure.axes[0].get_yticks()) == len(CLAIMS)


def test_a_clear_difference_supports_or_contradicts() -> None:
    found = frame({("table1", "divided", "motion"): 360, ("table1", "space", "motion"): 80})
    assert verdict(found, "Divided beats joint", "motion") == "supported"
    assert verdict(found, "Joint beats space-only", "motion") == "supported"
    assert verdict(found, "Divided beats joint", "appearance") == "undecided"
    worse = frame({("table1", "divided", "motion"): 80})
    assert verdict(worse, "Divided beats joint", "motion") == "contradicted"
    assert verdict(worse, "Time first or space first", "motion") == "contradicted"
    assert verdict(worse, "Time first or space first", "appearance") == "supported"


def test_a_small_difference_is_undecided() -> None:
    found = frame({("table1", "divided", "motion"): 243, ("order", "divided_st", "appearance"): 250})
    assert verdict(found, "Divided beats joint", "motion") == "undecided"
    assert verdict(found, "Time first or space first", "appearance") == "undecided"


def test_at_chance_nothing_is_decided() -> None:
    chance = frame({}, default=VIDEOS // 8)
    assert set(chance["measured_verdict"]) == {"undecided", "not run"}


def test_published_differences() -> None:
    def printed(text: str, probe: str) -> float | None:
        (claim,) = [each for each in CLAIMS if each.text.startswith(text) and each.part == probe]
        return verdicts._published(claim)

    assert printed("Divided beats joint", "motion") == 1.0
    assert printed("Positions in time matter where", "motion") == 7.0
    assert printed("Time first or space first", "motion") == 0.5
    assert printed("ViT-L is worse", "motion") == 1.0
    assert printed("Accuracy grows with resolution, 224", "detail") == 1.3
    assert printed("A larger transformer", "motion") == 5.0
    assert printed("Pretraining on images", "motion") is None


def test_the_report_counts_them() -> None:
    report = load("verdicts").report(records({("table1", "divided", "motion"): 80}), "quick")
    assert report.findings[0].startswith(f"Of {len(CLAIMS)} claims ")
    assert "Contradicted here: Divided beats joint attention where motion matters (motion)." in report.findings
    assert isinstance(verdicts.CLAIMS[0].ablation, Ablation)
    assert len(report.figure.axes[0].get_yticks()) == len(CLAIMS)
