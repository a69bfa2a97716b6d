"""`timesformer reproduce --profile paper`: the paper's models on the real datasets, or a look at what is there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from timesformer_experiments.cli.options import bad_input, console, print_json, progress
from timesformer_experiments.cli.reproduce import show_artefact

if TYPE_CHECKING:
    import pandas as pd

    from timesformer_experiments.paper import Folders


def on_real_data(
    names: Sequence[str], data: str, init_from: str, places: Folders, jobs: int, check: bool, as_json: bool
) -> None:
    """Train and evaluate what the artefacts name on the datasets of `data`, or with `check` say what is missing.

    Exit code 1 of a check where something is.
    """
    from timesformer_experiments.jobs.plan import run_all
    from timesformer_experiments.paper import load, real
    from timesformer_experiments.report.report import require_writable, write

    if not data:
        raise bad_input("--data: --profile paper needs DATASET=FOLDER, several with commas")
    folders = real.parse_data(data)
    if check:
        _show_check({name: real.check(name, folders, init_from) for name in names}, as_json)
        return
    made = []
    for name in names:
        cells = real.cells(name, folders, init_from)
        results = places.out / name / "paper"
        require_writable(results)
        progress(f"{name}, paper: {len(cells)} runs; those finished before are taken from {places.runs}")
        records = run_all([cell.spec for cell in cells], places.runs, jobs=jobs or 1, data_dir=places.data)
        report = real.report(name, load(name).title, cells, records)
        made.append(show_artefact(report, write(report, results), "paper", as_json))
    if as_json:
        print_json({"artefacts": made})


def _show_check(found: dict[str, pd.DataFrame], as_json: bool) -> None:
    from timesformer_experiments.paper.real import CHECKED
    from timesformer_experiments.report.tables import Table, to_rich

    missing = sum(int((lines["fine"] == "NO").sum()) for lines in found.values())
    if as_json:
        checks = {name: json.loads(lines.to_json(orient="records")) for name, lines in found.items()}
        print_json({"checks": checks, "missing": missing})
    else:
        for name, lines in found.items():
            caption = f"{name}, profile paper: what it needs; nothing was started"
            console().print(to_rich(Table(lines, CHECKED, caption)))
    if missing:
        raise typer.Exit(1)
