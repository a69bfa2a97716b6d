"""Report of a sweep, or of any folder of runs: tables, figures and a page.

    results.csv               every run: `timesformer_experiments.load_results`
    summary.csv, summary.tex  a row per setting: means over seeds with intervals, counts, predictions
    comparisons.csv, .tex     tests between the schemes in each setting, where accuracies were measured
    overall.csv, .tex         one answer for each two schemes over all settings, where there are several
    figures/*.png, *.pdf
    report.md, report.html
    per_class.csv, confusion.csv   where the records say: each class's accuracy, and which class was taken for which
    curves.parquet            learning curves, where the runs have left some
    right.parquet             which videos each run had right, so that the tests can be made again without the runs

If the report is written to another folder than that of the records, it also has records.jsonl (the valid records, and
those of the runs from which they are initialised), sweep.yaml and cells.json, so that it can be made again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from timesformer.errors import InputError
from timesformer.files import write_atomic
from timesformer_experiments.analysis.axes import CELL, also_differ, axes_of
from timesformer_experiments.analysis.chance import ABOVE, CHANCE, above_chance, chance_of
from timesformer_experiments.analysis.classes import ClassReport, class_report
from timesformer_experiments.analysis.comparisons import (
    RIGHT,
    Right,
    compare_all,
    on_different_videos,
    read_right,
    right_frame,
    seeds_of,
)
from timesformer_experiments.analysis.curves import CURVES, curve_figures, parquet, read_curves
from timesformer_experiments.analysis.fair import UNTESTED, claims_of, sections
from timesformer_experiments.analysis.figures import figures, front, pdf
from timesformer_experiments.analysis.overall import Overall, overall, overall_table
from timesformer_experiments.analysis.pairs import Comparison
from timesformer_experiments.analysis.statistics.humps import MEAN_FROM_SEEDS, cannot_reveal
from timesformer_experiments.analysis.summary import (
    INTERVAL_OVER,
    TEST_GROUPS,
    Summary,
    comparison_table,
    failures_table,
    summarise,
    summary_table,
)
from timesformer_experiments.cost.measures import ACCURACY, LATENCY, TFLOPS, THROUGHPUT, TRAINING, Metric
from timesformer_experiments.records.log import LOG
from timesformer_experiments.records.read import CELLS_FILE, find_records, load_results, planned_cells
from timesformer_experiments.report import pages
from timesformer_experiments.report.report import require_writable
from timesformer_experiments.report.style import png
from timesformer_experiments.report.tables import Table, to_csv, to_latex, to_markdown

SWEEP_FILE = "sweep.yaml"
LEVEL, DIVERGED = "failed_below_percent", "diverged"
MOST_NAMED = 6
"""Largest number of settings that a finding names."""
LONG_TABLE = 60
"""Number of rows from which a table comes after the figures on the page, so that the figures are found."""


@dataclass(frozen=True)
class SweepReport:
    """Content of the report on a folder of records.

    results: as `load_results` gives them.  overall: see `timesformer_experiments.analysis.overall`.  tables: by the
    stem of their files.  findings: sentences that follow from the numbers.  right: see
    `timesformer_experiments.analysis.comparisons`.  classes: None where no record knows them.
    curves: see `timesformer_experiments.analysis.curves`.
    """

    title: str
    results: pd.DataFrame
    summary: Summary
    comparisons: tuple[Comparison, ...]
    overall: tuple[Overall, ...]
    tables: dict[str, Table]
    figures: dict[str, Figure]
    findings: tuple[str, ...]
    right: Right
    classes: ClassReport | None
    curves: pd.DataFrame

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data for JSON."""
        return {
            "title": self.title,
            "runs": len(self.results),
            "compared": self.summary.axes.compared,
            "axes": list(self.summary.axes.columns),
            "summary": json.loads(self.summary.frame.to_json(orient="records")),
            "comparisons": [each.to_dict() | {"sentence": each.sentence()} for each in self.comparisons],
            "overall": [each.to_dict() | {"sentence": each.sentence()} for each in self.overall],
            "findings": list(self.findings),
        }


