"""Records of runs read into a data frame (`timesformer_experiments.records.frame` says what its columns are)."""

from __future__ import annotations

import gc
import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any

import pandas as pd

from timesformer.errors import InputError
from timesformer_experiments.records.frame import frame_of
from timesformer_experiments.records.log import AGAIN, LOG, READABLE_VERSIONS, latest, read_records

CELLS_FILE = "cells.json"
OUTCOMES = ("done", "failed")
HASH_NAMED = re.compile(r"[0-9a-f]{16}")
PARTS: tuple[tuple[str, type | tuple[type, ...]], ...] = (
    ("hash", str),
    ("name", str),
    ("spec", dict),
    ("metrics", dict),
    ("dataset", dict),
    ("environment", dict),
    ("cell", (dict, NoneType)),
    ("init_from", (dict, NoneType)),
)
"""Fields that are read, and their types."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """A record; its log, from the folder that was read; file and line; starts: it fills no cell of its sweep."""

    record: dict[str, Any]
    log: str
    place: str
    starts: bool


def load_results(folder: str | Path, *, starts: bool = False) -> pd.DataFrame:
    """The records of a sweep, of a folder of runs, or of all logs in a folder and below: a row for each run that
    finished or failed, as it ended last (a finished run stays finished, unless it was trained anew).  For the columns
    see `timesformer_experiments.records.frame`.

    Rows come in the order of the sweep's cells where the folder knows them, else as they were recorded; cells that the
    sweep's file had once and has no longer are left out, with a warning.  starts: also the runs of a sweep that fill no
    cell and are there only for others to start from, or for the choice of a recipe.

    Raises:
        InputError: there are no records, a line is none, or two logs hold results of one run on different videos; the
            message names file and line.
    """
    with _no_collection():
        found = [each for each in find_records(Path(folder)) if starts or not each.starts]
        return frame_of([(each.record, each.log, each.place) for each in found])


def find_records(folder: Path) -> list[Found]:
    """The records that hold, one a run, in the order of `load_results`, whose errors it raises."""
    logs = _logs(folder)
    if not logs:
        raise InputError(f"{folder}: no records there (no file {LOG} in it or below it)")
    found: dict[str, Found] = {}
    for log in logs:
        name = log.relative_to(folder).as_posix() if log != folder else log.name
        for each in _of_log(log, name):
            key = each.record["hash"]
            if key in found:
                _require_same_videos(each, found[key])
            if key not in found or _holds(each.record, found[key].record):
                found[key] = each
    return list(found.values())


def _require_same_videos(one: Found, other: Found) -> None:
    """Require two results of one run, in different logs, to belong to the same videos."""
    identities = [found.record["dataset"].get("identity") for found in (one, other)]
    mine, theirs = identities
    if mine is None or theirs is None or mine["full"] != theirs["full"] or mine == theirs:
        return  # the same, or not comparable: records from before there were identities have none
    raise InputError(
        f"{other.place} and {one.place}: results of one run ({one.record['name']!r}, {one.record['hash']}) on "
        "different videos; expected one of the two folders to be read, or another data.version for each"
    )


def _holds(record: dict[str, Any], before: dict[str, Any]) -> bool:
    """True if a run's record in one log replaces that in another."""
    done, was_done = (each["outcome"] == "done" for each in (record, before))
    later = str(record.get("finished_utc")) > str(before.get("finished_utc"))
    if record.get(AGAIN) or before.get(AGAIN):
        return later
    return done > was_done or (done == was_done and later)


def _logs(folder: Path) -> list[Path]:
    """All logs in a folder and below, or the one that is meant; runs' own folders have none."""
    if folder.is_file():
        return [folder]
    logs = []
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not HASH_NAMED.fullmatch(name) and not name.startswith("."))
        if LOG in files:
            logs.append(Path(place) / LOG)
    return logs


def _of_log(log: Path, name: str) -> list[Found]:
    """The records that hold in a log, in the order of the sweep's cells, or of their first mention."""
    records = read_records(log)
    for number, record in enumerate(records, start=1):
        _check(record, f"{log}:{number}")
    lines = {id(record): number for number, record in enumerate(records, start=1)}
    holding = latest(records)
    order = _order(log.with_name(CELLS_FILE))
    is_sweep = any(record.get("cell") is not None for record in holding.values())
    stale = {key for key, record in holding.items() if order and record.get("cell") is not None and key not in order}
    if stale:
        logger.warning("%s: left out %d records of cells that the sweep no longer has", log, len(stale))
    keys = dict.fromkeys([*(key for key in order if key in holding), *holding])
    found = []
    for key in keys:
        record = holding[key]
        if key not in stale:
            starts = record.get("cell") is None and (is_sweep or "tuning" in record)
            found.append(Found(record, name, f"{log}:{lines[id(record)]}", starts))
    return found


def planned_cells(folder: Path) -> dict[str, dict[str, Any]]:
    """The cells of a sweep's folder, finished or not: their values on the axes by the hash of their run.

    Empty for another folder.  Raises InputError for a file of cells that cannot be read.
    """
    return _cells((folder if folder.is_dir() else folder.parent) / CELLS_FILE)


def _order(cells: Path) -> dict[str, None]:
    """The hashes of a sweep's cells in their order, as far as they are known."""
    return dict.fromkeys(_cells(cells))


def _cells(cells: Path) -> dict[str, dict[str, Any]]:
    if not cells.is_file():
        return {}
    try:
        return {entry["hash"]: dict(entry.get("cell") or {}) for entry in json.loads(cells.read_bytes())["cells"]}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{cells}: not the cells of a sweep ({type(error).__name__}: {error})") from error


def _check(record: dict[str, Any], place: str) -> None:
    for part, kind in PARTS:
        if not isinstance(record.get(part), kind):
            raise InputError(f"{place}: {part}: expected {_said(kind)}, got {json.dumps(record.get(part))[:80]}")
    if record["outcome"] not in OUTCOMES:
        raise InputError(f"{place}: outcome: expected one of {', '.join(OUTCOMES)}, got {record['outcome']!r}")
    if (version := record.get("record_version", 1)) not in READABLE_VERSIONS:
        expected = " or ".join(map(str, READABLE_VERSIONS))
        raise InputError(f"{place}: record_version: expected {expected}, got {version!r}")


def _said(kind: type | tuple[type, ...]) -> str:
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return " or ".join({str: "text", dict: "an object", NoneType: "null"}[each] for each in kinds)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Without the garbage collector, which would look through all records again and again: half of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
