"""Records of runs: one JSON object a line, only ever appended to.  Tables read nothing else.

A record's fields (`RECORD_VERSION` 1):

    record_version, hash, name, outcome ("done" or "failed"), reason (of a failure, else null)
    seed, protocol, spec: the run's full configuration; init_from: name and hash of the run it started from, or null
    metrics: figures, each with its unit in its name
    dataset: train and test audit (number of videos, labels, fingerprint, unreadable ones; paths relative to the root)
    environment: git_commit, git_dirty, versions, platform, cpu_model, cpu_cores, memory_bytes, device, threads
    started_utc, finished_utc, wall_seconds: of the session that finished the run
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

import torch

from experiments.spec import RunSpec
from timesformer.errors import InputError

RECORD_VERSION = 1
LOG = "records.jsonl"
PACKAGES = ("timesformer-ablations", "torch", "accelerate", "av", "einops", "numpy", "safetensors", "pandas")

logger = logging.getLogger(__name__)


def now_utc() -> str:
    """The time, to the second, in ISO 8601."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def make_record(
    spec: RunSpec,
    *,
    started_utc: str,
    wall_seconds: float,
    outcome: str = "done",
    reason: str | None = None,
    metrics: dict[str, Any] | None = None,
    dataset: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The record of a run that has just ended, on this machine."""
    source = spec.init_from
    return {
        "record_version": RECORD_VERSION,
        "hash": spec.hash(),
        "name": spec.name,
        "outcome": outcome,
        "reason": reason,
        "seed": spec.seed,
        "protocol": spec.protocol,
        "spec": spec.definition(),
        "init_from": {"name": source.name, "hash": source.hash()} if isinstance(source, RunSpec) else None,
        "metrics": metrics or {},
        "dataset": dataset or {},
        "environment": environment(),
        "started_utc": started_utc,
        "finished_utc": now_utc(),
        "wall_seconds": round(wall_seconds, 3),
    }


def environment() -> dict[str, Any]:
    """Code, versions and hardware; nothing that names the machine or its folders."""
    cuda = torch.cuda.is_available()
    return {
        **_fixed_environment(),
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "threads": torch.get_num_threads(),
    }


@cache
def _fixed_environment() -> dict[str, Any]:
    commit, dirty = _git()
    return {
        "git_commit": commit,
        "git_dirty": dirty,
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu_model": _cpu_model(),
        "cpu_cores": os.cpu_count(),
        "memory_bytes": _memory_bytes(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git() -> tuple[str | None, bool | None]:
    """Commit of this code's repository and whether the work tree differs; (None, None) outside a repository."""
    here = Path(__file__).resolve().parent
    try:
        top = _git_says(here, "rev-parse", "--show-toplevel")
        if Path(top).resolve() != here.parent:  # installed into an environment inside somebody else's repository
            return None, None
        return _git_says(here, "rev-parse", "HEAD"), bool(_git_says(here, "status", "--porcelain"))
    except (OSError, subprocess.SubprocessError):
        return None, None


def _git_says(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        return platform.processor() or "unknown"
    return platform.processor() or "unknown"


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


@contextmanager
def _locked(path: Path) -> Iterator[IO[bytes]]:
    """The log, open for reading and appending, held against other processes."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        raise InputError(f"cannot write the records {path}: {error.strerror}") from error
    with os.fdopen(descriptor, "a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def append_record(path: str | Path, record: dict[str, Any]) -> None:
    """Adds a line to the log, whole and on disk when this returns.

    What a crash left of an earlier line is cut off into `<path>.torn`, with a warning: it was never a record.

    Raises:
        InputError: the log cannot be written.
    """
    path = Path(path)
    line = json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    with _locked(path) as file:
        file.seek(0)
        head, newline, tail = file.read().rpartition(b"\n")
        if tail:
            with open(f"{path}.torn", "ab") as torn:
                torn.write(tail + b"\n")
            file.truncate(len(head) + len(newline))
            logger.warning("%s: its last line was torn; moved it to %s.torn", path, path)
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def read_records(path: str | Path) -> list[dict[str, Any]]:
    """The records of a log, in order.  A torn last line (no line break: a crash) is left out with a warning.

    Raises:
        InputError: there is no such file, or a line is no record; the message names file and line.
    """
    path = Path(path)
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise InputError(f"{path}: cannot read the records ({error.strerror})") from error
    if lines[-1]:
        logger.warning("%s:%d: the last line is torn (written during a crash); left out", path, len(lines))
    records = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise InputError(f"{path}:{number}: not a record, expected one JSON object ({error})") from error
        if not isinstance(record, dict) or "hash" not in record or "outcome" not in record:
            raise InputError(f"{path}:{number}: not a record, expected an object with hash and outcome")
        records.append(record)
    return records
