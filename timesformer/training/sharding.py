"""Sharding of a model over several processes (FSDP).

Each process holds a part of every parameter, gradient and optimiser state.  accelerate starts the processes and knows
their devices.  Its own FSDP rejects CPUs, so this module calls torch's `fully_shard` itself, in the same way on CPUs
and GPUs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

Strategy = Literal["ddp", "fsdp"]


def shard(model: nn.Module, device: torch.device, processes: int) -> None:
    """Shard the parameters of `model` in place: those of each block in a list of modules, then the rest.

    All processes must hold the same values.  Sharding replaces the parameters by `DTensor` objects of the same names.
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
    """Exchange gradients in backward passes inside this context, or only accumulate them if `exchange` is False."""
    sharded: Any = model
    sharded.set_requires_gradient_sync(exchange)
    yield


def gathered(value: Tensor) -> Tensor:
    """Gather a sharded tensor; return any other tensor unchanged.  All processes must call this."""
    whole = getattr(value, "full_tensor", None)
    return value if whole is None else whole()


def part_of(whole: Tensor, like: Tensor) -> Tensor:
    """Shard `whole` as `like` is; return it unchanged if `like` is not sharded."""
    mesh = getattr(like, "device_mesh", None)
    if mesh is None:
        return whole
    from torch.distributed.tensor import distribute_tensor

    shared: Any = like
    return distribute_tensor(whole, mesh, shared.placements)
