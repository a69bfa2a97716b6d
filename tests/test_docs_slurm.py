"""The documentation's recipe for Slurm starts Ray and finishes a sweep."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
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


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the sweep of the page, made small."""
    sweep = tiny(yaml.safe_load(the_block("yaml", "# sweep.yaml\n").text))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    (tmp_path / "bin").mkdir()
    return tmp_path


def told(place: Path, **more: str) -> dict[str, str]:
    """The environment of a job: its programs are those of this one, and of the folder."""
    path = f"{place / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "PATH": path} | more


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [1, 2])
def test_the_slurm_recipe(place: Path, nodes: int) -> None:
    """With a stand-in for Slurm: `srun` runs its command here, so that both nodes are on this machine.

    On one node there is no `srun` to call.
    """
    if nodes > 1:
        (place / "bin" / "srun").write_text(SRUN)
        (place / "bin" / "srun").chmod(0o755)
    (place / "ray.slurm").write_text(the_block("bash", "#SBATCH").text)
    facts = {
        "SLURM_NNODES": str(nodes),
        "SLURM_CPUS_ON_NODE": "1",
        "SLURM_CPUS_PER_TASK": "1",
        "SLURMD_NODENAME": "first",
    }
    for number in range(3):  # Ray gives its processes 30 seconds to start, which may be too few on a busy machine
        facts["SLURM_JOB_ID"] = free_job(1000 * number)
        code, out, err = in_a_group(["bash", "ray.slurm", "sweep.yaml", "shared"], told(place, **facts))
        if code != 3:
            break
        assert "timed out during startup" in out + err
    assert code == 0, err
    assert f"cluster: {nodes} nodes, {nodes} CPUs" in err
    assert "4 of 4 cells done" in out


def free_job(least: int) -> str:
    """The number of a job whose port nothing listens at."""
    for job in range(least, 10_000):
        with socket.socket() as free, suppress(OSError):
            free.bind(("", 20_000 + job))
            return str(job + 10_000)
    raise AssertionError("no free port")


def test_the_recipe_has_a_token_and_no_fixed_port() -> None:
    recipe = the_block("bash", "#SBATCH").text
    assert "RAY_AUTH_MODE=token" in recipe
    assert recipe.index("RAY_AUTH_TOKEN=$(") < recipe.index("ray start")
    assert re.search(r"--port \$port\b", recipe)
    assert not re.search(r"--port \d|:\d{4}", recipe)


@pytest.mark.slow
def test_the_job_array(place: Path) -> None:
    """Three tasks at once, as separate processes in one folder: every cell is made once."""
    (place / "array.slurm").write_text(the_block("bash", '--out "$2" --jobs 1').text)
    command = ["bash", "array.slurm", "sweep.yaml", "shared"]
    with ThreadPoolExecutor(3) as pool:
        ended = list(pool.map(lambda _: in_a_group(command, told(place)), range(3)))
    assert [code for code, _, _ in ended] == [0, 0, 0], ended
    assert all("4 of 4 cells done" in out for _, out, _ in ended)
    hashes = [json.loads(line)["hash"] for line in (place / "shared" / "records.jsonl").read_text().splitlines()]
    assert len(hashes) == len(set(hashes)) == 4


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


def test_the_step_of_the_other_nodes_asks_for_their_cores() -> None:
    """Since Slurm 22.05 `srun` no longer takes `--cpus-per-task` from the job: Ray would share out cores it has not."""
    recipe = the_block("bash", "#SBATCH").text.replace("\\\n", " ")
    step = next(line for line in recipe.splitlines() if line.strip().startswith("srun "))
    assert re.search(r"--cpus-per-task[ =]\$SLURM_CPUS_PER_TASK\b.* ray start ", step)
