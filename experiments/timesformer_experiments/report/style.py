"""Colours, markers and paper of figures."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from matplotlib.figure import Figure

# Okabe and Ito's palette: distinguishable with any colour vision; shapes tell the schemes apart without colour too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "D", "^", "v", "P", "X")


def new_figure(width: float, height: float, panels: int) -> tuple[Figure, list[Any]]:
    """Return a figure with panels side by side and a common style, without pyplot's global state; sizes in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = list(figure.subplots(1, panels, squeeze=False)[0])
    for axis in axes:
        axis.grid(True, color="#dddddd", linewidth=0.6)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def png(figure: Figure, dots_per_inch: int = 150) -> bytes:
    """Return the figure as PNG, with the same bytes for the same figure."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=dots_per_inch, metadata={"Software": None})
    return buffer.getvalue()
