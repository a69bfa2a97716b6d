"""The record of a benchmark: appended JSON lines, of which the last one of each key counts."""

import json
import os
from pathlib import Path
from typing import Any

from timesformer.errors import InputError

Row = dict[str, Any]

DONE = ("ok", "oom", "unsupported")
"""Final results.  `failed` and `started` (it ended the process) are measured again only on request; `skipped`
(something is missing on this machine) always."""

IDENTITY = (
    "slice", "provider", "what", "shape", "batch", "heads", "head_width", "dtype", "direction", "code", "device_name",
    "torch", "sizes", "run",
)  # fmt: skip
"""Fields that identify a measurement; `run` is given only for ceilings, which are measured in every run."""


def key_of(row: Row) -> str:
    """Return the identity of a measurement as one string."""
    return "|".join(str(row.get(name, "")) for name in IDENTITY)


class Record:
    """A file of JSON lines, read when opened and then appended to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, Row] = {}
        for row in read_lines(path):
            self.rows[row["key"]] = row

    def done(self, row: Row, retry: bool = False) -> bool:
        """Return True if a measurement need not be made: it is final, or it failed and `retry` is not set."""
        found = self.rows.get(key_of(row))
        if found is None or found["status"] == "skipped":
            return False
        return found["status"] in DONE or not retry

    def append(self, row: Row, status: str) -> Row:
        """Append a line, which is on disk when this returns."""
        row = {"key": key_of(row), "status": status, **row}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 1))
            torn = file.read() not in (b"", b"\n")
            file.write((b"\n" if torn else b"") + json.dumps(row, allow_nan=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.rows[row["key"]] = row
        return row


def read_lines(path: Path) -> list[Row]:
    """Return the lines of a record in order, without lines that a crash cut off.

    Raises:
        InputError: a line is not a JSON object with key and status; the message names file and line.
    """
    if not path.is_file():
        return []
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.endswith("}"):
            continue  # cut off by a crash
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or not {"key", "status"} <= set(row):
                raise ValueError("expected an object with key and status")
        except ValueError as error:
            raise InputError(f"{path}, line {number}: expected a line of a benchmark's record ({error})") from error
        rows.append(row)
    return rows
