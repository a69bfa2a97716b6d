"""Records and published values made into files: csv, markdown, figure, one HTML page, and a copy of the records.

What an artefact (a table or figure of the paper) has to say is a `Report`; `write` lays it out the same way for all.
"""

from __future__ import annotations

import base64
import html
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from experiments.paper.published import Published, Remark, paper
from experiments.tables import Column, Table, to_csv, to_html, to_markdown
from timesformer.checkpoints import write_atomic
from timesformer.errors import InputError

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


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and ends of its 95 % interval, by Student's t over at least two values (seeds)."""
    count = len(values)
    if count < 2:
        raise ValueError(f"an interval over seeds needs at least two values, got {count}")
    mean = math.fsum(values) / count
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    half = float(stats.t.ppf(0.975, count - 1)) * deviation / math.sqrt(count)
    return mean, mean - half, mean + half


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
    error = f"; digitising error ± {block.digitising_error} TFLOPs" if block.digitising_error is not None else ""
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
            "## Published values",
            "",
            f"Paper: {paper()}",
            "",
            *(f"- {_source(block)}" for block in report.sources),
            *(f"- {remark.text} ({remark.confidence}: {remark.source})" for remark in report.remarks),
            "",
        ]
    )


STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { line-height: 1.2; } h2 { margin-top: 2rem; font-size: 1.2rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .5rem; } th, td { padding: .35rem .7rem; text-align: right; }
th { border-bottom: 2px solid var(--line); vertical-align: bottom; } td { border-bottom: 1px solid var(--line); }
th.label, td.label { text-align: left; } td.published, span.published, th.published { background: var(--soft); }
td.measured { font-weight: 600; } sup { font-weight: 400; opacity: .7; margin-left: .1em; }
figure { margin: 1.5rem 0; } img { max-width: 100%; background: white; } .legend, .runs, .sources { font-size: .9rem; }
"""


def page(report: Report, picture: bytes) -> str:
    """One page that needs no other file: escaped text, the figure as data, style inside."""
    title = html.escape(report.title)
    source = "data:image/png;base64," + base64.b64encode(picture).decode()
    findings = _items(report.findings)
    sources = _items([_source(block) for block in report.sources])
    remarks = _items([f"{remark.text} ({remark.confidence}: {remark.source})" for remark in report.remarks])
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head><body>'
        f"<h1>{title}</h1>{findings}{to_html(report.table)}"
        f'<figure><img alt="{title}: the figure of the table above" src="{source}"></figure>'
        f'<section class="sources"><h2>Published values</h2><p>{html.escape(paper())}</p>{sources}{remarks}</section>'
        f"{_runs(report.records)}</body></html>\n"
    )


def _items(sentences: Sequence[str]) -> str:
    return (
        "<ul>" + "".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences) + "</ul>" if sentences else ""
    )


def _runs(records: Sequence[dict[str, Any]]) -> str:
    """How the measured values came about: a line for each run, then the machine and the versions."""
    if not records:
        return ""
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
    table = to_html(Table(pd.DataFrame(rows), columns, "Runs, with 95 % intervals over test videos"))
    machines = sorted({_machine(record["environment"]) for record in records})
    return f'<section class="runs"><h2>Runs</h2>{table}{_items(machines)}</section>'


def _machine(environment: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in sorted(environment["versions"].items()))
    commit = environment["git_commit"] or "unknown"
    changed = " with local changes" if environment["git_dirty"] else ""
    return (
        f"{environment['cpu_model']}, {environment['cpu_cores']} cores, {environment['platform']}, device "
        f"{environment['device']}, {environment['threads']} threads; commit {commit}{changed}; {versions}"
    )
