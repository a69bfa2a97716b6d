"""The eight jobs of a researcher's first day (`tests/first_day.sh`) run from the built wheel in an empty folder."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.test_packaging import install, outside, venv, wheel

__all__ = ["wheel"]
SCRIPT = Path(__file__).with_name("first_day.sh")


@pytest.mark.slow
def test_the_eight_jobs(wheel: Path, tmp_path: Path) -> None:
    python = venv(tmp_path / "env")
    install(python, "--ignore-installed", str(wheel))
    folder = tmp_path / "empty"
    folder.mkdir()
    surroundings = outside() | {"PATH": f"{python.parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    bash = shutil.which("bash")
    assert bash is not None
    done = subprocess.run([bash, str(SCRIPT)], cwd=folder, env=surroundings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.rstrip().endswith("eight jobs done")
    assert [line for line in done.stderr.splitlines() if line.startswith("job ")][-1].startswith("job 8")
