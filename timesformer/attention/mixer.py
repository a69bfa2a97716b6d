"""Token mixing other than a softmax over a neighbourhood (linear attention, trajectory attention)."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from timesformer._typing import Float
from timesformer.attention.partition import Grid


@dataclass(frozen=True)
class MixerInputs:
    """Inputs of a mixer: tokens, their grid, and the mixer's weights.

    - `q`, `k`, `v`: queries, keys and values of the p = t * h * w patches, time slowest, for the heads that the
      mixer serves; views of the qkv buffer, with any strides.
    - `grid`: numbers of frames, patch rows and patch columns (t, h, w).
    - `modules`: the mixer's own weights, from `Mixer.modules`.
    """

    q: Float[Tensor, "b k p e"]
    k: Float[Tensor, "b k p e"]
    v: Float[Tensor, "b k p e"]
    grid: Grid
    modules: nn.ModuleDict


class Mixer(ABC):
    """Base class for steps that neither a partition nor a predicate describes.

    A mixer mixes patches with patches.  A step with the class policy `global` adds the class token's own query over
    all tokens; patches do not see the class token through a mixer.
    """

    def modules(self, width: int, heads: int) -> nn.ModuleDict:
        """Make the mixer's weights beyond qkv and the projection, once per block; none by default."""
        return nn.ModuleDict()

    @abstractmethod
    def forward(self, inputs: MixerInputs) -> Float[Tensor, "b k p e"]:
        """Mix the patches; this is the efficient path."""

    @abstractmethod
    def reference(self, inputs: MixerInputs) -> Float[Tensor, "b k p e"]:
        """Mix the patches in the slow, obvious way that tests compare `forward` with."""

    @abstractmethod
    def operator(self, inputs: MixerInputs) -> Float[Tensor, "b k p p"]:
        """Weight of each key (column) in the output of each query (row), for pictures and rollout."""

    @abstractmethod
    def macs(self, grid: Grid, width: int, heads: int) -> int:
        """Multiply–accumulates of `forward` for one clip, including the mixer's own modules.

        They are counted over the heads that the mixer serves; `width` is the total width of these heads.
        """

    def visible(self, query: Grid, grid: Grid) -> Tensor:
        """Keys with a nonzero weight for one query, bool (t, h, w), found with random q, k and v."""
        generator = torch.Generator().manual_seed(0)
        tokens, width = grid[0] * grid[1] * grid[2], 16
        q, k, v = torch.randn(3, 1, 1, tokens, width, generator=generator).unbind()
        weights = self.operator(MixerInputs(q, k, v, grid, self.modules(width, 1)))
        row = (query[0] * grid[1] + query[1]) * grid[2] + query[2]
        return (weights[0, 0, row].abs() > 1e-9).view(grid)
