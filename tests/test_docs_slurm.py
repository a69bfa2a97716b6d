"""The documentation's recipe for Slurm starts Ray and finishes a sweep."""

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.pages import the_block, tiny

SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift 2; done
exec "$@"
"""


@pytest.mark.slow
def test_the_slurm_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for Slurm: `srun` runs its command here, so that both nodes are on this machine."""
    recipe = the_block("bash", "#SBATCH").text
    sweep = tiny(yaml.safe_load(the_block("yaml", "# sweep.yaml\n").text))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "srun").write_text(SRUN)
    (tmp_path / "bin" / "srun").chmod(0o755)
    told = {"SLURM_NNODES": "2", "SLURM_CPUS_ON_NODE": "1", "SLURMD_NODENAME": "first", "RAY_USAGE_STATS_ENABLED": "0"}
    path = f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    for _ in range(3):  # Ray gives its processes 30 seconds to start, which may be too few on a busy machine
        with socket.socket() as free:
            free.bind(("", 0))
            port = free.getsockname()[1]
        (tmp_path / "ray.slurm").write_text(recipe.replace("6379", str(port)))
        code, out, err = in_a_group(["bash", "ray.slurm", "sweep.yaml", "shared"], os.environ | told | {"PATH": path})
        if code != 3:
            break
        assert "timed out during startup" in out + err
    assert code == 0, err
    assert "cluster: 2 nodes, 2 CPUs" in err
    assert "4 of 4 cells done" in out


def in_a_group(command: list[str], environment: dict[str, str]) -> tuple[int, str, str]:
    """Exit code, standard output and error of a command; nothing that it has started lives on."""
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, start_new_session=True, **pipes) as process:
        try:
            out, err = process.communicate(timeout=600)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, out, err
