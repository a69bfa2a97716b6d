"""Sweeps of tiny runs."""

import copy
import subprocess
import sys
from pathlib import Path

import yaml
from typer.testing import CliRunner

from tests.experiments.spec_fakes import SIZES, fields
from timesformer_experiments.cli.main import app
from timesformer_experiments.jobs.workers import InTurn, Places
from timesformer_experiments.sweep import carry_out

BASE = {key: value for key, value in fields().items() if key != "name"} | {"model": dict(SIZES)}
TINY = {
    "name": "tiny",
    "base": BASE,
    "axes": {"model.attention": ["divided", "joint"], "model.num_frames": [2, 4]},
}
COST = {
    "name": "cost",
    "base": {"model": dict(SIZES)},
    "axes": {"model.attention": ["divided", "joint"], "model.num_frames": [2, 4]},
    "measure": ["params", "macs"],
}
STEADY = ("top1_percent", "top5_percent", "train_loss", "train_top1_percent", "params", "test_videos")
"""Metrics that do not depend on the machine's speed."""


def changed(sweep=TINY, **fields):
    """A sweep's fields with others."""
    return copy.deepcopy(sweep) | fields


def write(folder: Path, sweep=TINY, name="sweep.yaml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(yaml.safe_dump(sweep, sort_keys=False))
    return path


def run(*words):
    """A `timesformer` command in this process."""
    return CliRunner().invoke(app, [str(word) for word in words])


def places(out, data):
    """The options for the folders of a sweep."""
    return ["--out", out, "--data-dir", data]


def in_this_process(monkeypatch):
    """Sweeps carry out their runs here, one after the other."""
    monkeypatch.setattr(
        carry_out,
        "_pool",
        lambda opened, jobs, gpus, ray, on_step, say: InTurn(
            Places(opened.plan.runs_dir, opened.plan.data_dir, 1, opened.plan.since), on_step
        ),
    )


def start(*words, **options) -> "subprocess.Popen[str]":
    """A `timesformer` command in a process of its own."""
    command = [sys.executable, "-m", "timesformer_experiments.cli.main", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def finish(process, seconds=600):
    """Exit code, standard output and standard error; a process that takes longer is ended."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, out, err


def table(records):
    """What two sweeps are compared by: cell -> metrics."""
    return {
        tuple(sorted(record["cell"].items())): {name: record["metrics"].get(name) for name in STEADY}
        for record in records
        if record.get("cell") is not None and record["outcome"] == "done"
    }


def children(process: int) -> list[int]:
    """Processes that were started by one, and theirs."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(status.parent.name)] = int(fields[1])
    found = [pid for pid, parent in parents.items() if parent == process]
    return found + [inner for pid in found for inner in children(pid)]
