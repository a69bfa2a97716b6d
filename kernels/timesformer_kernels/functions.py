"""Functions for autograd, torch.compile and torch.func, made from an operator and its backward pass."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Rule = Callable[..., tuple[tuple[Tensor, ...], tuple[int, ...]]]


def differentiable(op: Any, setup_context: Callable[..., None], backward: Callable[..., Any]) -> Callable[..., Any]:
    """Register the backward pass of `op` and return the function to call."""
    op.register_autograd(backward, setup_context=setup_context)
    return _for_transforms(op, setup_context, backward)


def last(op: Any) -> Callable[..., Any]:
    """Return the function to call for an operator without a backward pass; a second derivative raises RuntimeError."""

    def refuse(ctx: Any, *gradients: Tensor) -> None:
        raise RuntimeError(f"{op._qualname} has no backward pass: no second derivatives")

    return _for_transforms(op, lambda ctx, inputs, output: None, refuse)


def _for_transforms(op: Any, setup_context: Callable[..., None], backward: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that calls the operator, or does the same without it where nobody sees the difference.

    torch.func rejects the autograd formula that an operator registers, but accepts a `torch.autograd.Function` with the
    same parts; that one is used while a transform is active.  torch.compile always sees the operator.  So does whoever
    listens to operators; in all other calls PyTorch's dispatch, in Python, would cost more than the rest of the call.
    """
    body = op._init_fn

    def function(forward: Callable[..., Any]) -> Any:
        members = {
            "generate_vmap_rule": True,
            "forward": staticmethod(forward),
            "setup_context": staticmethod(setup_context),
            "backward": staticmethod(backward),
        }
        return type(f"{op._name}_function", (torch.autograd.Function,), members)

    transformed, plain = function(lambda *arguments: op(*arguments)), function(body)

    def call(*arguments: Any) -> Any:
        if torch.compiler.is_compiling():
            return op(*arguments)
        if torch._C._are_functorch_transforms_active():
            return transformed.apply(*arguments)
        tensors = [x for x in arguments if isinstance(x, Tensor)]
        if overheard(tensors):
            return op(*arguments)
        if torch.is_grad_enabled() and any(x.requires_grad for x in tensors):
            return plain.apply(*arguments)
        return body(*arguments)

    return call


def overheard(tensors: list[Tensor]) -> bool:
    """Return True if somebody listens to calls of operators: a mode, a tracer, a profiler, or the tensors themselves.

    Such are FLOP counters, fake and meta tensors, `torch.jit.trace`, `torch.profiler` and subclasses of Tensor.
    """
    return (
        torch._C._len_torch_dispatch_stack() > 0
        or torch._C._get_tracing_state() is not None
        or torch.autograd._profiler_enabled()
        or any(type(x) not in (Tensor, torch.nn.Parameter) or x.is_meta for x in tensors)
    )


def folded(op: Any) -> Rule:
    """vmap rule for an operator whose tensors all begin with the batch: the mapped dimension joins the batch."""

    def rule(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        given = [_mapped(x, dim, info.batch_size) for x, dim in zip(arguments, in_dims, strict=True)]
        outputs = op(*(x.flatten(0, 1) if isinstance(x, Tensor) else x for x in given))
        sizes = [(info.batch_size, x.shape[0] // info.batch_size) for x in outputs]
        return tuple(x.unflatten(0, size) for x, size in zip(outputs, sizes, strict=True)), (0,) * len(outputs)

    return rule


def looped(op: Any) -> Rule:
    """vmap rule for an operator with weights: one call for each element of the mapped dimension."""

    def rule(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        given = [_mapped(x, dim, info.batch_size) for x, dim in zip(arguments, in_dims, strict=True)]
        calls = [op(*(x[i] if isinstance(x, Tensor) else x for x in given)) for i in range(info.batch_size)]
        outputs = tuple(torch.stack(parts) for parts in zip(*calls, strict=True))
        return outputs, (0,) * len(outputs)

    return rule


def _mapped(x: Any, dim: int | None, size: int) -> Any:
    """Move the mapped dimension of a tensor to the front, or expand a tensor that has none."""
    if not isinstance(x, Tensor):
        return x
    return x.expand(size, *x.shape) if dim is None else x.movedim(dim, 0)
