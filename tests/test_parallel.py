"""How many threads and processes a run takes of a machine."""

import pytest
import torch

from timesformer import parallel


def test_threads_are_the_share_of_a_run_unless_they_are_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "cores", lambda: 8)
    for stated, expected in (("3", 3), ("3,2", 3), ("", 4), ("many", 4), ("0", 4)):
        monkeypatch.setenv("OMP_NUM_THREADS", stated)
        assert parallel.threads_of(2) == expected
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert [parallel.threads_of(jobs) for jobs in (1, 3, 8, 20)] == [8, 2, 1, 1]


@pytest.mark.parametrize(
    ("threads", "processes", "expected"), [(1, 1, 2), (6, 1, 6), (64, 1, 8), (16, 4, 4), (4, 4, 2)]
)
def test_a_gpu_does_not_wait_for_decoding(
    monkeypatch: pytest.MonkeyPatch, threads: int, processes: int, expected: int
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert parallel.loaders(None, "cuda", processes) == expected
    assert parallel.loaders(None, torch.device("cuda", 1), processes) == expected
    assert parallel.loaders(None, "cpu", processes) == 0
    assert parallel.loaders(0, "cuda", processes) == 0
    assert parallel.loaders(3, "cpu", processes) == 3


def test_cores_are_those_that_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel.os, "sched_getaffinity", lambda _: {0, 5, 7}, raising=False)
    assert parallel.cores() == 3
    monkeypatch.delattr(parallel.os, "sched_getaffinity")
    monkeypatch.setattr(parallel.os, "cpu_count", lambda: None)
    assert parallel.cores() == 1
