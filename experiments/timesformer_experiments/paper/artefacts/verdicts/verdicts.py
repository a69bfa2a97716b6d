"""Verdicts on the paper's claims: on the probes, each is supported, contradicted or undecided.

A claim states that one model is better than another, or that the two are within a margin. A claim of the first kind is
supported if the difference is significant after Holm's correction for all claims, and contradicted if the opposite
difference is. A claim of the second kind is supported if the whole interval lies within the margin, and contradicted if
none of it does. All other claims are undecided, which is to be expected of small models and few seeds. `quick` judges
nearly all claims; `full`, with three seeds, judges those of some tables and marks the others as not run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import pandas as pd
from matplotlib.figure import Figure

from timesformer_experiments.paper.ablation import NOTE, Ablation
from timesformer_experiments.paper.accuracy import Accuracy, Key
from timesformer_experiments.paper.artefact import Artefact, Profile
from timesformer_experiments.paper.artefacts.ablations import backbone, order, patch_size, pretraining
from timesformer_experiments.paper.artefacts.figures import figure4, figure5
from timesformer_experiments.paper.artefacts.tables import table1, table3, table4, table8
from timesformer_experiments.paper.artefacts.vivit import vivit_depth, vivit_table1, vivit_table2
from timesformer_experiments.paper.drawing import legend_above
from timesformer_experiments.paper.setting import SETTINGS
from timesformer_experiments.report.published import published
from timesformer_experiments.report.report import COLOURS, MARKERS, Report, new_figure
from timesformer_experiments.report.statistics import SIGNIFICANCE, Comparison, compare, corrected
from timesformer_experiments.report.tables import Column, Table
from timesformer_experiments.specs.run import RunSpec

Verdict = Literal["supported", "contradicted", "undecided", "not run"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
MARGIN_POINTS = 3.0
"""Margin of equivalence: on `motion`, the same model differs by one to three points from seed to seed."""


@dataclass(frozen=True)
class Claim:
    """Claim that variant `first` of an ablation is better than `second` on the probe `part`.

    near: the claim is that the two are within the margin.
    """

    text: str
    ablation: Ablation
    first: str
    second: str
    part: str
    near: bool = False


def _on(probe: str, *claims: tuple[str, Ablation, str, str]) -> list[Claim]:
    return [Claim(text, ablation, first, second, probe) for text, ablation, first, second in claims]


CLAIMS: tuple[Claim, ...] = (
    *_on(
        "motion",
        ("Divided beats joint attention where motion matters", table1.ABLATION, "divided", "joint"),
        ("Joint beats space-only attention where motion matters", table1.ABLATION, "joint", "space"),
        ("Divided beats sparse local-global attention", table1.ABLATION, "divided", "local_global"),
        ("Divided beats axial attention", table1.ABLATION, "divided", "axial"),
        ("Positions in time matter where motion does", table4.ABLATION, "space_time", "space"),
        ("Positions in space matter where motion does", table4.ABLATION, "space", "none"),
        ("Smaller patches are better", patch_size.ABLATION, "16", "32"),
        ("A larger transformer than ViT-S is better", backbone.ABLATION, "base", "small"),
        ("ViT-L is worse than ViT-B", backbone.ABLATION, "base", "large"),
        ("Pretraining on images helps", pretraining.ABLATION, "stills", "none"),
        ("TimeSformer beats SlowFast with 75 % of the videos", figure4.ABLATION, "divided 75", "slowfast 75"),
        ("TimeSformer beats SlowFast with all videos", figure4.ABLATION, "divided 100", "slowfast 100"),
        ("SlowFast beats TimeSformer with a quarter of the videos", figure4.ABLATION, "slowfast 25", "divided 25"),
        ("More training videos help TimeSformer", figure4.ABLATION, "divided 100", "divided 25"),
        ("A temporal encoder beats the average of frames (ViViT)", vivit_depth.ABLATION, "4", "0"),
    ),
    *_on(
        "appearance",
        ("Divided beats joint attention where looks suffice", table1.ABLATION, "divided", "joint"),
        ("Divided beats axial attention", table1.ABLATION, "divided", "axial"),
        ("Positions in space matter", table4.ABLATION, "space", "none"),
        ("Smaller patches are better", patch_size.ABLATION, "16", "32"),
        ("Pretraining on images helps", pretraining.ABLATION, "stills", "none"),
        (
            "More images to start from help where looks suffice",
            table3.ABLATION,
            "TimeSformer ImageNet-21K",
            "TimeSformer ImageNet-1K",
        ),
        ("TimeSformer beats SlowFast with a quarter of the videos", figure4.ABLATION, "divided 25", "slowfast 25"),
        ("TimeSformer beats SlowFast with all videos", figure4.ABLATION, "divided 100", "slowfast 100"),
        ("More training videos help TimeSformer", figure4.ABLATION, "divided 100", "divided 25"),
        ("Tubelets should start as the central frame (ViViT)", vivit_table1.ABLATION, "central", "random"),
        ("Unfactorised beats factorised dot-product (ViViT)", vivit_table2.ABLATION, "joint", "factorised_dot_product"),
    ),
    *_on(
        "detail",
        ("Accuracy grows with resolution, 224 to 336", figure5.CROP, "crop 336", "crop 224"),
        ("Accuracy grows with resolution, 336 to 448", figure5.CROP, "crop 448", "crop 336"),
    ),
    *_on(
        "order",
        ("Accuracy grows with frames, 8 to 32", table8.ABLATION, "TimeSformer 32", "TimeSformer 8"),
        ("Accuracy grows with frames, 32 to 64", table8.ABLATION, "TimeSformer 64", "TimeSformer 32"),
        ("Accuracy grows with frames, 64 to 96", table8.ABLATION, "TimeSformer 96", "TimeSformer 64"),
        ("TimeSformer beats SlowFast on long videos", table8.ABLATION, "TimeSformer 96", "SlowFast 96"),
    ),
    Claim(
        "Positions in time matter little where looks suffice",
        table4.ABLATION,
        "space_time",
        "space",
        "appearance",
        True,
    ),
    Claim("Time first or space first is within noise", order.ABLATION, "divided", "divided_st", "motion", True),
    Claim("Time first or space first is within noise", order.ABLATION, "divided", "divided_st", "appearance", True),
    Claim("Time beside space is within noise", order.ABLATION, "divided", "divided_parallel", "motion", True),
    Claim(
        "More images to start from do not help where motion matters",
        table3.ABLATION,
        "TimeSformer ImageNet-21K",
        "TimeSformer ImageNet-1K",
        "motion",
        True,
    ),
)


IN_FULL = (table1.ABLATION, table4.ABLATION, table8.ABLATION, figure5.CROP, order.ABLATION)
"""Ablations that `full` judges.  These take an afternoon to train; all would take days."""


def ablations(profile: Profile) -> list[Ablation]:
    """List the ablations whose claims are judged in a profile, each once."""
    found = {id(claim.ablation): claim.ablation for claim in CLAIMS}
    return [each for each in found.values() if profile != "full" or any(each is judged for judged in IN_FULL)]


def plan(profile: Profile) -> list[RunSpec]:
    """List the runs of the artefacts that the claims refer to."""
    return list({spec.hash(): spec for ablation in ablations(profile) for spec in ablation.plan(profile)}.values())


def judge(claim: Claim, found: Comparison, first: Accuracy, second: Accuracy) -> Verdict:
    """Return the verdict on a claim from its comparison."""
    if found.low_points is None or found.high_points is None or not (first.above_chance or second.above_chance):
        return "undecided"
    if claim.near:
        if found.low_points >= -MARGIN_POINTS and found.high_points <= MARGIN_POINTS:
            return "supported"
        outside = found.low_points > MARGIN_POINTS or found.high_points < -MARGIN_POINTS
        return "contradicted" if outside else "undecided"
    p_value = found.p_holm if found.p_holm is not None else found.p_value
    if p_value is None or p_value >= SIGNIFICANCE:
        return "undecided"
    return "supported" if found.difference_points > 0 else "contradicted"


def rows(records: Sequence[dict[str, Any]], profile: Profile) -> pd.DataFrame:
    """Return a row for each claim."""
    measured = {id(ablation): ablation.measured(records, profile) for ablation in ablations(profile)}
    pairs = [_pair(claim, measured.get(id(claim.ablation), {})) for claim in CLAIMS]
    tested = iter(corrected([compare(a.percent, b.percent, a.right, b.right) for a, b in filter(None, pairs)]))
    found = []
    for claim, pair in zip(CLAIMS, pairs, strict=True):
        found.append(_row(claim, None if pair is None else next(tested), pair))
    return pd.DataFrame(found)


def _pair(claim: Claim, measured: dict[Key, Accuracy]) -> tuple[Accuracy, Accuracy] | None:
    """Return the two accuracies that a claim compares; None if one of them was not run."""
    first, second = (measured.get((key, claim.part)) for key in (claim.first, claim.second))
    return None if first is None or second is None else (first, second)


def _row(claim: Claim, each: Comparison | None, pair: tuple[Accuracy, Accuracy] | None) -> dict[str, Any]:
    return {
        "claim": claim.text,
        "probe": claim.part,
        "from": claim.ablation.name,
        "expected": f"within {MARGIN_POINTS:g} points" if claim.near else "more",
        "measured_first_top1_percent": each.first_percent if each else None,
        "measured_second_top1_percent": each.second_percent if each else None,
        "measured_difference_points": each.difference_points if each else None,
        "measured_difference_low_points": each.low_points if each else None,
        "measured_difference_high_points": each.high_points if each else None,
        "measured_p_holm": each.p_holm if each else None,
        "measured_seeds": len(each.seeds) if each else None,
        "published_difference_points": _published(claim),
        "measured_verdict": judge(claim, each, *pair) if each and pair else "not run",
    }


def _published(claim: Claim) -> float | None:
    """Return the paper's difference on the dataset that the probe stands in for; None if it prints none."""
    dataset, printed = claim.ablation.probes[claim.part], claim.ablation.rows()
    one, two = (printed.get(key, {}) for key in (claim.first, claim.second))
    better, worse = (each.get(f"{dataset}_top1_percent") for each in (one, two))
    if better is not None and worse is not None:
        return round(better - worse, 1)
    for row, sign in ((one, 1), (two, -1)):
        for name in (f"{dataset}_difference_points", "difference_points"):
            if name in row:
                return sign * float(row[name])
    return None


