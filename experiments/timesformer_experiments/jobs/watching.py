"""Progress of a set of runs on standard error: a live table on a terminal, otherwise a line from time to time."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from timesformer.files import write_atomic
from timesformer.progress import LINE_SECONDS, duration
from timesformer_experiments.cost.measures import brief
from timesformer_experiments.records.folder import RunFolder
from timesformer_experiments.report.terminal import plain_text
from timesformer_experiments.specs.job import Job

WRITE_EVERY_SECONDS = 1.0
SHOWN_RUNS = 20


@dataclass
class Running:
    """A running job and its latest step."""

    job: Job
    began: float
    step: int = 0
    steps: int = 0
    loss: float = math.nan
    first: tuple[float, int] | None = None
    last: float = 0.0
    written: float = 0.0

    def clips_per_second(self) -> float:
        """Return the mean rate since the first report, which comes after start-up; NaN before the second report."""
        recipe = self.job.spec.recipe
        if self.first is None or self.last <= self.first[0]:
            return math.nan
        return (self.step - self.first[1]) * recipe.batch_size / (self.last - self.first[0])

    def seconds_left(self) -> float:
        """Return the time left in seconds; NaN if unknown."""
        rate = self.clips_per_second()
        return (self.steps - self.step) * self.job.spec.recipe.batch_size / rate if rate > 0 else math.nan

    def state(self) -> str:
        """Return step, loss and time left as text; before the first step, the time since the start."""
        if not self.steps:
            return f"running for {duration(time.perf_counter() - self.began)}"
        words = [f"step {self.step}/{self.steps}"]
        if not math.isnan(self.loss):
            words.append(f"loss {self.loss:.3f}")
        left = self.seconds_left()
        if not math.isnan(left):
            words.append(f"{duration(left)} left")
        return ", ".join(words)


@dataclass
class Watch:
    """Progress display of a set of jobs.

    runs_dir: folder in which progress is stored for `timesformer status`; None to store nothing.
    """

    total: int
    shown: bool = True
    runs_dir: Path | None = None
    console: Console = field(default_factory=lambda: Console(stderr=True))
    running: dict[str, Running] = field(default_factory=dict)
    done: int = 0
    failed: int = 0
    elsewhere: int = 0
    ended_here: list[float] = field(default_factory=list)
    slots: int = 1
    began: float = field(default_factory=time.perf_counter)
    told: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        self.live = Live(console=self.console, get_renderable=self.table, refresh_per_second=2, transient=True)

    @contextmanager
    def showing(self) -> Iterator[None]:
        """Show the live table, on a terminal."""
        if not self.shown or not self.console.is_terminal:
            yield
            return
        with self.live:
            yield

    def say(self, text: str) -> None:
        """Print a line, above the table if there is one."""
        if not self.shown:
            return
        if self.live.is_started:
            self.console.print(plain_text(text))
        else:
            print(text, file=sys.stderr, flush=True)

    def tick(self) -> None:
        """Without a terminal, print a line for each running job every `LINE_SECONDS`."""
        if not self.shown or self.console.is_terminal or time.perf_counter() - self.told < LINE_SECONDS:
            return
        self.told = time.perf_counter()
        ended = self.done + self.failed
        for run in list(self.running.values())[:SHOWN_RUNS]:
            self.say(f"[{ended}/{self.total}] {run.job.name}: {run.state()}{self._left()}")

    def begin(self, key: str, job: Job) -> None:
        """Note that a job has begun."""
        self.running[key] = Running(job, time.perf_counter())

    def step(self, key: str, done: int, total: int, loss: float) -> None:
        """Note a step that a job reports."""
        run = self.running.get(key)
        if run is None:  # a report that arrives after the end of the job
            return
        now = time.perf_counter()
        run.step, run.steps, run.loss, run.last = done, total, loss, now
        run.first = run.first or (now, done)
        if self.runs_dir is not None and now - run.written > WRITE_EVERY_SECONDS:
            run.written = now
            self._write(RunFolder(self.runs_dir, key).progress, run)
        self.tick()

    def _write(self, path: Path, run: Running) -> None:
        rate = run.clips_per_second()
        content = {
            "step": run.step,
            "steps": run.steps,
            "loss": None if math.isnan(run.loss) else run.loss,
            "clips_per_second": None if math.isnan(rate) else rate,
            "updated_unix_seconds": time.time(),
        }
        with suppress(OSError, ValueError):  # progress is for display only
            write_atomic(path, json.dumps(content))

    def stop(self, key: str) -> None:
        """Note that a job no longer runs here."""
        if self.running.pop(key, None) is not None and self.runs_dir is not None:
            with suppress(OSError):
                (RunFolder(self.runs_dir, key).progress).unlink()

    def end(self, key: str, job: Job, record: dict[str, Any], counts: tuple[int, int]) -> None:
        """Note that a job has ended with a record; counts: numbers of finished and failed jobs."""
        run = self.running.get(key)
        self.stop(key)
        self.done, self.failed = counts
        seconds = ""
        if run is not None:
            self.ended_here.append(time.perf_counter() - run.began)
            seconds = f", {self.ended_here[-1]:.0f} s"
        self.say(f"[{sum(counts)}/{self.total}] {job.name}: {outcome_text(record)}{seconds}{self._left()}")

    def _left(self) -> str:
        seconds = self.seconds_left()
        return f"; about {duration(seconds)} left in total" if seconds > 60 else ""

    def seconds_left(self) -> float:
        """Return the time left for all jobs, from the mean time of those that ended here; NaN before the first."""
        left = self.total - self.done - self.failed
        if not self.ended_here or not left:
            return math.nan if left else 0.0
        return left * sum(self.ended_here) / len(self.ended_here) / self.slots

    def table(self) -> Group:
        """Return the table and the summary line shown on a terminal."""
        table = Table(box=None, pad_edge=False)
        for heading in ("run", "step", "loss", "clips/s", "running for", "left"):
            table.add_column(heading, justify="left" if heading == "run" else "right", no_wrap=heading != "run")
        now = time.perf_counter()
        for run in list(self.running.values())[:SHOWN_RUNS]:
            table.add_row(
                plain_text(run.job.name),
                f"{run.step}/{run.steps}" if run.steps else "…",
                number(run.loss, 3),
                number(run.clips_per_second(), 1),
                duration(now - run.began),
                duration(run.seconds_left()),
            )
        hidden = len(self.running) - SHOWN_RUNS
        rate = 3600 * len(self.ended_here) / max(now - self.began, 1e-9)
        end = self.seconds_left()
        line = (
            f"{self.done} done, {self.failed} failed, {len(self.running)} running"
            + (f" ({hidden} not shown)" if hidden > 0 else "")
            + (f", {self.elsewhere} running elsewhere" if self.elsewhere else "")
            + f", {self.total - self.done - self.failed - len(self.running) - self.elsewhere} waiting"
            + (f"; {rate:.0f} per hour" if self.ended_here else "")
            + (f"; expected end {time.strftime('%a %H:%M', time.localtime(time.time() + end))}" if end > 0 else "")
        )
        return Group(table, Text(line))


def outcome_text(record: dict[str, Any]) -> str:
    """Return the outcome of a run in a few words."""
    if record["outcome"] != "done":
        return f"failed: {record['reason']}"
    return brief(record["metrics"])


def number(value: float, decimals: int) -> str:
    """Format a number; a dash for NaN or None."""
    return "–" if value is None or math.isnan(value) else f"{value:,.{decimals}f}"
