"""Pictures of the gallery: rows of frames with a map each, named on the left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from timesformer.maps.overlay import GLOW, overlay
from timesformer.maps.pictures import GAP, mark, offset, strip
from timesformer.text import printable

BRIGHTEST = 0.995
"""Share of a map's weights up to the brightest glow: a few patches may have many times the weight of the others."""
FRAME = 1.55
"""Width of a frame, in inches."""
LEFT, RIGHT, TOP, BOTTOM, BETWEEN = 1.3, 0.95, 0.62, 0.3, 0.1
"""Margins around the rows and between them, in inches."""


@dataclass(frozen=True)
class Row:
    """A row of a picture.

    name: its lines, written on the left; weights: (t, h, w) on the frames' patches
    query: patch (t, h, w) to mark, None for the class token
    """

    name: str
    weights: np.ndarray
    query: tuple[int, int, int] | None = None


def draw_rows(
    frames: np.ndarray, seconds: Sequence[float] | np.ndarray, rows: Sequence[Row], title: str, credit: str
) -> Figure:
    """Draw the frames, uint8 (t, H, W, 3), in a row, and below it each row's map as light on the frames.

    Each row has a scale of its own, whose end is said beside it.

    seconds: times of the frames; credit: line at the foot
    """
    count, height, width = frames.shape[:3]
    inside = FRAME * (count + (count - 1) * GAP)
    high = FRAME * height / width
    wide, tall = LEFT + inside + RIGHT, TOP + (len(rows) + 1) * (high + BETWEEN) + BOTTOM
    figure = plt.figure(figsize=(wide, tall))
    plt.close(figure)
    axes = [
        figure.add_axes((LEFT / wide, 1 - (TOP + (i + 1) * high + i * BETWEEN) / tall, inside / wide, high / tall))
        for i in range(len(rows) + 1)
    ]
    strip(axes[0], frames)
    _named(axes[0], "video")
    for column, when in enumerate(seconds):
        place = (offset(column, width) + width / 2, 0)
        axes[0].annotate(f"{when:.1f} s", place, (0, 3), textcoords="offset points", ha="center", fontsize=9)
    for ax, row in zip(axes[1:], rows, strict=True):
        top = brightest(row.weights)
        strip(ax, overlay(frames, row.weights, top=top))
        _named(ax, row.name)
        _scale(figure, ax, top, bool(row.weights.max() > top))
        if row.query is not None:
            t, h, w = row.query
            size = height / row.weights.shape[1], width / row.weights.shape[2]
            mark(ax, h, w, size, offset(t, width))
            if row is rows[0] or rows[rows.index(row) - 1].query is None:
                mark(axes[0], h, w, size, offset(t, width))
    figure.text(0.1 / wide, 1 - 0.08 / tall, printable(title), fontsize=11, va="top", parse_math=False)
    figure.text(0.1 / wide, 0.08 / tall, printable(credit), fontsize=8, va="bottom", color="0.35", parse_math=False)
    return figure


def brightest(weights: np.ndarray) -> float:
    """Return the weight of the brightest glow, from the weights above 0."""
    some = weights[weights > 0]
    return float(np.quantile(some, BRIGHTEST, method="higher")) if some.size else 0.0


def _named(ax: Axes, text: str) -> None:
    lines = "\n".join(printable(line) for line in text.split("\n"))
    ax.text(-0.008, 0.5, lines, transform=ax.transAxes, ha="right", va="center", fontsize=9, parse_math=False)


def _scale(figure: Figure, ax: Axes, top: float, beyond: bool) -> None:
    """Draw the scale of a row: from 0 to its brightest glow, with ≥ if some patches have more."""
    box, wide = ax.get_position(), figure.get_figwidth()
    bar = figure.add_axes((box.x1 + 0.08 / wide, box.y0, 0.08 / wide, box.height), label="scale")
    bar.imshow(np.linspace(0, 1, 64)[:, None], cmap=GLOW, aspect="auto", origin="lower", extent=(0, 1, 0, 1))
    bar.set(xticks=[], yticks=[])
    bar.text(1.6, 0, "0", fontsize=8, va="bottom")
    bar.text(1.6, 1, f"{'≥ ' if beyond else ''}{100 * top:.2g} %", fontsize=8, va="top")
