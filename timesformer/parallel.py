"""Calls of one function with many arguments, in several processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

import torch

Found = TypeVar("Found")


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
