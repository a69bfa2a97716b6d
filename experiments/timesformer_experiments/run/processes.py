"""A process of one's own to talk to: started fresh, ended with its parent, and told apart by how it died."""

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
    """A child process and our end of its pipe.

    `oom_before`: processes that the kernel had killed for want of memory when it was last given work.
    """

    process: SpawnProcess
    connection: Connection
    oom_before: int = field(default_factory=oom_kills)

    def receive(self, crash: Callable[[], str] = lambda: "") -> Any:
        """The next message.

        `crash` reads the stack that the process left, if native code ended it.

        Raises:
            Failed: the process is gone, with reason and kind.
        """
        try:
            return self.connection.recv()
        except (EOFError, OSError) as error:
            self.process.join()
            raise Failed(*died(self.process.exitcode, self.oom_before, crash())) from error

    def end(self, kill: bool = False) -> None:
        """End the process, wherever it is: what it writes is whole or not there."""
        (self.process.kill if kill else self.process.terminate)()
        self.process.join()
        self.connection.close()


def start(target: Callable[..., None], *arguments: Any, environment: Mapping[str, str] | None = None) -> Child:
    """A child that runs `target(connection, *arguments)`, with more variables in its environment.

    An interruption from the keyboard is left to the parent, and the child ends when its parent is gone.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(target, theirs, *arguments))
    with _environment(environment or {}):
        process.start()
    theirs.close()  # so that the child's end is an end of file here
    return Child(process, ours)


def waiting(children: Iterator[Child] | list[Child], seconds: float | None) -> list[Child]:
    """Those of the children that have something to say, or are gone; waits at most so long, None for ever."""
    by_connection = {child.connection: child for child in children}
    return [by_connection[found] for found in wait(list(by_connection), seconds) if isinstance(found, Connection)]


def _run(target: Callable[..., None], connection: Connection, *arguments: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its children itself
    end_with_parent()
    target(connection, *arguments)


@contextmanager
def _environment(more: Mapping[str, str]) -> Iterator[None]:
    """More variables for a process that is started meanwhile."""
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
    """End this process when its parent is gone, however that ended; `before` is called first.

    Checkpoints are written whole or not at all, so a process may end at any moment.
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
