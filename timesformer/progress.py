"""Progress on standard error: bars on a terminal, now and then a line elsewhere."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

OnStep = Callable[[int, int, float], None]
"""Called with (done, total, mean loss since the last call or NaN)."""
LINE_SECONDS = 30.0
"""How often a line tells of the progress where there is no terminal."""


def bars() -> Progress:
    """Rich's progress display, on standard error and only where that is a terminal."""
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
    """`progress` itself if it is a function, a bar (without a terminal, lines) if it is true, otherwise nothing."""
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
    """A line every `LINE_SECONDS`, so that the log of a long run says how far it is."""
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
    """`42 s`, `5 min`, `3.2 h`, `2.1 days`."""
    if math.isnan(seconds):
        return "–"
    for limit, size, unit, decimals in ((90, 1, "s", 0), (5400, 60, "min", 0), (172800, 3600, "h", 1)):
        if seconds < limit:
            return f"{seconds / size:.{decimals}f} {unit}"
    return f"{seconds / 86400:.1f} days"
