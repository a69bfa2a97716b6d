"""Dense reference for one step: every query against every token, from the closed form of the declaration.

It shares no code with the efficient path beyond the declaration.  Groups are numbers per token (`group_ids`), not
slices, and the replicated class token is copied and averaged group by group.
"""

import torch
from torch import Tensor, nn

from timesformer._typing import Bool, Float
from timesformer.attention.mixer import Mixer, MixerInputs
from timesformer.attention.partition import Partition
from timesformer.attention.predicate import Predicate
from timesformer.attention.scheme import Step


def oracle(
    step: Step,
    qkv: Float[Tensor, "b t h w 3 k e"],
    cls_qkv: Float[Tensor, "b *s 3 k e"] | None,
    *,
    modules: nn.ModuleDict | None = None,
) -> tuple[Float[Tensor, "b t h w k e"], Float[Tensor, "b *s k e"] | None]:
    """Compute the expected result of `attend` by a dense masked softmax.

    Memory grows with the square of the number of tokens.
    """
    grid = (qkv.shape[1], qkv.shape[2], qkv.shape[3])
    share = qkv.shape[5] // len(step.over)
    with_class = cls_qkv is not None and step.cls != "absent"
    patches, classes = [], []
    for number, over in enumerate(step.over):
        heads = slice(number * share, (number + 1) * share)
        q, k, v = qkv.flatten(1, 3)[:, :, :, heads].permute(2, 0, 3, 1, 4)  # b k p e
        if isinstance(over, Mixer):
            own = modules if modules is not None else nn.ModuleDict()
            out = over.reference(MixerInputs(q, k, v, grid, own))
            mask = None
        else:
            mask = _mask(over, grid).to(q.device)
            out = None
        if with_class:
            assert cls_qkv is not None
            tokens = cls_qkv.reshape(len(cls_qkv), -1, *cls_qkv.shape[-3:])  # b s 3 k e
            count = tokens.shape[1]
            cls_q, cls_k, cls_v = tokens[:, :, :, heads].permute(2, 0, 3, 1, 4)  # b k s e
            k, v = torch.cat([cls_k, k], 2), torch.cat([cls_v, v], 2)
            if mask is not None:
                mask = torch.cat([mask.new_ones(len(mask), count), mask], 1)
            if step.cls == "global":
                classes.append(_softmax(cls_q, k, v, None))
            else:
                assert isinstance(over, Partition)
                ids = over.group_ids(grid).flatten().to(q.device)
                rows = [
                    _softmax(cls_q, k, v, torch.cat([ids.new_ones(count, dtype=torch.bool), ids == group])[None])
                    for group in ids.unique()
                ]
                classes.append(torch.stack(rows).mean(0))
        patches.append(out if out is not None else _softmax(q, k, v, mask))
    result = torch.cat(patches, 1).permute(0, 2, 1, 3).unflatten(1, grid)
    if not with_class:
        return result, None
    token = torch.cat(classes, 1).transpose(1, 2)  # b s k e
    return result, token.squeeze(1) if cls_qkv is not None and cls_qkv.dim() == 4 else token


def _mask(over: Partition | Predicate, grid: tuple[int, int, int]) -> Bool[Tensor, "p p"]:
    if isinstance(over, Predicate):
        return over.mask(grid)
    ids = over.group_ids(grid).flatten()
    return ids[:, None] == ids[None, :]


def _softmax(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    scores = torch.einsum("bkqe,bkse->bkqs", q, k) / q.shape[-1] ** 0.5
    if mask is not None:
        scores = torch.where(mask, scores, torch.full_like(scores, float("-inf")))
    return torch.einsum("bkqs,bkse->bkqe", torch.softmax(scores, -1), v)
