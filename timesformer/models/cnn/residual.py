"""Parts of the baselines: convolution with norm, bottlenecks, and a pathway of a stem and four stages.

Letters: b clips, c channels, t frames, h w rows and columns.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from timesformer._typing import Float

EXPANSION = 4
"""Ratio of a bottleneck's output channels to its inner channels."""


class ConvNorm(nn.Module):
    """Convolution without bias, followed by batch norm; "same" padding in time and space."""

    def __init__(
        self, channels: int, out: int, kernel: tuple[int, int, int], stride: tuple[int, int, int] = (1, 1, 1)
    ) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        self.conv = nn.Conv3d(channels, out, kernel, stride, padding, bias=False)
        self.norm = nn.BatchNorm3d(out)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b out t2 h2 w2"]:
        out: Tensor = self.norm(self.conv(x))
        return out


class Bottleneck(nn.Module):
    """ResNet bottleneck with a residual connection.

    Its convolutions are 1x1 in space over `time` frames, 3x3 with the stride, and 1x1.  The last norm starts at zero,
    so that the block starts as its shortcut.
    """

    def __init__(self, channels: int, inner: int, time: int, stride: int) -> None:
        super().__init__()
        out = EXPANSION * inner
        self.a = ConvNorm(channels, inner, (time, 1, 1))
        self.b = ConvNorm(inner, inner, (1, 3, 3), (1, stride, stride))
        self.c = ConvNorm(inner, out, (1, 1, 1))
        same = channels == out and stride == 1
        self.shortcut = None if same else ConvNorm(channels, out, (1, 1, 1), (1, stride, stride))
        nn.init.zeros_(self.c.norm.weight)

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b out t h2 w2"]:
        inside = self.c(self.b(self.a(x).relu()).relu())
        return torch.relu(inside + (x if self.shortcut is None else self.shortcut(x)))


class Stage(nn.Module):
    """Bottlenecks in sequence; the first one halves the size unless `stride` is 1.

    `times`: temporal kernel sizes of the bottlenecks, used in turn.
    """

    def __init__(self, channels: int, inner: int, count: int, times: Sequence[int], stride: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Bottleneck(
                channels if number == 0 else EXPANSION * inner,
                inner,
                times[number % len(times)],
                stride if number == 0 else 1,
            )
            for number in range(count)
        )

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b out t h2 w2"]:
        for block in self.blocks:
            x = block(x)
        return x


class Pathway(nn.Module):
    """Stem (7x7 over `stem` frames, stride 2, then a maximum over 3x3, stride 2) and four stages.

    width: channels of the stem; times: for each stage the temporal kernel sizes of its bottlenecks, used in turn;
    extra: channels from the other pathway that are added to the input of each stage
    """

    def __init__(
        self,
        channels: int,
        width: int,
        blocks: Sequence[int],
        stem: int,
        times: Sequence[Sequence[int]],
        extra: Sequence[int] = (0, 0, 0, 0),
    ) -> None:
        super().__init__()
        self.stem = ConvNorm(channels, width, (stem, 7, 7), (1, 2, 2))
        self.pool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
        inner = [width * 2**number for number in range(len(blocks))]
        before = [width, *(EXPANSION * size for size in inner)]
        self.stages = nn.ModuleList(
            Stage(before[i] + extra[i], inner[i], count, times[i], stride=1 if i == 0 else 2)
            for i, count in enumerate(blocks)
        )
        self.out_channels = before[-1]

    def start(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b out t h2 w2"]:
        """Apply the stem and its maximum."""
        out: Tensor = self.pool(self.stem(x).relu())
        return out
