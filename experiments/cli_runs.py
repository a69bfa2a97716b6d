"""`timesformer reproduce`, `report`, `train` and `evaluate`: runs, and what is made of their records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from experiments.cli_options import (
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
    from experiments.report import Report
    from experiments.spec import RunSpec

File = Annotated[Path, typer.Argument(help="YAML file with one run, or a list of them under `runs:`.")]


def reproduce(
    artefact: Annotated[str, typer.Argument(help="table1, figure3, … or `all`; see --list.")] = "table1",
    profile: Annotated[str, typer.Option(help="smoke (seconds), quick (minutes) or full (three seeds).")] = "quick",
    show: Annotated[bool, typer.Option("--list", help="List the tables and figures and stop.")] = False,
    out: Out = Path("results"),
    runs: Runs = Path("runs"),
    data_dir: DataDir = None,
    jobs: Jobs = 0,
    as_json: Json = False,
) -> None:
    """Make a table or figure of the paper: train what it needs, then write table, figure and page.

    Started again after an interruption it carries on; what is finished is not repeated.
    """
    from experiments.paper import load, names
    from experiments.reproduce import reproduce as make

    if show:
        titles = {name: load(name).title for name in names()}
        if as_json:
            print_json(titles)
        else:
            console().print(*(f"{name:<10} {title}" for name, title in titles.items()), sep="\n", highlight=False)
        return
    chosen, wanted = profile_named(profile), [load(name) for name in (names() if artefact == "all" else (artefact,))]
    places = folders(out, runs, data_dir)
    made = []
    for each in wanted:
        found, files = make(each, chosen, places, jobs, progress)
        made.append(_show(found, files, chosen, as_json))
    if as_json:
        print_json({"artefacts": made})


def report(
    artefact: Annotated[str, typer.Argument(help="table1, figure3, … or `all`.")] = "all",
    out: Out = Path("results"),
    as_json: Json = False,
) -> None:
    """Write tables, figures and pages anew from the records in the results folder; nothing is trained."""
    from experiments.paper import load, names
    from experiments.reproduce import rebuild, stored_profiles

    made = []
    for name in names() if artefact == "all" else (artefact,):
        each = load(name)
        for profile in stored_profiles(each, out):
            found, files = rebuild(each, profile, out)
            made.append(_show(found, files, profile, as_json))
    if not made:
        raise bad_input(f"--out {out}: no results of {artefact} there; `timesformer reproduce` makes them")
    if as_json:
        print_json({"artefacts": made})


def _show(found: Report, files: list[Path], profile: str, as_json: bool) -> dict[str, Any]:
    """Print a report unless JSON is wanted, and return it as plain data."""
    from experiments.tables import to_rich

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
    from experiments.runner import run_all, run_one
    from experiments.spec import load_specs

    specs = load_specs(file)
    if len(specs) == 1:
        records = [run_one(specs[0], runs, data_dir=data_dir)]
    else:
        records = run_all(specs, runs, jobs=jobs, data_dir=data_dir)
    if as_json:
        print_json({"records": records})
    else:
        _print_accuracies([(record["name"], record["metrics"], runs / record["hash"]) for record in records])


def evaluate(
    file: File,
    checkpoint: Annotated[Path | None, typer.Option(help="Folder of a model; by default the run's own.")] = None,
    protocol: Annotated[
        str | None, typer.Option(help="paper, fair-code, mmaction2 or clip; by default the file's.")
    ] = None,
    scores: Annotated[
        Path | None, typer.Option(help="Write label, prediction and scores of each video: .csv, .parquet.")
    ] = None,
    runs: Runs = Path("runs"),
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Evaluate a trained model on the test set of a run's file, under a protocol of your choice."""
    from experiments.run import datasets, default_data_dir
    from experiments.spec import load_specs
    from timesformer.checkpoints import load_model
    from timesformer.evaluation import evaluate as measure
    from timesformer.evaluation import protocol_named

    specs = load_specs(file)
    if len(specs) != 1 and (checkpoint is not None or scores is not None):
        raise bad_input(f"{file}: --checkpoint and --scores are for a file with one run, this has {len(specs)}")
    if scores is not None and scores.suffix not in (".csv", ".parquet"):
        raise bad_input(f"--scores {scores}: expected a name that ends in .csv or .parquet")
    measured = []
    for spec in specs:
        folder = checkpoint if checkpoint is not None else runs / spec.hash() / "model"
        if not folder.is_dir():
            raise bad_input(f"{folder}: no model there; `timesformer train {file}` makes it")
        loaded = load_model(folder)
        chosen = protocol_named(protocol or spec.protocol).name
        _require_fitting(loaded, spec, folder)
        _, test, _ = datasets(spec.model_copy(update={"protocol": chosen}), data_dir or default_data_dir(runs))
        result = measure(loaded.model, test, chosen, progress=not as_json)
        if scores is not None:
            _write_scores(result.per_video, scores)
        metrics = {name: value for name, value in result.metrics().items() if value is not None}
        measured.append((f"{spec.name}, protocol {chosen}", metrics, folder))
    if as_json:
        print_json({"evaluations": [{"name": n, "model": str(folder), **metrics} for n, metrics, folder in measured]})
    else:
        _print_accuracies(measured)


def _require_fitting(loaded: Any, spec: RunSpec, folder: Path) -> None:
    """A model is evaluated as it wants its videos, and on its own classes; anything else would be another number."""
    from timesformer.data import Preprocessing

    if loaded.model.config.num_classes != spec.model.num_classes:
        raise bad_input(
            f"{folder}: its head has {loaded.model.config.num_classes} classes, the data have {spec.model.num_classes}"
        )
    own, wanted = Preprocessing.from_dict(loaded.preprocessing).to_dict(), spec.preprocessing.to_dict()
    for field, value in own.items():
        if wanted[field] != value:
            raise bad_input(
                f"{folder}: its preprocessing has {field} = {value}, the file's run {wanted[field]}; "
                "state it under data: preprocessing: (frames and crop under model:)"
            )


def _write_scores(per_video: Any, path: Path) -> None:
    from timesformer.checkpoints import write_atomic

    if path.suffix == ".csv":
        write_atomic(path, lambda target: per_video.to_csv(target, index=False))
    else:
        write_atomic(path, lambda target: per_video.to_parquet(target, index=False))


def _print_accuracies(results: list[tuple[str, dict[str, Any], Path]]) -> None:
    import pandas as pd

    from experiments.tables import Column, Table, to_rich

    rows = [{"run": name, **metrics, "folder": str(folder)} for name, metrics, folder in results]
    columns = (
        Column("run", "Run", "label"),
        Column("top1_percent", "top-1 [%]", "measured", bounds=("top1_low_percent", "top1_high_percent")),
        Column("test_videos", "Test videos", "measured", decimals=0),
        Column("folder", "Folder", "label"),
    )
    console().print(to_rich(Table(pd.DataFrame(rows), columns, "Top-1 accuracy with its 95 % interval")))
