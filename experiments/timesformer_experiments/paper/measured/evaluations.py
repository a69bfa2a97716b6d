"""Evaluation of finished runs under other protocols, without training."""

from __future__ import annotations

import json
import time
from typing import Any

from timesformer.checkpoints import load_any_model
from timesformer.evaluation.evaluate import evaluate
from timesformer.files import write_atomic
from timesformer_experiments.paper.artefact import Folders
from timesformer_experiments.records.folder import RunFolder
from timesformer_experiments.records.hits import hits_fields
from timesformer_experiments.records.log import make_record, now_utc
from timesformer_experiments.run.inputs import datasets
from timesformer_experiments.specs.run import RunSpec


def evaluated(trained: RunSpec, wanted: RunSpec, folders: Folders) -> dict[str, Any]:
    """Return the record of `wanted`, which differs from the finished run `trained` only in its protocol.

    The record is stored in the folder of the trained run and has the hash of `wanted`.
    """
    folder = RunFolder(folders.runs, trained.hash())
    stored = folder.path / f"evaluation-{wanted.hash()}.json"
    if stored.is_file():
        record: dict[str, Any] = json.loads(stored.read_text())
        return record
    started, began = now_utc(), time.perf_counter()
    _, test_set, _ = datasets(wanted, folders.data)
    model = load_any_model(folder.model).model
    views = test_set.views.per_video or 1
    tested = evaluate(model, test_set, wanted.protocol, max(views, 32), precision=wanted.recipe.precision)
    record = make_record(
        wanted,
        started_utc=started,
        wall_seconds=time.perf_counter() - began,
        metrics=tested.metrics(),
        dataset={"test": test_set.audit()},
    )
    record = {**record, **hits_fields(tested.per_video), "evaluated_run": trained.hash()}
    write_atomic(stored, json.dumps(record, allow_nan=False) + "\n")
    return record