def sweep_report(folder: Path, compare: str | None = None) -> SweepReport:
    """Make the report of the records in a folder.  compare: field whose values are drawn as lines and tested.

    Raises InputError if there are no records, or they are broken.
    """
    results = load_results(folder)
    if results.empty:
        raise InputError(f"{folder}: no run has finished or failed yet")
    records = {each.record["hash"]: each.record for each in find_records(folder)}
    planned = planned_cells(folder)
    axes = axes_of(results, compare, planned)
    right = read_right(folder, results)
    levels = {key: level for key, record in records.items() if (level := record.get(LEVEL)) is not None}
    chance = {key: level for key, record in records.items() if (level := chance_of(record)) is not None}
    summary = summarise(results, axes, right, levels, chance)
    claims = claims_of(folder)
    comparisons = compare_all(results, axes, right, UNTESTED if claims else "")
    answers = [] if claims else overall(results, axes, right)
    sweeps = [str(name) for name in results["sweep"].dropna().unique()]
    title = f"Sweep {', '.join(sweeps)}" if sweeps else f"Runs of {folder.resolve().name}"
    tables = {"summary": summary_table(summary, _caption(results, summary, sweeps))}
    more = (("overall", overall_table(answers)), ("comparisons", comparison_table(comparisons)))
    tables |= {stem: table for stem, table in (*more, ("failures", failures_table(results))) if table is not None}
    compared = None if axes.compared is None else axes.compared.removeprefix(CELL)
    hashes = results["hash"].astype(str)
    fair = sections(folder, compared, list(records.values()), lambda keys: seeds_of(results[hashes.isin(keys)], right))
    classes, curves = class_report(results, summary, records), read_curves(folder, results)
    drawn, left = curve_figures(curves, results, summary, records)
    pictures = figures(summary) | fair.figures | (classes.figures if classes is not None else {}) | drawn
    findings = [
        *_findings(results, summary, comparisons, folder, planned),
        *([each.sentence() + "." for each in answers] if len(answers) <= MOST_NAMED else []),
        *_groups_said(summary, right),
        *summary.notes,
        *fair.findings,
        *(classes.findings if classes is not None else ()),
        *left,
    ]
    return SweepReport(
        title,
        results,
        summary,
        tuple(comparisons),
        tuple(answers),
        tables | fair.tables,
        pictures,
        tuple(findings),
        right,
        classes,
        curves,
    )


def _groups_said(summary: Summary, right: Right) -> list[str]:
    """Say that test videos which belong together count as one, where there are any."""
    if TEST_GROUPS not in summary.frame or not right:
        return []
    videos = max(map(len, right.values()))
    counts = sorted({int(each) for each in summary.frame[TEST_GROUPS].dropna()})
    if not counts or counts == [videos]:
        return []
    return [f"Test videos that belong together count as one: {' or '.join(map(str, counts))} groups."]


def _caption(results: pd.DataFrame, summary: Summary, sweeps: list[str]) -> str:
    parts = [f"{_many(len(summary.frame), 'setting')} of {', '.join(sweeps) or 'runs'}"]
    if summary.metric(ACCURACY) is not None:
        over = sorted(set(summary.frame[INTERVAL_OVER].dropna()) - {"nothing"})
        said = f" with its 95 % interval over {' or '.join(over)}" if over else ""
        one = int(summary.frame["runs_done"].max()) == 1
        splits = "/".join(sorted(set(results["evaluated_on"]))) if "evaluated_on" in results else "test"
        on = "" if splits == "test" else f" on {splits} videos"
        parts.append(f"top-1 accuracy{on}{said}{': one seed says nothing of others' if one else ''}")
    if summary.metric(TFLOPS) is not None:
        views = _values(results, "views")
        said = f" ({' or '.join(views)} view{'s' * (views != ['1'])})" if views else ""
        parts.append(f"FLOPs of all views of a prediction{said}, one multiply-accumulate counts as one")
    timed = [metric for metric in (LATENCY, THROUGHPUT) if summary.metric(metric) is not None]
    if timed:
        devices, threads = _values(results, "environment.device"), _values(results, "environment.threads")
        parts.append(
            f"{' and '.join(metric.name.split('_')[0] for metric in timed)} measured on {' or '.join(devices) or 'cpu'}"
            f"{' with ' + ' or '.join(threads) + ' threads' if threads else ''}"
        )
    precisions = _values(results, "recipe.precision")
    if precisions and (timed or summary.metric(TRAINING) is not None):
        parts.append(f"precision {' or '.join(precisions)}")
    if summary.metric(TRAINING) is not None:
        parts.append(_memory(results))
    return "; ".join(parts)


def _values(results: pd.DataFrame, column: str) -> list[str]:
    """Return the different values of a column, in their order."""
    return list(dict.fromkeys(f"{value}" for value in results[column].dropna())) if column in results else []


