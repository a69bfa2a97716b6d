"""Progress of a sweep, read from its folder, also while drivers on this or other machines work in it."""

from __future__ import annotations

import json
import math
import time
from calendar import timegm
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from timesformer.errors import InputError
from timesformer.progress import duration
from timesformer_experiments.jobs.watching import number
from timesformer_experiments.records.folder import RunFolder
from timesformer_experiments.records.log import LOG, latest, read_records
from timesformer_experiments.records.read import HASH_NAMED, planned_cells
from timesformer_experiments.report.terminal import plain_text
from timesformer_experiments.specs.sweep import CELLS_FILE

RECENT = 20
"""Number of finished runs from which the rate is computed."""


@dataclass(frozen=True)
class RunStatus:
    """State of one run of a sweep.

    state: "done", "failed", "running", "interrupted" (begun, but no process is working on it) or "waiting"; role:
    "cell", "tuning" for a draw of a recipe, or "start" for a run that others start from.
    """

    hash: str
    name: str
    role: str
    state: str
    reason: str | None = None
    reason_kind: str | None = None
    step: int | None = None
    steps: int | None = None
    loss: float | None = None
    clips_per_second: float | None = None


@dataclass(frozen=True)
class SweepStatus:
    """State of a sweep; seconds_left is estimated from the latest runs, None before there are enough.

    most_runs: for a sweep whose runs depend on one another, their number if no claim is decided early; claims: where
    they stand.
    """

    sweep: str
    runs: tuple[RunStatus, ...]
    runs_per_hour: float | None
    seconds_left: float | None
    most_runs: int | None = None
    claims: tuple[dict[str, Any], ...] = ()

    def counts(self) -> dict[str, int]:
        """Return the number of runs in each state."""
        states = ("done", "failed", "running", "interrupted", "waiting")
        return {state: sum(run.state == state for run in self.runs) for state in states}

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "sweep": self.sweep,
            "counts": self.counts(),
            "cells": sum(run.role == "cell" for run in self.runs),
            "runs_per_hour": self.runs_per_hour,
            "seconds_left": self.seconds_left,
            "runs": [asdict(run) for run in self.runs],
            **self._of_stages(),
        }

    def _of_stages(self) -> dict[str, Any]:
        if self.most_runs is None:
            return {}
        tuning = [run.state for run in self.runs if run.role == "tuning"]
        phases = {"tuning": {state: tuning.count(state) for state in self.counts()}} if tuning else {}
        return {"phases": phases, "most_runs": self.most_runs, "claims": list(self.claims)}


def sweep_status(folder: Path) -> SweepStatus:
    """Return the state of every run.  Raises InputError if the folder holds no sweep."""
    try:
        listed = json.loads((folder / CELLS_FILE).read_text())
        sweep, entries = (
            listed["sweep"],
            [
                *((entry, "start") for entry in listed["starts"]),
                *((entry, "tuning") for entry in listed.get("tuning", [])),
                *((entry, "cell") for entry in listed["cells"]),
            ],
        )
    except OSError as error:
        raise InputError(f"{folder}: expected the folder of a sweep, but it has no {CELLS_FILE}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / CELLS_FILE}: expected the cells of a sweep ({error})") from error
    log = folder / LOG
    records = latest(read_records(log)) if log.exists() else {}
    runs = tuple(_state(folder, entry, role, records.get(entry["hash"])) for entry, role in entries)
    keys = {entry["hash"] for entry, _ in entries}
    per_hour = _rate([record for key, record in records.items() if key in keys and record["outcome"] == "done"])
    left = sum(run.state in ("running", "interrupted", "waiting") for run in runs)
    seconds = 0.0 if not left else None if per_hour is None else 3600 * left / per_hour
    claims = tuple(listed.get("claims", ()))
    return SweepStatus(sweep, runs, per_hour if left else None, seconds, listed.get("most_runs"), claims)


