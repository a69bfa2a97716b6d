"""A call that stays outside the graphs of `torch.compile`; importing this module imports torch._dynamo."""

from collections.abc import Callable
from typing import Any

import torch


@torch.compiler.disable
def outside_graphs(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function returns, which is called without being traced."""
    return function(*arguments)
