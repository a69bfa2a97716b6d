"""`timesformer reproduce` and `train`: runs, and what is made of their records."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from timesformer_experiments.cli.options import (
    DataDir,
    Jobs,
    Json,
    Out,
    Runs,
    bad_input,
    console,
    folders,
    print_json,
    profile_named,
    progress,
)

if TYPE_CHECKING:
    from timesformer_experiments.paper import Profile
    from timesformer_experiments.report.report import Report

File = Annotated[Path, typer.Argument(help="YAML file with one run, or a list of them under `runs:`.")]


def reproduce(
    artefacts: Annotated[
        list[str] | None, typer.Argument(help="table1, figure3, …, the group `main`, or `all`; see --list.")
    ] = None,
    profile: Annotated[
        str, typer.Option(help="smoke (seconds), quick (minutes), full (three seeds), or paper: the real datasets.")
    ] = "quick",
    data: Annotated[str, typer.Option(help="For --profile paper: k400=FOLDER,ssv2=FOLDER,…")] = "",
    init_from: Annotated[
        str, typer.Option(help="For --profile paper: the image model, as in a run's init_from.")
    ] = "google/vit-base-patch16-224-in21k",
    check: Annotated[
        bool,
        typer.Option("--check", help="For --profile paper: what is there, and memory and time to expect; no more."),
    ] = False,
    show: Annotated[bool, typer.Option("--list", help="List the tables and figures and stop.")] = False,
    out: Out = Path("results"),
    runs: Runs = Path("runs"),
    data_dir: DataDir = None,
    jobs: Jobs = 0,
    as_json: Json = False,
) -> None:
    """Make tables and figures of the paper: train what it needs, then write table, figure and page.

    Started again after an interruption it carries on; what is finished is not repeated.
    """
    from timesformer_experiments.paper import GROUPS, chosen, load, names
    from timesformer_experiments.paper.reproduce import reproduce as make
    from timesformer_experiments.paper.reproduce import train_together

    if show:
        titles = {name: load(name).title for name in names()}
        if as_json:
            print_json(titles)
        else:
            lines = [f"{name:<20} {title}" for name, title in titles.items()]
            lines += [f"{group:<20} {', '.join(members)}" for group, members in GROUPS.items()]
            console().print(*lines, sep="\n", highlight=False, soft_wrap=True)
        return
    if not artefacts:
        raise bad_input(f"name what to make: {', '.join(names())}, or the groups {', '.join(GROUPS)}, all")
    if profile == "paper":
        from timesformer_experiments.cli.real import on_real_data

        on_real_data(chosen(artefacts), data, init_from, folders(out, runs, data_dir), jobs, check, as_json)
        return
    if data or check:
        raise bad_input("--data, --check: they are for --profile paper")
    of_profile, wanted = profile_named(profile), [load(name) for name in chosen(artefacts)]
    places = folders(out, runs, data_dir)
    made: list[dict[str, Any]] = []
    reports: list[Report] = []
    if len(wanted) > 1:
        train_together(wanted, of_profile, places, jobs, progress)
    for each in wanted:
        found, files = make(each, of_profile, places, jobs, progress)
        reports.append(found)
        made.append(show_artefact(found, files, of_profile, as_json))
    show_together({of_profile: reports}, made, places.out, as_json)


def show_artefact(found: Report, files: list[Path], profile: str, as_json: bool) -> dict[str, Any]:
    """Print a report unless JSON is wanted, and return it as plain data."""
    from timesformer_experiments.report.tables import to_rich

    if not as_json:
        screen = console()
        screen.print(to_rich(found.table))
        for line in (*(f"- {finding}" for finding in found.findings), *map(str, files)):
            screen.print(line, markup=False, highlight=False, soft_wrap=True)
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
    """Write one page for each profile with several reports; print its path, or everything that was made as JSON."""
    from timesformer_experiments.report.report import write_together

    pages = [str(write_together(of, profile, out)) for profile, of in reports.items() if len(of) > 1]
    if as_json:
        print_json({"artefacts": made, "pages": pages})
    else:
        for page in pages:
            console().print(page, markup=False, highlight=False, soft_wrap=True)


def train(
    file: File,
    runs: Runs = Path("runs"),
    data_dir: DataDir = None,
    jobs: Annotated[int, typer.Option(min=0, help="Runs at a time; 0: one for each core.")] = 1,
    as_json: Json = False,
) -> None:
    """Train and evaluate the runs of a file, each after the run that it starts from.

    Finished runs are not repeated, an interrupted one carries on from its checkpoint.
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
                f"{error}\n`timesformer audit` names all such files; data.allow_unreadable: true trains without them"
            ) from error
    else:
        records = run_all(specs, runs, jobs=jobs, data_dir=data_dir)
    if as_json:
        print_json({"records": records})
    else:
        _print_accuracies([(record["name"], record["metrics"], runs / record["hash"]) for record in records])


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