COLUMNS = (
    Column("claim", "Claim of the paper", "label"),
    Column("probe", "On", "label"),
    Column("expected", "Expected", "label"),
    Column(
        "measured_difference_points",
        "Difference, here [points]",
        "measured",
        bounds=("measured_difference_low_points", "measured_difference_high_points"),
    ),
    Column("measured_p_holm", "p, all claims", "measured", decimals=3, least=0.001),
    Column("measured_seeds", "Seeds", "measured", decimals=0),
    Column("published_difference_points", "paper [points]", "published"),
    Column("measured_verdict", "Verdict here", "measured"),
    Column("from", "From", "label"),
)


def draw(frame: pd.DataFrame) -> Figure:
    """Draw the differences with their intervals, coloured by verdict, and the paper's differences, hollow."""
    figure, (axis,) = new_figure(10.5, 1.6 + 0.27 * len(frame), panels=1)
    colours = dict(zip(VERDICTS, (COLOURS[2], COLOURS[1], "#777777"), strict=False))
    for place, row in enumerate(frame.to_dict(orient="records")):
        value, verdict = row["measured_difference_points"], row["measured_verdict"]
        paper = row["published_difference_points"]
        if not pd.isna(paper):
            axis.plot(paper, place, MARKERS[1], color="black", markerfacecolor="none", label="published")
        if verdict == "not run":
            continue
        ends = row["measured_difference_low_points"], row["measured_difference_high_points"]
        spread = None if pd.isna(ends[0]) else [[value - ends[0]], [ends[1] - value]]
        axis.errorbar(value, place, xerr=spread, fmt=MARKERS[0], color=colours[verdict], capsize=3, label=verdict)
    axis.axvline(0, color="black", linewidth=1)
    axis.set_yticks(
        range(len(frame)), [f"{claim} ({probe})" for claim, probe in zip(frame["claim"], frame["probe"], strict=True)]
    )
    axis.tick_params(axis="y", labelsize="small")
    axis.set_ylim(len(frame) - 0.5, -0.5)
    axis.set_xlabel("difference in top-1 accuracy [points]")
    legend_above(axis)
    return figure