def run_statuses(folder: Path) -> list[tuple[RunStatus, dict[str, Any]]]:
    """Return the state of every run in a folder, of a sweep or not, each with its settings.

    Settings are the values on a sweep's axes; of other runs scheme or baseline, frames, resolution, data and seed.

    Raises InputError if the folder holds no runs.
    """
    cells = planned_cells(folder)
    if cells:
        return [(run, cells.get(run.hash, {})) for run in sweep_status(folder).runs]
    log = folder / LOG
    records = latest(read_records(log)) if log.exists() else {}
    found = []
    for place in sorted(folder.glob("*")) if folder.is_dir() else []:
        if HASH_NAMED.fullmatch(place.name) and (place / "spec.json").is_file():
            spec = json.loads((place / "spec.json").read_text(encoding="utf-8"))
            entry = {"hash": place.name, "name": spec.get("name", "")}
            found.append((_state(folder, entry, "cell", records.get(place.name)), _settings(spec)))
    if not found:
        raise InputError(f"{folder}: no runs there (expected folders named by hashes, as `timesformer train` writes)")
    return found


def _settings(spec: dict[str, Any]) -> dict[str, Any]:
    model, data = spec.get("model", {}), spec.get("data", {})
    fields = {
        "attention": model.get("attention"),
        "baseline": model.get("baseline"),
        "frames": model.get("num_frames"),
        "pixels": model.get("image_size"),
        "data": data.get("probe") or data.get("format"),
        "seed": spec.get("seed"),
    }
    return {name: value for name, value in fields.items() if value is not None}


def _state(folder: Path, entry: dict[str, Any], role: str, record: dict[str, Any] | None) -> RunStatus:
    key, name = entry["hash"], entry["name"]
    own = RunFolder(folder, key)
    if record is not None and record["outcome"] == "done":
        return RunStatus(key, name, role, "done")
    if own.is_claimed():
        progress = _progress(own.progress)
        return RunStatus(key, name, role, "running", **progress)
    if record is not None:
        return RunStatus(key, name, role, "failed", record.get("reason"), record.get("reason_kind"))
    return RunStatus(key, name, role, "interrupted" if own.checkpoint.is_dir() else "waiting")


def _progress(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
        return {name: found.get(name) for name in ("step", "steps", "loss", "clips_per_second")}
    except (OSError, ValueError):
        return {}


def _rate(done: Sequence[dict[str, Any]]) -> float | None:
    """Finished runs per hour, over the latest `RECENT` runs."""
    ends = sorted(timegm(time.strptime(record["finished_utc"], "%Y-%m-%dT%H:%M:%SZ")) for record in done)[-RECENT:]
    if len(ends) < 2 or ends[-1] <= ends[0]:
        return None
    return 3600 * (len(ends) - 1) / (ends[-1] - ends[0])


def show(status: SweepStatus) -> Group:
    """Return the status for a terminal: counts, running and failed runs."""
    counts = status.counts()
    line = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    if status.runs_per_hour is not None:
        line += f"; {status.runs_per_hour:.0f} runs per hour"
    if status.seconds_left:
        line += f", about {duration(status.seconds_left)} left"
    parts: list[Any] = [Text(f"{status.sweep}: {line}")]
    if status.most_runs is not None:
        parts.append(Text(_phases(status)))
    parts += [Text(f"claim {claim['name']}: {claim['sentence']}") for claim in status.claims]
    running = [run for run in status.runs if run.state == "running"]
    if running:
        table = Table("running", box=None, pad_edge=False)
        for heading in ("step", "loss", "clips/s"):
            table.add_column(heading, justify="right", no_wrap=True)
        for run in running:
            step = "…" if run.step is None else f"{run.step}/{run.steps}"
            loss, rate = (math.nan if value is None else value for value in (run.loss, run.clips_per_second))
            table.add_row(plain_text(run.name), step, number(loss, 3), number(rate, 1))
        parts.append(table)
    failed = [run for run in status.runs if run.state == "failed"]
    if failed:
        table = Table("failed", "kind", "reason", box=None, pad_edge=False)
        for run in failed:
            table.add_row(*(plain_text(text or "") for text in (run.name, run.reason_kind, run.reason)))
        parts.append(table)
    return Group(*parts)


def _phases(status: SweepStatus) -> str:
    """Progress of the phases, in words."""
    words = []
    for phase, role in (("tuning", "tuning"), ("final", "cell")):
        states = [run.state for run in status.runs if run.role == role]
        words.append(f"{phase} {states.count('done')} of {len(states)} done" if states else "")
    words.append(f"{len(status.runs)} runs so far, at most {status.most_runs}")
    return "; ".join(word for word in words if word)
