"""Maps that explain one class: gradient-weighted attention, plain input gradients, Grad-CAM on tokens.

Gradient-weighted attention follows Chefer et al. (arXiv 2103.15679): for every step, R becomes R + mean over heads of
(dA * A)+ R, with A the attention of the step and dA its gradient.  No backend has to return its attention: the output
of a step is A v, so dA = g v^T with g the gradient at the output, and both factors come in pieces.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from timesformer.attention.operator import Piece, StepOperator
from timesformer.errors import InputError
from timesformer.heads import heads_of, predict
from timesformer.maps.capture import Call, as_input, evaluating, grid_of, sites, watching
from timesformer.maps.walk import Saliency, Taken, walk_back, watching_pooler
from timesformer.models.blocks import Block
from timesformer.models.timesformer import TimeSformer

Target = int | Sequence[int] | None
"""Column of the logits, or one for each clip; None: the class that the model predicts (with several heads, the sum over
the predicted classes of all heads)."""
RECOMPUTE_BYTES = 1 << 30
"""Memory for activations above which the blocks are computed a second time in the backward pass."""


def relevance(model: TimeSformer, clip: Tensor, target: Target = None) -> Saliency:
    """Compute gradient-weighted attention for the target's logit; see the description of the module.

    clip: (clips, frames, channels, height, width), normalised as for the model

    The rows start at the input of the head, the class token or the mean over tokens.  For a mixer, A is its operator.
    The weights have no fixed sum: they only compare the patches of one clip.

    Raises:
        InputError: a target that the model does not have, or a model fused for inference.
    """
    clip, grid = as_input(model, clip), grid_of(model, clip)
    taken: dict[int, Taken] = {}
    edges: list[GradientEdge] = []
    owners: list[Taken] = []

    def visit(call: Call) -> None:
        if id(call.site.module) in taken:  # computed again for the backward pass
            return
        step = taken[id(call.site.module)] = Taken(call.site, call.qkv, call.specials)
        for mixed in call.mixed:
            edges.append(get_gradient_edge(mixed))
            owners.append(step)

    with (
        _differentiable(model, clip) as given,
        watching(sites(model), visit, outputs=False),
        watching_pooler(model) as read,
    ):
        score = target_score(model, model(given), target)
        found = torch.autograd.grad(score, edges, allow_unused=True)
    for step in taken.values():
        parts = [gradient for gradient, owner in zip(found, owners, strict=True) if owner is step]
        step.gradient = _by_token(parts, step)
    with torch.no_grad():
        weights, on_class = walk_back(model, list(taken.values()), ("class",), grid, len(clip), _cross, read)
    return Saliency("relevance", ("class",), weights.float().cpu().numpy(), on_class.float().cpu().numpy())


def input_gradient(model: TimeSformer, clip: Tensor, target: Target = None) -> Saliency:
    """Compute the gradient of the target's logit with respect to the pixels.

    Its absolute values are summed over the pixels, channels and frames of each token.  Arguments and errors are as for
    `relevance`.
    """
    clip, grid = as_input(model, clip), grid_of(model, clip)
    with _differentiable(model, clip) as given:
        (gradient,) = torch.autograd.grad(target_score(model, model(given), target), given)
    u, p = model.patch_embed.tubelet, model.patch_embed.patch
    size = gradient.abs().sum(2).unflatten(3, (grid[2], p)).unflatten(2, (grid[1], p)).unflatten(1, (grid[0], u))
    return Saliency("input gradient", ("class",), size.sum((2, 4, 6)).unsqueeze(1).float().cpu().numpy())


def grad_cam(model: TimeSformer, clip: Tensor, target: Target = None) -> Saliency:
    """Compute Grad-CAM (arXiv 1610.02391) on the patches that enter the last block of the first encoder.

    These are the last patches that all reach the class token.  Channels are weighted by the mean of their gradient over
    the clip and summed, and negative values are set to 0.  Arguments and errors are as for `relevance`.
    """
    clip, grid = as_input(model, clip), grid_of(model, clip)
    entering: list[Tensor] = []
    block = model.stacks()[0].blocks[-1]
    assert isinstance(block, Block)

    def keep(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        if not entering:  # only the first pass, not the recomputation
            entering.append(args[0])

    with _differentiable(model, clip) as given:
        handle = block.register_forward_pre_hook(keep)
        try:
            score = target_score(model, model(given), target)
            (gradient,) = torch.autograd.grad(score, entering)
        finally:
            handle.remove()
    patches, gradient = (x.detach().reshape(len(clip), *grid, -1) for x in (entering[0], gradient))
    cam = (patches * gradient.mean((1, 2, 3), keepdim=True)).sum(-1).clamp_min(0)
    return Saliency("grad-cam", ("class",), cam.unsqueeze(1).float().cpu().numpy())


def target_columns(model: TimeSformer, logits: Tensor, target: Target) -> Tensor:
    """Return the columns of the logits to explain, (b, n): n is the number of heads if `target` is None, otherwise 1.

    Raises:
        InputError: a column that the logits do not have, or not one column for each clip.
    """
    heads = heads_of(model)
    if target is None:
        best = predict(logits.detach(), heads).view(len(logits), -1)
        return best + torch.tensor([sum(heads[:number]) for number in range(best.shape[1])], device=best.device)
    if isinstance(target, str):
        raise InputError(f"target: expected a class number, or one for each clip, got {target!r}")
    wanted = [target] * len(logits) if isinstance(target, int) else [int(column) for column in target]
    if len(wanted) != len(logits):
        raise InputError(f"target: expected one class for each of {len(logits)} clips, got {len(wanted)}")
    for column in wanted:
        if not 0 <= column < logits.shape[1]:
            raise InputError(f"target: expected a class from 0 to {logits.shape[1] - 1}, got {column}")
    return torch.tensor(wanted, device=logits.device)[:, None]


def target_score(model: TimeSformer, logits: Tensor, target: Target) -> Tensor:
    """Sum the explained logits over clips; clips are independent, so the gradient of each is that of its own logit."""
    return logits.gather(1, target_columns(model, logits, target)).sum()


@contextmanager
def _differentiable(model: TimeSformer, clip: Tensor) -> Iterator[Tensor]:
    """Yield the clip with a gradient, with the model in evaluation mode and its weights without gradients.

    Raises:
        InputError: the model was fused for inference.
    """
    if model.fused:
        raise InputError("model: fused for inference, it has no gradients; use the model it was made from")
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    stacks = model.stacks()
    recomputed = [stack.gradient_checkpointing for stack in stacks]
    if _activation_bytes(model, clip) > RECOMPUTE_BYTES:
        model.gradient_checkpointing = True
    try:
        for parameter in wanted:
            parameter.requires_grad_(False)
        with evaluating(model), torch.enable_grad():
            yield clip.clone().requires_grad_()
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)
        for stack, was in zip(stacks, recomputed, strict=True):
            stack.gradient_checkpointing = was


def _activation_bytes(model: TimeSformer, clip: Tensor) -> int:
    """Estimate the bytes that the first encoder's blocks keep for a backward pass.

    A token takes 8 widths for a step (norm, qkv, attention, projection, extra linear and residual), and 2 widths and 2
    hidden widths for the MLP.
    """
    config, stack = model.config, model.stacks()[0]
    t, h, w = grid_of(model, clip)
    steps = sum(len(block.steps) for block in stack.blocks if isinstance(block, Block))
    widths = 8 * steps + (2 + 2 * config.mlp_ratio) * len(stack.blocks)
    return int(len(clip) * t * h * w * widths * config.embed_dim * clip.element_size())


def _by_token(parts: Sequence[Tensor | None], step: Taken) -> Tensor | None:
    """Return the gradient at the attention's output, (b, k, p, e), or None where it does not reach the logits.

    `parts` are the gradients of the patches (b, t, h, w, d) and, if it takes part, of the class token (b, d), with
    registers (b, s, d).
    """
    like = next((part for part in parts if part is not None), None)
    if like is None:
        return None
    tokens, heads = list[Tensor](), step.site.module.heads
    for number, part in enumerate(parts):
        if part is None:
            shape = step.recorder.calls[number].shape
            part = like.new_zeros(shape)
        tokens.append(part.flatten(1, -2) if number == 0 else part.reshape(len(part), -1, part.shape[-1]))
    if step.specials and len(tokens) == 1:  # the step leaves class token and registers out
        tokens.append(tokens[0].new_zeros(len(tokens[0]), step.specials, tokens[0].shape[-1]))
    return torch.cat(tokens, 1).unflatten(-1, (heads, -1)).transpose(1, 2)


def _cross(stage: Sequence[Taken], y: Tensor) -> Tensor:
    out = y
    for step in stage:
        if step.gradient is not None:
            matrix = step.operator()
            out = out + matrix.rmatmul(y.to(matrix.q.dtype), fuse=_Weighted(matrix, step.gradient))
    return out


class _Weighted:
    """Fusion of heads: the mean over heads of the positive part of attention times its gradient."""

    def __init__(self, matrix: StepOperator, gradient: Tensor) -> None:
        missing = matrix.size - matrix.v.shape[2]  # class token and registers that the step leaves out
        self.v = nn.functional.pad(matrix.v, (0, 0, 0, missing))
        self.gradient = gradient.to(self.v.dtype)

    def __call__(self, piece: Piece) -> Tensor:
        g = self.gradient[:, piece.heads][:, :, piece.rows]
        v = self.v[:, piece.heads][:, :, piece.keys]
        return (piece.weights * (g @ v.transpose(-1, -2))).clamp_min(0).mean(1)
