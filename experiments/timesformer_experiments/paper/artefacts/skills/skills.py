"""Report on what each scheme can and cannot see: six probes, their dials, and two predictions for each accuracy.

`skills.yaml` holds probes, settings and predictions, registered before the first run; `skills_recipes.yaml` the recipes
that were found on validation data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from timesformer_experiments.paper.artefact import Artefact, Profile
from timesformer_experiments.paper.skills import beaten, offsets, pictures, words
from timesformer_experiments.paper.skills.beside import NAME, beside, measure
from timesformer_experiments.paper.skills.measured import CHEAP, CURVE, best_cheap, followed, found, frame, gates, rows
from timesformer_experiments.paper.skills.plan import cells, followups
from timesformer_experiments.paper.skills.registered import skills
from timesformer_experiments.report.report import Report
from timesformer_experiments.report.tables import Column, Table
from timesformer_experiments.specs.run import RunSpec, with_dependencies

TITLE = "What each scheme can and cannot see"
COLUMNS = (
    Column("probe", "Probe", "label"),
    Column("dial", "Dial", "label"),
    Column("scheme", "Scheme", "label"),
    Column("depth", "Blocks", "label", decimals=0),
    Column(
        "measured_top1_percent",
        "top-1 [%]",
        "measured",
        bounds=("measured_top1_low_percent", "measured_top1_high_percent"),
    ),
    Column("bound_percent", "Bound [%]", "counted"),
    Column("predicted_percent", "Predicted [%]", "predicted"),
    Column("outcome", "Outcome", "label"),
    Column("cheap_best_percent", "Without attention [%]", "measured"),
)


def plan(profile: Profile) -> list[RunSpec]:
    """List all runs, follow-ups last, each after the run from which it starts."""
    return list(with_dependencies(cell.spec for cell in [*cells(profile), *followups(profile)]).values())


def report(records: Sequence[dict[str, Any]], profile: Profile) -> Report:
    """Make the report from the records of the runs and the entries of the files beside them."""
    runs = [record for record in records if record.get("kind") not in (CHEAP, CURVE)]
    measured, results = found(runs, profile), followed(runs, profile)
    made = rows(measured, best_cheap(records), profile)
    shut = gates(made)
    parts = (
        words.overview(made, shut),
        beaten.part(made, shut),
        words.experiments(made, results),
        offsets.part(measured),
        pictures.curves([record for record in records if record.get("kind") == CURVE]),
    )
    return Report(
        name=NAME,
        title=TITLE,
        table=Table(frame(made, results), COLUMNS, _caption(profile)),
        figure=pictures.draw(made),
        findings=words.findings(made, shut, results, profile),
        sources=(),
        remarks=(),
        records=tuple(runs),
        parts=tuple(part for part in parts if part is not None),
    )


def _caption(profile: Profile) -> str:
    seeds = skills().seeds[profile]
    interval = "for new seeds and new test videos" if seeds > 1 else "for new test videos alone: one seed"
    return (
        f"Profile {profile}: {seeds} seed{'s' if seeds > 1 else ''}, 95 % intervals {interval}. Bound: proved for any "
        "weights, 100 where nothing is proved. Predicted: a hypothesis from who meets whom, registered before the "
        "first run"
    )


ARTEFACT = Artefact(NAME, TITLE, plan, report, measure=measure, beside=beside)
