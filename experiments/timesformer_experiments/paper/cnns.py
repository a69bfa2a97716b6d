"""The paper's 3D CNNs as variants: compact ones on the probes, inflated from a 2D CNN that has seen the stills."""

from __future__ import annotations

from typing import Any

SMALL: dict[str, Any] = {"image_size": 32, "width": 16, "blocks": [1, 1, 1, 1], "drop_rate": 0.0}
STILLS: dict[str, Any] = {"model": {**SMALL, "baseline": "c2d", "num_frames": 1}}
VIEWS = 30
"""10 clips x 3 crops, with which the paper counts the CNNs."""


def i3d(frames: int = 8) -> dict[str, Any]:
    """Fields of a `Variant`: I3D R50 8x8."""
    return {
        "change": {"model": {**SMALL, "baseline": "i3d", "num_frames": frames}},
        "image": STILLS,
        "paper": {"baseline": "i3d", "num_frames": 8, "image_size": 256},
        "views": VIEWS,
    }


def slowfast(frames: int = 8) -> dict[str, Any]:
    """Fields of a `Variant`: SlowFast R50 8x8; its slow pathway sees every second frame of the probes' short clips (the
    only one of a clip of one)."""
    model = {**SMALL, "baseline": "slowfast", "num_frames": frames, "alpha": min(2, frames), "beta": 0.25}
    return {
        "change": {"model": model},
        "image": STILLS,
        "paper": {"baseline": "slowfast", "num_frames": 32, "image_size": 256},
        "views": VIEWS,
    }
