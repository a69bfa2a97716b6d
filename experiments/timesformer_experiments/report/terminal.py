"""Output of a command: results on standard output, progress on standard error."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from typing import Any

from rich.console import Console
from rich.markup import escape
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


def print_text(*lines: str, indent: int = 0) -> None:
    """Print lines of text as they are, on a terminal or where COLUMNS says how wide it is wrapped between words.

    No word is broken, and so no number and no path.  indent: spaces before what is wrapped.
    """
    from timesformer.text import printable

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _stated_columns()
    for line in map(printable, lines):
        if width is None or len(line) <= width:
            print(line)
            continue
        wrapped = textwrap.wrap(
            line, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
        )
        print("\n".join(wrapped))


def print_markdown(text: str) -> None:
    """Print markdown whose tables become tables of the terminal, as wide as it is; other lines are wrapped as text."""
    from timesformer_experiments.report.fitted import Fitted

    rows: list[list[str]] = []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip().strip("|").split("|")])
            continue
        if len(rows) > 1:
            heading, aligned, *cells = rows
            shown = Fitted(header_style="bold")
            for name, kind in zip(heading, aligned, strict=True):
                right = kind.endswith(":")
                shown.add_fitted(escape(name), not right, justify="right" if right else "left")
            for row in cells:
                shown.add_row(*map(plain_text, row))
            console().print(shown)
        rows = []
        print_text(line)


def _stated_columns() -> int | None:
    stated = os.environ.get("COLUMNS", "")
    return int(stated) if stated.isdecimal() and int(stated) > 0 else None


def console() -> Console:
    """Return a console for tables on standard output; where that is no terminal, as wide as COLUMNS says, or 160."""
    return Console() if sys.stdout.isatty() else Console(width=_stated_columns() or 160)
