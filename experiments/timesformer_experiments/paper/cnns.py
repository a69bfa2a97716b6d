"""Variants for the paper's 3D CNNs: on the probes compact models, inflated from a 2D CNN trained on the stills."""

from __future__ import annotations

from typing import Any

SMALL: dict[str, Any] = {"image_size": 32, "width": 16, "blocks": [1, 1, 1, 1], "drop_rate": 0.0}
STILLS: dict[str, Any] = {"model": {**SMALL, "baseline": "c2d", "num_frames": 1}}
VIEWS = 30
"""Views with which the paper counts the CNNs: 10 clips x 3 crops."""


def i3d(frames: int = 8) -> dict[str, Any]:
    """Return the fields of a `Variant` for I3D R50 8x8."""
    return {
        "change": {"model": {**SMALL, "baseline": "i3d", "num_frames": frames}},
        "image": STILLS,
        "paper": {"baseline": "i3d", "num_frames": 8, "image_size": 256},
        "views": VIEWS,
    }


def slowfast(frames: int = 8) -> dict[str, Any]:
    """Return the fields of a `Variant` for SlowFast R50 8x8.

    On the probes, the slow pathway sees every second frame (of a clip of one frame, the only one).
    """
    model = {**SMALL, "baseline": "slowfast", "num_frames": frames, "alpha": min(2, frames), "beta": 0.25}
    return {
        "change": {"model": model},
        "image": STILLS,
        "paper": {"baseline": "slowfast", "num_frames": 32, "image_size": 256},
        "views": VIEWS,
    }
