"""Measurements in a fresh process, unaffected by earlier measurements."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping


def figure_of(label: str, module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> int:
    """Run `python -m module arguments` and return the integer that it prints last.

    Raises:
        RuntimeError: the process failed; the message names `label` and ends with the process's standard error.
    """
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(environment or {})})
    if done.returncode != 0:
        raise RuntimeError(f"{label}: the step failed ({done.returncode}):\n{done.stderr}")
    return int(done.stdout.split()[-1])
