"""Records of runs: one JSON object a line, only ever appended to.  Tables read nothing else.

A record's fields (`RECORD_VERSION` 2):

    record_version, hash, name, outcome ("done" or "failed")
    reason, reason_kind: of a failure, see `timesformer_experiments.run.failures`; else null
    again: true for a failure of a run that had finished once and was trained anew; only where it is so
    kind: "accuracy" (of a trained model) or "cost" (of one that is only counted and measured)
    sweep, cell: name of the sweep and the values of its axes by dotted path; null for other runs
    equalised: of a cell at equal cost, what was solved and by how much it misses; tuning: of a run that is there for
        the choice of a recipe, its variant, draw and values; claims_digest: sha256 of the claims that were registered
        before the run; failed_below_percent: the accuracy below which it counts as failed, registered with them; of
        runs behind a table test_right, test_groups (see `records.hits`).  Only where there are such
    seed, protocol, spec: the run's full configuration; init_from: name and hash of the run it started from, or null
    evaluated_on: "test" or "validation", the videos that the metrics are of; null for a cost.  A run evaluates its set
        once, when it is trained
    selection: on, search, draws, over, chosen and best_percent of a run whose recipe was tuned (see
        `timesformer_experiments.specs.splits.Selection`); null for others
    metrics: figures, each with its unit in its name
    validation: a run's validations while it trained, each with its step and metrics; only where there were some
    dataset: audits of train, and of test or validation (number of videos, labels, fingerprint with the seconds and
        files that it took to read, unreadable ones; paths relative to the root); identity: what the result belongs to
        beside its hash, see `timesformer_experiments.run.identity`
    confusion: for each head (head, classes), which classes were taken for which (counts, a row per true class and a
        column per predicted one), above 100 classes only videos and right of each; null where nothing was evaluated
    environment: git_commit, git_dirty, versions, platform, cpu_model, cpu_cores, memory_bytes, device, threads,
        processes (that shared each batch)
    started_utc, finished_utc, wall_seconds: of the session that finished the run

Records of version 1 lack identity and what their fingerprints took; those from before there were sweeps also lack
reason_kind, kind, sweep, cell and processes. Records without evaluated_on, selection and confusion are of the test set
and of runs that were not tuned. A run that failed and was run again, or was measured further, has several records;
`latest` gives the one that holds.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import platform
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from filelock import FileLock

from timesformer.errors import InputError
from timesformer_experiments.specs.run import RunSpec

if TYPE_CHECKING:
    from timesformer_experiments.specs.cost import CostSpec

RECORD_VERSION = 2
READABLE_VERSIONS = (1, 2)
LOG = "records.jsonl"
AGAIN = "again"
RESERVE = ".reserve"
RESERVE_BYTES = 2**20
"""Room that is kept beside a log, so that a full disk can still be recorded: some hundred failures."""
PACKAGES = ("timesformer-ablations", "torch", "accelerate", "av", "einops", "numpy", "safetensors", "pandas")

logger = logging.getLogger(__name__)


def now_utc() -> str:
    """The time, to the second, in ISO 8601."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def make_record(
    spec: RunSpec | CostSpec,
    *,
    started_utc: str,
    wall_seconds: float,
    outcome: str = "done",
    reason: str | None = None,
    reason_kind: str | None = None,
    sweep: str | None = None,
    cell: dict[str, Any] | None = None,
    equalised: dict[str, Any] | None = None,
    tuning: dict[str, Any] | None = None,
    claims_digest: str | None = None,
    failed_below_percent: float | None = None,
    metrics: dict[str, Any] | None = None,
    dataset: dict[str, Any] | None = None,
    confusion: list[dict[str, Any]] | None = None,
    validation: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """The record of a run that has just ended, on this machine."""
    source = spec.init_from
    notes: dict[str, Any] = {"equalised": equalised, "tuning": tuning, "claims_digest": claims_digest}
    notes |= {"failed_below_percent": failed_below_percent}
    return {
        "record_version": RECORD_VERSION,
        "hash": spec.hash(),
        "name": spec.name,
        "outcome": outcome,
        "reason": reason,
        "reason_kind": reason_kind,
        "kind": spec.kind,
        "sweep": sweep,
        "cell": cell,
        **{name: value for name, value in notes.items() if value is not None},
        "seed": spec.seed,
        "protocol": spec.protocol,
        "spec": spec.definition(),
        "init_from": {"name": source.name, "hash": source.hash()} if isinstance(source, RunSpec) else None,
        "evaluated_on": spec.evaluate_on if isinstance(spec, RunSpec) else None,
        "selection": spec.selection.model_dump(mode="json") if isinstance(spec, RunSpec) and spec.selection else None,
        "metrics": metrics or {},
        **({} if validation is None else {"validation": validation}),
        "dataset": dataset or {},
        "confusion": confusion,
        "environment": environment() | {"processes": spec.processes},
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
        if Path(top).resolve() != here.parents[2]:  # installed into an environment inside somebody else's repository
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
def _locked(path: Path) -> Iterator[int]:
    """A descriptor of the log, for reading and appending, held against other processes."""
    with ExitStack() as held:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(FileLock(path.with_name(f".{path.name}.lock")))
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise InputError(f"cannot write the records {path}: {error.strerror}") from error
        held.callback(os.close, descriptor)
        yield descriptor


def append_record(path: str | Path, record: dict[str, Any], once: bool = False) -> None:
    """Append a line to the log, whole and on disk when this returns; with `once` only if it is not there yet.

    A line that a crash has torn is moved to `<path>.torn`, with a warning: it was never a record.  On a
    full disk the room that `keep_reserve` has kept is used; if that does not do either, the log is left as it was.

    Raises:
        InputError: the log cannot be written.
    """
    path = Path(path)
    line = json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    with _locked(path) as log:
        _cut_torn(log, path)
        if once and line in os.pread(log, os.fstat(log).st_size, 0):
            return
        try:
            _append(log, line)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not _release_reserve(path.parent):
                raise InputError(f"cannot write the records {path}: {error.strerror}") from error
            try:
                _append(log, line)
            except OSError as again:
                raise InputError(f"cannot write the records {path}: {again.strerror}") from again


def _append(log: int, line: bytes) -> None:
    """The line, whole and on disk, or nothing of it."""
    size = os.fstat(log).st_size
    try:
        left = memoryview(line)
        while left:
            left = left[os.write(log, left) :]
        os.fsync(log)
    except OSError:
        os.ftruncate(log, size)
        raise


def _cut_torn(log: int, path: Path) -> None:
    size = os.fstat(log).st_size
    if not size or os.pread(log, 1, size - 1) == b"\n":
        return
    content = os.pread(log, size, 0)
    whole = content.rfind(b"\n") + 1
    with suppress(OSError), open(f"{path}.torn", "ab") as torn:
        torn.write(content[whole:] + b"\n")
    os.ftruncate(log, whole)
    logger.warning("%s: its last line was torn; moved it to %s.torn", path, path)


def keep_reserve(folder: Path) -> None:
    """Reserve room for records in `folder`, if the disk has some."""
    reserve = folder / RESERVE
    if reserve.is_file() and reserve.stat().st_size == RESERVE_BYTES:
        return
    try:
        reserve.write_bytes(os.urandom(RESERVE_BYTES))
    except OSError:  # none is left: records go as far as they can
        _release_reserve(folder)


def _release_reserve(folder: Path) -> bool:
    """Release the reserved room; return False if none was reserved."""
    try:
        (folder / RESERVE).unlink()
    except OSError:
        return False
    return True


def records_of(path: Path, key: str, since: int = 0) -> list[dict[str, Any]]:
    """The records of one hash in a log, in order, from byte `since` on; fast however long the log is."""
    try:
        with path.open("rb") as file:
            file.seek(since)
            content = file.read()
    except FileNotFoundError:
        return []
    mark = f'"hash": "{key}"'.encode()
    found, position = [], content.find(mark)
    while position >= 0:
        start, end = content.rfind(b"\n", 0, position) + 1, content.find(b"\n", position)
        if end < 0:
            break
        record = json.loads(content[start:end])
        if record["hash"] == key:
            found.append(record)
        position = content.find(mark, end)
    return found


def latest(records: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """By hash the record that holds: the last of a finished run, or of its failures if it never finished.

    A failure replaces a finished run only if the run's folder had been removed, so that it was trained anew (`again`).
    """
    found: dict[str, dict[str, Any]] = {}
    for record in records:
        before = found.get(record["hash"])
        if before is None or record["outcome"] == "done" or before["outcome"] != "done" or record.get(AGAIN):
            found[record["hash"]] = record
    return found


def _no_number(text: str) -> float:
    """Refuse NaN and infinities, which are no JSON; no record is written with them."""
    raise ValueError(f"{text} is no number")


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
    with suppress(ValueError):  # all at once is twice as fast; what is wrong is found below
        together = json.loads(b"[" + b",".join(lines[:-1]) + b"]", parse_constant=_no_number)
        if len(together) == len(lines) - 1 and all(_is_record(record) for record in together):
            return together
    records = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            record = json.loads(line, parse_constant=_no_number)
        except ValueError as error:
            raise InputError(f"{path}:{number}: not a record, expected one JSON object ({error})") from error
        if not _is_record(record):
            raise InputError(f"{path}:{number}: not a record, expected an object with hash and outcome")
        records.append(record)
    return records


def _is_record(value: Any) -> bool:
    return isinstance(value, dict) and "hash" in value and "outcome" in value
