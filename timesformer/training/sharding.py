"""A model shared by several processes (FSDP): each holds a part of every parameter, gradient and optimiser state.

accelerate starts the processes and knows their devices; its own FSDP refuses CPUs, so the parts are made by torch's
`fully_shard`, which is what it calls too, in the same way on CPUs and GPUs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

Strategy = Literal["ddp", "fsdp"]


def shard(model: nn.Module, device: torch.device, processes: int) -> None:
    """Shares the parameters of `model` in place: those of each block of a list of modules, then the rest.

    All processes have the same values before.  Afterwards parameters are other objects (`DTensor`) of the same names.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (processes,))
    blocks = [
        block
        for module in model.modules()
        if isinstance(module, nn.ModuleList)
        for block in module
        if not any(isinstance(inner, nn.ModuleList) for inner in block.modules())
    ]
    for block in (*blocks, model):
        fully_shard(block, mesh=mesh)


@contextmanager
def exchanging(model: nn.Module, exchange: bool) -> Iterator[None]:
    """Whether the backward pass inside exchanges gradients, or adds them up for a later one."""
    sharded: Any = model
    sharded.set_requires_gradient_sync(exchange)
    yield


def gathered(value: Tensor) -> Tensor:
    """The whole of a shared tensor, to be called by all processes; any other tensor as it is."""
    whole = getattr(value, "full_tensor", None)
    return value if whole is None else whole()


def part_of(whole: Tensor, like: Tensor) -> Tensor:
    """`whole` shared as `like` is; as it is if that is not shared."""
    mesh = getattr(like, "device_mesh", None)
    if mesh is None:
        return whole
    from torch.distributed.tensor import distribute_tensor

    shared: Any = like
    return distribute_tensor(whole, mesh, shared.placements)
