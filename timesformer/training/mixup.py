"""Mixup: a batch is mixed with a permutation of itself, clips and targets in the same proportion.

Source: mixup, arXiv 1710.09412, with one proportion per micro-batch, as in the authors' code.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from timesformer.seeding import derive_seed


@dataclass(frozen=True)
class Mix:
    """Proportion and partners of a mixed batch.

    share: proportion of itself that each clip keeps
    partner: index of the clip that is mixed into each, int64 (b,), or None for no mixing
    """

    share: float = 1.0
    partner: Tensor | None = None

    def clips(self, clip: Tensor) -> Tensor:
        """Mix the clips (b, …)."""
        return clip if self.partner is None else torch.lerp(clip[self.partner], clip, self.share)

    def loss(self, loss_of: Callable[[Tensor], Tensor], label: Tensor) -> Tensor:
        """Return the loss against the mixed targets, given a function for the loss against labels (b, …).

        Cross entropy, with label smoothing too, is linear in its target, so this equals the loss against soft targets.
        """
        if self.partner is None:
            return loss_of(label)
        return self.share * loss_of(label) + (1 - self.share) * loss_of(label[self.partner])

    def dominant(self, label: Tensor) -> Tensor:
        """Label with the larger share in each mixed clip (its own if the shares are equal)."""
        return label if self.partner is None or self.share >= 0.5 else label[self.partner]


def draw_mix(alpha: float, count: int, *keys: int | str, device: torch.device | str = "cpu") -> Mix:
    """Draw the mix of a batch of `count` clips, as a pure function of the keys; alpha = 0 gives no mixing."""
    if alpha == 0:
        return Mix()
    rng = np.random.default_rng(derive_seed("mixup", *keys))
    share = float(rng.beta(alpha, alpha))
    return Mix(share, torch.from_numpy(rng.permutation(count)).to(device))
