"""Standard output and standard error of a command: results on the one, progress on the other."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console
from rich.text import Text

from timesformer.text import printable


def print_json(value: Any) -> None:
    """The one JSON object of `--json`."""
    print(json.dumps(value, allow_nan=False))


def progress(text: str) -> None:
    """A line on standard error."""
    print(text, file=sys.stderr, flush=True)


def plain_text(text: str) -> Text:
    """Text from outside for a table: no markup, and nothing that a terminal would act on."""
    return Text(printable(text))


def console() -> Console:
    """Tables on standard output; wide enough where the output is no terminal."""
    return Console() if sys.stdout.isatty() else Console(width=160)
