"""Rotary positions: queries and keys are turned by angles that grow with their position along t, h and w.

Of a head's channels, some turn with t, the next with h, the next with w, and the rest stay as they are.  An axis with
a channels has a / 2 frequencies, base^(-2 i / a) for i = 0 … a / 2 - 1.  Pairings of the channels that turn together:

- `half`: channel i of the turning ones with channel i + r / 2, r being their number; the frequencies of all axes lie
  one after the other (RoFormer's form in current language models, and DINOv3).
- `neighbour`: channels 2 i and 2 i + 1 of an axis.
- `vjepa2`: neighbours as above, but the frequencies of an axis are repeated as a whole, so that the two channels of a
  pair turn by different angles.  This is what the released code of V-JEPA 2 computes and its weights were trained with.

Positions are numbers of tokens, or with the coordinates `unit` 2 pi times the centre of a token between -1 and 1.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from timesformer.attention.partition import Grid, grid_of
from timesformer.config.switches import rope_channels
from timesformer.config.transformer import TimeSformerConfig


@dataclass(frozen=True)
class Rotary:
    """Rotation of the queries and keys of patches; the fields are those of the configuration."""

    channels: tuple[int, int, int]
    base: float
    scale: tuple[float, float, float]
    pairing: str
    unit: bool

    @classmethod
    def of(cls, config: TimeSformerConfig) -> "Rotary | None":
        """Return the rotation of a configuration, None where it has no rotary positions."""
        if config.position != "rope":
            return None
        return cls(
            rope_channels(config),
            config.rope_base,
            config.rope_scale,
            config.rope_pairing,
            config.rope_coordinates == "unit",
        )

    def __call__(self, x: Tensor) -> Tensor:
        """Rotate queries or keys (b, t, h, w, …, k, e)."""
        grid = grid_of(x)
        angles = self.angles(grid, x.device)
        while angles.dim() < x.dim() - 1:
            angles = angles.unsqueeze(3)  # over q and k, heads
        turning = sum(self.channels)
        moved, rest = x[..., :turning], x[..., turning:]
        turned = moved * angles.cos().to(x.dtype) + self._partners(moved) * angles.sin().to(x.dtype)
        return turned if not rest.shape[-1] else torch.cat([turned, rest], -1)

    def angles(self, grid: Grid, device: torch.device | None = None) -> Tensor:
        """Return the angle of each turning channel, (t, h, w, r), in double precision."""
        parts = []
        for axis, (length, width, scale) in enumerate(zip(grid, self.channels, self.scale, strict=True)):
            at = torch.arange(length, dtype=torch.float64, device=device)
            if self.unit:
                at = 2 * math.pi * (2 * (at + 0.5) / length - 1)
            exponent = torch.arange(width // 2, dtype=torch.float64, device=device) * (2 / max(1, width))
            angle = (at * scale)[:, None] * self.base**-exponent
            if self.pairing == "neighbour":
                angle = angle.repeat_interleave(2, -1)
            elif self.pairing == "vjepa2":
                angle = angle.repeat(1, 2)
            shape = [1, 1, 1, angle.shape[-1]]
            shape[axis] = length
            parts.append(angle.view(shape).expand(*grid, -1))
        every = torch.cat(parts, -1)
        return torch.cat([every, every], -1) if self.pairing == "half" else every

    def _partners(self, x: Tensor) -> Tensor:
        """Return what the sine of each channel multiplies: the other channel of the pair, negated for the first."""
        if self.pairing == "half":
            first, second = x.chunk(2, -1)
            return torch.cat([-second, first], -1)
        pairs = x.unflatten(-1, (-1, 2))
        return torch.stack([-pairs[..., 1], pairs[..., 0]], -1).flatten(-2)
