"""Progress of a set of runs, on standard error: a live table on a terminal, elsewhere lines now and then."""

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
    """A job at work."""

    job: Job
    began: float
    step: int = 0
    steps: int = 0
    loss: float = math.nan
    first: tuple[float, int] | None = None
    last: float = 0.0
    written: float = 0.0

    def clips_per_second(self) -> float:
        """Since the first report, which comes after start-up; NaN before there are two."""
        recipe = self.job.spec.recipe
        if self.first is None or self.last <= self.first[0]:
            return math.nan
        return (self.step - self.first[1]) * recipe.batch_size / (self.last - self.first[0])

    def seconds_left(self) -> float:
        """NaN where it is not known."""
        rate = self.clips_per_second()
        return (self.steps - self.step) * self.job.spec.recipe.batch_size / rate if rate > 0 else math.nan

    def state(self) -> str:
        """Step, loss and time left in a few words; how long it has been at work before its first step."""
        if not self.steps:
            return f"at work for {duration(time.perf_counter() - self.began)}"
        words = [f"step {self.step}/{self.steps}"]
        if not math.isnan(self.loss):
            words.append(f"loss {self.loss:.3f}")
        left = self.seconds_left()
        if not math.isnan(left):
            words.append(f"{duration(left)} left")
        return ", ".join(words)


@dataclass
class Watch:
    """Follows a set of jobs.

    runs_dir: where progress is left for `timesformer status`, None for nowhere.
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
        """The live table, on a terminal."""
        if not self.shown or not self.console.is_terminal:
            yield
            return
        with self.live:
            yield

    def say(self, text: str) -> None:
        """A line, above the table where there is one."""
        if not self.shown:
            return
        if self.live.is_started:
            self.console.print(plain_text(text))
        else:
            print(text, file=sys.stderr, flush=True)

    def tick(self) -> None:
        """Without a terminal, a line for each running run every `LINE_SECONDS`."""
        if not self.shown or self.console.is_terminal or time.perf_counter() - self.told < LINE_SECONDS:
            return
        self.told = time.perf_counter()
        ended = self.done + self.failed
        for run in list(self.running.values())[:SHOWN_RUNS]:
            self.say(f"[{ended}/{self.total}] {run.job.name}: {run.state()}{self._left()}")

    def begin(self, key: str, job: Job) -> None:
        """A job begins."""
        self.running[key] = Running(job, time.perf_counter())

    def step(self, key: str, done: int, total: int, loss: float) -> None:
        """A job reports a step."""
        run = self.running.get(key)
        if run is None:  # a report that comes after its end
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
        with suppress(OSError, ValueError):  # it is only for those who look on
            write_atomic(path, json.dumps(content))

    def stop(self, key: str) -> None:
        """A job is no longer at work here."""
        if self.running.pop(key, None) is not None and self.runs_dir is not None:
            with suppress(OSError):
                (RunFolder(self.runs_dir, key).progress).unlink()

    def end(self, key: str, job: Job, record: dict[str, Any], counts: tuple[int, int]) -> None:
        """A job ends with a record; counts: of finished and failed jobs."""
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
        return f"; all: about {duration(seconds)} left" if seconds > 60 else ""

    def seconds_left(self) -> float:
        """From the mean time of the jobs that have ended here; NaN before there is one."""
        left = self.total - self.done - self.failed
        if not self.ended_here or not left:
            return math.nan if left else 0.0
        return left * sum(self.ended_here) / len(self.ended_here) / self.slots

    def table(self) -> Group:
        """What the terminal shows."""
        table = Table(box=None, pad_edge=False)
        for heading in ("run", "step", "loss", "clips/s", "running for", "left"):
            table.add_column(heading, justify="left" if heading == "run" else "right")
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
            + (f", {self.elsewhere} at other drivers" if self.elsewhere else "")
            + f", {self.total - self.done - self.failed - len(self.running) - self.elsewhere} waiting"
            + (f"; {rate:.0f} an hour" if self.ended_here else "")
            + (f"; ends at about {time.strftime('%a %H:%M', time.localtime(time.time() + end))}" if end > 0 else "")
        )
        return Group(table, Text(line))


def outcome_text(record: dict[str, Any]) -> str:
    """How a run ended, in a few words."""
    if record["outcome"] != "done":
        return f"failed: {record['reason']}"
    return brief(record["metrics"])


def number(value: float, decimals: int) -> str:
    """A number, or a dash where there is none."""
    return "–" if value is None or math.isnan(value) else f"{value:,.{decimals}f}"
