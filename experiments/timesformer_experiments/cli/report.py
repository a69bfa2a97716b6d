"""`timesformer report`: tables, figures and pages from records, and the differences between two folders of records."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from timesformer_experiments.cli.options import Json, bad_input
from timesformer_experiments.paper.show import show_artefact, show_together
from timesformer_experiments.report.terminal import console, print_json, print_text

if TYPE_CHECKING:
    from timesformer_experiments.paper.artefact import Profile
    from timesformer_experiments.report.report import Report


def report(
    what: Annotated[
        str, typer.Argument(help="Folder with the records of a sweep or of runs; or table1, figure3, …, or `all`.")
    ] = "all",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write to. Default: the folder of the records; `results` for the paper's tables."),
    ] = None,
    compare: Annotated[
        str | None, typer.Option(help="Field whose values are compared. Default: the attention scheme.")
    ] = None,
    diff: Annotated[
        tuple[Path, Path] | None, typer.Option(help="Two folders with records: show how the second differs.")
    ] = None,
    latex: Annotated[
        Path | None, typer.Option(help="Also write a table for a paper: .tex, plain numbers, the best in bold.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="With --latex: its columns, such as attention,num_frames,top1_percent,params.")
    ] = None,
    name: Annotated[
        list[str] | None, typer.Option(help="With --latex: display name of a column or value, OLD=NEW; repeatable.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write tables, figures and a page from records, without training.

    For a sweep: means over seeds with intervals, tests between schemes, and figures over frames, resolution and cost.
    """
    if diff is not None:
        _difference(*diff, out, as_json)
        return
    found = _artefacts(what, out)
    if latex is None and (columns or name):
        raise bad_input("--columns, --name: expected only with --latex")
    if found is None:
        _sweep(Path(what), out, compare, as_json, latex, (columns or "").split(",") if columns else [], name or [])
        return
    if latex is not None:
        raise bad_input(f"--latex {latex}: expected only with a folder of records, not with {what}")
    if compare is not None:
        raise bad_input(f"--compare {compare}: expected only with a folder of records, not with {what}")
    from timesformer_experiments.paper.registry import load
    from timesformer_experiments.paper.reproduce import rebuild

    made: list[dict[str, Any]] = []
    reports: dict[Profile, list[Report]] = {}
    for artefact, profile, results in found:
        made_anew, files = rebuild(load(artefact), profile, results)
        reports.setdefault(profile, []).append(made_anew)
        made.append(show_artefact(made_anew, files, profile, as_json))
    show_together(reports, made, found[0][2], as_json)


def _artefacts(what: str, out: Path | None) -> list[tuple[str, Profile, Path]] | None:
    """Name, profile and results folder of each requested artefact; None for a folder with other records."""
    from timesformer_experiments.paper.artefact import PROFILES
    from timesformer_experiments.paper.registry import load, names
    from timesformer_experiments.paper.reproduce import stored_profiles

    folder = Path(what)
    if what not in (*names(), "all"):
        if not folder.exists():
            raise bad_input(f"{what}: expected a folder with records, or one of {', '.join(names())}, all")
        place = folder.resolve()
        own = [profile for profile in PROFILES if place.name == profile and place.parent.name in names()]
        if own and out is None:
            return [(place.parent.name, own[0], folder.parent.parent)]
        stored = stored_profiles(load(place.name), place.parent) if place.name in names() else []
        if stored and out is None:
            return [(place.name, profile, folder.parent) for profile in stored]
        if own or not any((folder / name).is_dir() for name in names()):
            return None
    results = out or (Path("results") if what in (*names(), "all") else folder)
    wanted = (what,) if what in names() else names()
    found = [(name, profile, results) for name in wanted for profile in stored_profiles(load(name), results)]
    if not found:
        raise bad_input(f"--out {results}: no results of {what} in this folder; make them with `timesformer reproduce`")
    return found


def _sweep(
    folder: Path,
    out: Path | None,
    compare: str | None,
    as_json: bool,
    latex: Path | None,
    columns: list[str],
    names: list[str],
) -> None:
    from timesformer_experiments.analysis.report import sweep_report, write_sweep_report
    from timesformer_experiments.report.tables import to_rich

    target = out or (folder if folder.is_dir() else folder.parent)
    made = sweep_report(folder, compare)
    files = []
    if latex is not None:
        from timesformer.files import write_atomic
        from timesformer_experiments.analysis.paper_table import paper_table

        if latex.suffix != ".tex":
            raise bad_input(f"--latex {latex}: expected a name that ends in .tex")
        wanted = [column.strip() for column in columns]
        write_atomic(latex, paper_table(made.summary, wanted, _display_names(names), latex.stem))
        files.append(latex)
    files += write_sweep_report(made, folder, target)
    if as_json:
        print_json({**made.to_dict(), "files": [str(path) for path in files]})
        return
    for table in made.tables.values():
        console().print(to_rich(table))
    print_text(*(f"- {finding}" for finding in made.findings), indent=2)
    print_text(*map(str, files))


def _display_names(pairs: list[str]) -> dict[str, str]:
    """Return display names from `OLD=NEW`.  Raises InputError for another text."""
    found = {}
    for pair in pairs:
        old, sign, new = pair.partition("=")
        if not sign or not old.strip():
            raise bad_input(f"--name {pair}: expected OLD=NEW, such as attention=Scheme")
        found[old.strip()] = new.strip()
    return found


def _difference(first: Path, second: Path, out: Path | None, as_json: bool) -> None:
    from timesformer_experiments.analysis.difference import cells_table, changes_table, difference, write_difference
    from timesformer_experiments.report.tables import to_rich

    found = difference(first, second)
    files = [] if out is None else write_difference(found, out)
    if as_json:
        print_json({**found.to_dict(), "findings": found.findings(), "files": [str(path) for path in files]})
        return
    for table in (changes_table(found), cells_table(found)):
        if table is not None:
            console().print(to_rich(table))
    print_text(*(f"- {finding}" for finding in found.findings()), indent=2)
    print_text(*map(str, files))
