"""Records of finished and failed runs."""

from __future__ import annotations

import json
import shutil
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from timesformer.errors import InputError
from timesformer.files import write_atomic
from timesformer_experiments.records.folder import RunFolder
from timesformer_experiments.records.log import AGAIN, LOG, append_record, make_record, now_utc, records_of
from timesformer_experiments.run.failures import kind_of, reason_of
from timesformer_experiments.specs.cost import CostSpec
from timesformer_experiments.specs.run import RunSpec


def recorded(
    spec: RunSpec | CostSpec,
    runs_dir: Path,
    data_dir: Path,
    threads: int | None,
    work: Callable[[], dict[str, Any]],
    belongs: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Call `work`, which returns metrics and dataset, and return the record; a failure is recorded and raised.

    The caller has claimed the run's folder.  belongs: `sweep` and `cell`.
    """
    folder, started_utc, began = RunFolder(runs_dir, spec.hash()), now_utc(), time.perf_counter()
    before = torch.get_num_threads()
    torch.set_num_threads(spec.threads or threads or before)
    try:
        folder.clear_half_written()
        write_atomic(folder.spec, json.dumps({"name": spec.name, **spec.definition()}, indent=2) + "\n")
        details = work()
        seconds = time.perf_counter() - began
        record = make_record(spec, started_utc=started_utc, wall_seconds=seconds, **details, **belongs or {})
        folder.store(record)
    except Exception as error:
        with suppress(OSError, InputError):  # a full disk has no room for this file either
            write_atomic(folder.error, traceback.format_exc())
        seconds = time.perf_counter() - began
        record_failure(spec, runs_dir, data_dir, reason_of(error), kind_of(error), started_utc, seconds, belongs)
        raise
    finally:
        torch.set_num_threads(before)
    shutil.rmtree(folder.checkpoint, ignore_errors=True)  # the optimiser's state is no longer needed
    return record


def record_failure(
    spec: RunSpec | CostSpec,
    runs_dir: Path,
    data_dir: Path,
    reason: str,
    kind: str,
    started_utc: str,
    seconds: float,
    belongs: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Append the record of a failed run; folders of this machine are removed from the reason.

    kind: see `timesformer_experiments.run.failures`; belongs: `sweep` and `cell`.
    """
    for folder, name in ((data_dir, "<data>"), (runs_dir, "<runs>"), (Path.home(), "~")):
        for form in {str(folder.resolve()), str(folder)} - {".", "/"}:
            reason = reason.replace(form, name)
    record = make_record(
        spec,
        started_utc=started_utc,
        wall_seconds=seconds,
        outcome="failed",
        reason=reason,
        reason_kind=kind,
        **belongs or {},
    )
    run, log = RunFolder(runs_dir, spec.hash()), runs_dir / LOG
    if not run.stored.is_file() and any(each["outcome"] == "done" for each in records_of(log, spec.hash())):
        record[AGAIN] = True  # its folder was removed to train it anew
    append_record(log, record)
    return record
