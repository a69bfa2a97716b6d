"""Measurements on the model of a finished run, kept in the run's folder, so that nothing is measured twice."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from timesformer.files import write_atomic
from timesformer_experiments.records.folder import RunFolder
from timesformer_experiments.records.log import RECORD_VERSION, environment, now_utc
from timesformer_experiments.specs.run import hash_of


def kept(
    record: Mapping[str, Any],
    kind: str,
    definition: Mapping[str, Any],
    runs: Path,
    measure: Callable[[], dict[str, Any]],
    whole: Callable[[dict[str, Any]], bool] = lambda found: True,
) -> dict[str, Any]:
    """Return the record of a measurement, read from the run's folder or made by `measure` and stored there.

    record: of the finished run. definition: what decides the measurement's numbers beside the run; it joins the hash.
    measure: returns `metrics` and further fields of the record. whole: False of a stored record that lacks something.
    """
    defined = {**record["spec"], "measured_on": record["hash"], kind: dict(definition)}
    key = hash_of(defined)
    stored = RunFolder(runs, record["hash"]).path / f"{kind}-{key}.json"
    if stored.is_file():
        found: dict[str, Any] = json.loads(stored.read_text())
        if whole(found):
            return found
    began, started = time.perf_counter(), now_utc()
    measured = measure()
    result = {
        "record_version": RECORD_VERSION,
        "hash": key,
        "name": f"{kind} of {record['name']}",
        "outcome": "done",
        "reason": None,
        "reason_kind": None,
        "kind": kind,
        "sweep": None,
        "cell": None,
        "seed": record["seed"],
        "protocol": "clip",
        "spec": defined,
        "init_from": {"name": record["name"], "hash": record["hash"]},
        **measured,
        "dataset": {"test": record["dataset"]["test"]},
        "environment": environment() | {"processes": 1},
        "started_utc": started,
        "finished_utc": now_utc(),
        "wall_seconds": round(time.perf_counter() - began, 3),
    }
    write_atomic(stored, json.dumps(result, indent=2, allow_nan=False) + "\n")
    return result
