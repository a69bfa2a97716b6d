"""Output of a command: results on standard output, progress on standard error."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from rich.console import Console
from rich.text import Text


def print_json(value: Any) -> None:
    """Print the JSON object of `--json`."""
    print(json.dumps(value, allow_nan=False))


def progress(text: str) -> None:
    """Print a line on standard error."""
    print(text, file=sys.stderr, flush=True)


def plain_text(text: str) -> Text:
    """Return untrusted text for a table, without markup and without control characters."""
    from timesformer.text import printable  # here, so that `timesformer --help` does not wait for torch

    return Text(printable(text))


def console() -> Console:
    """Return a console for tables on standard output; where that is no terminal, as wide as COLUMNS says, or 160."""
    stated = os.environ.get("COLUMNS", "")
    return Console() if sys.stdout.isatty() else Console(width=int(stated) if stated.isdecimal() else 160)
