"""`timesformer reproduce`: the paper's tables and figures, on probes or (`--profile paper`) on the real datasets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from timesformer_experiments.cli.options import DataDir, Jobs, Json, Out, Runs, bad_input, folders, profile_named
from timesformer_experiments.paper.show import show_artefact, show_together
from timesformer_experiments.report.terminal import console, print_json, print_text, progress

REAL = "real"
"""Word for one's own videos among the artefacts."""
GALLERY = "gallery"
"""Word for the pictures of real videos among the artefacts."""

if TYPE_CHECKING:
    import pandas as pd

    from timesformer_experiments.paper.artefact import Folders
    from timesformer_experiments.report.report import Report


def reproduce(
    artefacts: Annotated[
        list[str] | None, typer.Argument(help="table1, figure3, …, the group `main`, or `all`; list them with --list.")
    ] = None,
    profile: Annotated[
        str, typer.Option(help="smoke (seconds), quick (minutes), full (three seeds), or paper (real datasets).")
    ] = "quick",
    data: Annotated[
        str,
        typer.Option(
            help="With --profile paper: k400=FOLDER,…; with `real`: NAME=FOLDER; with `gallery`: clips=FOLDER."
        ),
    ] = "",
    init_from: Annotated[
        str,
        typer.Option(
            help="With --profile paper, `real` or `gallery`: image model to start from, as init_from of a run."
        ),
    ] = "google/vit-base-patch16-224-in21k",
    lists: Annotated[
        Path | None,
        typer.Option(help="With `real`: YAML file of the folder's lists and groups. Default: lists.yaml there."),
    ] = None,
    schemes: Annotated[str, typer.Option(help="With `real`: some of the schemes, separated by commas.")] = "",
    seeds: Annotated[int | None, typer.Option(min=1, help="With `real`: number of seeds of the final runs.")] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="With --profile paper: check files, memory and time, and start nothing."),
    ] = False,
    show: Annotated[bool, typer.Option("--list", help="List the tables and figures and exit.")] = False,
    out: Out = Path("results"),
    runs: Runs = Path("runs"),
    data_dir: DataDir = None,
    jobs: Jobs = 0,
    as_json: Json = False,
) -> None:
    """Reproduce tables and figures of the paper.

    Trains the runs that they need, then writes table, figure and page. After an interruption, repeat the command to
    resume; finished runs are not repeated.
    """
    from timesformer_experiments.paper.registry import GROUPS, chosen, load, names
    from timesformer_experiments.paper.reproduce import reproduce as make
    from timesformer_experiments.paper.reproduce import train_together

    if show:
        titles = {name: load(name).title for name in names()}
        if as_json:
            print_json(titles)
        else:
            lines = [f"{name:<20} {title}" for name, title in titles.items()]
            lines += [f"{group:<20} {', '.join(members)}" for group, members in GROUPS.items()]
            lines.append(f"{REAL:<20} one's own videos: --data NAME=FOLDER --init-from CHECKPOINT")
            lines.append(f"{GALLERY:<20} maps of real videos: --data clips=FOLDER --init-from CHECKPOINT")
            print_text(*lines, indent=21)
        return
    if not artefacts:
        raise bad_input(f"ARTEFACTS: expected some of {', '.join(names())}, or the groups {', '.join(GROUPS)}, all")
    if artefacts == [REAL]:
        _on_own_data(data, lists, init_from, profile, schemes, seeds, folders(out, runs, data_dir), jobs, as_json)
        return
    if lists is not None or schemes or seeds is not None:
        raise bad_input(f"--lists, --schemes, --seeds: expected with `{REAL}` alone")
    if artefacts == [GALLERY]:
        _gallery(data, init_from, folders(out, runs, data_dir), as_json)
        return
    if profile == "paper":
        _on_real_data(chosen(artefacts), data, init_from, folders(out, runs, data_dir), jobs, check, as_json)
        return
    if data or check:
        raise bad_input("--data, --check: expected only with --profile paper")
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


def _on_own_data(
    data: str,
    lists: Path | None,
    init_from: str,
    profile: str,
    schemes: str,
    seeds: int | None,
    places: Folders,
    jobs: int,
    as_json: bool,
) -> None:
    """Compare attention schemes on one's own videos, behind a frozen stem of a checkpoint."""
    from timesformer_experiments.paper.own_data.lists import read_lists
    from timesformer_experiments.paper.own_data.make import make
    from timesformer_experiments.paper.own_data.plan import Study
    from timesformer_experiments.paper.own_data.schemes import SCHEMES

    name, equals, folder = data.partition("=")
    if not equals or not name.isidentifier() or not folder:
        raise bad_input(f"--data {data}: expected NAME=FOLDER, the videos and their lists")
    of_profile, wanted = profile_named(profile), tuple(part for part in schemes.split(",") if part) or tuple(SCHEMES)
    study = Study(name, read_lists(Path(folder), lists), init_from, of_profile, wanted, seeds)
    found, files = make(study, places, jobs or 1, progress)
    made = show_artefact(found, files, of_profile, as_json)
    if as_json:
        print_json({"artefacts": [made]})


def _gallery(data: str, init_from: str, places: Folders, as_json: bool) -> None:
    """Make the pictures of the gallery from the clips of a folder and an image checkpoint."""
    from timesformer_experiments.paper.gallery.clips import read_shown
    from timesformer_experiments.paper.gallery.make import make

    name, _, folder = data.partition("=")
    if name != "clips" or not folder:
        raise bad_input(f"--data {data}: expected clips=FOLDER, the clips of the gallery")
    files = [str(path) for path in make(read_shown(), Path(folder), init_from, places, progress)]
    if as_json:
        print_json({"files": files})
    else:
        print_text(*files)


def _on_real_data(
    names: Sequence[str], data: str, init_from: str, places: Folders, jobs: int, check: bool, as_json: bool
) -> None:
    """Train and evaluate the runs of the artefacts on the datasets of `data`, or with `check` list what is missing.

    A check exits with code 1 if anything is missing.
    """
    from timesformer_experiments.jobs.plan import run_all
    from timesformer_experiments.paper import real
    from timesformer_experiments.paper.registry import load
    from timesformer_experiments.report.report import require_writable, write

    if not data:
        raise bad_input("--data: expected DATASET=FOLDER for --profile paper; separate several by commas")
    folders = real.parse_data(data)
    if check:
        _show_check({name: real.check(name, folders, init_from) for name in names}, as_json)
        return
    made = []
    for name in names:
        cells = real.cells(name, folders, init_from)
        results = places.out / name / "paper"
        require_writable(results)
        progress(f"{name}, paper: {len(cells)} runs; finished ones are read from {places.runs}")
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
            caption = f"{name}, profile paper: requirements; nothing was started"
            console().print(to_rich(Table(lines, CHECKED, caption)))
    if missing:
        raise typer.Exit(1)
