"""`timesformer runs`: the runs in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from timesformer_experiments.cli.options import Json
from timesformer_experiments.report.terminal import console, print_json


def runs(
    folder: Annotated[Path, typer.Argument(help="Folder of runs or of a sweep.")] = Path("runs"),
    as_json: Json = False,
) -> None:
    """List the runs in a folder: name, settings, state, accuracy, and the folder with model and scores.

    The settings of a sweep's cells are their values on its axes, as far as their names do not have them. States: done,
    failed, running, interrupted (the same command that began it goes on) and waiting.
    """
    import pandas as pd

    from timesformer_experiments.records.log import LOG, latest, read_records
    from timesformer_experiments.report.tables import Column, Table, to_rich
    from timesformer_experiments.sweep.status import run_statuses

    found = run_statuses(folder)
    log = folder / LOG
    records = latest(read_records(log)) if log.exists() else {}
    rows: list[dict[str, Any]] = [
        {
            "name": run.name,
            "settings": settings,
            "hash": run.hash,
            "state": run.state,
            "reason": run.reason,
            "top1_percent": records.get(run.hash, {}).get("metrics", {}).get("top1_percent"),
            "folder": str(folder / run.hash),
        }
        for run, settings in found
    ]
    if as_json:
        print_json({"runs": rows})
        return
    shown = [row | {"settings": _unsaid(row["name"], row["settings"])} for row in rows]
    columns = (
        Column("name", "Run", "label"),
        *((Column("settings", "Settings", "label"),) if any(row["settings"] for row in shown) else ()),
        Column("state", "State", "label"),
        Column("top1_percent", "Top-1 [%]", "measured"),
        Column("hash", "Folder", "label"),
    )
    console().print(
        to_rich(Table(pd.DataFrame(shown), columns, f"{len(rows)} run{'s' * (len(rows) != 1)} in {folder}"))
    )


def _unsaid(name: str, settings: dict[str, Any]) -> str:
    """Write the settings that a run's name does not have, so that a sweep's table fits into 80 columns."""
    words = name.split()
    return ", ".join(f"{k} {v}" for k, v in settings.items() if f"{k.rpartition('.')[2]}={v}" not in words)
