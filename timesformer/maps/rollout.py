"""Attention rollout (Abnar & Zuidema, arXiv 2005.00928) for every scheme, from sparse steps.

A stage of one step transforms tokens by (I + A) / 2, and a stage of two parallel steps by (I + A + B) / 3: the residual
connection and each step have equal weight.  Where an extra linear starts at zero, this credits the time step with half
of the result although it contributes nothing.  The variant `norm` therefore weighs each token's residual and steps by
the norms of the vectors that are added.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from timesformer.attention.operator import FUSIONS, Fusion, Query
from timesformer.errors import InputError
from timesformer.maps.attention import as_queries, chosen_sites
from timesformer.maps.capture import Call, as_input, grid_of, run, watching
from timesformer.maps.walk import Saliency, Taken, walk_back, watching_pooler
from timesformer.models.timesformer import TimeSformer

Weighting = Literal["plain", "norm"]
WEIGHTINGS: tuple[Weighting, ...] = ("plain", "norm")
KEEP_BYTES = 1 << 29
"""Memory for q, k and v of all steps above which they are computed again on the way back."""


def rollout(
    model: TimeSformer,
    clip: Tensor,
    *,
    query: Query | Sequence[Query] = "class",
    fusion: Fusion = "mean",
    discard: float = 0.0,
    weighting: Weighting = "plain",
    steps: Sequence[str] | None = None,
) -> Saliency:
    """Compute the share of each patch in the query after the last block, as mixed by attention, in one forward pass.

    clip: (clips, frames, channels, height, width), normalised as for the model
    query: "class" for the input of the head (the class token, the mean over the frames' class tokens, or the mean over
        the patches), or patches (t, h, w) after the first encoder
    fusion: fusion of the heads; discard: share of each query's keys, the weakest, that is set to zero; see
        `timesformer.attention.operator.fused`
    weighting: "plain", or "norm" as the module describes
    steps: names of the only steps to follow (with `["time"]`, the times that count at the query's own position)

    Raises:
        InputError: an unknown value, or a query or step that the model does not have for this clip.
    """
    if fusion not in FUSIONS:
        raise InputError(f"fusion: expected one of {FUSIONS}, got {fusion!r}")
    if not 0 <= discard < 1:
        raise InputError(f"discard: expected a number in [0, 1), got {discard!r}")
    if weighting not in WEIGHTINGS:
        raise InputError(f"weighting: expected one of {WEIGHTINGS}, got {weighting!r}")
    clip = as_input(model, clip)
    grid = grid_of(model, clip)
    queries, wanted = as_queries(query, grid), chosen_sites(model, None, steps)
    taken: list[Taken] = []

    def visit(call: Call) -> None:
        norms = _norms(call) if weighting == "norm" else None
        taken.append(Taken(call.site, call.qkv, call.specials, norms))

    def cross(stage: Sequence[Taken], y: Tensor) -> Tensor:
        shares = _shares(stage, y)
        out = y * (1 - sum(shares))
        for step, share in zip(stage, shares, strict=True):
            matrix = step.operator()
            out = out + matrix.rmatmul((y * share).to(matrix.q.dtype), fusion, discard)
        return out

    qkv_bytes = 3 * clip.element_size() * len(clip) * grid[0] * grid[1] * grid[2] * model.config.embed_dim * len(wanted)
    with watching(wanted, visit, outputs=qkv_bytes <= KEEP_BYTES), watching_pooler(model) as read:
        run(model, clip)
    with torch.no_grad():
        weights, on_class = walk_back(model, taken, queries, grid, len(clip), cross, read)
    name = "rollout" if weighting == "plain" else "rollout, norms"
    if steps is not None:
        name += f", {' and '.join(dict.fromkeys(steps))} alone"
    return Saliency(name, queries, weights.float().cpu().numpy(), on_class.float().cpu().numpy())


def _norms(call: Call) -> tuple[Tensor, Tensor]:
    """Norms of each token's residual and of the step's contribution to it, both (b, p), patches first."""
    pairs = [(call.patches.flatten(1, 3), call.added[0])]
    if call.cls is not None:
        pairs.append((call.cls.reshape(len(call.cls), -1, call.cls.shape[-1]), call.added[1]))
    residual = [_norm(before) for before, _ in pairs]
    added = [
        torch.zeros_like(norm) if more is None else _norm(more.reshape(before.shape))
        for (before, more), norm in zip(pairs, residual, strict=True)
    ]
    return torch.cat(residual, 1), torch.cat(added, 1)


def _norm(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=-1, dtype=torch.promote_types(x.dtype, torch.float32))


def _shares(stage: Sequence[Taken], y: Tensor) -> list[Tensor]:
    """Share of each step of a stage in its tokens, (b, 1, p) or one number; the rest is the residual's share."""
    if stage[0].norms is None:
        return [y.new_tensor(1 / (1 + len(stage)))] * len(stage)
    norms = [step.norms for step in stage if step.norms is not None]
    total = norms[0][0] + sum(added for _, added in norms)
    return [(added / total.clamp_min(torch.finfo(total.dtype).tiny))[:, None] for _, added in norms]
