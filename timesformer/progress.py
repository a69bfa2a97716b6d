"""Progress bars on standard error."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

OnStep = Callable[[int, int, float], None]
"""Called with (done, total, mean loss since the last call or NaN)."""


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
    """`progress` itself if it is a function, a bar if it is true, otherwise nothing."""
    if callable(progress):
        yield progress
        return
    if not progress or not main_process:
        yield lambda done, total, loss: None
        return
    with bars() as display:
        task = display.add_task(description, total=None, note="")

        def on_step(done: int, total: int, loss: float) -> None:
            note = "" if loss != loss else f"loss {loss:.3f}"
            display.update(task, completed=done, total=total, note=note)

        yield on_step
