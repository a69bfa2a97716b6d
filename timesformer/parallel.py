"""Processes and threads: calls in several processes, and how many of a machine a run takes."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

import torch

Found = TypeVar("Found")
FEWEST_LOADERS, MOST_LOADERS = 2, 8
"""Processes that read videos for a GPU, where their number is chosen from the machine."""


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def threads_of(jobs: int) -> int:
    """Return torch's threads for each of `jobs` runs at a time: OMP_NUM_THREADS where it is set, else their share."""
    stated = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if stated.isdecimal() and int(stated) > 0:
        return int(stated)
    return max(1, cores() // max(1, jobs))


def loaders(workers: int | None, device: torch.device | str, processes: int = 1) -> int:
    """Return the number of processes that read videos for a run on `device`.

    That is `workers` where it is stated.  Else on a GPU as many as torch has threads for each of the run's processes, 2
    to 8, so that decoding does not wait for training; on a CPU none, for training uses the cores itself.
    """
    if workers is not None:
        return workers
    if torch.device(device).type == "cpu":
        return 0
    return min(MOST_LOADERS, max(FEWEST_LOADERS, torch.get_num_threads() // max(1, processes)))


def side_by_side(do: Callable[..., Found], arguments: Sequence[tuple[Any, ...]], jobs: int) -> list[Found]:
    """Return `do(*each)` for each of `arguments`, in their order, computed by `jobs` processes of one thread each.

    With one job or one call, no process is started.  `do` and its arguments must be picklable.  The first error is
    raised.
    """
    jobs = min(jobs, len(arguments))
    if jobs < 2:
        return [do(*each) for each in arguments]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        tasks = [pool.submit(do, *each) for each in arguments]
        try:
            return [task.result() for task in tasks]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
