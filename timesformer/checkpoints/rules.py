"""Tables from our weights to the stored tensors that make them up, for formats that keep q, k and v apart."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from timesformer.checkpoints.layout import shapes
from timesformer.checkpoints.source import Raw, UnexplainedTensors
from timesformer.config.transformer import TimeSformerConfig
from timesformer.errors import InputError


@dataclass(frozen=True)
class Rule:
    """One of our weights, the stored tensors that it comes from, and how."""

    ours: str
    stored: tuple[str, ...]
    convert: Callable[..., Tensor]


def plain(value: Tensor) -> Tensor:
    return value


def joined(*values: Tensor) -> Tensor:
    """q, k and v, one below the other."""
    return torch.cat(values)


def without_batch(value: Tensor) -> Tensor:
    """(1, n, d) -> (n, d)."""
    return value[0]


def flat(value: Tensor) -> Tensor:
    """A class token (1, 1, d) -> (d)."""
    return value.flatten()


def patches(value: Tensor) -> Tensor:
    """A convolution (d, c, [u,] p, p) as our linear over flattened patches."""
    return value.flatten(1)


def weight_and_bias(
    ours: str, stored: tuple[str, ...] | str, convert: Callable[..., Tensor] = plain
) -> tuple[Rule, Rule]:
    """The two rules of a linear layer or a norm whose tensors are called weight and bias there too; only `joined`
    says anything about biases."""
    names = (stored,) if isinstance(stored, str) else stored
    return (
        Rule(f"{ours}.weight", tuple(f"{name}.weight" for name in names), convert),
        Rule(f"{ours}.bias", tuple(f"{name}.bias" for name in names), joined if convert is joined else plain),
    )


def explain(raw: Raw, rules: Iterable[Rule], unused: Iterable[str], name: str) -> None:
    """Require every tensor of the rules (InputError) and no others (UnexplainedTensors)."""
    wanted = [stored for rule in rules for stored in rule.stored]
    extra = set(raw.tensors) - set(wanted) - set(unused)
    if extra:
        raise UnexplainedTensors(raw.path, name, extra)
    missing = [stored for stored in wanted if stored not in raw.tensors]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(f"{raw.path}: {missing[0]}{more} missing; a {name} checkpoint needs it")


def convert(raw: Raw, rules: Iterable[Rule], config: TimeSformerConfig) -> dict[str, Tensor]:
    """The weights by our names; InputError, naming the stored tensor, where its shape does not fit the configuration or
    it holds no floating-point numbers."""
    expected, found = shapes(config), {}
    for rule in rules:
        values = [raw.tensors[name] for name in rule.stored]
        for name, value in zip(rule.stored, values, strict=True):
            if not value.is_floating_point():
                raise InputError(f"{raw.path}: {name} holds {value.dtype}, expected floating-point numbers")
        try:
            found[rule.ours] = rule.convert(*values).contiguous()
        except (RuntimeError, IndexError) as error:  # parts that do not fit together
            raise InputError(_misfit(raw, rule, values, expected[rule.ours])) from error
        if tuple(found[rule.ours].shape) != expected[rule.ours]:
            raise InputError(_misfit(raw, rule, values, expected[rule.ours]))
    return found


def _misfit(raw: Raw, rule: Rule, values: list[Tensor], expected: tuple[int, ...]) -> str:
    had = ", ".join(str(tuple(value.shape)) for value in values)
    return f"{raw.path}: {', '.join(rule.stored)}: shape {had} does not make {rule.ours} of shape {expected}"


def stored_shape(raw: Raw, name: str, axes: int) -> tuple[int, ...]:
    """The shape of a stored tensor; InputError where it has another number of axes."""
    shape = tuple(raw.tensors[name].shape)
    if len(shape) != axes:
        raise InputError(f"{raw.path}: {name}: expected {axes} axes, got shape {shape}")
    return shape


def square_side(raw: Raw, name: str, rows: int) -> int:
    """Rows of positions -> patches along the side of a square image."""
    side = math.isqrt(max(0, rows))
    if rows < 1 or side * side != rows:
        raise InputError(f"{raw.path}: {name}: {rows} rows for patches; expected a square number")
    return side


def depth_of(raw: Raw, start: str, end: str = ".") -> int:
    """The number of blocks `start0`, `start1`, … in a row."""
    depth = 0
    while any(name.startswith(f"{start}{depth}{end}") for name in raw.tensors):
        depth += 1
    return depth


def mlp_ratio(hidden: int, width: int) -> float:
    """The ratio that gives exactly this hidden width."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)
