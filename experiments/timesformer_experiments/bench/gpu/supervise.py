"""Measures in a process of its own, and goes on in a new one after what took the old one down: a kernel that accesses
memory that is not its own leaves its process without a GPU."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from timesformer_experiments.bench.gpu import say

LOST = 75
"""Exit code of a process whose device answers no more."""

FAILED = 1
MOST_RESTARTS = 8
GRACE_SECONDS = 40
"""So much longer than `--minutes` a process may take before it is ended."""


def supervise(arguments: list[str], minutes: float, out: Path) -> int:
    """Runs `python -m timesformer_experiments.bench.gpu --worker` with these arguments until it is through; returns its
    exit code.

    `--minutes` holds for all processes together.  What was being measured when a process died counts as failed.
    """
    begin = time.monotonic()
    run = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    for restart in range(MOST_RESTARTS + 1):
        left = 60 * minutes - (time.monotonic() - begin)
        if restart and left < 30:
            say("time is up; the same command goes on with what is left")
            return 0
        command = [sys.executable, "-m", "timesformer_experiments.bench.gpu", *arguments, "--worker", "--run", run]
        command += ["--minutes", f"{left / 60:.3f}"]
        try:
            code = subprocess.run(command, timeout=max(left, 0) + GRACE_SECONDS).returncode
        except subprocess.TimeoutExpired:
            say("time is up: the measurement in progress was ended and counts as failed (--retry measures it again)")
            report = [sys.executable, "-m", "timesformer_experiments.bench.gpu", "--only", "report", "--out", str(out)]
            return subprocess.run(report).returncode
        if code in (0, FAILED, 2):
            return code
        say(f"the process ended with {code}: going on in a new one")
    say(f"gave up after {MOST_RESTARTS} restarts")
    return FAILED
