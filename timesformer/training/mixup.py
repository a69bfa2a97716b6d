"""Mixup: a batch mixed with a permutation of itself, clips and targets in the same proportion.

Source: mixup, arXiv 1710.09412; one proportion for each (part of a) batch, as in the authors' code.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from timesformer.seeding import derive_seed


@dataclass(frozen=True)
class Mix:
    """share: how much of itself each clip keeps; partner: whose clip is mixed in, int64 (b,); None: nobody's."""

    share: float = 1.0
    partner: Tensor | None = None

    def clips(self, clip: Tensor) -> Tensor:
        """The mixed clips (b, …)."""
        return clip if self.partner is None else torch.lerp(clip[self.partner], clip, self.share)

    def loss(self, loss_of: Callable[[Tensor], Tensor], label: Tensor) -> Tensor:
        """The loss against the mixed targets, from the loss against labels (b, …).

        Cross entropy, label smoothing included, is linear in its target: this is the loss against soft targets.
        """
        if self.partner is None:
            return loss_of(label)
        return self.share * loss_of(label) + (1 - self.share) * loss_of(label[self.partner])

    def dominant(self, label: Tensor) -> Tensor:
        """The label of which each mixed clip holds more (its own where it holds equal parts)."""
        return label if self.partner is None or self.share >= 0.5 else label[self.partner]


def draw_mix(alpha: float, count: int, *keys: int | str, device: torch.device | str = "cpu") -> Mix:
    """The mix of a batch of `count` clips, a pure function of the keys; none for alpha = 0."""
    if alpha == 0:
        return Mix()
    rng = np.random.default_rng(derive_seed("mixup", *keys))
    share = float(rng.beta(alpha, alpha))
    return Mix(share, torch.from_numpy(rng.permutation(count)).to(device))
