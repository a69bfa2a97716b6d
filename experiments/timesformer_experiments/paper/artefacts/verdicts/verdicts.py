"""Verdicts of the probes on the paper's claims, as they are registered in `claims.yaml`.

A claim is that one model is better than another, or that the two are within a margin.  It is judged when each side has
5, 8, 12 and 20 seeds (`analysis.looks`), within the family of its table or figure.  What construction settles is
counted apart.  One seed gives no verdict: it says whether these two models differ.  `quick` has one seed of nearly all
claims, `full` three of some tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from timesformer_experiments.analysis.statistics.equivalence import DECIDED, MARGIN_POINTS
from timesformer_experiments.analysis.statistics.looks import LOOKS
from timesformer_experiments.paper.ablation import NOTE, Ablation
from timesformer_experiments.paper.accuracy import Accuracy, Key, accuracies
from timesformer_experiments.paper.artefact import Artefact, Profile
from timesformer_experiments.paper.artefacts.ablations import backbone, order, patch_size, pretraining
from timesformer_experiments.paper.artefacts.figures import figure4, figure5
from timesformer_experiments.paper.artefacts.tables import table1, table1_tuned, table3, table4, table8
from timesformer_experiments.paper.artefacts.vivit import vivit_depth, vivit_table1, vivit_table2
from timesformer_experiments.paper.drawing import legend_above
from timesformer_experiments.paper.gate import cheap_classifiers, reasons, told_apart
from timesformer_experiments.paper.judging import Answer, Asked, Limit, answers, bound_said
from timesformer_experiments.paper.probes import blind_to_order, ceiling_percent
from timesformer_experiments.paper.registered import registered
from timesformer_experiments.paper.variants import SCHEME
from timesformer_experiments.report.published import published
from timesformer_experiments.report.report import Report
from timesformer_experiments.report.style import COLOURS, MARKERS, new_figure
from timesformer_experiments.report.tables import Column, Table, missing
from timesformer_experiments.specs.paper_claims import PaperClaim
from timesformer_experiments.specs.run import RunSpec

ONE_SEED = ("these two models differ", "these two models are not told apart")
WORDS = (*DECIDED, "undecided", *ONE_SEED, "not ranked", "settled by construction", "not run")
ABLATIONS: dict[str, Ablation] = {
    each.name: each
    for each in (
        table1.ABLATION,
        table1_tuned.STEPS,
        table3.ABLATION,
        table4.ABLATION,
        table8.ABLATION,
        figure4.ABLATION,
        figure5.CROP,
        order.ABLATION,
        patch_size.ABLATION,
        backbone.ABLATION,
        pretraining.ABLATION,
        vivit_depth.ABLATION,
        vivit_table1.ABLATION,
        vivit_table2.ABLATION,
    )
}
"""Whose runs claims are about, by the name of their artefact."""
CLAIMS: tuple[PaperClaim, ...] = registered().claims.claims
IN_FULL = ("table1", "table4", "table8", "figure5", "order")
"""Claims that `full` judges: an afternoon's training, where all would take days."""
REGISTERED = ("table1_tuned",)
"""Claims that no profile judges yet: registered before their runs, which have still to be made."""
SPACE = "space"
"""The scheme that does not attend to time."""


def ablations(profile: Profile) -> list[Ablation]:
    """Those whose claims are judged in a profile, each once."""
    named = dict.fromkeys(claim.artefact for claim in CLAIMS)
    judged = [name for name in named if name not in REGISTERED]
    return [ABLATIONS[name] for name in judged if profile != "full" or name in IN_FULL]


def plan(profile: Profile) -> list[RunSpec]:
    """List the runs of the artefacts that the claims refer to."""
    return list({spec.hash(): spec for ablation in ablations(profile) for spec in ablation.plan(profile)}.values())


