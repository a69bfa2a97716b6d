"""Records and published values made into files: csv, markdown, figure, one HTML page, and a copy of the records.

What an artefact (a table or figure of the paper) has to say is a `Report`; `write` lays it out the same way for all.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from timesformer.errors import InputError
from timesformer.files import write_atomic
from timesformer_experiments.report import pages
from timesformer_experiments.report.published import Published, Remark, paper
from timesformer_experiments.report.tables import Column, Table, to_csv, to_markdown

# Okabe and Ito's palette: distinguishable with any colour vision; shapes tell the schemes apart without colour too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
RECORDS = "records.jsonl"


@dataclass(frozen=True)
class Report:
    """All that is shown of one artefact in one profile.

    `findings`: sentences that follow from the numbers of this table. `sources`: the published blocks shown.
    `remarks`: what is to be known about them. `records`: the records that the table was made from.
    """

    name: str
    title: str
    table: Table
    figure: Figure
    findings: tuple[str, ...]
    sources: tuple[Published, ...]
    remarks: tuple[Remark, ...]
    records: tuple[dict[str, Any], ...] = ()

    def source_sentences(self) -> list[str]:
        """Where the published values are from, a sentence a block."""
        return [_source(block) for block in self.sources]

    def remark_sentences(self) -> list[str]:
        """The remarks, each with its confidence and source."""
        return [f"{remark.text} ({remark.confidence}: {remark.source})" for remark in self.remarks]


def new_figure(width: float, height: float, panels: int) -> tuple[Figure, list[Any]]:
    """A figure with panels side by side, in the suite's style; no global state of pyplot. Sizes in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = list(figure.subplots(1, panels, squeeze=False)[0])
    for axis in axes:
        axis.grid(True, color="#dddddd", linewidth=0.6)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def png(figure: Figure, dots_per_inch: int = 150) -> bytes:
    """The figure as a PNG, the same bytes for the same figure."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=dots_per_inch, metadata={"Software": None})
    return buffer.getvalue()


def require_writable(folder: Path) -> None:
    """Create the folder and try to write there; raises `InputError` before anything long has begun."""
    probe = folder / ".writable"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise InputError(f"{folder}: cannot write results there ({error.strerror or error})") from error


def write(report: Report, folder: Path) -> list[Path]:
    """Write all files of a report into a folder and return their paths; each appears whole or not at all."""
    require_writable(folder)
    picture = png(report.figure)
    contents: dict[str, bytes] = {
        f"{report.name}.csv": to_csv(report.table).encode(),
        f"{report.name}.md": markdown(report).encode(),
        f"{report.name}.png": picture,
        "report.html": page(report, picture).encode(),
    }
    if report.records:
        lines = (json.dumps(record, sort_keys=True, allow_nan=False) + "\n" for record in report.records)
        contents[RECORDS] = "".join(lines).encode()
    for name, content in contents.items():
        write_atomic(folder / name, content)
    return [folder / name for name in contents]


def _source(block: Published) -> str:
    error = f"; read off a figure to within ± {block.digitising_error}" if block.digitising_error is not None else ""
    return f"{block.source} ({block.confidence}{error}). {block.note}".strip()


def markdown(report: Report) -> str:
    """The report as markdown, for the results folder and for pasting."""
    return "\n".join(
        [
            f"# {report.title}",
            "",
            report.table.caption,
            "",
            to_markdown(report.table),
            f"![{report.title}]({report.name}.png)",
            "",
            *(f"- {finding}" for finding in report.findings),
            "",
            *_published(report),
        ]
    )


def _published(report: Report) -> list[str]:
    """The section on published values, none where nothing published is shown."""
    if not report.sources and not report.remarks:
        return []
    return [
        "## Published values",
        "",
        f"Paper: {paper()}",
        "",
        *(f"- {sentence}" for sentence in [*report.source_sentences(), *report.remark_sentences()]),
        "",
    ]


def page(report: Report, picture: bytes) -> str:
    """One page that needs no other file (see `timesformer_experiments.report.pages`)."""
    runs = [record for record in report.records if "top1_percent" in record["metrics"]]
    return pages.page(
        "artefact.html",
        report.title,
        report=report,
        image=picture,
        paper=paper(),
        runs=_runs(runs) if runs else None,
        machines=sorted({_machine(record["environment"]) for record in runs}),
    )


def write_together(reports: Sequence[Report], profile: str, folder: Path) -> Path:
    """Write the page of several reports, `<profile>.html`, into the folder that theirs lie in; returns its path."""
    path = folder / f"{profile}.html"
    write_atomic(path, together(reports, profile).encode())
    return path


def together(reports: Sequence[Report], profile: str) -> str:
    """One page with the tables and figures of several reports; of each, a link leads to its own page with its runs."""
    artefacts = [(report, png(report.figure)) for report in reports]
    title = f"{len(reports)} tables and figures, profile {profile}"
    return pages.page("together.html", title, artefacts=artefacts, profile=profile, paper=paper())


def _runs(records: Sequence[dict[str, Any]]) -> Table:
    """How the measured values came about, a line for each run."""
    rows = [
        {
            "name": record["name"],
            "top1_percent": record["metrics"]["top1_percent"],
            "low": record["metrics"]["top1_low_percent"],
            "high": record["metrics"]["top1_high_percent"],
            "wall_seconds": record["wall_seconds"],
            "finished": record["finished_utc"],
            "hash": record["hash"],
        }
        for record in records
    ]
    columns = (
        Column("name", "Run", "label"),
        Column("top1_percent", "top-1 [%]", "measured", bounds=("low", "high")),
        Column("wall_seconds", "Time [s]", "measured", decimals=0),
        Column("finished", "Finished, UTC", "label"),
        Column("hash", "Configuration", "label"),
    )
    return Table(pd.DataFrame(rows), columns, "Runs, with 95 % intervals over test videos")


def _machine(environment: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in sorted(environment["versions"].items()))
    commit = environment["git_commit"] or "unknown"
    changed = " with local changes" if environment["git_dirty"] else ""
    return (
        f"{environment['cpu_model']}, {environment['cpu_cores']} cores, {environment['platform']}, device "
        f"{environment['device']}, {environment['threads']} threads; commit {commit}{changed}; {versions}"
    )