def _memory(results: pd.DataFrame) -> str:
    """Return the devices whose memory is shown, and the numbers of clips, in words."""
    batches = sorted({int(value) for value in results.get("memory_batch", pd.Series(dtype=float)).dropna()})
    devices = sorted(results.get("memory_device", pd.Series(dtype=str)).dropna().unique())
    where = " or ".join({"cuda": "a GPU", "cpu": "a CPU"}[device] for device in devices) or "a device"
    clips = f"{' or '.join(map(str, batches))} clip{'s' * (batches != [1])}"
    return f"peak memory of {where} with {clips}" if batches else f"peak memory of {where}"


def _many(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def _findings(
    results: pd.DataFrame,
    summary: Summary,
    comparisons: list[Comparison],
    folder: Path,
    planned: Mapping[str, dict[str, Any]],
) -> list[str]:
    failed = results[results["outcome"] == "failed"]
    left = len(set(planned) - set(results["hash"]))
    finished = len(results) - len(failed)
    of = f"{finished} of {_many(finished + len(failed) + left, 'run')}" if left else _many(finished, "run")
    said = f"{of} finished, {len(failed)} failed"
    if len(failed):
        kinds = failed["reason_kind"].astype(str).replace("nan", "unknown").value_counts()
        said += f" ({', '.join(f'{kind} {count}' for kind, count in kinds.items())})"
    found = [f"{said}, {left} are still to come: this is a report of an unfinished sweep." if left else f"{said}."]
    diverged = int((failed["reason_kind"].astype(str) == DIVERGED).sum())
    if diverged and summary.metric(ACCURACY) is not None:
        found.append(
            f"{_many(diverged, 'training')} diverged and {'has' if diverged == 1 else 'have'} no accuracy: means, "
            "intervals and tests are over the others alone, which favours what diverges."
        )
    mixed = on_different_videos(results, summary.axes, folder)
    if mixed:
        found.append(
            f"{mixed} runs of the same data were made on different videos, which means and comparisons mix; "
            "`dataset.train.fingerprint` and `dataset.test.fingerprint` of the results tell them apart."
        )
    accuracy = summary.metric(ACCURACY)
    if accuracy is not None:
        found += _at_chance(summary)
        learned = above_chance(summary.frame).sort_values(accuracy.key, ascending=False, kind="stable")
        if len(learned):
            best = learned.iloc[0]
            found.append(f"Highest top-1 accuracy: {best[accuracy.key]:.1f} % ({_place(summary, best)}).")
        if int(summary.frame["runs_done"].max()) == 2:
            found.append(
                "Two seeds: their 95 % interval reaches 12.7 standard errors to each side and says little; the seeds' "
                "own accuracies stand in the table and in the figures."
            )
        for cost in () if learned.empty else (summary.metric(TFLOPS), summary.metric(TRAINING)):
            if cost is not None and len(_split(summary)) == 1 and summary.frame[cost.key].nunique() > 1:
                found.append(_front_in_words(summary, cost, accuracy))
    tested = [each for each in comparisons if each.judgement is not None]
    if tested:
        counts = Counter("one is better" if each.apart else each.verdict for each in tested)
        seeds = [len(each.seeds) for each in tested]
        level = "p-values corrected together" if max(seeds) > 1 else "at 5 % for each pair alone"
        other = also_differ(results, summary.axes)
        equal = f"settings that are equal but for {', '.join(other)}" if other else "equal settings"
        found.append(
            f"Of {_many(len(tested), 'pair')} compared under {equal}: "
            f"{', '.join(f'{count} {word}' for word, count in counts.items())} (intervals over "
            f"{' or '.join(dict.fromkeys(each.spread.over for each in tested))}; {level})."
        )
        if 1 < min(seeds) < MEAN_FROM_SEEDS:
            found.append(f"{cannot_reveal(min(seeds))}.")
    return found


def _at_chance(summary: Summary) -> list[str]:
    """Say which settings are not above chance."""
    frame = summary.frame
    if ABOVE not in frame or not (frame[ABOVE] == "no").any():
        return []
    low = frame[frame[ABOVE] == "no"]
    levels = " or ".join(f"{level:.1f} %" for level in sorted(set(low[CHANCE])))
    places = "; ".join(_place(summary, row) for _, row in low.head(MOST_NAMED).iterrows() if summary.titles)
    more = f"; and {len(low) - MOST_NAMED} more" if len(low) > MOST_NAMED else ""
    return [
        f"Not above chance ({levels}): {len(low)} of {_many(len(frame), 'setting')}"
        f"{f' ({places}{more})' if places else ''}. They are on no Pareto front, and differences between them say "
        "nothing of the schemes."
    ]


def _split(summary: Summary) -> set[tuple[Any, ...]]:
    """Return the combinations that need separate panels of accuracy over cost: probes do not share a Pareto front."""
    axes, titles = summary.axes, summary.titles
    data = [titles[column] for column in axes.columns if column.removeprefix("cell.").startswith(("data.", "protocol"))]
    return set(summary.frame[data].itertuples(index=False, name=None)) if data else {()}


def _place(summary: Summary, row: Any) -> str:
    return ", ".join(f"{title} {row[title]}" for title in summary.titles.values())


def _front_in_words(summary: Summary, cost: Metric, accuracy: Metric) -> str:
    best = front(above_chance(summary.frame), cost.key, accuracy.key)
    places = "; ".join(f"{_place(summary, row)}: {row[accuracy.key]:.1f} %" for _, row in best.iterrows())
    return f"Pareto front of accuracy over {cost.axis}: {places}."


def write_sweep_report(report: SweepReport, folder: Path, out: Path) -> list[Path]:
    """Write all files and return their paths.  Each file is written atomically.

    folder: folder of the records, from which they are copied if `out` differs.
    """
    require_writable(out / "figures")
    pictures = {name: with_palette(png(figure)) for name, figure in report.figures.items()}
    contents: dict[str, bytes] = {
        "results.csv": report.results.to_csv(index=False, lineterminator="\n").encode(),
        "report.md": _markdown(report).encode(),
        "report.html": _page(report, pictures).encode(),
    }
    for stem, table in report.tables.items():
        contents |= {f"{stem}.csv": to_csv(table).encode(), f"{stem}.tex": to_latex(table, stem).encode()}
    for name, picture in pictures.items():
        contents |= {f"figures/{name}.png": picture, f"figures/{name}.pdf": pdf(report.figures[name])}
    if report.right:
        buffer = BytesIO()
        right_frame(report.right).to_parquet(buffer, index=False, compression="zstd")
        contents[RIGHT] = buffer.getvalue()
    if report.classes is not None:
        contents |= report.classes.files
    if not report.curves.empty:
        contents[CURVES] = parquet(report.curves)
    if out.resolve() != folder.resolve():
        contents |= _sources(folder)
    for name, content in contents.items():
        write_atomic(out / name, content)
    return [out / name for name in contents]


def with_palette(picture: bytes) -> bytes:
    """Reduce a PNG of lines and text to its best 256 colours: a third of the size with the same look."""
    buffer = BytesIO()
    with Image.open(BytesIO(picture)) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def _sources(folder: Path) -> dict[str, bytes]:
    """Return the files from which the report is made, by name."""
    found = {}
    for name in (SWEEP_FILE, CELLS_FILE):
        if (folder / name).is_file():
            found[name] = (folder / name).read_bytes()
    lines = (json.dumps(each.record, allow_nan=False) + "\n" for each in find_records(folder))
    return {**found, LOG: "".join(lines).encode()}


def _markdown(report: SweepReport) -> str:
    parts = [f"# {report.title}", "", *(f"- {finding}" for finding in report.findings), ""]
    for table in _tables(report).values():
        parts += [table.caption, "", to_markdown(table)]
    parts += [line for name in report.figures for line in (f"![{_said(name)}](figures/{name}.png)", "")]
    if report.comparisons:
        parts += ["## Differences in words", "", *(f"- {each}" for each in _sentences(report)), ""]
    return "\n".join(parts)


def _page(report: SweepReport, pictures: dict[str, bytes]) -> str:
    return pages.page(
        "sweep.html",
        report.title,
        findings=report.findings,
        tables=_tables(report),
        figures=[(_said(name), image) for name, image in pictures.items()],
        figures_first=len(report.summary.frame) > LONG_TABLE,
        sentences=_sentences(report),
    )


def _sentences(report: SweepReport) -> list[str]:
    """The answers over all settings, then those of the single ones."""
    return [*(each.sentence() for each in report.overall), *(each.sentence() for each in report.comparisons)]


def _tables(report: SweepReport) -> dict[str, Table]:
    """The tables of the page, that of the classes among them."""
    table = None if report.classes is None else report.classes.table
    return report.tables if table is None else report.tables | {"per_class": table}


def _said(name: str) -> str:
    """Return the name of a figure as a heading."""
    words = name.replace("_", " ").replace("tflops", "FLOPs").replace("macs", "MACs")
    return words[0].upper() + words[1:]
