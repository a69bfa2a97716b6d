"""Batches by worker processes: the same as without, read ahead, workers kept across epochs."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

from timesformer import InputError
from timesformer.data.loading import READ_AHEAD, SampleStream, batches


class Noted(Dataset[Any]):
    """Samples that note who read them and when, as files in a folder."""

    def __init__(self, folder: Path, bad: int = -1) -> None:
        self.folder, self.bad = folder, bad

    def __getitems__(self, keys: list[tuple[int, int]]) -> list[dict[str, int]]:
        for epoch, index in keys:
            if index == self.bad:
                raise InputError(f"sample {index} cannot be read")
            (self.folder / f"{epoch}-{index}").touch()
        return [{"epoch": epoch, "index": index, "process": os.getpid()} for epoch, index in keys]


def gather(samples: list[dict[str, int]]) -> dict[str, Any]:
    return {name: torch.tensor([sample[name] for sample in samples]) for name in samples[0]}


def stream(start: int = 0, end: int = 8) -> SampleStream:
    return SampleStream(num_samples=10, seed=3, size=4, start=start, end=end)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_order_does_not_depend_on_workers_or_where_the_stream_is_entered(tmp_path: Path, workers: int) -> None:
    expected = [batch["index"].tolist() for batch in batches(Noted(tmp_path), stream(), gather)]
    found = [batch["index"].tolist() for batch in batches(Noted(tmp_path), stream(), gather, workers)]
    assert found == expected
    assert [b["index"].tolist() for b in batches(Noted(tmp_path), stream(5), gather, workers)] == expected[5:]


def test_a_worker_reads_ahead_and_stays_across_epochs(tmp_path: Path) -> None:
    loaded = batches(Noted(tmp_path), stream(), gather, workers=1)
    first = next(loaded)
    for _ in range(200):  # what is under way while the first batch is in use
        if len(list(tmp_path.iterdir())) >= 4 * (1 + READ_AHEAD):
            break
        time.sleep(0.05)
    assert len(list(tmp_path.iterdir())) == 4 * (1 + READ_AHEAD)
    rest = list(loaded)
    processes = torch.cat([first["process"], *(batch["process"] for batch in rest)]).unique()
    assert len(processes) == 1
    assert int(processes[0]) != os.getpid()
    assert {int(epoch) for batch in rest for epoch in batch["epoch"]} == {0, 1, 2, 3}


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_arrives_as_it_is(tmp_path: Path, workers: int) -> None:
    with pytest.raises(InputError, match=r"^sample 7 cannot be read$"):
        list(batches(Noted(tmp_path, bad=7), stream(), gather, workers))
