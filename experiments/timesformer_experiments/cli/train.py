"""`timesformer train`: train and evaluate the runs of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from timesformer_experiments.cli.options import DataDir, Json, Runs, bad_input
from timesformer_experiments.report.terminal import console, print_json

File = Annotated[Path, typer.Argument(help="YAML file with one run, or a list of them under `runs:`.")]

LISTED = 10
"""Unreadable videos that are named on the terminal, of each list."""


def train(
    file: File,
    runs: Runs = Path("runs"),
    data_dir: DataDir = None,
    jobs: Annotated[int, typer.Option(min=0, help="Number of runs in parallel; 0: one per core.")] = 1,
    as_json: Json = False,
) -> None:
    """Train and evaluate the runs of a file.

    A run that starts from another one waits for it. Finished runs are not repeated; interrupted runs resume from their
    checkpoint.
    """
    from timesformer.data import VideoError
    from timesformer_experiments.jobs.plan import run_all, run_one
    from timesformer_experiments.specs.run import load_specs

    specs = load_specs(file)
    if len(specs) == 1:
        try:
            records = [run_one(specs[0], runs, data_dir=data_dir)]
        except VideoError as error:
            raise bad_input(
                f"{error}\n`timesformer audit` lists all such files; to train without them, set data.allow_unreadable: "
                "true"
            ) from error
    else:
        records = run_all(specs, runs, jobs=jobs, data_dir=data_dir)
    if as_json:
        print_json({"records": records})
    else:
        _print_accuracies([(record["name"], record["metrics"], runs / record["hash"]) for record in records])
        for record in records:
            if record.get("validation"):
                console().print(validated(record), highlight=False, markup=False)
            for line in left_out(record):
                console().print(line, highlight=False, markup=False)


def validated(record: dict[str, Any]) -> str:
    """Say how long a run was trained, where its validations were best, and of which step the weights are."""
    found, metrics = record["validation"], record["metrics"]
    best = max(found, key=lambda one: one["top1_percent"])  # of equal ones the earliest
    steps = metrics["train_steps"]
    kept = metrics.get("kept_step", steps)
    return (
        f"{record['name']}: {steps} steps; best of {len(found)} validations {best['top1_percent']:.1f} % at step "
        f"{best['step']}; weights of step {kept} kept"
    )


def left_out(record: dict[str, Any]) -> list[str]:
    """Say which videos a run with `data.allow_unreadable` was trained and evaluated without."""
    lines = []
    for part, facts in record["dataset"].items():
        if part == "identity" or not facts["num_unreadable"]:
            continue
        of = f"{facts['num_unreadable']} of {facts['num_videos']} {part} videos"
        lines.append(f"{record['name']}: {of} could not be read and were left out:")
        lines += [f"  {video['path']}: {video['reason']}" for video in facts["unreadable"][:LISTED]]
        if (more := facts["num_unreadable"] - LISTED) > 0:
            lines.append(f"  … and {more} more; all are in record.json")
    return lines


def _print_accuracies(results: list[tuple[str, dict[str, Any], Path]]) -> None:
    import pandas as pd

    from timesformer_experiments.report.tables import Column, Table, to_rich

    rows = [{"run": name, **metrics, "folder": str(folder)} for name, metrics, folder in results]
    columns = (
        Column("run", "Run", "label"),
        Column("top1_percent", "top-1 [%]", "measured", bounds=("top1_low_percent", "top1_high_percent")),
        Column("test_videos", "Test videos", "measured", decimals=0),
        Column("folder", "Folder", "label"),
    )
    console().print(to_rich(Table(pd.DataFrame(rows), columns, "Top-1 accuracy with its 95 % interval")))
