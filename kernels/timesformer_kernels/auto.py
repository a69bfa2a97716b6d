"""Choice between the kernels and PyTorch attention by group length: by measurement where there is one, else by rule."""

import csv
from functools import lru_cache
from importlib import resources

import torch

from timesformer_kernels.device import interpreted, why_unusable

MEASURED = "measured.csv"
"""File beside this one, from `timesformer bench`: gpu, dtype, group_length, kernels_ms, other_ms (forward and
backward)."""

RULE_LENGTH = 32
"""Longest group, in tokens, that the kernels serve on a GPU without a measurement.  For such groups PyTorch's kernels
pad each sequence to a tile of 64 or 128 rows, while several sequences share one tile of ours."""


def prefers_kernels(device: torch.device, dtype: torch.dtype, group_length: int) -> bool:
    """Return True if `backend="auto"` takes the kernels for groups of this length.

    It never does in the interpreter, which is slow, nor in fp32.
    """
    if device.type != "cuda" or interpreted() or dtype not in (torch.float16, torch.bfloat16):
        return False
    if why_unusable(device) is not None:
        return False
    return decide(measurements(), torch.cuda.get_device_name(device), str(dtype).removeprefix("torch."), group_length)


def decide(table: tuple[dict[str, str], ...], gpu: str, dtype: str, group_length: int) -> bool:
    """Decide by the measurement on this GPU in this dtype whose length is nearest as a ratio, or by the rule."""
    known = [row for row in table if row["gpu"] == gpu and row["dtype"] == dtype]
    if not known:
        return group_length <= RULE_LENGTH

    def distance(row: dict[str, str]) -> float:
        length = int(row["group_length"])
        return max(length, group_length) / min(length, group_length)

    nearest = min(known, key=distance)
    return float(nearest["kernels_ms"]) < float(nearest["other_ms"])


@lru_cache(maxsize=1)
def measurements() -> tuple[dict[str, str], ...]:
    """Rows of the committed table."""
    text = resources.files("timesformer_kernels").joinpath(MEASURED).read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))
