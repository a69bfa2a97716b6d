"""Worker processes: slots, GPUs, and what a worker is told."""

import os

import pytest
import torch

from tests.experiments.spec_fakes import small
from timesformer_experiments.jobs import workers
from timesformer_experiments.jobs.workers import Places, Workers, outcome, visible_gpus
from timesformer_experiments.records.folder import Busy
from timesformer_experiments.run import processes
from timesformer_experiments.specs.job import Job


class Process:
    """A worker process that does nothing; remembers what it saw of the GPUs."""

    def __init__(self, **kwargs):
        self.exitcode, self.ended, self.seen = 0, False, None

    def start(self):
        self.seen = os.environ.get("CUDA_VISIBLE_DEVICES")

    def terminate(self):
        self.ended = True

    def join(self):
        pass


@pytest.fixture
def started(monkeypatch):
    """Worker processes that were started."""
    found = []

    class Context:
        def Pipe(self):
            import multiprocessing

            return multiprocessing.Pipe()

        def Process(self, **kwargs):
            found.append(Process())
            return found[-1]

    monkeypatch.setattr(processes.multiprocessing, "get_context", lambda how: Context())
    return found


def pool(tmp_path, slots, gpus=()):
    return Workers(Places(tmp_path, tmp_path, 1, 0), lambda *step: None, slots, gpus)


def release(pool, key):
    (worker,) = (worker for worker in pool.workers if worker.key == key)
    pool._release(worker)


def test_each_gpu_has_a_worker_and_a_run_may_have_several(tmp_path, started, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    one, two = Job(small()), Job(small(processes=2))
    made = pool(tmp_path, 2, ("3", "5"))
    made.submit("a", one)
    assert made.room(one)
    assert not made.room(two)
    made.submit("b", one)
    assert not made.room(one)
    assert [process.seen for process in started] == ["3", "5"]
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    release(made, "a")
    made.submit("c", one)  # the same worker again
    assert len(started) == 2
    release(made, "b")
    release(made, "c")
    assert made.room(two)
    made.submit("d", two)
    assert set(started[-1].seen.split(",")) == {"3", "5"}
    assert [process.ended for process in started] == [True, True, False]
    made.close()
    assert made.workers == []
    assert started[-1].ended


def test_on_cpus_processes_take_slots(tmp_path, started, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    made = pool(tmp_path, 2)
    made.submit("a", Job(small(processes=4)))  # more than there are: all of them
    assert not made.room(Job(small()))
    release(made, "a")
    assert made.room(Job(small(processes=2)))
    assert made.events(0) == []  # nobody is at work
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    made.close()


def test_a_worker_that_died_before_it_was_asked(tmp_path, started):
    made = pool(tmp_path, 1)
    made.submit("a", Job(small()))
    worker = made.workers[0]
    release(made, "a")
    worker.child.connection.close()
    made.submit("b", Job(small()))
    (worker,) = made.workers
    worker.child.process.exitcode = -9
    event = made._receive(worker)
    assert (event.key, event.kind, event.value[1]) == ("b", "died", "killed")
    assert made.workers == []
    assert made.room(Job(small()))


def test_names_of_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, 7,9")
    assert visible_gpus() == ("4", "7")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert visible_gpus() == ("0", "1")


def test_a_busy_run_is_an_event(tmp_path, monkeypatch):
    def busy(*args, **kwargs):
        raise Busy("another")

    monkeypatch.setattr(workers, "attempt", busy)
    assert outcome(Job(small()), Places(tmp_path, tmp_path, 1, 0), lambda *step: None) == ("busy", None)
