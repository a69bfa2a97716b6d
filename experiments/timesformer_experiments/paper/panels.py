"""Artefact of several panels, each an ablation on its own probe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from timesformer_experiments.paper.ablation import NOTE, Ablation, protocol_said
from timesformer_experiments.paper.accuracy import Accuracy, Key
from timesformer_experiments.paper.artefact import Artefact, Profile
from timesformer_experiments.paper.drawing import draw_curves
from timesformer_experiments.report.published import remarks
from timesformer_experiments.report.report import Report
from timesformer_experiments.report.tables import Column, Table
from timesformer_experiments.specs.run import RunSpec


def panels(name: str, title: str, parts: Sequence[Ablation], remarks_of: Sequence[str]) -> Artefact:
    """Make the artefact from its parts, each with a curve and one probe."""

    def plan(profile: Profile) -> list[RunSpec]:
        return list({spec.hash(): spec for part in parts for spec in part.plan(profile)}.values())

    def report(records: Sequence[dict[str, Any]], profile: Profile) -> Report:
        measured: dict[Key, Accuracy] = {}
        frames, drawn, shown, findings = [], [], list[Column](), list[str]()
        for part in parts:
            own = part.measured(records, profile)
            frame = part.frame(own, part.ceilings(profile))
            measured |= own
            findings += [line for line in part.findings(own, frame) if line != NOTE]
            assert part.curve is not None
            drawn += [(frame, probe, dataset, part.curve) for probe, dataset in part.probes.items()]
            frames.append(frame.assign(panel=part.title))
            known = {column.key for column in shown}
            shown += [column for column in part.columns(frame) if column.key not in known]
        shown.sort(key=lambda column: column.key in ("needs_data", "measured_above_chance"))
        rows = pd.concat(frames)
        caption = f"{title}. {protocol_said(profile, measured, rows)}; cost of one view at the paper's scale"
        columns = (Column("panel", "Panel", "label"), *shown)
        table = Table(rows, columns, caption, measured="measured here, on this repository's probes")
        return Report(
            name=name,
            title=title,
            table=table,
            figure=draw_curves(drawn),
            findings=(*findings, NOTE),
            sources=tuple(block for part in parts for block in part.published_blocks()),
            remarks=tuple(remark for artefact in remarks_of for remark in remarks(artefact)),
            records=tuple(records),
        )

    return Artefact(name, title, plan, report)
