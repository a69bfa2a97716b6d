"""Shared set-up: small thread counts, helpers importable as `tests.…`, Triton's interpreter where there is no GPU, and
the check that a test that starts processes is marked."""

import os
import sys
from collections.abc import Generator
from pathlib import Path

import matplotlib as mpl
import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before any kernel is imported

sys.path.insert(0, str(Path(__file__).parents[1]))

mpl.use("Agg")
torch.set_num_threads(1)


def pytest_configure() -> None:
    from tests import processes  # which the path above makes findable

    processes.watch()


def _checked(item: pytest.Item) -> Generator[None, None, None]:
    """Around a phase of a test: fails it if processes were started that its markers do not announce."""
    from tests import processes

    processes.started.clear()
    yield
    if processes.started and not any(item.get_closest_marker(name) for name in ("integration", "slow")):
        pytest.fail(f"starts processes ({', '.join(processes.started)}): mark it `integration`", pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    yield from _checked(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    yield from _checked(item)
