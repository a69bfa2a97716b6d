"""Reference for the kernels: attention computed one group after the other, for tests.  It needs only torch."""

import torch
from torch import Tensor

from timesformer_kernels.layout import Tile


def reference_groups(
    qkv: Tensor, cls_qkv: Tensor | None, tiles: tuple[Tile, ...], mode: int
) -> tuple[Tensor, Tensor | None]:
    """Return the patches' outputs (b, t, h, w, k, e), and the class token's per group (b, groups, k, e) or None.

    qkv: (b, t, h, w, 3, k, e); cls_qkv: (b, 3, k, e); mode: see `grouped.MODES`
    """
    b, t, h, w, _, k, e = qkv.shape
    out = qkv.new_zeros(b, t, h, w, k, e)
    cls_out = []
    for tile in tiles:
        for parts in torch.cartesian_prod(*(torch.arange(axis.count) for axis in tile.axes)).tolist():
            at, ah, aw = (
                torch.tensor([axis.index(part, i) for i in range(axis.size)], device=qkv.device)
                for axis, part in zip(tile.axes, parts, strict=True)
            )
            index = (slice(None), at[:, None, None], ah[None, :, None], aw[None, None, :])
            group = qkv[index]  # b st sh sw 3 k e
            q, key, v = group.flatten(1, 3).unbind(2)  # b s k e
            if cls_qkv is not None and mode:
                cls_q, cls_k, cls_v = (x[:, None] for x in cls_qkv.unbind(1))
                key, v = torch.cat([key, cls_k], 1), torch.cat([v, cls_v], 1)
                if mode != 2:
                    cls_out.append(_attend(cls_q, key, v)[:, 0])
            if mode != 3:
                out[index] = _attend(q, key, v).unflatten(1, group.shape[1:4])
    return out, torch.stack(cls_out, 1) if cls_out else None


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention of (b, q, k, e) over (b, s, k, e)."""
    scores = torch.einsum("bqke,bske->bkqs", q, k) * q.shape[-1] ** -0.5
    return torch.einsum("bkqs,bske->bqke", scores.softmax(-1), v)