def judged(records: Sequence[dict[str, Any]], profile: Profile) -> list[Answer]:
    """Return the answer to each claim.  records: also the probes' best cheap classifiers."""
    runs, cheap = told_apart(records)
    cells = {each.name: each.cells(profile) for each in ablations(profile)}
    measured = {name: accuracies(found, runs, name) for name, found in cells.items()}
    specs = {name: {(cell.variant, cell.part): cell.spec for cell in found} for name, found in cells.items()}
    gates = reasons(cheap, _best([measured.get(name, {}) for name in ("table1", "table1_tuned")]))
    asked = [_asked(claim, measured.get(claim.artefact, {}), specs.get(claim.artefact, {}), gates) for claim in CLAIMS]
    return answers(asked)


def _best(tables: Sequence[Mapping[Key, Accuracy]]) -> dict[str, float]:
    """Return the accuracy of the best scheme of several tables on each probe [percent]."""
    found: dict[str, float] = {}
    for (_, probe), each in (pair for measured in tables for pair in measured.items()):
        found[probe] = max(each.mean, found.get(probe, 0.0))
    return found


def _asked(
    claim: PaperClaim, measured: Mapping[Key, Accuracy], specs: Mapping[Key, RunSpec], gates: Mapping[str, str]
) -> Asked:
    keys = (claim.first, claim.on), (claim.second, claim.on)
    first, second = (_limit(specs[key]) if key in specs else None for key in keys)
    known = all(key in specs for key in keys)
    same = first is not None and second is not None and first.percent == second.percent
    settled = known and (claim.bound is not None or same)
    if settled:  # what is not bounded by less is bounded by 100 %
        first, second = (each or Limit(100.0, "clips") for each in (first, second))
    both = all(key in measured for key in keys)
    first_side, second_side = (measured[key] if both else None for key in keys)
    why = gates.get(claim.on, "") if ranks_schemes(claim) else ""
    return Asked(claim, first_side, second_side, (first, second), settled, why)


def _limit(spec: RunSpec) -> Limit | None:
    """Return what the model of a run cannot pass by construction; None where nothing is known."""
    blind = blind_to_order(spec.model)
    seeing, percent = (ceiling_percent(spec, order) for order in (False, blind))
    if percent is None or percent >= 100:
        return None
    return Limit(percent, "order" if blind and percent != seeing else "clips")


def ranks_schemes(claim: PaperClaim) -> bool:
    """True if a claim is about two schemes that attend to space and time."""
    schemes = {
        variant.change.get(SCHEME, "divided")
        for variant in ABLATIONS[claim.artefact].variants
        if variant.key in (claim.first, claim.second)
    }
    return len(schemes) == 2 and SPACE not in schemes


def rows(records: Sequence[dict[str, Any]], profile: Profile) -> pd.DataFrame:
    """A row for each claim."""
    return pd.DataFrame([_row(each) for each in judged(records, profile)])


def _row(answer: Answer) -> dict[str, Any]:
    asked, claim, found, spread = answer.asked, answer.asked.claim, answer.judgement, answer.spread
    decision = answer.decision
    return {
        "claim": claim.text,
        "on": claim.on,
        "from": claim.artefact,
        "family": claim.family,
        "expected": f"within {claim.margin:g} points" if claim.expected == "near" else "more",
        "measured_first_top1_percent": asked.first.mean if asked.first else None,
        "measured_second_top1_percent": asked.second.mean if asked.second else None,
        "measured_difference_points": spread.mean if spread else None,
        "measured_difference_low_points": spread.low if spread else None,
        "measured_difference_high_points": spread.high if spread else None,
        "measured_interval_over": spread.over if spread else None,
        "measured_design": spread.estimate.design if spread and spread.estimate else None,
        "measured_test_groups": spread.estimate.clusters if spread and spread.estimate else None,
        "measured_direction_p": decision.direction_p if decision else None,
        "measured_direction_p_corrected": decision.direction_corrected if decision else None,
        "measured_equivalence_p": decision.equivalence_p if decision else None,
        "measured_equivalence_p_corrected": decision.equivalence_corrected if decision else None,
        "measured_smallest_difference_points": found.smallest_difference,
        "measured_more_seeds": found.more_seeds,
        "measured_seeds": answer.seeds if spread else None,
        "counted_first_bound_percent": asked.limits[0].percent if asked.limits[0] else None,
        "counted_second_bound_percent": asked.limits[1].percent if asked.limits[1] else None,
        "bound": bound_said(asked) or None,
        "published_difference_points": _published(claim),
        "measured_verdict": answer.word,
        "registered_sha256": registered().digest,
    }


