"""Printing of the reports of artefacts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timesformer_experiments.report.terminal import console, print_json, print_text

if TYPE_CHECKING:
    from timesformer_experiments.paper.artefact import Profile
    from timesformer_experiments.report.report import Report


def show_artefact(found: Report, files: list[Path], profile: str, as_json: bool) -> dict[str, Any]:
    """Print a report unless JSON was asked for, and return it as plain data."""
    from timesformer_experiments.report.tables import to_rich

    if not as_json:
        console().print(to_rich(found.table))
        print_text(*(f"- {finding}" for finding in found.findings), indent=2)
        print_text(*map(str, files))
    return {
        "artefact": found.name,
        "profile": profile,
        "rows": json.loads(found.table.frame.to_json(orient="records")),
        "findings": list(found.findings),
        "files": [str(path) for path in files],
    }


def show_together(
    reports: Mapping[Profile, Sequence[Report]], made: list[dict[str, Any]], out: Path, as_json: bool
) -> None:
    """Write one page for each profile with several reports; print its path or, as JSON, all artefacts and pages."""
    from timesformer_experiments.report.report import write_together

    pages = [str(write_together(of, profile, out)) for profile, of in reports.items() if len(of) > 1]
    if as_json:
        print_json({"artefacts": made, "pages": pages})
    else:
        print_text(*pages)
