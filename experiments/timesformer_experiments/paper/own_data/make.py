"""Work of `reproduce real`: draws, choice, final runs, order tests, files; every part resumes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from timesformer.checkpoints import load_any_model
from timesformer.evaluation.evaluate import evaluate
from timesformer.evaluation.frame_order import FrameOrder
from timesformer.files import write_atomic
from timesformer.training.stem import sees_frames_apart
from timesformer_experiments.analysis.behind import behind
from timesformer_experiments.analysis.curves import curve_of, together
from timesformer_experiments.jobs.plan import RunsFailed, run_all
from timesformer_experiments.paper.artefact import Folders
from timesformer_experiments.paper.own_data.plan import Study, folder_of
from timesformer_experiments.paper.own_data.report import report_of
from timesformer_experiments.records.folder import RunFolder
from timesformer_experiments.records.hits import hits_fields, with_hits
from timesformer_experiments.records.log import LOG, latest, read_records
from timesformer_experiments.report import report as reports
from timesformer_experiments.run.inputs import after_stem, datasets, stem_of
from timesformer_experiments.specs.choice import DIVERGED, Choice, choose
from timesformer_experiments.specs.run import RunSpec

ORDER: FrameOrder = "shuffled"
Say = Callable[[str], None]


def make(study: Study, folders: Folders, jobs: int, say: Say) -> tuple[reports.Report, list[Path]]:
    """Tune, train and test all models of a study, and write its report.

    Finished runs are not repeated, and interrupted ones continue.

    Raises `InputError` before anything is trained if the results cannot be written, and the errors of `run_all`.
    """
    results = folder_of(study, folders.out)
    reports.require_writable(results)
    draws = {scheme: study.draws(scheme) for scheme in study.schemes}
    every = [spec for specs in draws.values() for spec in specs]
    say(f"{study.name}: {len(every)} draws of recipes, chosen on validation videos of {study.lists.first}")
    outcomes = _tuned(every, folders, jobs)
    choices: dict[str, Choice] = {}
    for scheme, specs in draws.items():
        choice = choose([spec.hash() for spec in specs], outcomes)
        if choice is not None and choice.draw is not None:
            choices[scheme] = choice
    finals = {
        (scheme, split, seed): spec
        for scheme, choice in choices.items()
        for (split, seed), spec in study.finals(scheme, choice).items()
    }
    say(f"{study.name}: {len(finals)} final runs; those finished before are taken from {folders.runs}")
    run_all(list(finals.values()), folders.runs, jobs=jobs, data_dir=folders.data)
    by_hash = latest(read_records(folders.runs / LOG))
    records = []
    for (scheme, split, _), spec in finals.items():
        place = {"part": split, "scheme": scheme, ORDER: in_order(spec, folders)}
        records.append(with_hits(by_hash[spec.hash()], folders.runs) | place)
    tuned = [
        outcomes[spec.hash()] | {"part": "tuning", "scheme": scheme} for scheme in choices for spec in draws[scheme]
    ]
    report = report_of(study, choices, records, tuned)
    curves = together(
        [curve_of(path, r["hash"]) for r in records if (path := RunFolder(folders.runs, r["hash"]).curve).is_file()]
    )
    report = replace(report, parts=(*report.parts, *behind(report.name, records, curves)))
    return report, reports.write(report, results)


def _tuned(specs: Sequence[RunSpec], folders: Folders, jobs: int) -> dict[str, dict[str, Any]]:
    """Carry out the draws and return their records by hash; one whose loss was not finite has an outcome as any other.

    Raises `RunsFailed` if another one failed.
    """
    log = folders.runs / LOG
    known = latest(read_records(log)) if log.exists() else {}
    diverged = {key for key, record in known.items() if record.get("reason_kind") == DIVERGED}
    try:
        run_all([spec for spec in specs if spec.hash() not in diverged], folders.runs, jobs=jobs, data_dir=folders.data)
    except RunsFailed:
        known = latest(read_records(log))
        if any(known[spec.hash()].get("reason_kind", DIVERGED) != DIVERGED for spec in specs if spec.hash() in known):
            raise
    known = latest(read_records(log))
    return {spec.hash(): known[spec.hash()] for spec in specs}


def in_order(spec: RunSpec, folders: Folders) -> dict[str, Any]:
    """Return accuracy and right videos of a finished run on shuffled frames, kept in the run's folder."""
    folder = RunFolder(folders.runs, spec.hash())
    stored = folder.path / f"order-{ORDER}.json"
    if stored.is_file():
        found: dict[str, Any] = json.loads(stored.read_text())
        return found
    _, test, _ = datasets(spec, folders.data)
    model = load_any_model(folder.model).model
    blocks, context = stem_of(spec, model), nullcontext()
    if blocks is not None and sees_frames_apart(model.config, blocks):
        test, context = after_stem(spec, model, test, folders.data, False), model.after_stem(blocks)
    began, views = time.perf_counter(), test.views.per_video or 1
    with context:
        tested = evaluate(
            model, test, spec.protocol, max(views, 32), precision=spec.recipe.precision, frame_order=ORDER
        )
    found = {"metrics": tested.metrics(), "seconds": time.perf_counter() - began, **hits_fields(tested.per_video)}
    write_atomic(stored, json.dumps(found, allow_nan=False) + "\n")
    return found
