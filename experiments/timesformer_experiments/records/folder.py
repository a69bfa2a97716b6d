"""The folder of a run: what lies in it, who holds it, and the record of the finished run.

runs/<hash>/spec.json          name and everything that decides the result
            checkpoint/        while it trains: from here it resumes
            model/             the trained model (`timesformer.checkpoints.load_model`)
            scores.parquet     per test video: path, label, prediction, scores
            curve.parquet      per step: loss, accuracy, learning rate; accuracy on validation where it was measured
            train.videos.json  digest of each training video's file; the evaluated ones: test.videos.json,
                               or validation.videos.json
            tracker/           logs of `tracker:`
            progress.json      while it is at work in a sweep: step, steps, loss, clips_per_second
            crash.txt          the Python stack, where native code ended the process
            error.txt          where the last failure came from
            record.json        there when the run is finished
runs/records.jsonl             records of finished and failed runs, appended
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from timesformer.errors import InputError
from timesformer.files import write_atomic
from timesformer_experiments.records.log import LOG, append_record, records_of

LOCK = ".lock"
PATIENCE_SECONDS = 0.5
"""Seconds that a claim waits for a process that only asks if the run is claimed."""


class Busy(InputError):
    """Another process is busy with the run."""


def default_data_dir(runs_dir: Path) -> Path:
    """Where probes and decoded frames lie unless said otherwise: `.cache` beside the runs."""
    return runs_dir.resolve().parent / ".cache"


@dataclass(frozen=True)
class RunFolder:
    """The folder of the run with hash `key` in a folder of runs."""

    runs_dir: Path
    key: str

    @property
    def path(self) -> Path:
        """The folder itself."""
        return self.runs_dir / self.key

    @property
    def log(self) -> Path:
        """The log of all runs beside it."""
        return self.runs_dir / LOG

    @property
    def spec(self) -> Path:
        """Name and definition."""
        return self.path / "spec.json"

    @property
    def checkpoint(self) -> Path:
        """Folder of the state from which training resumes."""
        return self.path / "checkpoint"

    @property
    def model(self) -> Path:
        """Folder of the trained model."""
        return self.path / "model"

    @property
    def scores(self) -> Path:
        """Scores of the test videos."""
        return self.path / "scores.parquet"

    @property
    def curve(self) -> Path:
        """Loss, accuracy and learning rate of every step."""
        return self.path / "curve.parquet"

    @property
    def tracker(self) -> Path:
        """Folder of a tracker's logs."""
        return self.path / "tracker"

    @property
    def progress(self) -> Path:
        """Progress of a run at work."""
        return self.path / "progress.json"

    @property
    def crash(self) -> Path:
        """Python stack of a process that native code ended."""
        return self.path / "crash.txt"

    @property
    def error(self) -> Path:
        """Traceback of the last failure."""
        return self.path / "error.txt"

    @property
    def stored(self) -> Path:
        """The record of the finished run."""
        return self.path / "record.json"

    def record(self) -> dict[str, Any] | None:
        """The record of a finished run, None for any other.  Completes the log if a crash kept the record out of it."""
        if not self.stored.is_file():
            return None
        record: dict[str, Any] = json.loads(self.stored.read_text())
        if record not in records_of(self.log, self.key):
            append_record(self.log, record, once=True)
        return record

    def store(self, record: dict[str, Any]) -> None:
        """Write the record of the finished run into its folder, then into the log."""
        write_atomic(self.stored, json.dumps(record, indent=2, allow_nan=False) + "\n")
        append_record(self.log, record, once=True)

    def failed_since(self, place: int) -> dict[str, Any] | None:
        """The run's last failure in the log from byte `place` on."""
        found = [record for record in records_of(self.log, self.key, place) if record["outcome"] == "failed"]
        return found[-1] if found else None

    def clear_half_written(self) -> None:
        """Remove what a process that was killed left of files that it was writing."""
        for place in (self.path, self.checkpoint, self.model):
            for path in place.glob(".*"):
                if path.name != LOCK:
                    path.unlink(missing_ok=True)

    @contextmanager
    def claimed(self, name: str) -> Iterator[None]:
        """Hold the folder against other processes; the system lets go of it however this one ends.

        Raises:
            Busy: another process holds it; the message names the run by `name`.
            InputError: the folder cannot be written.
        """
        lock = FileLock(self.path / LOCK)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=PATIENCE_SECONDS, poll_interval=PATIENCE_SECONDS / 10)
        except Timeout as error:
            raise Busy(f"run {name!r}: another process is busy with it in {self.path}") from error
        except OSError as error:
            raise InputError(f"cannot write the folder of runs {self.path}: {error.strerror}") from error
        try:
            yield
        finally:
            lock.release()

    def is_claimed(self) -> bool:
        """True if a process holds the folder.  In a folder that may only be read this cannot be asked: False."""
        if not (self.path / LOCK).is_file():
            return False
        lock = FileLock(self.path / LOCK)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return True
        except OSError:
            return False
        lock.release()
        return False


def size_of_log(runs_dir: Path) -> int:
    """Bytes of the log of records, 0 where there is none."""
    log = runs_dir / LOG
    return log.stat().st_size if log.exists() else 0
