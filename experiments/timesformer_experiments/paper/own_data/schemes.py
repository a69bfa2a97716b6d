"""Models that `reproduce real` compares: attention schemes behind one frozen stem of an image model, and two CNNs.

The first blocks of every transformer attend within frames, as the image model does, and stay frozen; the last ones have
the scheme.  Positions in time are added between them.  Space and ViViT's factorised encoder keep a class token for each
frame, which the others mean over the frames.  The CNNs are compact and start from nothing.
"""

from __future__ import annotations

from typing import Any

from timesformer.config.transformer import TimeSformerConfig

SCHEMES: dict[str, str] = {
    "space": "Space (S)",
    "joint": "Joint Space-Time (ST)",
    "divided": "Divided Space-Time (T+S)",
    "local_global": "Sparse Local Global (L+G)",
    "axial": "Axial (T+W+H)",
    "trajectory": "Trajectory",
    "factorised_encoder": "ViViT 2, factorised encoder",
    "factorised_self_attention": "ViViT 3, factorised self-attention",
    "c2d": "C2D, from scratch",
    "i3d": "I3D, from scratch",
}
"""Models by name, with their titles."""
CNNS = ("c2d", "i3d")
PER_FRAME = ("space", "factorised_encoder")
"""Schemes whose first encoder sees single frames in all blocks."""
CNN: dict[str, Any] = {"width": 16, "blocks": [1, 1, 1, 1], "drop_rate": 0.0}
OF_CHECKPOINT = ("attention", "schedule", "num_classes", "position", "time_from", "num_frames", "image_size", "pool")
"""Fields of a checkpoint that the schemes do not take over."""


def model_fields(
    scheme: str, start: TimeSformerConfig, frames: int, size: tuple[int, int], blocks: int, more: dict[str, Any]
) -> dict[str, Any]:
    """Return the fields of a model; blocks: how many of the last are trained; more: fields of every transformer."""
    shape = {"num_frames": frames, "image_size": list(size)}
    if scheme in CNNS:
        return {"baseline": scheme, **CNN, **shape}
    stem = more.get("depth", start.depth) - blocks
    taken = {name: value for name, value in start.to_dict().items() if name not in OF_CHECKPOINT}
    fields = taken | {"attention": scheme, "temporal_depth": blocks, "pool": "mean", **shape}
    if scheme not in PER_FRAME and stem:
        fields |= {"schedule": {f"0-{stem - 1}": "space"}, "position": "space_time", "time_from": stem}
    elif scheme not in PER_FRAME:
        fields["position"] = "space_time"
    return fields | more
