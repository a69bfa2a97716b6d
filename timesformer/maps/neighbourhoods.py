"""Picture of a scheme (Figure 2 of the paper), drawn from its declaration."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from timesformer.attention import Encoder, Grid, Scheme, Step
from timesformer.errors import InputError

# Okabe-Ito colours are distinct for any colour vision; hatches distinguish the steps without colour.
COLOURS = ("#E69F00", "#CC79A7", "#56B4E9", "#009E73", "#D55E00")
HATCHES = ("//", "\\\\", "..", "xx", "++")
QUERY = "#0072B2"


def draw_scheme(scheme: Scheme, grid: Grid = (3, 4, 4), query: Grid | None = None) -> Figure:
    """Draw the frames of a (t, h, w) grid in a row for each step, with the query in blue and its keys coloured.

    A step that divides its heads between parts has a row for each part.  The default query is the middle of the clip.

    Raises:
        InputError: a query outside the grid.
    """
    if query is None:
        query = (grid[0] // 2, grid[1] // 2, grid[2] // 2)
    if any(not 0 <= q < n for q, n in zip(query, grid, strict=True)):
        raise InputError(f"query: expected a patch inside the grid (t, h, w) = {grid}, got {query}")
    rows = [
        (step, part, streams, encoder)
        for number, encoder in enumerate(scheme.encoders)
        for step in encoder.steps
        for part in range(len(step.over))
        for streams in [(grid[0], 1, 1) if number else grid]
    ]
    figure, axes = plt.subplots(
        len(rows), grid[0], figsize=(1.7 * grid[0] + 0.6, 1.9 * len(rows) + 0.5), squeeze=False, layout="constrained"
    )
    for line, (step, part, shape, encoder) in zip(axes, rows, strict=True):
        at = query if shape == grid else (query[0], 0, 0)
        keys = np.asarray(step.over[part].visible(at, shape))
        colour = [step.name for step, *_ in rows].index(step.name) % len(COLOURS)
        for frame, ax in enumerate(line):
            _frame(ax, keys[frame], at[1:] if frame == at[0] else None, colour)
            ax.set_title(f"frame {frame}", fontsize=8)
        line[0].set_ylabel(_label(step, part, encoder), fontsize=9)
    figure.suptitle(f"{scheme.title or scheme.name}: the keys (coloured) of one query (blue)", fontsize=10)
    plt.close(figure)
    return figure


def _label(step: Step, part: int, encoder: Encoder) -> str:
    heads = f", heads {part + 1}/{len(step.over)}" if len(step.over) > 1 else ""
    block = next(number for number, stage in encoder.stages if step in stage) + 1
    of = f", block {block} of {len(encoder.pattern)}" if encoder.more else ""
    return f"{step.name}{heads}{of}\nclass: {step.cls}"


def _frame(ax: plt.Axes, keys: np.ndarray, query: tuple[int, int] | None, colour: int) -> None:
    height, width = keys.shape
    for row in range(height):
        for column in range(width):
            is_query = query == (row, column)
            seen = bool(keys[row, column])
            ax.add_patch(
                plt.Rectangle(
                    (column, row),
                    1,
                    1,
                    facecolor=QUERY if is_query else COLOURS[colour] if seen else "white",
                    edgecolor="0.35",
                    hatch=HATCHES[colour] if seen and not is_query else None,
                    linewidth=0.6,
                )
            )
    ax.set(xlim=(0, width), ylim=(height, 0), aspect="equal", xticks=[], yticks=[])