def _published(claim: PaperClaim) -> float | None:
    """The paper's own difference on the dataset whose part the probe plays, where it prints one."""
    ablation = ABLATIONS[claim.artefact]
    dataset, printed = ablation.probes[claim.on], ablation.rows()
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
    Column("on", "On", "label"),
    Column("expected", "Expected", "label"),
    Column(
        "measured_difference_points",
        "Difference, here [points]",
        "measured",
        bounds=("measured_difference_low_points", "measured_difference_high_points"),
    ),
    Column("measured_seeds", "Seeds", "measured", decimals=0),
    Column("measured_direction_p_corrected", "p, direction", "measured", decimals=3, least=0.001),
    Column("measured_equivalence_p_corrected", "p, equivalence", "measured", decimals=3, least=0.001),
    Column("measured_smallest_difference_points", "80 % power [points]", "measured"),
    Column("measured_more_seeds", "Seeds still needed", "measured", decimals=0),
    Column("published_difference_points", "paper [points]", "published"),
    Column("measured_verdict", "Verdict here", "measured"),
    Column("bound", "Bound", "label"),
    Column("from", "From", "label"),
)


def _kind(verdict: str) -> str:
    """The word without its reason."""
    return verdict.partition(":")[0]


def draw(frame: pd.DataFrame) -> Figure:
    """Draw the differences with their intervals, coloured by verdict, and the paper's differences, hollow."""
    figure, (axis,) = new_figure(10.5, 1.6 + 0.27 * len(frame), panels=1)
    clear = {"supported": COLOURS[2], "contradicted": COLOURS[1], "equivalent": COLOURS[0]}
    colours = {"settled by construction": COLOURS[3], "these two models differ": COLOURS[4], **clear}
    for place, row in enumerate(frame.to_dict(orient="records")):
        value, verdict = row["measured_difference_points"], _kind(row["measured_verdict"])
        paper = row["published_difference_points"]
        if not pd.isna(paper):
            axis.plot(paper, place, MARKERS[1], color="black", markerfacecolor="none", label="published")
        if pd.isna(value):
            continue
        ends = row["measured_difference_low_points"], row["measured_difference_high_points"]
        spread = None if pd.isna(ends[0]) else [[value - ends[0]], [ends[1] - value]]
        colour = colours.get(verdict, "#777777")
        axis.errorbar(value, place, xerr=spread, fmt=MARKERS[0], color=colour, capsize=3, label=verdict)
    axis.axvline(0, color="black", linewidth=1)
    axis.set_yticks(
        range(len(frame)), [f"{claim} ({on})" for claim, on in zip(frame["claim"], frame["on"], strict=True)]
    )
    axis.tick_params(axis="y", labelsize="small")
    axis.set_ylim(len(frame) - 0.5, -0.5)
    axis.set_xlabel("difference in top-1 accuracy [points]")
    legend_above(axis)
    return figure


