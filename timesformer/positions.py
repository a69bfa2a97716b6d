"""Resizing of learned position embeddings in space and time, and fixed ones."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from timesformer._typing import Float
from timesformer.attention.partition import Grid

Resize = Literal["bicubic", "fair-load", "fair-forward"]
"""Rule for resizing positions.

- `bicubic`: bicubic in space and linear in time; a model also uses it for clips of other sizes than its own.
- `fair-load`: the rule of the released code when it loads weights: nearest over the rows of a frame as one flat list
  (224 -> 448 repeats each row four times, regardless of its position), and nearest in time.
- `fair-forward`: the rule of the released code for clips of another size: nearest in height, width and time.
"""


def resize_space(
    rows: Float[Tensor, "n d"], old: tuple[int, int], new: tuple[int, int], rule: Resize = "bicubic"
) -> Float[Tensor, "{new[0]} {new[1]} d"]:
    """Resize the positions of a frame to another grid of patches, by one of the rules of `Resize`."""
    if old == new:
        return rows.unflatten(0, old)
    if rule == "fair-load":
        return F.interpolate(rows.T[None], size=new[0] * new[1], mode="nearest")[0].T.unflatten(0, new)
    image = rows.unflatten(0, old).permute(2, 0, 1)[None]
    if rule == "fair-forward":
        return F.interpolate(image, size=new, mode="nearest")[0].permute(1, 2, 0)
    return F.interpolate(image, size=new, mode="bicubic", align_corners=False)[0].permute(1, 2, 0)


def resize_time(rows: Float[Tensor, "t d"], frames: int, rule: Resize = "bicubic") -> Float[Tensor, "{frames} d"]:
    """Resize temporal positions to another number of frames: linear, or nearest with the released code's rules."""
    if rows.shape[0] == frames:
        return rows
    if rule != "bicubic":
        return F.interpolate(rows.T[None], size=frames, mode="nearest")[0].T
    return F.interpolate(rows.T[None], size=frames, mode="linear", align_corners=False)[0].T


def resize_table(
    rows: Float[Tensor, "p d"], old: Grid, new: Grid, rule: Resize = "bicubic"
) -> Float[Tensor, "{new[0]} {new[1]} {new[2]} d"]:
    """Resize a full table of positions to another grid: each frame in space, then all in time."""
    table = rows.unflatten(0, old)
    if old[1:] != new[1:]:
        table = torch.stack([resize_space(frame.flatten(0, 1), old[1:], new[1:], rule) for frame in table])
    return resize_time(table.flatten(1), new[0], rule).unflatten(1, (*new[1:], -1))


def sinusoid_table(rows: int, width: int, device: torch.device | None = None) -> Float[Tensor, "{rows} {width}"]:
    """Return fixed positions: channel j of row p is the sine (odd j: cosine) of p / 10000^(2 (j // 2) / width)."""
    channel = torch.arange(width, dtype=torch.float64, device=device)
    at = torch.arange(rows, dtype=torch.float64, device=device)[:, None]
    angle = at / 10000 ** (2 * (channel // 2) / width)
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos()).float()
