"""Supervisor that measures in a child process and continues in a new one if it dies.

After an illegal memory access by a kernel, a process can no longer use the GPU.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from timesformer_experiments.bench.gpu import say

LOST = 75
"""Exit code of a process whose device no longer responds."""

FAILED = 1
MOST_RESTARTS = 8
GRACE_SECONDS = 40
"""Time beyond `--minutes` after which a process is ended."""


def supervise(arguments: list[str], minutes: float, out: Path) -> int:
    """Run `python -m timesformer_experiments.bench.gpu --worker` with these arguments until it finishes; return its
    exit code.

    `--minutes` limits all processes together.  A measurement during which a process dies counts as failed.
    """
    begin = time.monotonic()
    run = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    for restart in range(MOST_RESTARTS + 1):
        left = 60 * minutes - (time.monotonic() - begin)
        if restart and left < 30:
            say("time is up; repeat the command to continue")
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
        say(f"the process ended with exit code {code}; continuing in a new one")
    say(f"gave up after {MOST_RESTARTS} restarts")
    return FAILED
