"""The verdicts: each claim is about runs that there are, and gets the word that its seeds, bounds and probe allow."""

import hashlib
from typing import Any

import pandas as pd
import pytest
import torch

from tests.experiments.paper.experiments_records import record_of
from timesformer import TimeSformer, TimeSformerConfig
from timesformer_experiments.paper.artefact import Profile
from timesformer_experiments.paper.artefacts.verdicts import verdicts
from timesformer_experiments.paper.artefacts.verdicts.verdicts import ABLATIONS, CLAIMS, ablations, ranks_schemes, rows
from timesformer_experiments.paper.gate import KIND
from timesformer_experiments.paper.probes import blind_to_order
from timesformer_experiments.paper.registered import CLAIMS as FILE
from timesformer_experiments.paper.registered import registered
from timesformer_experiments.paper.registry import load

VIDEOS = 400
ANEW = "table1_tuned"
"""The artefact whose claims repeat some of the first Table 1; its runs have still to be made."""


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
    named = found["claim"].str.startswith(text) & (found["on"] == probe) & (found["from"] != ANEW)
    (row,) = found[named].to_dict(orient="records")
    return str(row["measured_verdict"])


@pytest.fixture(scope="module")
def level() -> pd.DataFrame:
    """Everything reaches the same."""
    return frame({})


SETTLED = {
    "Positions in space matter where motion does (motion)",
    "Accuracy grows with resolution, 224 to 336 (detail)",
    "Accuracy grows with resolution, 336 to 448 (detail)",
    "Accuracy grows with frames, 8 to 32 (order)",
    "Accuracy grows with frames, 32 to 64 (order)",
    "Accuracy grows with frames, 64 to 96 (order)",
    "TimeSformer beats SlowFast on long videos (order)",
}
NOT_APART, APART = "these two models are not told apart", "these two models differ"
SETTLE = "settled by construction"


def test_every_claim_is_about_variants_that_are_trained() -> None:
    for claim in CLAIMS:
        ablation = ABLATIONS[claim.artefact]
        keys = {variant.key for variant in ablation.variants if variant.trained}
        assert {claim.first, claim.second} <= keys, claim.text
        assert claim.on in ablation.probes, claim.text
        assert claim.family == claim.artefact
    assert len({claim.name for claim in CLAIMS}) == len(CLAIMS) == 48
    assert {claim.name for claim in CLAIMS if claim.bound} == SETTLED


def test_the_plan_is_that_of_the_artefacts() -> None:
    planned = {spec.hash() for spec in verdicts.plan("quick")}
    for ablation in ablations("quick"):
        own = {spec.hash() for spec in load(ablation.name).plan("quick")}
        assert {spec.hash() for spec in ablation.plan("quick")} <= own
        assert own & planned


def test_one_seed_gives_no_verdict(level: pd.DataFrame) -> None:
    single, later = level[level["from"] != ANEW], level[level["from"] == ANEW]
    assert set(single["measured_verdict"]) == {NOT_APART, "settled by construction", "not run"}
    assert single["measured_direction_p"].isna().all()
    assert set(single["measured_interval_over"].dropna()) == {"test videos alone"}
    assert set(later["measured_verdict"]) == {"not run"}
    assert set(level["registered_sha256"]) == {hashlib.sha256(FILE.read_bytes()).hexdigest()}
    clear = frame({("table1", "divided", "motion"): 360, ("table1", "space", "motion"): 80})
    assert verdict(clear, "Divided beats joint", "motion") == APART
    assert verdict(clear, "Divided beats joint", "appearance") == NOT_APART


def test_claims_whose_runs_a_profile_leaves_out_are_not_judged(level: pd.DataFrame) -> None:
    trained = {
        (ablation.name, key, part)
        for ablation in ablations("quick")
        for key, part in {(cell.variant, cell.part) for cell in ablation.cells("quick")}
    }
    left_out = [
        not {(claim.artefact, key, claim.on) for key in (claim.first, claim.second)} <= trained for claim in CLAIMS
    ]
    assert (level["measured_verdict"] == "not run").tolist() == left_out
    assert {claim.text for claim, left in zip(CLAIMS, left_out, strict=True) if left and claim.artefact != ANEW} == {
        "ViT-L is worse than ViT-B",
        "TimeSformer beats SlowFast with 75 % of the videos",
        "Time beside space is within noise",
    }
    assert level["measured_difference_points"].isna().tolist() == left_out


def test_bounds_come_from_the_probes(level: pd.DataFrame) -> None:
    settled = level[level["measured_verdict"] == "settled by construction"]
    assert {f"{row['claim']} ({row['on']})" for row in settled.to_dict(orient="records")} == SETTLED
    bounds = settled.set_index("claim")[["counted_first_bound_percent", "counted_second_bound_percent"]]
    assert bounds.loc["Accuracy grows with frames, 32 to 64"].tolist() == [75, 50]
    assert bounds.loc["Accuracy grows with frames, 8 to 32"].tolist() == [50, 50]
    assert bounds.loc["Accuracy grows with resolution, 224 to 336"].tolist() == [62.5, 25]
    assert bounds.loc["Positions in space matter where motion does"].tolist() == [50, 50]
    assert settled["bound"].str.contains("no model that").all()


ONE_SIDED = {
    "Joint beats space-only attention where motion matters",
    "Positions in time matter where motion does",
    "A temporal encoder beats the average of frames (ViViT)",
}


