"""Classes and curves behind a table of the paper: accuracy of each class, confusions and learning curves.

From the records and, where the runs have left some, `curves.parquet` beside them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from timesformer.evaluation.confusion import Confusion
from timesformer_experiments.analysis.classes import MOST_CLASSES, MOST_PANELS, MOST_ROWS, draw_matrices
from timesformer_experiments.analysis.curves import CURVES, MOST_FIGURES, curve_figure, parquet, with_costs
from timesformer_experiments.analysis.figures import style
from timesformer_experiments.records.hits import confusions_of
from timesformer_experiments.report.report import Part
from timesformer_experiments.report.tables import Column, Table

NAME = re.compile(r"(?P<of>.+?)-(?:smoke|quick|full|paper)-(?P<rest>.+)-s\d+")
CLASSES = "classes.csv"
MOST_VARIANTS = 15
"""Most columns of a table of classes; classes.csv has more."""
Record = Mapping[str, Any]
Runs = dict[str, dict[str, list[Record]]]
"""{part (probe or dataset): {variant: its seeds}}."""


def runs_by_part(name: str, records: Sequence[Record]) -> Runs:
    """Return the finished runs of a table by probe and variant, in order.

    A variant is called what its runs are called, without profile and seed; where another table made it, with that
    one's name.
    """
    found: Runs = {}
    for record in records:
        if record["outcome"] != "done" or record.get("kind") != "accuracy":
            continue
        data = record["spec"]["data"]
        part = str(record.get("part") or data.get("probe") or data.get("format") or "videos")
        match = NAME.fullmatch(record["name"])
        of, variant = (match["of"], match["rest"]) if match else (name, record["name"])
        variant = variant.removeprefix(f"{part}-")
        part = f"stills of {part}" if data.get("stills") else part
        variant = variant if of in (name, "table1") else f"{of} {variant}"
        found.setdefault(part, {}).setdefault(variant, []).append(record)
    return found


def behind(name: str, records: Sequence[Record], curves: pd.DataFrame, elsewhere: bool = False) -> tuple[Part, ...]:
    """Return the part with classes and curves, none where the records know of neither.

    curves: as `curves.kept_curves` gives them; elsewhere: whether the report draws curves in another part.
    """
    runs = runs_by_part(name, records)
    counted = {part: dict(_counted(variants)) for part, variants in runs.items()}
    counted = {part: variants for part, variants in counted.items() if variants}
    tables = [
        table
        for part, variants in counted.items()
        if len(variants) <= MOST_VARIANTS
        for table in _tables(part, variants)
    ]
    files: dict[str, bytes] = {}
    rows = [row for part, variants in counted.items() for row in _rows(part, variants)]
    if rows:
        files[CLASSES] = pd.DataFrame(rows).to_csv(index=False, lineterminator="\n").encode()
    matrices = [
        (f"{part}, {variant}", each)
        for part, variants in counted.items()
        for variant, (_, several) in variants.items()
        for each in several
        if each.counts is not None and len(each.classes) <= MOST_CLASSES
    ]
    figures = {"confusion": draw_matrices(matrices[:MOST_PANELS])} if matrices else {}
    figures |= dict(_curve_figures(runs, curves))
    if not curves.empty:
        files[CURVES] = parquet(curves)
    if not (tables or figures or files):
        return ()
    notes = []
    if rows and not matrices:
        notes.append("These records say which videos were right, not what the others were taken for: no confusion.")
    if len(matrices) > MOST_PANELS:
        notes.append(f"Confusions of {MOST_PANELS} of {len(matrices)} variants are drawn; the records hold all.")
    if rows and curves.empty and not elsewhere:
        notes.append("Learning curves were not kept with these records.")
    within = [Part(stem, stem.replace("_", " ").capitalize(), figure=figure) for stem, figure in figures.items()]
    within += [Part("", table=table) for table in tables]
    found = Part(
        "classes",
        "Classes" if elsewhere and curves.empty else "Classes and learning curves",
        findings=tuple(notes),
        files=files,
        within=tuple(within),
        on_page_only=True,
    )
    return (found,)


def _counted(variants: Mapping[str, Sequence[Record]]) -> Iterator[tuple[str, tuple[int, list[Confusion]]]]:
    """Yield variants with their number of seeds and, for each head, the counts of all seeds together."""
    for variant, records in variants.items():
        sums: dict[tuple[Any, ...], Confusion] = {}
        seeds = 0
        for record in records:
            found = confusions_of(record)
            seeds += bool(found)
            for each in found:
                key = (each.head, each.classes)
                sums[key] = sums[key] + each if key in sums else each
        if sums:
            yield variant, (seeds, list(sums.values()))


def _rows(part: str, variants: Mapping[str, tuple[int, list[Confusion]]]) -> Iterator[dict[str, Any]]:
    for variant, (seeds, several) in variants.items():
        for each in several:
            for row in each.rows():
                yield {
                    "on": part,
                    "variant": variant,
                    **({"head": row["head"]} if row["head"] is not None else {}),
                    "class": row["class"],
                    "measured_seeds": seeds,
                    "measured_test_videos": row["videos"],
                    "measured_right": row["right"],
                    "measured_top1_percent": row["top1_percent"],
                }


def _tables(part: str, variants: Mapping[str, tuple[int, list[Confusion]]]) -> Iterator[Table]:
    """Yield a table for each set of classes, a row a class, a column a variant."""
    sets: dict[tuple[Any, ...], dict[str, tuple[int, Confusion]]] = {}
    for variant, (seeds, several) in variants.items():
        for each in several:
            sets.setdefault((each.head, each.classes), {})[variant] = (seeds, each)
    for (head, classes), found in sets.items():
        if len(classes) > MOST_ROWS:
            continue
        frame = pd.DataFrame({"class": list(classes)})
        columns = [Column("class", "Class", "label")]
        for variant, (_, each) in found.items():
            frame[f"measured_{variant}_percent"] = [row["top1_percent"] for row in each.rows()]
            columns.append(Column(f"measured_{variant}_percent", f"{variant} [%]", "measured"))
        numbers = sorted({count for count, _ in found.values()})
        of_head = f", {head}" if head is not None else ""
        many = "one seed" if numbers == [1] else f"{' or '.join(map(str, numbers))} seeds together"
        caption = f"Accuracy of each class on {part}{of_head}, over the test videos of {many}; no intervals"
        yield Table(frame, tuple(columns), caption, measured="measured here")


def _curve_figures(runs: Runs, curves: pd.DataFrame) -> Iterator[tuple[str, Figure]]:
    """Yield a figure for each probe: loss and accuracies over steps, videos and MACs, a line a variant."""
    if curves.empty:
        return
    by_hash = {str(key): rows for key, rows in curves.groupby("hash", sort=False, observed=True)}
    parts = list(runs.items())[:MOST_FIGURES]
    for part, variants in parts:
        lines = []
        for number, (variant, records) in enumerate(variants.items()):
            kept = [with_costs(by_hash[each["hash"]], each) for each in records if each["hash"] in by_hash]
            if kept:
                lines.append((variant, style(number) | {"marker": "none"}, kept))
        if lines:
            yield f"learning_curves_{part.replace(' ', '_')}", curve_figure(lines, part)
