"""Processes that a test starts: noted, so that a test without the marker `integration` fails."""

import os
import subprocess
from collections.abc import Iterable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

LOOKED_UP = frozenset({"git", "fc-list", "uname", "ldconfig", "lscpu", "gcc", "cc", "g++", "c++", "clang"})
"""Programs that libraries ask for a fact or compile with: they end at once."""

started: list[str] = []
"""What was started since the list was last cleared."""


def _program(command: str | bytes | os.PathLike[str] | Iterable[Any]) -> str:
    first = command if isinstance(command, str | bytes | os.PathLike) else next(iter(command))
    return Path(os.fsdecode(first)).name


def watch() -> None:
    """Note every process that is started from now on, whoever starts it; the workers of a `DataLoader` aside."""
    popen, start = subprocess.Popen.__init__, BaseProcess.start

    def noted_popen(self: Any, args: Any, *more: Any, **options: Any) -> None:
        if _program(args) not in LOOKED_UP:
            started.append(_program(args))
        popen(self, args, *more, **options)

    def noted_start(self: Any) -> None:
        target = getattr(self, "_target", None)
        if not getattr(target, "__module__", "").startswith("torch.utils.data."):
            started.append(f"{type(self).__name__} {getattr(target, '__name__', '')}".strip())
        start(self)

    subprocess.Popen.__init__ = noted_popen
    BaseProcess.start = noted_start
