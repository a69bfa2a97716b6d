"""Checks of the backbone's switches: fields of a configuration that no attention scheme declares.

Each is off by default.  What a switch cannot be combined with is an error that names both fields.  `config` is a
`TimeSformerConfig` throughout, which imports these checks.
"""

import math
from collections.abc import Callable
from typing import Any

from timesformer.errors import InputError

GATES = ("head", "channel")
MLPS = ("gelu", "swiglu")
NORMS = ("layer", "rms")
BIASES = ("qkv", "qk", "qv", "kv", "q", "k", "v", "")
POOLS = ("class", "mean", "class+mean", "attentive")
ROPE_PAIRINGS = ("half", "neighbour", "vjepa2")
ROPE_COORDINATES = ("index", "unit")

_CHOICES: dict[str, tuple[Any, ...]] = {
    "gate": (None, *GATES),
    "mlp": MLPS,
    "norm": NORMS,
    "qkv_bias": BIASES,
    "pool": (None, *POOLS),
    "rope_pairing": ROPE_PAIRINGS,
    "rope_coordinates": ROPE_COORDINATES,
}
_ROPE = ("rope_pairing", "rope_base", "rope_axes", "rope_scale", "rope_coordinates")
DEPENDENT: dict[str, Callable[[Any], tuple[str, ...]]] = {
    "position": lambda value: () if value == "rope" else _ROPE,
    "pool": lambda value: (
        (() if value == "attentive" else ("pooler_depth",)) + (() if value == "mean" else ("fc_norm", "fc_norm_eps"))
    ),
    "fc_norm": lambda value: () if value else ("fc_norm_eps",),
}
"""Functions from the value of a switch to the fields that it does not read."""


def check_switches(config: Any, defaults: dict[str, Any]) -> None:
    """Check the switches of a configuration; `defaults` holds the default of every field.

    Raises:
        InputError: an unknown or impossible value, or two switches that contradict each other; names the field.
    """
    for name in ("class_token", "qk_norm", "fc_norm", "standardise"):
        if not isinstance(getattr(config, name), bool):
            raise InputError(f"{name}: expected true or false, got {getattr(config, name)!r}")
    for name, choices in _CHOICES.items():
        if getattr(config, name) not in choices:
            raise InputError(f"{name}: expected one of {choices}, got {getattr(config, name)!r}")
    for name in ("registers", "pooler_depth", "time_from"):
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise InputError(f"{name}: expected 0 or a positive integer, got {value!r}")
    for name in ("rope_base", "fc_norm_eps", *(("layer_scale",) if config.layer_scale is not None else ())):
        if not _is_positive(getattr(config, name)):
            raise InputError(f"{name}: expected a positive number, got {getattr(config, name)!r}")
    _check_rope(config, defaults)
    _check_tokens(config, defaults)


def _check_rope(config: Any, defaults: dict[str, Any]) -> None:
    width = config.embed_dim // config.num_heads
    scale, axes = config.rope_scale, config.rope_axes
    if not isinstance(scale, tuple) or len(scale) != 3 or not all(_is_positive(value) for value in scale):
        raise InputError(f"rope_scale: expected three positive numbers, for t, h and w, got {scale!r}")
    if config.position != "rope":
        for name in _ROPE:
            if getattr(config, name) != defaults[name]:
                raise InputError(f"{name}: expected position 'rope' with it, got position {config.position!r}")
        return
    if axes is not None and (
        not isinstance(axes, tuple)
        or len(axes) != 3
        or not all(isinstance(value, int) and not isinstance(value, bool) and value >= 0 for value in axes)
        or any(value % 2 for value in axes)
        or not 0 < sum(axes) <= width
    ):
        raise InputError(
            f"rope_axes: expected three even numbers of channels, for t, h and w, together at most {width}, the width "
            f"of a head, got {axes!r}"
        )
    if sum(rope_channels(config)) == 0:
        raise InputError(f"rope_axes: expected channels to rotate, heads of {width} channels leave none for each axis")


def rope_channels(config: Any) -> tuple[int, int, int]:
    """Return the channels of a head that are rotated by t, h and w: those declared, or the largest even third each."""
    declared: tuple[int, int, int] | None = config.rope_axes
    if declared is not None:
        return declared
    third = 2 * (config.embed_dim // config.num_heads // 3 // 2)
    return third, third, third


def _check_tokens(config: Any, defaults: dict[str, Any]) -> None:
    scheme = config.scheme
    last = scheme.encoders[-1]
    without = [encoder for encoder in scheme.encoders if encoder.class_tokens == "none"]
    if config.registers and len(without) == len(scheme.encoders):
        raise InputError(
            f"registers: expected a scheme with a class token, whose policy they follow, got {config.attention!r}"
            + ("" if config.class_token else " without one (class_token: false)")
        )
    if config.pool in ("class", "class+mean") and last.class_tokens == "none":
        raise InputError(f"pool: expected 'mean' or 'attentive' without a class token, got {config.pool!r}")
    if config.pooler_depth and config.pool != "attentive":
        raise InputError(f"pooler_depth: expected pool 'attentive' with it, got pool {config.pool!r}")
    if config.fc_norm and config.resolved_pool != "mean":
        raise InputError(f"fc_norm: expected pool 'mean' with it, got pool {config.resolved_pool!r}")
    in_time = config.position or scheme.position
    if config.time_from and (in_time != "space_time" and scheme.encoders[0].class_tokens != "frame"):
        raise InputError(f"time_from: expected position 'space_time' with it, got {in_time!r}")
    if config.time_from >= config.depth:
        raise InputError(f"time_from: expected a block from 0 to {config.depth - 1}, got {config.time_from}")
    if config.fc_norm_eps != defaults["fc_norm_eps"] and not config.fc_norm:
        raise InputError("fc_norm_eps: expected fc_norm true with it")


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