def report(records: Sequence[dict[str, Any]], profile: Profile) -> Report:
    """Make the verdicts from the records of all runs that the claims refer to."""
    frame = rows(records, profile)
    counts: dict[Verdict, int] = {verdict: int((frame["measured_verdict"] == verdict).sum()) for verdict in VERDICTS}
    seeds = SETTINGS[profile].seeds
    against = frame[frame["measured_verdict"] == "contradicted"]
    named = [f"Contradicted here: {row['claim']} ({row['probe']})." for row in against.to_dict(orient="records")]
    over = "seeds and test videos" if seeds > 1 else "test videos only (one seed)"
    return Report(
        name="verdicts",
        title="Verdicts: the paper's claims on the probes",
        table=Table(
            frame,
            COLUMNS,
            f"Claims of the paper on the probes, profile {profile}: differences with 95 % intervals over {over}; "
            f"p-values corrected by Holm for the {len(frame) - counts['not run']} claims that are judged",
            measured="measured here, on this repository's probes",
        ),
        figure=draw(frame),
        findings=(
            f"Of {len(frame)} claims {', '.join(f'{count} {verdict}' for verdict, count in counts.items() if count)}.",
            *named,
            "A claim is undecided if its difference may be due to chance here; that says nothing against the paper.",
            NOTE,
        ),
        sources=(published("table1", "schemes"),),
        remarks=(),
        records=tuple(records),
    )


ARTEFACT = Artefact("verdicts", "The paper's claims: supported, contradicted or undecided on the probes", plan, report)
