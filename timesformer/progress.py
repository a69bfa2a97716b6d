"""Progress on standard error: bars on a terminal, a line from time to time elsewhere."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

OnStep = Callable[[int, int, float], None]
"""Function that is called with (done, total, mean loss since the last call or NaN)."""
LINE_SECONDS = 30.0
"""Seconds between two lines of progress where there is no terminal."""


def bars() -> Progress:
    """Make a progress display of rich on standard error; it is disabled where that is not a terminal."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        disable=not console.is_terminal,
    )


@contextmanager
def step_bar(description: str, progress: bool | OnStep, main_process: bool = True) -> Iterator[OnStep]:
    """Yield a function that reports progress.

    It is `progress` itself if that is a function.  If `progress` is True, it draws a bar, or writes lines without a
    terminal.  Otherwise, and in all but the main process, it does nothing.
    """
    if callable(progress):
        yield progress
        return
    if not progress or not main_process:
        yield lambda done, total, loss: None
        return
    display = bars()
    if display.disable:
        yield _lines(description)
        return
    with display:
        task = display.add_task(description, total=None, note="")

        def on_step(done: int, total: int, loss: float) -> None:
            note = "" if loss != loss else f"loss {loss:.3f}"
            display.update(task, completed=done, total=total, note=note)

        yield on_step


def _lines(description: str) -> OnStep:
    """Make a function that writes a line every `LINE_SECONDS`, so that the log of a long run shows its progress."""
    told = time.monotonic()
    first: tuple[float, int] | None = None

    def on_step(done: int, total: int, loss: float) -> None:
        nonlocal told, first
        now = time.monotonic()
        first = first or (now, done)  # the first report comes after start-up
        if now - told >= LINE_SECONDS:
            told = now
            note = "" if math.isnan(loss) else f", loss {loss:.3f}"
            if done > first[1]:
                note += f", {duration((total - done) * (now - first[0]) / (done - first[1]))} left"
            print(f"{description}: {done} of {total}{note}", file=sys.stderr, flush=True)

    return on_step


def duration(seconds: float) -> str:
    """Format a duration as `42 s`, `5 min`, `3.2 h` or `2.1 days`; NaN is a dash."""
    if math.isnan(seconds):
        return "–"
    for limit, size, unit, decimals in ((90, 1, "s", 0), (5400, 60, "min", 0), (172800, 3600, "h", 1)):
        if seconds < limit:
            return f"{seconds / size:.{decimals}f} {unit}"
    return f"{seconds / 86400:.1f} days"
