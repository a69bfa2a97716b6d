"""Choice between the kernels and PyTorch attention: what the kernels serve, and by measurement or rule what pays."""

import csv
from collections.abc import Sequence
from functools import lru_cache
from importlib import resources

import torch
from torch import Tensor

from timesformer_kernels.device import interpreted, why_unusable
from timesformer_kernels.grouped import unserved
from timesformer_kernels.layout import Tile

MEASURED = "measured.csv"
"""File beside this one, from `timesformer bench`: gpu, dtype, group_length, kernels_ms, other_ms (forward and
backward)."""

RULE_LENGTH = 32
"""Longest group, in tokens, that the kernels serve on a GPU without a measurement.  For such groups PyTorch's kernels
pad each sequence to a tile of 64 or 128 rows, while several sequences share one tile of ours."""

Known = tuple[tuple[int, bool], ...]
"""Measured group lengths, in tokens, and whether the kernels were faster there."""


def prefers_kernels(qkv: Tensor, cls_qkv: Tensor | None, tiles: Sequence[Tile]) -> bool:
    """Return True if `backend="auto"` takes the kernels for these inputs of `grouped_attention`.

    It never does in the interpreter, which is slow, nor in fp32, nor for what the kernels do not serve.
    """
    if qkv.device.type != "cuda" or qkv.dtype not in (torch.float16, torch.bfloat16):
        return False
    known = known_on(qkv.device, qkv.dtype)
    if known is None or unserved(qkv, cls_qkv, tiles) is not None:
        return False
    return decide(known, max(tile.group_size for tile in tiles))


def known_on(device: torch.device, dtype: torch.dtype) -> Known | None:
    """Return what was measured on this GPU in this dtype, or None if the kernels cannot run there.

    For torch.compile it is a constant: it reads a file and asks the driver.
    """
    if interpreted() or why_unusable(device) is not None:
        return None
    return measurements().get((torch.cuda.get_device_name(device), str(dtype).removeprefix("torch.")), ())


# What torch.compiler.assume_constant_result sets; calling it would import all of torch._dynamo with this package.
known_on._dynamo_marked_constant = True  # type: ignore[attr-defined]


def decide(known: Known, group_length: int) -> bool:
    """Decide by the measurement whose length is nearest as a ratio, or by the rule where there is none."""
    if not known:
        return group_length <= RULE_LENGTH
    return min(known, key=lambda row: max(row[0], group_length) / min(row[0], group_length))[1]


@lru_cache(maxsize=1)
def measurements() -> dict[tuple[str, str], Known]:
    """Return the committed table, by GPU and dtype."""
    return read(resources.files("timesformer_kernels").joinpath(MEASURED).read_text(encoding="utf-8"))


def read(text: str) -> dict[tuple[str, str], Known]:
    """Return a table from the text of its file."""
    found: dict[tuple[str, str], Known] = {}
    for row in csv.DictReader(text.splitlines()):
        faster = float(row["kernels_ms"]) < float(row["other_ms"])
        where = row["gpu"], row["dtype"]
        found[where] = (*found.get(where, ()), (int(row["group_length"]), faster))
    return found