def test_a_bound_of_one_side_is_shown_and_settles_nothing(level: pd.DataFrame) -> None:
    bounded = level[level["bound"].notna() & (level["measured_verdict"] != "settled by construction")]
    assert set(bounded["claim"]) == ONE_SIDED
    assert set(bounded["on"]) == {"motion"}
    assert bounded["counted_first_bound_percent"].isna().all()
    assert set(bounded["counted_second_bound_percent"]) == {50}
    said = "no model that is blind to the order of frames can pass 50.0 % on the second side"
    assert set(bounded["bound"]) == {said}
    report = load("verdicts").report(records({}), "quick")
    assert sum(f"{said}, so that a first side above that is better by construction." in x for x in report.findings) == 3


@pytest.mark.parametrize(("first", "second", "word"), [("clips", "order", NOT_APART), ("order", "order", SETTLE)])
def test_the_same_bound_on_both_sides_settles_a_claim_that_says_nothing_of_it(first, second, word) -> None:
    """Space attention with positions or without is blind to order either way."""
    claim = next(each for each in CLAIMS if each.text.startswith("Positions in space matter where"))
    plain = claim.model_copy(update={"bound": None})
    keys = {"order": ("space", "none"), "clips": ("space_time", "none")}[first]
    cells = {(c.variant, c.part): c.spec for c in ABLATIONS["table4"].cells("quick")}
    asked = verdicts._asked(plain.model_copy(update={"first": keys[0], "second": keys[1]}), {}, cells, {})
    assert asked.settled == (word == SETTLE)


@pytest.mark.parametrize("scheme", ["space", "joint", "divided", "axial", "local_global", "factorised_encoder"])
@pytest.mark.parametrize("position", ["space", "space_time"])
def test_models_that_are_blind_to_order_give_frames_in_any_order_the_same_answer(scheme: str, position: str) -> None:
    config = TimeSformerConfig(
        attention=scheme, num_frames=4, image_size=16, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=5,
        position=position, time_std=1.0, temporal_depth=1,
    )  # fmt: skip
    torch.manual_seed(0)
    model = TimeSformer(config).double().eval()
    for parameter in model.parameters():  # what starts at zero would hide differences
        torch.nn.init.normal_(parameter, std=0.5)
    clip = torch.randn(2, 4, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        same = torch.allclose(model(clip), model(clip[:, [2, 0, 3, 1]]), rtol=0, atol=1e-9)
    if blind_to_order(config):
        assert same
    blind = scheme == "space" or (position == "space" and scheme in ("joint", "divided", "axial"))
    assert blind_to_order(config) == blind
    assert same == blind or scheme == "factorised_encoder"


def test_full_has_too_few_seeds_for_a_look() -> None:
    report = load("verdicts").report(records({("table1", "space", "motion"): 80}, profile="full"), "full")
    found = report.table.frame
    assert verdict(found, "Joint beats space-only", "motion") == "undecided"
    assert verdict(found, "Smaller patches", "motion") == "not run"
    run = found[found["measured_verdict"] != "not run"]
    assert set(run["from"]) == {"table1", "table4", "table8", "figure5", "order"}
    undecided = found[found["measured_verdict"] == "undecided"]
    assert (undecided["measured_more_seeds"].dropna() >= 2).all()  # the first look is at five
    assert (undecided["measured_smallest_difference_points"] > 0).all()
    assert "12 claims have fewer than 5, so that nothing of them is decided." in report.findings[1]
    assert "not run" in report.findings[0]
    assert len(report.figure.axes[0].get_yticks()) == len(CLAIMS)


def test_a_probe_that_a_cheap_classifier_nearly_solves_ranks_no_schemes() -> None:
    cheap = {"kind": KIND, "probe": "motion", "classifier": "frame differences", "top1_percent": 86.0}
    runs = records({("table1", "divided", "motion"): 360})
    found = rows([*runs, cheap], "quick")
    reason = "not ranked: a classifier of frame differences reaches 86.0 %, the best scheme 90.0 %"
    assert verdict(found, "Divided beats joint", "motion") == reason
    assert verdict(found, "Joint beats space-only", "motion") == NOT_APART
    assert verdict(found, "Divided beats joint", "appearance") == NOT_APART
    assert found.loc[found["measured_verdict"].str.startswith("not ranked"), "measured_difference_points"].notna().all()
    assert APART in rows([*runs, cheap | {"top1_percent": 84.0}], "quick")["measured_verdict"].tolist()
    report = load("verdicts").report([*runs, cheap], "quick")
    assert cheap not in report.records
    assert any(line.endswith(f"{reason}.") for line in report.findings)
    ranked = {claim.name for claim in CLAIMS if ranks_schemes(claim)}
    assert "Divided beats axial attention (motion)" in ranked
    assert "Time first or space first is within noise (motion)" in ranked
    assert "Positions in time matter where motion does (motion)" not in ranked


def test_published_differences() -> None:
    def printed(text: str, probe: str) -> float | None:
        (claim,) = [each for each in CLAIMS if each.text.startswith(text) and each.on == probe]
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
    assert "7 settled by construction, 14 not run." in report.findings[0]
    assert report.findings[1].startswith("Decided by measuring: 0 of the 27 that were run")
    assert f"Claims as registered in claims.yaml, sha256 {registered().digest}." in report.findings
    assert len(report.figure.axes[0].get_yticks()) == len(CLAIMS)
