"""Child processes with a connection: started fresh, ended with their parent, with a reason if they die."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from timesformer_experiments.run.failures import Failed, died, oom_kills


@dataclass(eq=False)
class Child:
    """A child process and the parent's end of its pipe.

    `oom_before`: value of `oom_kills()` when the child was last given work.
    """

    process: SpawnProcess
    connection: Connection
    oom_before: int = field(default_factory=oom_kills)

    def receive(self, crash: Callable[[], str] = lambda: "") -> Any:
        """Return the next message.

        `crash` reads the stack that the process left, if native code ended it.

        Raises:
            Failed: the process is gone; the error has reason and kind.
        """
        try:
            return self.connection.recv()
        except (EOFError, OSError) as error:
            self.process.join()
            raise Failed(*died(self.process.exitcode, self.oom_before, crash())) from error

    def end(self, kill: bool = False) -> None:
        """End the process at any moment: its files are written completely or not at all."""
        (self.process.kill if kill else self.process.terminate)()
        self.process.join()
        self.connection.close()


def start(target: Callable[..., None], *arguments: Any, environment: Mapping[str, str] | None = None) -> Child:
    """Start a child that runs `target(connection, *arguments)`, with additional environment variables.

    The child ignores interruptions from the keyboard and ends when its parent is gone.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(target, theirs, *arguments))
    with _environment(environment or {}):
        process.start()
    theirs.close()  # so that the end of the child closes the pipe
    return Child(process, ours)


def waiting(children: Iterator[Child] | list[Child], seconds: float | None) -> list[Child]:
    """Return the children that have sent a message or are gone, after waiting at most `seconds` (None: no limit)."""
    by_connection = {child.connection: child for child in children}
    return [by_connection[found] for found in wait(list(by_connection), seconds) if isinstance(found, Connection)]


def _run(target: Callable[..., None], connection: Connection, *arguments: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its children itself
    end_with_parent()
    target(connection, *arguments)


@contextmanager
def _environment(more: Mapping[str, str]) -> Iterator[None]:
    """Set additional environment variables for a process that is started inside."""
    before = {name: os.environ.get(name) for name in more}
    os.environ.update(more)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def end_with_parent(before: Callable[[], object] = lambda: None) -> None:
    """End this process when its parent is gone, for whatever reason; `before` is called first.

    Checkpoints are written completely or not at all, so a process may end at any moment.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    sentinel = parent.sentinel

    def watch() -> None:
        wait([sentinel])
        before()
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end with parent").start()
