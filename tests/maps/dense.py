"""The dense reference of maps, rollout and relevance: every step as a matrix of all tokens by all tokens, written out
from the declaration, put into the model in the place of its attention.  It shares no code with the operator: groups
are boxes of slices, predicates are asked pair by pair."""

from dataclasses import dataclass
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from timesformer import TimeSformer
from timesformer.attention import Mixer, MixerInputs, Partition, Step

Grid = tuple[int, int, int]


def boxes(over: Partition, grid: Grid) -> list[Tensor]:
    """The token numbers of every group."""
    numbers = torch.arange(grid[0] * grid[1] * grid[2]).view(grid)
    return [numbers[box].flatten() for box in over.boxes(grid)]


def seen(over, grid: Grid) -> Tensor:  # type: ignore[no-untyped-def]
    """Which patch sees which, (p, p)."""
    tokens = grid[0] * grid[1] * grid[2]
    mask = torch.zeros(tokens, tokens, dtype=torch.bool)
    if isinstance(over, Partition):
        for group in boxes(over, grid):
            mask[group[:, None], group[None, :]] = True
        return mask
    places = [tuple(torch.tensor(i) for i in place) for place in product(*(range(n) for n in grid))]
    for (i, query), (j, key) in product(enumerate(places), repeat=2):
        mask[i, j] = bool(over.fn(query, key, grid))
    return mask


def matrix(step: Step, qkv: Tensor, cls_qkv: Tensor | None, has_class: bool, modules: nn.ModuleDict) -> Tensor:
    """(b, k, p, p), the class token last if there is one."""
    b, t, h, w, _, heads, e = qkv.shape
    grid, patches = (t, h, w), t * h * w
    size, share = patches + has_class, heads // len(step.over)
    out = torch.zeros(b, heads, size, size, dtype=qkv.dtype)
    for number, over in enumerate(step.over):
        part = slice(number * share, (number + 1) * share)
        q, k, v = qkv[..., part, :].reshape(b, patches, 3, share, e).permute(2, 0, 3, 1, 4)
        if cls_qkv is not None:
            own_q, own_k = cls_qkv[:, 0, part, None], cls_qkv[:, 1, part, None]
            k = torch.cat([k, own_k], 2)
        scores = torch.einsum("bkie,bkje->bkij", q, k) / e**0.5
        if isinstance(over, Mixer):
            rows = over.operator(MixerInputs(q, k[:, :, :patches], v, grid, modules))
            out[:, part, :patches, :patches] = rows
        else:
            mask = torch.ones(patches, k.shape[2], dtype=torch.bool)
            mask[:, :patches] = seen(over, grid)
            out[:, part, :patches, : k.shape[2]] = scores.masked_fill(~mask, -torch.inf).softmax(-1)
        if cls_qkv is None:
            continue
        own = torch.einsum("bkie,bkje->bkij", own_q, k)[:, :, 0] / e**0.5
        if step.cls == "global":
            out[:, part, patches] = own.softmax(-1)
            continue
        assert isinstance(over, Partition)
        copies = []
        for group in boxes(over, grid):
            hidden = torch.ones(patches + 1, dtype=torch.bool)
            hidden[group] = hidden[patches] = False
            copies.append(own.masked_fill(hidden, -torch.inf).softmax(-1))
        out[:, part, patches] = torch.stack(copies).mean(0)
    if has_class and cls_qkv is None:
        out[:, :, patches, patches] = 1
    return out


@dataclass
class DenseCall:
    """One step as it ran: its declaration and its matrix (b, k, p, p), part of the graph."""

    step: Step
    matrix: Tensor


class Dense:
    """The model with dense attention; `calls` are the steps in the order in which they ran."""

    def __init__(self, model: TimeSformer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[DenseCall] = []
        self.has_class = {
            id(step): stack.encoder.class_tokens != "none"
            for stack in model.encoders
            for block in stack.blocks
            for step in [m.step for m in block.steps.values()]
        }

        def attend(step, qkv, cls_qkv, *, backend, group_weights, modules, class_only):  # type: ignore[no-untyped-def]
            a = matrix(step, qkv, cls_qkv, self.has_class[id(step)], modules)
            if a.requires_grad:
                a.retain_grad()
            self.calls.append(DenseCall(step, a))
            v = qkv[..., 2, :, :].flatten(1, 3).transpose(1, 2)
            if any(isinstance(over, Mixer) for over in step.over):  # a mixer may change v by weights of its own
                (over,) = step.over
                q, k = (qkv[..., i, :, :].flatten(1, 3).transpose(1, 2) for i in (0, 1))
                out = over.reference(MixerInputs(q, k, v, tuple(qkv.shape[1:4]), modules))
            else:
                out = None
            patches = v.shape[2]
            if cls_qkv is not None:
                v = torch.cat([v, cls_qkv[:, 2, :, None]], 2)
            mixed = a[..., : v.shape[2]] @ v
            out = mixed[:, :, :patches] if out is None else out
            out = out.transpose(1, 2).unflatten(1, qkv.shape[1:4])
            return out, None if cls_qkv is None else mixed[:, :, patches]

        monkeypatch.setattr("timesformer.models.blocks.attend", attend)


def reduced(a: Tensor, fusion: str, discard: float = 0.0, has_class: bool = True) -> Tensor:
    """One matrix for all heads, row by row: (b, k, p, p) to (b, p, p)."""
    one = {"mean": a.mean(1), "max": a.amax(1), "min": a.amin(1)}[fusion]
    if fusion == "mean" and not discard:
        return one
    out, size = torch.zeros_like(one), one.shape[-1]
    for clip, row in product(range(len(one)), range(size)):
        keys = [key for key in range(size - has_class) if (a[clip, :, row, key] > 0).any()]
        weak = sorted(keys, key=lambda key: float(one[clip, row, key]))[: int(len(keys) * discard)]
        kept = one[clip, row].clone()
        kept[weak] = 0
        out[clip, row] = kept / kept.sum() if kept.sum() > 0 else kept
    return out
