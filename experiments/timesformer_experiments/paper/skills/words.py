"""Sentences on what `skills` shows, and the table that is read first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from timesformer_experiments.paper.skills.measured import Row, Value, changes_said, dial_said, followup_said
from timesformer_experiments.paper.skills.registered import Followup, Profile, skills
from timesformer_experiments.report.report import Part
from timesformer_experiments.report.tables import Column, Table

Results = Sequence[tuple[Followup, float]]


def overview(rows: Sequence[Row], shut: Mapping[tuple[str, Value, int], str]) -> Part:
    """Return a row for each probe, value of its dial and depth, with all schemes: measured, predicted in brackets."""
    places: dict[tuple[str, Value, int], list[Row]] = {}
    for row in rows:
        places.setdefault((row.probe, row.value, row.depth), []).append(row)
    table = []
    for (probe, value, depth), own in places.items():
        line: dict[str, object] = {"probe": probe, "dial": dial_said(probe, value), "depth": depth}
        for row in own:
            mark = "" if row.hit else " miss"
            line[row.scheme] = f"{row.percent:.1f} [{row.predicted.predicted_percent:.0f}]{mark}"
        line["cheap_best_percent"] = own[0].cheap
        line["chance_percent"] = own[0].found.chance
        line["ranks"] = "nothing" if shut[probe, value, depth] else "yes"
        table.append(line)
    columns = (
        Column("probe", "Probe", "label"),
        Column("dial", "Dial", "label"),
        Column("depth", "Blocks", "label", decimals=0),
        *(Column(scheme, scheme, "measured") for scheme in skills().schemes),
        Column("cheap_best_percent", "Without attention [%]", "measured"),
        Column("chance_percent", "Chance [%]", "counted"),
        Column("ranks", "May rank schemes", "label"),
    )
    hit = skills().hit
    caption = (
        "Top-1 accuracy [%] of each scheme and, in brackets, the prediction that was registered before the first run. "
        f"A prediction is a hit within {hit.points:g} points, or at the same level: learnt (at least {hit.learnt:.0%} "
        f"of the way from chance to 100), not seen to learn (at most {hit.not_learnt:.0%}), or in part"
    )
    found = Table(pd.DataFrame(table), columns, caption)
    return Part("overview", "All schemes at a glance", found, first=True)


def findings(
    rows: Sequence[Row], shut: Mapping[tuple[str, Value, int], str], results: Results, profile: Profile
) -> tuple[str, ...]:
    """Sentences that follow from the rows."""
    seeds = skills().seeds[profile]
    lines = []
    if profile == "smoke":
        lines.append("Steps too few to learn anything: these accuracies mean nothing.")
    if seeds == 1:
        lines.append(
            "One seed: a difference says that these two models differ, and ranks no schemes; a prediction that is "
            "missed here may be hit with another seed."
        )
    lines += [_counted(rows), *_by_probe(rows, shut), *_proofs(rows)]
    misses = [row for row in rows if not row.hit and profile != "smoke"]
    lines += [f"Miss: {_missed(row, results)}." for row in misses]
    lines.append(_cost(rows))
    if gone := [name for name, skill in skills().probes.items() if not skill.points(profile)]:
        lines.append(f"Not run in this profile, for want of time: {', '.join(gone)}; their predictions stay.")
    lines += [f"{name} was changed after it had been registered: {text}" for name, text in skills().changes().items()]
    lines.append(
        "A miss contradicts a hypothesis, not a proof. Predictions as registered in skills.yaml "
        f"({skills().written}), sha256 {skills().digest()}."
    )
    return tuple(lines)


def _counted(rows: Sequence[Row]) -> str:
    depths = sorted({row.depth for row in rows})
    said = []
    for depth in depths:
        own = [row for row in rows if row.depth == depth]
        said.append(f"{sum(row.hit for row in own)} of {len(own)} at {depth} block{'s' if depth > 1 else ''}")
    return f"Predictions hit: {', '.join(said)}."


def _by_probe(rows: Sequence[Row], shut: Mapping[tuple[str, Value, int], str]) -> list[str]:
    lines = []
    for probe in dict.fromkeys(row.probe for row in rows):
        own = [row for row in rows if row.probe == probe]
        learnt = [row for row in own if row.level == "learnt"]
        line = f"{probe}: {sum(row.hit for row in own)} of {len(own)} predictions hit; "
        if learnt:
            schemes = [scheme for scheme in skills().schemes if any(row.scheme == scheme for row in learnt)]
            line += f"learnt by {', '.join(schemes)} at some value of the dial"
        else:
            line += "not seen to be learnt by any scheme"
        lines.append(f"{line}.")
        lines += [
            f"{probe}, {dial_said(probe, value)}, {depth} block{'s' if depth > 1 else ''} ranks nothing: {why}."
            for (name, value, depth), why in shut.items()
            if name == probe and why
        ]
    return lines


def _proofs(rows: Sequence[Row]) -> list[str]:
    """Sentences on the bounds that are below 100 %."""
    bounded = [row for row in rows if row.predicted.bound_percent < 100]
    beyond = [row for row in bounded if row.contradicts_proof()]
    lines = [f"Contradicts a proof, so one of the two is wrong: {row.place}, {row.percent:.1f} %." for row in beyond]
    if bounded and not beyond:
        lines.append(f"No interval of the {len(bounded)} accuracies with a bound below 100 % lies above its bound.")
    return lines


def _missed(row: Row, results: Results) -> str:
    hit, predicted = skills().hit, row.predicted.predicted_percent
    return (
        f"{row.place}: predicted {predicted:g} % ({hit.level(predicted, row.found.chance)}), measured "
        f"{row.percent:.1f} % ({row.level}); {followup_said(row, results)}"
    )


def _cost(rows: Sequence[Row]) -> str:
    records = {record["hash"]: record for row in rows for record in row.found.records}
    seconds = [float(record["wall_seconds"]) for record in records.values()]
    return (
        f"{len(records)} runs took {sum(seconds) / 60:.0f} minutes of one thread each, "
        f"{sum(seconds) / len(seconds):.1f} seconds on average and {max(seconds):.1f} at most, reading and testing "
        "included."
    )


def experiments(rows: Sequence[Row], results: Results) -> Part | None:
    """Return the follow-ups as a table; None without any."""
    if not results:
        return None
    by_place = {(row.probe, row.value, row.scheme, row.depth): row for row in rows}
    table = []
    for follow, percent in results:
        row = by_place[follow.probe, follow.value, follow.scheme, follow.depth]
        table.append(
            {
                "probe": follow.probe,
                "dial": row.dial,
                "scheme": follow.scheme,
                "depth": follow.depth,
                "question": follow.says,
                "changed": changes_said(follow),
                "predicted_percent": row.predicted.predicted_percent,
                "measured_before_percent": row.percent,
                "measured_top1_percent": percent,
                "answer": followup_said(row, [(follow, percent)]),
            }
        )
    columns = (
        Column("probe", "Probe", "label"),
        Column("dial", "Dial", "label"),
        Column("scheme", "Scheme", "label"),
        Column("depth", "Blocks", "label", decimals=0),
        Column("question", "Question", "label"),
        Column("predicted_percent", "Predicted [%]", "predicted"),
        Column("measured_before_percent", "As registered [%]", "measured"),
        Column("measured_top1_percent", "With the change [%]", "measured"),
        Column("answer", "Answer", "label"),
    )
    caption = "One experiment on each miss that was followed up, on the first seed"
    return Part("followups", "Experiments on misses", Table(pd.DataFrame(table), columns, caption))
