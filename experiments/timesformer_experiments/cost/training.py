"""Costs of training beyond a forward pass."""

from __future__ import annotations

from typing import TypeVar

import pandas as pd

BACKWARD = 2
"""MACs of a backward pass divided by those of the forward pass."""

Clips = TypeVar("Clips", int, pd.Series)


def train_macs(macs_per_view: int, clips: Clips) -> Clips:
    """Multiply-accumulates of training on a number of clips, or on each of several numbers."""
    return (1 + BACKWARD) * macs_per_view * clips
