"""Reports as files: csv, markdown, figure, one HTML page, and a copy of the records.

A `Report` holds the content of an artefact (a table or figure of the paper); `write` lays out all reports alike.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from timesformer.errors import InputError
from timesformer.files import write_atomic
from timesformer_experiments.report import pages
from timesformer_experiments.report.published import Published, Remark, paper
from timesformer_experiments.report.style import png
from timesformer_experiments.report.tables import Column, Table, to_csv, to_markdown

RECORDS = "records.jsonl"


@dataclass(frozen=True)
class Part:
    """A further section of a report: sentences, a table, a figure, and parts within it.

    Its files: `<name>.csv` of its table, `<name>.png` of its figure, and `files` by name.  `name`: empty where its
    table is no file of its own.  `first`: the section comes before the report's own table.  `findings`: sentences that
    follow from its numbers.  `on_page_only`: it is on the page, not in the markdown.
    """

    name: str
    title: str = ""
    table: Table | None = None
    figure: Figure | None = None
    findings: tuple[str, ...] = ()
    first: bool = False
    files: Mapping[str, bytes] = field(default_factory=dict)
    within: tuple[Part, ...] = ()
    on_page_only: bool = False

    def contents(self) -> dict[str, bytes]:
        """Return the files of the part and of those within it, by name."""
        found = dict(self.files)
        if self.table is not None and self.name:
            found[f"{self.name}.csv"] = to_csv(self.table).encode()
        if self.figure is not None:
            found[f"{self.name}.png"] = png(self.figure)
        for part in self.within:
            found |= part.contents()
        return found

    def markdown(self, level: int = 2) -> list[str]:
        """Return the part's section; level: of its heading."""
        if self.on_page_only:
            return []
        lines = [f"{'#' * level} {self.title}", ""] if self.title else []
        lines += [*(f"- {finding}" for finding in self.findings), ""] if self.findings else []
        lines += [self.table.caption, "", to_markdown(self.table)] if self.table is not None else []
        lines += [f"![{self.title}]({self.name}.png)", ""] if self.figure is not None else []
        return [*lines, *(line for part in self.within for line in part.markdown(level + 1))]


@dataclass(frozen=True)
class Report:
    """Content of one artefact in one profile.

    `findings`: sentences that follow from the numbers of this table. `sources`: blocks of published values shown.
    `remarks`: remarks on them. `records`: records that the table was made from. `parts`: further tables and figures.
    """

    name: str
    title: str
    table: Table
    figure: Figure
    findings: tuple[str, ...]
    sources: tuple[Published, ...]
    remarks: tuple[Remark, ...]
    records: tuple[dict[str, Any], ...] = ()
    parts: tuple[Part, ...] = ()

    def source_sentences(self) -> list[str]:
        """Return the sources of the published values, one sentence per block."""
        return [_source(block) for block in self.sources]

    def remark_sentences(self) -> list[str]:
        """Return the remarks, each with its confidence and source."""
        return [f"{remark.text} ({remark.confidence}: {remark.source})" for remark in self.remarks]


def require_writable(folder: Path) -> None:
    """Create the folder and try to write there.  Raises `InputError`, before any long work begins."""
    probe = folder / ".writable"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise InputError(f"{folder}: cannot write results into this folder ({error.strerror or error})") from error


def write(report: Report, folder: Path) -> list[Path]:
    """Write all files of a report into a folder and return their paths; each is written completely or not at all."""
    require_writable(folder)
    picture = png(report.figure)
    further = {name: content for part in report.parts for name, content in part.contents().items()}
    contents: dict[str, bytes] = {
        f"{report.name}.csv": to_csv(report.table).encode(),
        f"{report.name}.md": markdown(report).encode(),
        f"{report.name}.png": picture,
        "report.html": page(report, picture, further).encode(),
        **further,
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
    """Return the report as markdown."""
    return "\n".join(
        [
            f"# {report.title}",
            "",
            *(line for part in report.parts if part.first for line in part.markdown()),
            report.table.caption,
            "",
            to_markdown(report.table),
            f"![{report.title}]({report.name}.png)",
            "",
            *(f"- {finding}" for finding in report.findings),
            "",
            *(line for part in report.parts if not part.first for line in part.markdown()),
            *_published(report),
        ]
    )


def _published(report: Report) -> list[str]:
    """Return the section on published values; empty if none are shown."""
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


def page(report: Report, picture: bytes, further: Mapping[str, bytes] | None = None) -> str:
    """Return the report as one page that needs no other file (see `timesformer_experiments.report.pages`).

    further: files of its parts by name.
    """
    runs = [record for record in report.records if "top1_percent" in record["metrics"]]
    return pages.page(
        "artefact.html",
        report.title,
        report=report,
        image=picture,
        further=further or {},
        paper=paper(),
        runs=_runs(runs) if runs else None,
        machines=sorted({_machine(record["environment"]) for record in runs}),
    )


def write_together(reports: Sequence[Report], profile: str, folder: Path) -> Path:
    """Write the common page of several reports, `<profile>.html`, into the results folder and return its path."""
    path = folder / f"{profile}.html"
    write_atomic(path, together(reports, profile).encode())
    return path


def together(reports: Sequence[Report], profile: str) -> str:
    """Return a page with the tables and figures of several reports, each with a link to its own page with its runs."""
    artefacts = [(report, png(report.figure)) for report in reports]
    title = f"{len(reports)} tables and figures, profile {profile}"
    return pages.page("together.html", title, artefacts=artefacts, profile=profile, paper=paper())


def _runs(records: Sequence[dict[str, Any]]) -> Table:
    """Return a table of the runs behind the measured values, one row per run."""
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