def findings(found: Sequence[Answer]) -> tuple[str, ...]:
    """Sentences that follow from the answers."""
    kinds = [_kind(each.word) for each in found]
    counts = {word: kinds.count(word) for word in WORDS}
    measured = [each for each in found if each.spread is not None and not each.asked.settled]
    decided = sum(counts[word] for word in DECIDED)
    looks = ", ".join(str(look.seeds) for look in LOOKS[:-1])
    early = sum(1 < len(each.asked.seeds) < LOOKS[0].seeds for each in measured)
    lines = [f"Of {len(found)} claims {', '.join(f'{count} {word}' for word, count in counts.items() if count)}."]
    lines.append(
        f"Decided by measuring: {decided} of the {len(measured)} that were run and that construction does not settle"
        f"{f' ({100 * decided / len(measured):.0f} %)' if measured else ''}. "
        f"Looks are taken at {looks} and {LOOKS[-1].seeds} seeds"
        + (f"; {early} claims have fewer than {LOOKS[0].seeds}, so that nothing of them is decided." if early else ".")
    )
    for each in found:
        named = each.asked.claim.name
        if each.word in (*DECIDED, "undecided"):
            lines.append(f"{named}: {each.judgement.text()}{_remark(each)}.")
        elif each.word.startswith("not ranked"):
            lines.append(f"{named}: {each.word}.")
    lines += [
        f"{each.asked.claim.name}: settled by construction, {bound_said(each.asked)}."
        for each in found
        if each.word == "settled by construction"
    ]
    lines += [
        f"{each.asked.claim.name}: {bound_said(each.asked)}, so that {_other(each)} side above that is better by "
        "construction."
        for each in found
        if each.word not in ("settled by construction", "not run") and bound_said(each.asked)
    ]
    return (
        *lines,
        "Undecided is said of a claim whose difference may be chance here; it says nothing against the paper.",
        f"Claims as registered in claims.yaml, sha256 {registered().digest}.",
        NOTE,
    )


def _other(answer: Answer) -> str:
    """The side that is not bounded, or less."""
    first, second = answer.asked.limits
    return "a first" if first is None or (second is not None and first.percent > second.percent) else "a second"


def _remark(answer: Answer) -> str:
    """Restrictions of an estimate, and how seeds and test videos belong together."""
    spread = answer.spread
    if spread is None or spread.estimate is None:
        return ""
    estimate = spread.estimate
    design = f"{estimate.design}, {estimate.clusters} groups of test videos"
    said = [f"over seeds alone: {spread.note}" if spread.over == "seeds alone" else design, estimate.remark()]
    if not answer.asked.above_chance:
        said.append("neither side is above chance")
    return f" ({'; '.join(filter(None, said))})"


def _caption(profile: Profile, frame: pd.DataFrame) -> str:
    over = " or ".join(dict.fromkeys(each for each in frame["measured_interval_over"] if not missing(each)))
    said = f"Claims of the paper on the probes, profile {profile}: differences with 95 % intervals over {over}"
    if (frame["measured_verdict"].isin(ONE_SEED)).any():
        said += "; one seed gives no p-value: models differ, or are not told apart, at 5 % for each pair alone"
    if frame["measured_direction_p"].notna().any():
        said += "; p-values over all looks, corrected within the claim's table or figure"
    if frame["measured_smallest_difference_points"].notna().any():
        said += (
            "; 80 % power: the difference that so many seeds find at the level of their look (before the first, of the "
            f"last), empty where they find none, however large; seeds still needed: to find {MARGIN_POINTS:g} points "
            "at that level"
        )
    return said


def report(records: Sequence[dict[str, Any]], profile: Profile) -> Report:
    """The verdicts from the records of all runs that the claims are about."""
    found = judged(records, profile)
    frame = pd.DataFrame([_row(each) for each in found])
    columns = [each for each in COLUMNS if each.origin == "label" or frame[each.key].notna().any()]
    return Report(
        name="verdicts",
        title="Verdicts: the paper's claims on the probes",
        table=Table(
            frame,
            tuple(columns),
            _caption(profile, frame),
            measured="measured here, on this repository's probes",
        ),
        figure=draw(frame),
        findings=findings(found),
        sources=(published("table1", "schemes"),),
        remarks=(),
        records=tuple(told_apart(records)[0]),
    )


def beside(results: Path, profile: Profile) -> list[dict[str, Any]]:
    """The best cheap classifier of each probe that claims are about."""
    return cheap_classifiers(results, profile, list(dict.fromkeys(claim.on for claim in CLAIMS)))


ARTEFACT = Artefact("verdicts", "The paper's claims, judged on the probes", plan, report, beside=beside)
