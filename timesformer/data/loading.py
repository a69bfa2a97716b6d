"""Loading of batches in an order that can be resumed at any point."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from timesformer.errors import InputError
from timesformer.seeding import epoch_order

READ_AHEAD = 2
"""Number of batches that each worker prefetches."""

Collate = Callable[[list[Any]], dict[str, Any]]


class SampleStream(Sampler[list[tuple[int, int]]]):
    """Sampler of batches of keys (epoch, index), from batch `start` to `end` (excluded), across epochs.

    Every epoch visits all samples once, in an order keyed by (seed, epoch).  Process `rank` of `world` gets an equal
    share of each batch of `size` samples.

    Raises:
        InputError: there are no samples, or `size` is not divisible by `world`.
    """

    def __init__(
        self, num_samples: int, seed: int, size: int, start: int, end: int, rank: int = 0, world: int = 1
    ) -> None:
        if num_samples < 1:
            raise InputError("training set: expected at least one sample, got none")
        if size % world:
            raise InputError(f"batch_size / accumulate: {size} clips cannot be split equally among {world} processes")
        self.num_samples, self.seed, self.size, self.start, self.end = num_samples, seed, size, start, end
        self.rank, self.world = rank, world

    def __len__(self) -> int:
        return self.end - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        share = self.size // self.world
        known_epoch, order = -1, torch.empty(0, dtype=torch.int64)
        for batch in range(self.start, self.end):
            first = batch * self.size + self.rank * share
            keys = []
            for position in range(first, first + share):
                epoch, place = divmod(position, self.num_samples)
                if epoch != known_epoch:
                    known_epoch, order = epoch, epoch_order(self.seed, epoch, self.num_samples)
                keys.append((epoch, int(order[place])))
            yield keys


class _Guarded(Dataset[Any]):
    """Dataset of collated batches that returns an InputError as a value.

    An exception that leaves a loader's worker is re-raised with a traceback as its message; a value arrives unchanged.
    """

    def __init__(self, dataset: Dataset[Any], collate: Collate) -> None:
        self.dataset, self.collate = dataset, collate

    def __getitems__(self, keys: Sequence[Any]) -> dict[str, Any] | InputError:
        try:
            whole = getattr(self.dataset, "__getitems__", None)
            return self.collate(whole(keys) if whole is not None else [self.dataset[key] for key in keys])
        except InputError as error:
            return error


def batches(
    dataset: Dataset[Any], keys: Sampler[Any], collate: Collate, workers: int = 0, pin_memory: bool = False
) -> Iterator[dict[str, Any]]:
    """Load the collated batches of the lists of keys in `keys` with `workers` processes (0: in this process).

    Workers live until `keys` is exhausted, across epochs, and prefetch.  The batches are bitwise the same, in the same
    order, for any number of workers.

    Raises:
        InputError: raised by the dataset, for example for a video that cannot be read.
    """
    loader = DataLoader(
        _Guarded(dataset, collate),
        batch_sampler=keys,
        collate_fn=_same,
        num_workers=workers,
        prefetch_factor=READ_AHEAD if workers else None,
        pin_memory=pin_memory,
    )
    for batch in loader:
        if isinstance(batch, InputError):
            raise batch
        yield batch


def _same(batch: Any) -> Any:
    return batch
