"""One run on several processes is the run of one, within rounding."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from tests.experiments.spec_fakes import SIZES, small
from timesformer.checkpoints import load_model
from timesformer.errors import InputError
from timesformer.training.loop import fit
from timesformer.training.state import FILE
from timesformer_experiments.records.folder import RunFolder
from timesformer_experiments.run import distributed
from timesformer_experiments.run.distributed import train_in_processes
from timesformer_experiments.run.failures import Failed, kind_of
from timesformer_experiments.run.identity import Identities
from timesformer_experiments.run.inputs import datasets, initial_model
from timesformer_experiments.run.processes import Child
from timesformer_experiments.run.train import run_one

RECIPE = {"steps": 12, "batch_size": 8, "accumulate": 2, "lr": 3e-3, "clip_grad_norm": 1.0, "checkpoint_every": 5}
MODEL = {"attention": "divided_st", "num_frames": 2, **SIZES, "depth": 2}  # has parameters without a gradient


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def curve(folder, spec):
    return pd.read_parquet(folder / spec.hash() / "curve.parquet")


def weights(folder, spec):
    return load_file(folder / spec.hash() / "model" / "model.safetensors")


def close(a, b, rounding):
    """Equal but for the order of sums: relative to the largest value of each tensor."""
    assert a.keys() == b.keys()
    for name, value in a.items():
        torch.testing.assert_close(value, b[name], rtol=0, atol=rounding * max(1e-3, float(value.abs().max())))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_give_the_loss_curve_of_one(data, tmp_path, strategy):
    one = small(model=MODEL, recipe=RECIPE)
    two = small(model=MODEL, recipe=RECIPE, processes=2, strategy=strategy, tracker="tensorboard")
    first = run_one(one, tmp_path / "one", data_dir=data, progress=False)
    second = run_one(two, tmp_path / "two", data_dir=data, progress=False)
    assert (first["environment"]["processes"], second["environment"]["processes"]) == (1, 2)
    losses = [curve(tmp_path / name, one).loss.to_numpy() for name in ("one", "two")]
    assert len(losses[0]) == 12
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
    assert abs(losses[0][0] - losses[0][-1]) > 1e-2  # it has learnt something meanwhile
    close(weights(tmp_path / "one", one), weights(tmp_path / "two", one), 1e-2)
    assert load_model(tmp_path / "two" / one.hash() / "model").model.config == one.model
    assert list((tmp_path / "two" / one.hash() / "tracker").rglob("events.out.*"))


@pytest.mark.slow
def test_one_step_of_fsdp_is_one_step_and_its_checkpoint_loads_anywhere(data, tmp_path):
    recipe = RECIPE | {"steps": 1, "optimiser": "sgd", "momentum": 0.9, "schedule": "constant"}
    one, two = (small(model=MODEL, recipe=recipe, processes=n, strategy="fsdp") for n in (1, 2))
    for spec in (one, two):
        folder = tmp_path / str(spec.processes)
        if spec.processes == 2:
            train_in_processes(spec, RunFolder(tmp_path, folder.name), data)
        else:
            train_here(spec, folder, data)
    states = [load_file(tmp_path / name / "checkpoint" / FILE) for name in ("1", "2")]
    assert any(name.startswith("optimiser.") for name in states[0])
    close(*states, 1e-4)
    # One process goes on from it, and two go on from what one has left.
    steps = []
    result = train_here(two, tmp_path / "2", data)
    assert result.resumed_from == 1 == len(result.losses)
    train_in_processes(two, RunFolder(tmp_path, "1"), data, lambda *step: steps.append(step))
    assert steps == []  # it was finished


@pytest.mark.slow
def test_processes_resume_from_what_one_has_left(data, tmp_path):
    spec = small(model=MODEL, recipe=RECIPE, processes=2, strategy="fsdp")
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    train_here(spec, whole, data)
    with pytest.raises(KeyboardInterrupt):
        train_here(spec, halves, data, stop_at=10)
    steps = []
    train_in_processes(spec, RunFolder(tmp_path, "halves"), data, lambda *step: steps.append(step[:2]))
    assert steps == [(10, 12), (12, 12)]
    close(load_file(whole / "checkpoint" / FILE), load_file(halves / "checkpoint" / FILE), 1e-2)


def train_here(spec, folder, data, stop_at=None):
    """The same run on this process alone."""
    train, _, labels = datasets(spec, data)
    model, _, _ = initial_model(spec, folder, labels)

    def on_step(done, total, loss):
        if done == stop_at:
            raise KeyboardInterrupt

    videos = Identities(data).of(spec).train
    return fit(model, train, spec.recipe, folder / "checkpoint", progress=on_step, videos=videos)


FAULTS = {
    "os.kill(os.getpid(), 9)": ("killed", "signal SIGKILL"),
    "raise MemoryError('no room')": ("out_of_memory", "MemoryError: no room"),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_one_process_that_fails_ends_the_others(data, tmp_path, fault):
    scheme = tmp_path / "scheme.py"
    scheme.write_text(f"import os\nSCHEMES = []\nif os.environ.get('RANK') == '1':\n    {fault}\n")
    spec = small(processes=2, scheme_file=str(scheme))
    kind, reason = FAULTS[fault]
    with pytest.raises(Failed, match=reason) as caught:
        train_in_processes(spec, RunFolder(tmp_path, "run"), data)
    assert kind_of(caught.value) == kind


class Rank:
    """A process that has said something, or died."""

    def __init__(self, *messages, exitcode=None):
        self.exitcode = exitcode
        self.ours, theirs = multiprocessing.Pipe()
        for message in messages:
            theirs.send(message)
        if exitcode is not None:
            theirs.close()
        self.theirs = theirs

    def join(self):
        pass


def follow(*ranks):
    steps = []
    distributed._follow([Child(rank, rank.ours, 0) for rank in ranks], lambda *step: steps.append(step))
    return steps


def test_processes_are_followed_until_all_are_done():
    step = ("step", (1, 2, 0.5))
    assert follow(Rank(step, ("done", None)), Rank(("done", None))) == [(1, 2, 0.5)]


def test_the_first_cause_is_told_not_the_lost_peer(monkeypatch):
    monkeypatch.setattr(distributed, "SETTLE_SECONDS", 0.05)
    peer = ("failed", Failed("RuntimeError: Connection closed by peer", "error"))
    with pytest.raises(Failed, match="signal SIGKILL"):
        follow(Rank(peer), Rank(exitcode=-9))
    with pytest.raises(Failed, match="the loss"):
        follow(Rank(peer), Rank(("failed", Failed("the loss of step 3", "diverged"))))
    with pytest.raises(Failed, match="Connection closed"):
        follow(Rank(peer), Rank())  # the other hangs


def test_more_processes_than_gpus(data, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InputError, match="processes: expected at most 1, the number of GPUs here, got 2"):
        train_in_processes(small(processes=2), RunFolder(tmp_path, "run"), data)


@pytest.mark.integration
def test_a_process_ends_with_its_parent(tmp_path):
    """However the parent ends; `before` is called first."""
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing, os, sys, time\n"
        "from timesformer_experiments.run.processes import end_with_parent\n"
        "def child(path):\n"
        "    end_with_parent(lambda: open(path, 'w').write('gone'))\n"
        "    open(path + '.ready', 'w').close()\n"
        "    time.sleep(600)\n"
        "if __name__ == '__main__':\n"
        "    end_with_parent()  # it has none: nothing happens\n"
        "    process = multiprocessing.get_context('spawn').Process(target=child, args=(sys.argv[1],))\n"
        "    process.start()\n"
        "    while not os.path.exists(sys.argv[1] + '.ready'):\n"
        "        time.sleep(0.05)\n"
        "    print(process.pid, flush=True)\n"
        "    time.sleep(600)\n"
    )
    note = tmp_path / "note"
    with subprocess.Popen([sys.executable, str(script), str(note)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
        parent.wait(60)
    for _ in range(600):
        try:
            with open(f"/proc/{child}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    break
        except FileNotFoundError:
            break
        time.sleep(0.1)
    else:
        os.kill(child, signal.SIGKILL)
        pytest.fail("the child lives on")
    assert note.read_text() == "gone"
