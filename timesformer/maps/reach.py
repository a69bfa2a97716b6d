"""Picture of the patches that a patch can depend on after each step, drawn from a scheme's declaration."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from timesformer.attention import Grid, Scheme, all_reached, meet, reach
from timesformer.attention.reach import block_of, steps_of
from timesformer.errors import InputError

# Okabe-Ito colours are distinct for any colour vision; hatches distinguish the patches without colour.
QUERY, MET, REACHED, NOT_YET = "#0072B2", "#E69F00", "#56B4E9", "white"
HATCHES = {QUERY: None, MET: "//", REACHED: "..", NOT_YET: None}
ROWS = 16


def draw_reach(
    scheme: Scheme,
    grid: Grid = (3, 4, 4),
    query: Grid | None = None,
    steps: int | None = None,
    blocks: int | None = None,
    bridge: bool = True,
) -> Figure:
    """Draw what one query patch can depend on after each step: the frames of the (t, h, w) grid in a row for each step.

    The query is blue.  Patches that it has been compared with directly, in this step or before, are orange.  Patches
    that it can depend on through other patches or, with `bridge`, through the class token are light blue.  All others
    are white.  The default query is the middle of the clip.  By default the picture ends where every patch can depend
    on every patch, and after two blocks at most.

    Raises:
        InputError: a query outside the grid, fewer than 1 or more than 16 steps to draw, or as for
            `timesformer.attention.reach`.
    """
    if query is None:
        query = (grid[0] // 2, grid[1] // 2, grid[2] // 2)
    if any(not 0 <= q < n for q, n in zip(query, grid, strict=True)):
        raise InputError(f"query: expected a patch inside the grid (t, h, w) = {grid}, got {query}")
    if steps is not None and blocks is not None:
        raise InputError(f"steps, blocks: expected one of them, got steps {steps} and blocks {blocks}")
    full = all_reached(scheme, grid, bridge)  # first, since it raises for schemes without an answer
    encoder = scheme.encoders[0]
    if steps is None and blocks is None:
        most = steps_of(encoder, 2)
        steps = most if full is None else max(1, min(full.steps, most))
    elif blocks is not None:
        steps = steps_of(encoder, blocks)
    if steps is None or not 1 <= steps <= ROWS:
        raise InputError(f"steps, blocks: expected 1 to {ROWS} steps to draw, got {steps}")
    height = 0.3 + max(0.8, 1.6 * grid[1] / grid[2])
    figure, axes = plt.subplots(
        steps, grid[0], figsize=(1.7 * grid[0] + 0.9, height * steps + 1.0), squeeze=False, layout="constrained"
    )
    row = (query[0] * grid[1] + query[1]) * grid[2] + query[2]
    streams = encoder.class_tokens == "frame"
    met = np.zeros(grid, dtype=bool)
    for number, line in enumerate(axes, start=1):
        _, stage = encoder.stages[(number - 1) % len(encoder.stages)]
        for step in stage:
            if streams:  # a frame is a stream of its own
                met[query[0]] |= meet(step, (1, *grid[1:])).numpy()[row % (grid[1] * grid[2])].reshape(grid[1:])
            else:
                met |= meet(step, grid).numpy()[row].reshape(grid)
        reached = reach(scheme, grid, steps=number, bridge=bridge).numpy()[row].reshape(grid)
        for frame, ax in enumerate(line):
            colours = np.where(met[frame], MET, np.where(reached[frame], REACHED, NOT_YET))
            if frame == query[0]:
                colours[query[1:]] = QUERY
            _frame(ax, colours)
            ax.set_title(f"frame {frame}", fontsize=8)
        names = " | ".join(step.name for step in stage)
        line[0].set_ylabel(f"step {number}, block {block_of(encoder, number)}\n{names}", fontsize=9)
    carried = "with" if bridge else "without"
    figure.suptitle(
        f"{scheme.title or scheme.name}: what one patch can depend on,\n{carried} the class token as a bridge",
        fontsize=10,
    )
    named = {QUERY: "the patch", MET: "met directly", REACHED: "reached through others", NOT_YET: "not yet"}
    keys = [plt.Rectangle((0, 0), 1, 1, facecolor=colour, edgecolor="0.35", hatch=HATCHES[colour]) for colour in named]
    figure.legend(keys, list(named.values()), loc="outside lower center", ncols=4 if grid[0] > 2 else 2, fontsize=8)
    plt.close(figure)
    return figure


def _frame(ax: plt.Axes, colours: np.ndarray) -> None:
    height, width = colours.shape
    for place, colour in np.ndenumerate(colours):
        ax.add_patch(
            plt.Rectangle(
                (place[1], place[0]),
                1,
                1,
                facecolor=str(colour),
                edgecolor="0.35",
                hatch=HATCHES[str(colour)],
                linewidth=0.6,
            )
        )
    ax.set(xlim=(0, width), ylim=(height, 0), aspect="equal", xticks=[], yticks=[])
