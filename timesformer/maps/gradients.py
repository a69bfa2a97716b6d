"""Maps that explain one class: gradient-weighted attention, plain input gradients, Grad-CAM on tokens.

Gradient-weighted attention follows Chefer et al. (arXiv 2103.15679): R becomes R + mean over heads of (dA * A)+ R for
every step, A its attention and dA the gradient of that.  No backend has to give out its attention: a step's output is
A v, so dA = g v^T with g the gradient at the output, and both factors come in pieces.
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
from timesformer.maps.walk import Saliency, Taken, walk_back
from timesformer.models.blocks import Block
from timesformer.models.timesformer import TimeSformer

Target = int | Sequence[int] | None
"""A column of the logits, or one for each clip; None: the class that the model predicts (with several heads, the sum
of what each of them predicts)."""
RECOMPUTE_BYTES = 1 << 30
"""Where the blocks' activations would take more than this until the backward pass, each block is computed twice."""


def relevance(model: TimeSformer, clip: Tensor, target: Target = None) -> Saliency:
    """Gradient-weighted attention for the target's logit; see the module's description.

    clip: (clips, frames, channels, height, width), normalised as for the model.  The rows start at what the head reads,
    the class token or the mean over tokens.  A mixer's operator stands for A.  The weights have no fixed sum: they
    compare the patches of one clip.

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
        step = taken[id(call.site.module)] = Taken(call.site, call.qkv, call.cls is not None)
        for mixed in call.mixed:
            edges.append(get_gradient_edge(mixed))
            owners.append(step)

    with _differentiable(model, clip) as given, watching(sites(model), visit, outputs=False):
        score = target_score(model, model(given), target)
        found = torch.autograd.grad(score, edges, allow_unused=True)
    for step in taken.values():
        parts = [gradient for gradient, owner in zip(found, owners, strict=True) if owner is step]
        step.gradient = _by_token(parts, step)
    with torch.no_grad():
        weights, on_class = walk_back(model, list(taken.values()), ("class",), grid, len(clip), _cross)
    return Saliency("relevance", ("class",), weights.float().cpu().numpy(), on_class.float().cpu().numpy())


def input_gradient(model: TimeSformer, clip: Tensor, target: Target = None) -> Saliency:
    """The gradient of the target's logit by the pixels, its absolute values summed over the pixels, channels and
    frames of each token.  Arguments and errors as for `relevance`."""
    clip, grid = as_input(model, clip), grid_of(model, clip)
    with _differentiable(model, clip) as given:
        (gradient,) = torch.autograd.grad(target_score(model, model(given), target), given)
    u, p = model.patch_embed.tubelet, model.patch_embed.patch
    size = gradient.abs().sum(2).unflatten(3, (grid[2], p)).unflatten(2, (grid[1], p)).unflatten(1, (grid[0], u))
    return Saliency("input gradient", ("class",), size.sum((2, 4, 6)).unsqueeze(1).float().cpu().numpy())


def grad_cam(model: TimeSformer, clip: Tensor, target: Target = None) -> Saliency:
    """Grad-CAM (arXiv 1610.02391) on the patches that enter the first encoder's last block, the last that all reach the
    class token: channels weighted by the mean of their gradient over the clip, summed, negative values set to 0.
    Arguments and errors as for `relevance`."""
    clip, grid = as_input(model, clip), grid_of(model, clip)
    entering: list[Tensor] = []
    block = model.stacks()[0].blocks[-1]
    assert isinstance(block, Block)

    def keep(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        if not entering:  # not when computed again
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
    """The columns of the logits that are explained, (b, n); n is the number of heads where nothing is asked for.

    Raises:
        InputError: a column that the logits do not have, or not one for each clip.
    """
    heads = heads_of(model)
    if target is None:
        best = predict(logits.detach(), heads).view(len(logits), -1)
        return best + torch.tensor([sum(heads[:number]) for number in range(best.shape[1])], device=best.device)
    if isinstance(target, str):
        raise InputError(f"target: expected the number of a class, or one for each clip, got {target!r}")
    wanted = [target] * len(logits) if isinstance(target, int) else [int(column) for column in target]
    if len(wanted) != len(logits):
        raise InputError(f"target: {len(wanted)} classes for {len(logits)} clips")
    for column in wanted:
        if not 0 <= column < logits.shape[1]:
            raise InputError(f"target: expected a class of 0 to {logits.shape[1] - 1}, got {column}")
    return torch.tensor(wanted, device=logits.device)[:, None]


def target_score(model: TimeSformer, logits: Tensor, target: Target) -> Tensor:
    """The sum over clips of the logits that are explained: clips do not see each other, so each keeps its gradient."""
    return logits.gather(1, target_columns(model, logits, target)).sum()


@contextmanager
def _differentiable(model: TimeSformer, clip: Tensor) -> Iterator[Tensor]:
    """The clip with a gradient, while the model is in evaluation mode and its weights have none."""
    if model.fused:
        raise InputError("this model was fused for inference and has no gradients: use the one it was made from")
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
    """About what the first encoder's blocks keep for a backward pass: 8 widths of a token for a step (its norm, qkv,
    attention, projection, extra linear and residual), 2 and 2 hidden ones for the MLP."""
    config, stack = model.config, model.stacks()[0]
    t, h, w = grid_of(model, clip)
    widths = 8 * len(stack.encoder.steps) + 2 + 2 * config.mlp_ratio
    return int(len(clip) * t * h * w * len(stack.blocks) * widths * config.embed_dim * clip.element_size())


def _by_token(parts: Sequence[Tensor | None], step: Taken) -> Tensor | None:
    """Gradients at what the attention mixed, (b, k, p, e); None where the output does not reach the logits.  `parts`
    are those of the patches (b, t, h, w, d) and, if it takes part, of the class token (b, d)."""
    like = next((part for part in parts if part is not None), None)
    if like is None:
        return None
    tokens, heads = list[Tensor](), step.site.module.heads
    for number, part in enumerate(parts):
        if part is None:
            shape = step.recorder.calls[number].shape
            part = like.new_zeros(shape)
        tokens.append(part.flatten(1, -2) if number == 0 else part.unsqueeze(1))
    if step.has_class and len(tokens) == 1:  # the step leaves the class token out
        tokens.append(torch.zeros_like(tokens[0][:, :1]))
    return torch.cat(tokens, 1).unflatten(-1, (heads, -1)).transpose(1, 2)


def _cross(stage: Sequence[Taken], y: Tensor) -> Tensor:
    out = y
    for step in stage:
        if step.gradient is not None:
            matrix = step.operator()
            out = out + matrix.rmatmul(y.to(matrix.q.dtype), fuse=_Weighted(matrix, step.gradient))
    return out


class _Weighted:
    """The mean over heads of the positive part of attention times its gradient."""

    def __init__(self, matrix: StepOperator, gradient: Tensor) -> None:
        missing = matrix.size - matrix.v.shape[2]  # the class token, where the step leaves it out
        self.v = nn.functional.pad(matrix.v, (0, 0, 0, missing))
        self.gradient = gradient.to(self.v.dtype)

    def __call__(self, piece: Piece) -> Tensor:
        g = self.gradient[:, piece.heads][:, :, piece.rows]
        v = self.v[:, piece.heads][:, :, piece.keys]
        return (piece.weights * (g @ v.transpose(-1, -2))).clamp_min(0).mean(1)
