"""Time of `load_results` for the records of a large sweep, generated from one record."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from timesformer.attention import names
from timesformer.files import write_atomic
from timesformer_experiments.records.log import LOG, environment, make_record, now_utc
from timesformer_experiments.records.read import load_results
from timesformer_experiments.report.tables import Column, Table
from timesformer_experiments.specs.run import RunSpec

RECORDS = 10_000
WANTED_SECONDS = 2.0
FRAMES = (2, 4, 8, 16, 32, 64, 96)


def made_up_log(count: int) -> str:
    """Return a sweep's log with generated records of finished runs over schemes, frames and seeds, all different."""
    run = {
        "name": "run",
        "data": {"probe": "motion", "num_train": 512, "num_test": 128},
        "model": {"image_size": 32},
        "recipe": {"steps": 100},
    }
    record = make_record(RunSpec.parse(run), started_utc=now_utc(), wall_seconds=1.0, sweep="made-up")
    half = {"num_videos": 128, "num_unreadable": 0, "unreadable": [], "labels": dict.fromkeys("abcdefgh", 16)}
    cells = ((seed, scheme, frames) for seed in itertools.count() for scheme in names() for frames in FRAMES)
    lines = []
    for number, (seed, scheme, frames) in enumerate(itertools.islice(cells, count)):
        digest = hashlib.sha256(str(number).encode()).hexdigest()
        share = int(digest[:6], 16) / 16**6  # between 0 and 1
        values = {
            "hash": digest[:16],
            "name": f"made-up attention={scheme} num_frames={frames} seed={seed}",
            "seed": seed,
            "cell": {"model.attention": scheme, "model.num_frames": frames, "seed": seed},
            "spec": record["spec"] | {"model": record["spec"]["model"] | {"attention": scheme, "num_frames": frames}},
            "dataset": {part: half | {"fingerprint": digest} for part in ("train", "test")},
            "metrics": {
                "top1_percent": 100 * share,
                "top1_low_percent": 95 * share,
                "top1_high_percent": 100 * share + 5 * (1 - share),
                "train_loss": 2 * (1 - share),
                "train_seconds": 60 + 10 * share,
                "params": 10**6 + number,
                "macs_per_view": 10**9 * frames,
                "tflops_total": 3e-3 * frames,
                "train_peak_memory_bytes": 10**8 * frames + number,
            },
            "wall_seconds": 70 + 10 * share,
        }
        lines.append(json.dumps(record | values) + "\n")
    return "".join(lines)


def run(
    count: int = RECORDS, *, repetitions: int = 5, progress: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Write the log, read it once as a warm-up and then repeatedly; return a record with each repetition.

    Raises:
        RuntimeError: not all records were read.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / LOG
        write_atomic(log, made_up_log(count))
        size, load, wall, processor = log.stat().st_size, os.getloadavg()[0], [], []
        for number in range(repetitions + 1):
            progress(f"reading {count} records")
            began, used = time.perf_counter(), time.process_time()
            frame = load_results(folder)
            seconds, used = time.perf_counter() - began, time.process_time() - used
            if frame["hash"].nunique() != count or frame["top1_percent"].isna().any():
                raise RuntimeError(f"expected {count} records, read {frame['hash'].nunique()}")
            if number:
                wall.append(seconds)
                processor.append(used)
    return {
        "bench": "results",
        "what": "load_results on one log of generated records of finished runs, after a warm-up: wall time and "
        "processor time of each repetition",
        "load_average_before": load,
        "environment": environment(),
        "finished_utc": now_utc(),
        "records": count,
        "columns": len(frame.columns),
        "log_bytes": size,
        "load_seconds": wall,
        "load_processor_seconds": processor,
        "load_median_seconds": statistics.median(wall),
        "wanted_seconds": WANTED_SECONDS,
        "reached": statistics.median(wall) < WANTED_SECONDS,
    }


def table(record: dict[str, Any]) -> Table:
    """Return the record as a table of one row."""
    row = {
        "records": record["records"],
        "columns": record["columns"],
        "log_mib": record["log_bytes"] / 2**20,
        "measured_load_seconds": record["load_median_seconds"],
        "measured_processor_seconds": statistics.median(record["load_processor_seconds"]),
        "wanted_seconds": record["wanted_seconds"],
        "reached": "yes" if record["reached"] else "NO",
    }
    columns = (
        Column("records", "Records", "label", decimals=0),
        Column("columns", "Columns", "label", decimals=0),
        Column("log_mib", "Log [MiB]", "label"),
        Column("measured_load_seconds", "load_results [s]", "measured", decimals=2),
        Column("measured_processor_seconds", "Processor [s]", "measured", decimals=2),
        Column("wanted_seconds", "Wanted, less than [s]", "label"),
        Column("reached", "Reached", "label"),
    )
    caption = f"Reading the records of a sweep: {record['environment']['cpu_model']}, medians of repetitions"
    return Table(pd.DataFrame([row]), columns, caption, measured="measured on this machine")
