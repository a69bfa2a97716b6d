"""Outlines of the probes' objects as signed distances in units of the object's radius, negative inside."""

from collections.abc import Callable

import numpy as np

Array = np.ndarray
Outline = Callable[[Array, Array], Array]

FAMILIES = ("disc", "ring", "square", "triangle", "star", "cross", "bar", "crescent")
"""Classes of `appearance`."""


def _disc(rng: np.random.Generator) -> Outline:
    return lambda u, v: np.hypot(u, v) - 1.0


def _ring(rng: np.random.Generator) -> Outline:
    thickness = rng.uniform(0.20, 0.28)
    return lambda u, v: np.abs(np.hypot(u, v) - 0.75) - thickness


def _square(rng: np.random.Generator) -> Outline:
    return lambda u, v: np.maximum(np.abs(u), np.abs(v)) - 0.9


def _triangle(rng: np.random.Generator) -> Outline:
    height = rng.uniform(0.9, 1.15)

    def outline(u: Array, v: Array) -> Array:
        side = 0.866 * np.abs(v) + 0.5 * u
        return np.maximum(side - 0.55, -u / height - 0.5)

    return outline


def _star(rng: np.random.Generator) -> Outline:
    inner = rng.uniform(0.38, 0.48)
    half = np.pi / 5
    tip, notch = np.array([1.0, 0.0]), inner * np.array([np.cos(half), np.sin(half)])
    along = (notch - tip) / np.linalg.norm(notch - tip)

    def outline(u: Array, v: Array) -> Array:
        # Fold the plane into half an arm of the star, where its edge is a straight line from tip to notch.
        angle = np.abs(np.mod(np.arctan2(v, u) + half, 2 * half) - half)
        radius = np.hypot(u, v)
        return (radius * np.sin(angle) - tip[1]) * -along[0] + (radius * np.cos(angle) - tip[0]) * along[1]

    return outline


def _cross(rng: np.random.Generator) -> Outline:
    arm = rng.uniform(0.22, 0.32)

    def outline(u: Array, v: Array) -> Array:
        a, b = np.abs(u), np.abs(v)
        return np.minimum(np.maximum(a - 1.0, b - arm), np.maximum(a - arm, b - 1.0))

    return outline


def _bar(rng: np.random.Generator) -> Outline:
    width = rng.uniform(0.25, 0.35)
    return lambda u, v: np.maximum(np.abs(u) - 1.0, np.abs(v) - width)


def _crescent(rng: np.random.Generator) -> Outline:
    offset = rng.uniform(0.45, 0.55)
    return lambda u, v: np.maximum(np.hypot(u, v) - 1.0, 0.75 - np.hypot(u - offset, v))


def _blob(rng: np.random.Generator) -> Outline:
    """Make a pear-like outline r(angle) = 1 + sum of three harmonics.

    The first harmonic is never small, so no rotation maps a blob onto itself.
    """
    amplitudes = np.array([rng.uniform(0.30, 0.40), rng.uniform(0.10, 0.25), rng.uniform(0.0, 0.20)])
    phases = rng.uniform(0.0, 2 * np.pi, 3)
    weights = [complex(value) for value in amplitudes * np.exp(1j * phases)]

    def outline(u: Array, v: Array) -> Array:
        radius = np.hypot(u, v) + 1e-6
        cos, sin = u / radius, v / radius
        edge: Array = np.ones_like(radius)
        c, s = cos, sin
        for order, weight in enumerate(weights):
            if order:
                c, s = c * cos - s * sin, s * cos + c * sin  # the next multiple of the angle
            edge = edge + weight.real * c - weight.imag * s
        return 0.8 * (radius - edge)

    return outline


_MAKERS: dict[str, Callable[[np.random.Generator], Outline]] = {
    "disc": _disc,
    "ring": _ring,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "bar": _bar,
    "crescent": _crescent,
    "blob": _blob,
}

_AXIS = (np.arange(48) + 0.5) / 12 - 2.0


def make_outline(family: str, rng: np.random.Generator) -> Outline:
    """Draw an outline of a family, scaled to the area of a disc of radius 1 so that all families are equally large."""
    raw = _MAKERS[family](rng)
    inside = (raw(_AXIS[None, :], _AXIS[:, None]) < 0).sum() / 144.0
    scale = float(np.sqrt(inside / np.pi))
    return lambda u, v: raw(u * scale, v * scale) / scale
