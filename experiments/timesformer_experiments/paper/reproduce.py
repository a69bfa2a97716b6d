"""Reproduction of an artefact: train its runs, read their records, write the report."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from timesformer_experiments.analysis.behind import behind
from timesformer_experiments.analysis.curves import CURVES, curve_of, kept_curves, together
from timesformer_experiments.paper.artefact import PROFILES, Artefact, Folders, Profile
from timesformer_experiments.records.folder import RunFolder
from timesformer_experiments.records.hits import with_hits
from timesformer_experiments.report import report as reports
from timesformer_experiments.specs.run import RunSpec


def train_together(
    artefacts: Sequence[Artefact],
    profile: Profile,
    folders: Folders,
    jobs: int,
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Train the runs of several artefacts together, each run once, so that no core is idle between artefacts.

    Raises `InputError` before anything is trained if the results cannot be written, and the errors of `run_all`.
    """
    for artefact in artefacts:
        reports.require_writable(_results(artefact, profile, folders))
    specs = list({spec.hash(): spec for artefact in artefacts for spec in artefact.plan(profile)}.values())
    # Runs that many others depend on come first, so that no core waits at the end.
    waiting = Counter(spec.init_from.hash() for spec in specs if isinstance(spec.init_from, RunSpec))
    specs.sort(key=lambda spec: -waiting[spec.hash()])
    if specs:
        together = f"{len(artefacts)} tables and figures, {profile}: {len(specs)} runs"
        say(f"{together}; those finished before are taken from {folders.runs}")
        _run(specs, folders, jobs or os.cpu_count() or 1)


def reproduce(
    artefact: Artefact, profile: Profile, folders: Folders, jobs: int, say: Callable[[str], None] = lambda text: None
) -> tuple[reports.Report, list[Path]]:
    """Make an artefact.  Finished runs are not repeated, and interrupted ones continue.

    `jobs`: number of runs in parallel, 0 for one per core; `say`: function for progress messages. Returns the report
    and the files written. Raises `InputError` before anything is trained if the results cannot be written, and the
    errors of `run_all`.
    """
    results, jobs = _results(artefact, profile, folders), jobs or os.cpu_count() or 1
    reports.require_writable(results)
    specs = artefact.plan(profile)
    records: list[dict[str, Any]] = []
    if specs:
        say(f"{artefact.name}, {profile}: {len(specs)} runs; those finished before are taken from {folders.runs}")
        records = [with_hits(record, folders.runs) for record in _run(specs, folders, jobs)]
    records += artefact.measure(records, profile, folders, jobs)
    report = artefact.report([*records, *artefact.beside(folders.out, profile)], profile)
    report = _with_classes(report, _curves(records, folders.runs))
    files = reports.write(report, results)
    return report, [*files, *artefact.finish(records, profile, folders)]


def _results(artefact: Artefact, profile: Profile, folders: Folders) -> Path:
    return folders.out / artefact.name / profile


def _curves(records: Sequence[dict[str, Any]], runs: Path) -> pd.DataFrame:
    """The learning curves that runs have left."""
    files = {record["hash"]: RunFolder(runs, record["hash"]).curve for record in records}
    return together([curve_of(path, key) for key, path in files.items() if path.is_file()])


def _run(specs: Sequence[RunSpec], folders: Folders, jobs: int) -> list[dict[str, Any]]:
    """Run the specs, with one thread each in parallel; initial runs, if fewer than `jobs`, run first with all cores."""
    from timesformer_experiments.jobs.plan import run_all

    first = [spec for spec in specs if spec.init_from is None]
    if len(first) < min(jobs, len(specs)):
        run_all(first, folders.runs, jobs=1, data_dir=folders.data)
    return run_all(specs, folders.runs, jobs=jobs, data_dir=folders.data)


def rebuild(artefact: Artefact, profile: Profile, out: Path) -> tuple[reports.Report, list[Path]]:
    """Make an artefact's files again from the records beside them, without training.

    Raises `InputError` if the records are not sufficient for the artefact.
    """
    from timesformer_experiments.records.log import read_records

    results = out / artefact.name / profile
    stored = results / reports.RECORDS
    records = read_records(stored) if stored.exists() else []
    report = artefact.report([*records, *artefact.beside(out, profile)], profile)
    report = _with_classes(report, kept_curves(results / CURVES))
    return report, reports.write(report, results)


def _with_classes(report: reports.Report, curves: pd.DataFrame) -> reports.Report:
    """The report with its part of classes and learning curves."""
    elsewhere = any(part.name == "curves" for part in report.parts)
    return replace(report, parts=(*report.parts, *behind(report.name, report.records, curves, elsewhere)))


def stored_profiles(artefact: Artefact, out: Path) -> list[Profile]:
    """List the profiles of an artefact that the results folder has."""
    return [profile for profile in PROFILES if (out / artefact.name / profile).is_dir()]
