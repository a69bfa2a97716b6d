"""Patch embedding and the position embeddings of an encoder."""

import torch
from torch import Tensor, nn

from timesformer._typing import Float
from timesformer.attention.partition import Grid, grid_of
from timesformer.attention.scheme import Position
from timesformer.errors import InputError
from timesformer.models.clip import check_clip
from timesformer.positions import resize_space, resize_table, resize_time, sinusoid_table


class PatchEmbed(nn.Module):
    """Linear layer over unfolded patches, equal to the convolution of the released code with the same weights.

    `proj.weight` is the flattened weight (d, c, u, p, p) of the convolution; a tubelet has u frames.
    """

    def __init__(self, in_channels: int, tubelet: int, patch: int, width: int) -> None:
        super().__init__()
        self.in_channels, self.tubelet, self.patch = in_channels, tubelet, patch
        self.proj = nn.Linear(in_channels * tubelet * patch * patch, width)

    def forward(self, clip: Float[Tensor, "b frames c height width"]) -> Float[Tensor, "b t h w d"]:
        """Embed the patches of a clip.

        Raises:
            InputError: the clip has another number of axes or channels or another kind of numbers, or cannot be cut
                into whole patches.
        """
        check_clip(clip, self.in_channels, self.proj.weight.dtype)
        for name, size, unit in (
            ("frames", clip.shape[1], self.tubelet),
            ("height", clip.shape[3], self.patch),
            ("width", clip.shape[4], self.patch),
        ):
            if size == 0 or size % unit:
                unit_name = "tubelet_size" if name == "frames" else "patch_size"
                raise InputError(f"clip: {name}: expected a positive multiple of {unit_name} {unit}, got {size}")
        u, p = self.tubelet, self.patch
        parts = clip.unflatten(4, (-1, p)).unflatten(3, (-1, p)).unflatten(1, (-1, u))  # b t u c h p w q
        out: Tensor = self.proj(parts.permute(0, 1, 4, 6, 3, 2, 5, 7).flatten(4))  # einops fixes b where torch exports
        return out


class Positions(nn.Module):
    """Learned positions of one encoder, resized where a clip differs from the configured grid.

    - `space`: one row per patch position of a frame.  `space_time`: the same plus one row per frame (the class
      token gets no temporal position).  `table`: one row per token of the grid (ViViT).
    - They are initialised from truncated normals with standard deviation `std` and, in time, `time_std`: 0.02 and 0 in
      the released code.
    - With a class token, row 0 of the `space` and `table` parameters belongs to it.
    - `sinusoid`: fixed, not learned; a sine and cosine over the numbers of the tokens (VideoMAE).  It is computed for
      the grid of the clip.  The class token gets none.
    - `rope` and `none` add nothing here.

    Registers get no position.  Resizing is bicubic in space and linear in time.

    `time_from`: number of the block before which the rows of the frames are added (`before`); 0 for with the others.
    """

    sinusoid: Tensor

    def __init__(
        self,
        kind: Position,
        grid: Grid,
        width: int,
        class_token: bool,
        std: float = 0.02,
        time_std: float = 0.0,
        time_from: int = 0,
    ) -> None:
        super().__init__()
        self.kind, self.grid, self.class_rows, self.time_from = kind, grid, int(class_token), time_from
        t, h, w = grid
        if kind in ("space", "space_time"):
            self.space = nn.Parameter(torch.empty(self.class_rows + h * w, width))
            nn.init.trunc_normal_(self.space, std=std)
        if kind == "space_time":
            self.time = nn.Parameter(torch.zeros(t, width))
            if time_std:
                nn.init.trunc_normal_(self.time, std=time_std)
        if kind == "table":
            self.table = nn.Parameter(torch.empty(self.class_rows + t * h * w, width))
            nn.init.trunc_normal_(self.table, std=std)
        if kind == "sinusoid":
            self.register_buffer("sinusoid", sinusoid_table(t * h * w, width), persistent=False)

    def forward(self, patches: Tensor, cls: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Add the positions to patches (b, t, h, w, d) and class token (b, d), which registers may follow (b, s, d)."""
        if self.kind in ("none", "rope"):
            return patches, cls
        grid = grid_of(patches)
        if self.kind == "sinusoid":
            fixed = self.sinusoid
            if grid != self.grid:
                fixed = sinusoid_table(grid[0] * grid[1] * grid[2], patches.shape[-1], patches.device)
            return patches + fixed.to(patches.dtype).unflatten(0, grid), cls
        rows: Tensor = self.table if self.kind == "table" else self.space
        if cls is not None and cls.dim() == 3:
            cls = torch.cat([cls[:, :1] + rows[0], cls[:, 1:]], 1)
        elif cls is not None:
            cls = cls + rows[0]
        rows = rows[self.class_rows :]
        if self.kind == "table":
            return patches + resize_table(rows, self.grid, grid), cls
        patches = patches + resize_space(rows, self.grid[1:], grid[1:])
        return self._in_time(patches) if self.time_from == 0 else patches, cls

    def before(self, block: int, patches: Tensor) -> Tensor:
        """Return patches (b, t, h, w, d) with what is added to them before a block; 0 is the first."""
        return self._in_time(patches) if 0 < self.time_from == block else patches

    def _in_time(self, patches: Tensor) -> Tensor:
        if self.kind != "space_time":
            return patches
        return patches + resize_time(self.time, patches.shape[1])[:, None, None]
