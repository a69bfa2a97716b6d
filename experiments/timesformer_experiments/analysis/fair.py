"""Sections of a sweep's report on how fair its comparisons are: equal tuning, equal cost, claims and their seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from timesformer_experiments.analysis import tuning
from timesformer_experiments.records.read import CELLS_FILE
from timesformer_experiments.report.tables import Column, Table

CLAIMS = "claims"
UNTESTED = "seeds were added while claims were undecided: see the claims"
"""Why pairs are not tested in a sweep with `until`: with seeds that stop at a result, p-values err too often."""
SAID = {"macs_per_view": "MACs a view", "params": "parameters", "train_macs": "MACs of the training"}


@dataclass(frozen=True)
class Sections:
    """Sections that join a report, by the stem of their files."""

    tables: dict[str, Table] = field(default_factory=dict)
    figures: dict[str, Figure] = field(default_factory=dict)
    findings: tuple[str, ...] = ()


def sections(
    folder: Path,
    compared: str | None,
    records: Sequence[dict[str, Any]],
    seeds_of: tuning.SeedsOf | None = None,
) -> Sections:
    """Return the sections for which a folder has records.

    compared: path of the axis whose values are lines.  seeds_of: accuracies and right videos of runs by their hashes.
    """
    tables: dict[str, Table] = {}
    figures: dict[str, Figure] = {}
    findings: list[str] = []
    variants = tuning.variants_of(records)
    if variants:
        tuning.require_one_search(variants)
        tables |= tuning.tables(variants, seeds_of)
        figures |= tuning.figures(variants, compared)
        findings += tuning.findings(variants)
        if before := _of_cells(folder).get("superseded"):
            findings.append(
                f"{before} final runs of recipes that an earlier tuning chose are in this folder and left out: their "
                "test results were known before these recipes were chosen."
            )
    notes = [record["equalised"] for record in records if "equalised" in record and record.get("cell") is not None]
    if notes:
        tables["equal_cost"] = equal_cost(notes)
    claims = claims_of(folder)
    if claims:
        tables[CLAIMS] = claims_table(claims)
        decided = sum(each["decided_at_seeds"] is not None for each in claims)
        findings.append(f"Claims: {decided} of {len(claims)} decided ({100 * decided / len(claims):.0f} %).")
        findings += [f"Claim {each['name']}: {each['sentence']}." for each in claims]
    return Sections(tables, figures, tuple(findings))


def equal_cost(notes: Sequence[Mapping[str, Any]]) -> Table:
    """Return the table of what was solved for an equal cost, and by how much it is missed."""
    first = notes[0]
    rows = [
        {
            "variant": note["variant"],
            first["vary"]: note["value"],
            f"counted_{first['by']}": note["cost"],
            f"counted_{first['by']}_wanted": note["target"],
            "counted_difference_percent": note["difference_percent"],
        }
        for note in {json.dumps(each, sort_keys=True): each for each in notes}.values()
    ]
    said = SAID[first["by"]]
    columns = (
        Column("variant", "Variant", "label"),
        Column(first["vary"], first["vary"], "label", 0),
        Column(f"counted_{first['by']}", said, "counted", 0),
        Column(f"counted_{first['by']}_wanted", "Wanted", "counted", 0),
        Column("counted_difference_percent", "Difference [%]", "counted", 2),
    )
    caption = f"{first['vary']} at which each variant comes nearest to the {said} of {first['to']}"
    return Table(pd.DataFrame(rows), columns, caption)


def claims_of(folder: Path) -> list[dict[str, Any]]:
    """Return where the claims stood when a driver of the sweep last looked."""
    return list(_of_cells(folder).get(CLAIMS, []))


def _of_cells(folder: Path) -> dict[str, Any]:
    cells = (folder if folder.is_dir() else folder.parent) / CELLS_FILE
    return dict(json.loads(cells.read_bytes())) if cells.is_file() else {}


def claims_table(claims: Sequence[Mapping[str, Any]]) -> Table:
    """Return the registered claims with what was found."""
    rows = [
        {
            "claim": each["name"],
            "family": each["family"],
            "seeds": each["seeds"],
            "measured_difference_points": each["difference_points"],
            "measured_difference_low_points": each["difference_low_points"],
            "measured_difference_high_points": each["difference_high_points"],
            "measured_direction_p": each["direction_p"],
            "measured_equivalence_p": each["equivalence_p"],
            "measured_smallest_difference_points": each.get("smallest_difference_points"),
            "measured_more_seeds": each.get("more_seeds"),
            "measured_verdict": each["verdict"],
        }
        for each in claims
    ]
    bounds = ("measured_difference_low_points", "measured_difference_high_points")
    columns = (
        Column("claim", "Claim", "label"),
        Column("family", "Family", "label"),
        Column("seeds", "Seeds", "label", 0),
        Column("measured_difference_points", "Difference [points]", "measured", bounds=bounds),
        Column("measured_direction_p", "p of direction", "measured", 3, least=0.001),
        Column("measured_equivalence_p", "p of equivalence", "measured", 3, least=0.001),
        Column("measured_smallest_difference_points", "80 % power [points]", "measured"),
        Column("measured_more_seeds", "Seeds still needed", "measured", 0),
        Column("measured_verdict", "Verdict", "measured"),
    )
    margin = " or ".join(sorted({f"{each['margin']:g}" for each in claims}))
    caption = (
        "claims registered before the runs; 95 % intervals for new seeds and new test videos, p corrected for looks "
        f"and within each family; equivalent: within {margin} points; 80 % power: the difference that so many seeds "
        f"find at the level of their look within the family, empty where they find none, however large; seeds still "
        f"needed: to find {margin} points, at the spread seen"
    )
    frame = pd.DataFrame(rows).astype({"seeds": int})
    kept = tuple(each for each in columns if each.origin == "label" or frame[each.key].notna().any())
    return Table(frame, kept, caption)
