"""Weights other than those of the last step: their moving average, and those of the best validation."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from timesformer.training.state import model_tensors

Tensors = dict[str, Tensor]


def decay_of(step: int, decay: float) -> float:
    """The decay of the moving average at step 1, 2, …: it rises to `decay`, so that the first weights are forgotten."""
    return min(decay, (1 + step) / (10 + step))


def copied(model: nn.Module) -> Tensors:
    """Copies of the model's parameters and persistent buffers, by name."""
    return {name: value.detach().clone() for name, value in model_tensors(model).items()}


@torch.no_grad()
def average_in(average: Tensors, model: nn.Module, step: int, decay: float) -> None:
    """Move the average towards the weights after `step` (1, 2, …), in place; counters are copied."""
    current = {name: value.detach() for name, value in model_tensors(model).items()}
    smooth = [name for name, value in current.items() if value.is_floating_point()]
    move = get_ema_multi_avg_fn(decay_of(step, decay))
    move([average[name] for name in smooth], [current[name] for name in smooth], step)
    for name in current.keys() - set(smooth):
        average[name].copy_(current[name])


@torch.no_grad()
def put(tensors: Tensors, model: nn.Module) -> None:
    """Copy tensors into the model's, by name."""
    for name, value in model_tensors(model).items():
        value.copy_(tensors[name])


@contextmanager
def holding(tensors: Tensors, model: nn.Module) -> Iterator[None]:
    """Let the model hold these tensors inside the context; empty: its own."""
    own = copied(model) if tensors else {}
    if tensors:
        put(tensors, model)
    try:
        yield
    finally:
        if own:
            put(own, model)
