"""Weights of a model with some switches of the backbone, for a model with others, as far as that is exact."""

import torch
from torch import Tensor

from timesformer.config.transformer import TimeSformerConfig
from timesformer.errors import InputError
from timesformer.positions import sinusoid_table

LEARNED = ("space", "space_time", "table")
TABLE = "encoders.0.positions.table"


def require_same_kind(where: str, theirs: TimeSformerConfig, ours: TimeSformerConfig) -> None:
    """Require the switches that change what every weight means; InputError names the first that differs."""
    for name in ("mlp", "norm"):
        if getattr(theirs, name) != getattr(ours, name):
            raise InputError(
                f"{where}: {name} is {getattr(theirs, name)!r} there and {getattr(ours, name)!r} here; state it"
            )


def switched(
    weights: dict[str, Tensor], theirs: TimeSformerConfig, ours: TimeSformerConfig
) -> tuple[dict[str, Tensor], list[str]]:
    """Return the weights as a model of our switches has them, and what was done, a line each.

    - A layer scale that the new model does not have is folded into the linear before it.
    - Biases of q, k and v: those that only the new model has are zero, those that it does not have are dropped.
    - Sinusoid positions become a table of learned ones.  Other positions of another kind are dropped.
    """
    weights, notes = dict(weights), list[str]()
    if theirs.layer_scale is not None and ours.layer_scale is None:
        _fold_scales(weights)
        notes.append("layer_scale: folded into the linears before it, the new model has none")
    if theirs.qkv_bias != ours.qkv_bias:
        notes.append(_switch_biases(weights, theirs, ours))
    notes += _positions(weights, theirs, ours)
    return weights, notes


def _fold_scales(weights: dict[str, Tensor]) -> None:
    for name in [name for name in weights if name.endswith(".scale")]:
        scale, part = weights.pop(name), name.removesuffix("scale")
        last = next(f"{part}{linear}" for linear in ("fc", "proj", "fc2") if f"{part}{linear}.weight" in weights)
        weights[f"{last}.weight"] = weights[f"{last}.weight"] * scale[:, None]
        weights[f"{last}.bias"] = weights[f"{last}.bias"] * scale


def _switch_biases(weights: dict[str, Tensor], theirs: TimeSformerConfig, ours: TimeSformerConfig) -> str:
    d = theirs.embed_dim
    for name in [name for name in weights if name.endswith(".qkv.weight")]:
        bias = name.removesuffix("weight") + "bias"
        given = dict(zip(theirs.qkv_bias, weights.pop(bias).split(d), strict=True)) if theirs.qkv_bias else {}
        parts = [given.get(part, torch.zeros(d)) for part in ours.qkv_bias]
        if parts:
            weights[bias] = torch.cat(parts)
    lost = [part for part in theirs.qkv_bias if part not in ours.qkv_bias]
    new = [part for part in ours.qkv_bias if part not in theirs.qkv_bias]
    words = ([f"those of {' and '.join(new)} are zero"] if new else []) + (
        [f"those of {' and '.join(lost)} are dropped"] if lost else []
    )
    return f"qkv_bias: {theirs.qkv_bias!r} there and {ours.qkv_bias!r} here; {', '.join(words)}"


def _positions(weights: dict[str, Tensor], theirs: TimeSformerConfig, ours: TimeSformerConfig) -> list[str]:
    had, have = theirs.resolved_position, ours.resolved_position
    if had == "rope" and have == "rope":
        fields = ("rope_pairing", "rope_base", "rope_axes", "rope_scale", "rope_coordinates")
        return [
            f"{name}: {getattr(theirs, name)!r} there and {getattr(ours, name)!r} here; queries and keys turn otherwise"
            for name in fields
            if getattr(theirs, name) != getattr(ours, name)
        ]
    if had == have or had in LEARNED:  # learned ones are resized, or left out with the reason, weight by weight
        return []
    if had == "sinusoid" and have == "table":
        rows = sinusoid_table(ours.grid[0] * ours.grid[1] * ours.grid[2], ours.embed_dim)
        cls = torch.zeros(int(ours.scheme.encoders[0].class_tokens != "none"), ours.embed_dim)
        weights[TABLE] = torch.cat([cls, rows])
        return ["positions: the table starts as the sinusoids of the source, at this model's size"]
    if had == "none":
        return []
    return [f"positions: {had} there cannot become {have} exactly; dropped (position: {had} keeps them)"]
