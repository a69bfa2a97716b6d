"""Pictures of maps: over frames (Figure 7 of the paper), by head, and time against time for one patch position."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from timesformer.errors import InputError
from timesformer.maps.attention import AttentionMap
from timesformer.maps.overlay import GLOW, holding, over_frames, overlay
from timesformer.text import printable

MOST_FRAMES = 8
"""Most columns of a picture."""
GAP = 0.05
"""Gap between two frames, as a fraction of their width."""

Place = tuple[int, int, int]


def draw_overlays(
    frames: np.ndarray,
    maps: Mapping[str, np.ndarray],
    *,
    seconds: Sequence[float] | np.ndarray | None = None,
    query: Place | None = None,
    title: str = "",
    smooth: bool = False,
) -> Figure:
    """Draw the frames in a row, and below it a row for each map, with weight as light on a scale of its own.

    frames: uint8 (t, H, W, 3); of more than 8 frames, 8 are shown, evenly spaced
    maps: {name: weights (tokens in time, h, w)}
    seconds: times of the frames, (t,)
    query: patch (t, h, w) to mark

    A dashed line surrounds the patches that together hold half of a map's weight.

    Raises:
        InputError: a map whose grid does not divide the frames or their pixels.
    """
    shown = shown_frames(len(frames))
    height, width = frames.shape[1:3]
    figure, axes = frame_rows(frames, shown, len(maps), seconds)
    for ax, (name, weights) in zip(axes[1:], maps.items(), strict=True):
        strip(ax, overlay(frames, weights, smooth=smooth)[shown])
        name_row(ax, name)
        _bar(figure, ax, float(weights.max()))
        times, rows, columns = weights.shape
        size = height / rows, width / columns
        half = over_frames(holding(weights), len(frames))[shown] if weights.max() > 0 else ()
        for column, inside in enumerate(half):
            _outline(ax, inside, size, offset(column, width))
        if query is not None:
            for column, number in enumerate(shown):
                if number * times // len(frames) == query[0]:
                    mark(ax, min(query[1], rows - 1), min(query[2], columns - 1), size, offset(column, width))
    left_out = len(frames) - len(shown)
    more = f" ({len(shown)} of {len(frames)} frames)" if left_out else ""
    write_title(figure, f"{title}{more}")
    return figure


def draw_heads(
    frames: np.ndarray,
    found: AttentionMap,
    *,
    seconds: Sequence[float] | np.ndarray | None = None,
    title: str = "",
    smooth: bool = False,
) -> Figure:
    """Draw a row for each head of a map (first clip, first query), and for their mean; otherwise as `draw_overlays`."""
    rows = {f"head {head}": found.weights[0, i, 0] for i, head in enumerate(found.heads)}
    if len(rows) > 1:
        rows["mean"] = found.weights[0, :, 0].mean(0)
    query = found.queries[0]
    marked = None if query == "class" else query
    title = title or f"layer {found.layer}, {found.step}, from {_said(found.queries[0])}"
    return draw_overlays(frames, rows, seconds=seconds, query=marked, title=title, smooth=smooth)


def draw_time(found: AttentionMap, *, title: str = "") -> Figure:
    """Draw attention between times for one patch position: query times as rows, key times as columns, for each head.

    found: map whose queries are one patch position (t, h, w) at all times t, in order

    For a step that attends beyond this position, weights are summed over the patches of each time.  The number in a
    cell is its weight in percent.

    Raises:
        InputError: the queries are not one position at all times.
    """
    places = [query for query in found.queries if query != "class"]
    times = found.weights.shape[3]
    if [place[0] for place in places] != list(range(times)) or len({place[1:] for place in places}) != 1:
        raise InputError(f"queries: expected one position at the times 0 to {times - 1}, got {places}")
    weights = found.weights[0].sum((-2, -1))  # head, query, t
    names = [f"head {head}" for head in found.heads]
    if len(names) > 1:
        weights, names = np.concatenate([weights, weights.mean(0, keepdims=True)]), [*names, "mean"]
    columns = min(5, len(names))
    rows = -(-len(names) // columns)
    width, height = 2.3 * columns + 1, 2.4 * rows + 0.7  # inches; placed by hand as in `draw_overlays`
    figure, axes = plt.subplots(rows, columns, figsize=(width, height), squeeze=False)
    figure.subplots_adjust(0.55 / width, 0.5 / height, 1 - 1.05 / width, 1 - 0.65 / height, wspace=0.35, hspace=0.4)
    image = None
    for number, ax in enumerate(axes.flat):
        if number >= len(names):
            ax.set_axis_off()
            continue
        image = ax.imshow(weights[number], cmap="cividis", vmin=0, vmax=max(float(weights.max()), 1e-12))
        ax.set_title(names[number], fontsize=9)
        ax.set_xlabel("key time", fontsize=8)
        ax.set_ylabel("query time", fontsize=8)
        ax.tick_params(labelsize=7)
        if times <= 8:
            _numbers(ax, weights[number], float(weights.max()))
    assert image is not None
    bar = figure.add_axes((1 - 0.8 / width, 0.2, 0.15 / width, 0.6))
    figure.colorbar(image, cax=bar, label="share of weight")
    _, row, column = places[0]
    write_title(figure, title or f"layer {found.layer}, {found.step}, patch in row {row}, column {column}")
    plt.close(figure)
    return figure


def _said(query: object) -> str:
    if isinstance(query, tuple):
        return f"the patch at time {query[0]}, row {query[1]}, column {query[2]}"
    return "the class token"


def shown_frames(count: int) -> np.ndarray:
    """Return which of so many frames a picture shows: evenly spaced, at most `MOST_FRAMES`."""
    return np.unique(np.linspace(0, count - 1, min(MOST_FRAMES, count)).round().astype(int))


def offset(column: int, width: int) -> float:
    """Return the left edge of a frame in a row of frames of this width."""
    return column * width * (1 + GAP)


def frame_rows(
    frames: np.ndarray, shown: np.ndarray, rows: int, seconds: Sequence[float] | np.ndarray | None
) -> tuple[Figure, np.ndarray]:
    """Make a figure with the shown frames (t, H, W, 3) in a row, and axes for so many rows of maps below it."""
    height, width = frames.shape[1:3]
    figure, axes = _rows(rows + 1, len(shown), height / width)
    strip(axes[0], frames[shown])
    for column, number in enumerate(shown):
        when = "" if seconds is None else f", {seconds[number]:.2f} s"
        place = (offset(column, width) + width / 2, 0)
        axes[0].annotate(f"frame {number}{when}", place, (0, 3), textcoords="offset points", ha="center", fontsize=8)
    name_row(axes[0], "video")
    return figure, axes


def _rows(rows: int, columns: int, aspect: float) -> tuple[Figure, np.ndarray]:
    """Make one axes for each row of frames, placed by hand: a layout engine takes longer than all the drawing."""
    inside = 1.35 * columns + 0.6  # inches
    high = inside * aspect / (columns + (columns - 1) * GAP)
    left, right, top, bottom, between = 0.3, 0.75, 0.5, 0.1, 0.12
    width, height = left + inside + right, top + rows * (high + between) + bottom
    figure = plt.figure(figsize=(width, height))
    lines = []
    for row in range(rows):
        low = height - top - (row + 1) * high - row * between
        lines.append(figure.add_axes((left / width, low / height, inside / width, high / height)))
    plt.close(figure)
    return figure, np.array(lines)


def strip(ax: Axes, frames: np.ndarray) -> None:
    """Draw frames side by side with small gaps, each at its own resolution."""
    count, height, width = frames.shape[:3]
    for number, pixels in enumerate(frames):
        left = offset(number, width)
        ax.imshow(pixels, extent=(left, left + width, height, 0), interpolation="nearest")
    ax.set(xlim=(0, offset(count - 1, width) + width), ylim=(height, 0), xticks=[], yticks=[], aspect="equal")
    ax.set_frame_on(False)


def _outline(ax: Axes, inside: np.ndarray, size: tuple[float, float], left: float) -> None:
    """Draw a dashed line between the patches inside and those outside."""
    height, width = size
    padded = np.pad(inside, 1)
    lines = [[(left + x * width, y * height), (left + x * width, (y + 1) * height)]
             for y, x in np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1])]  # fmt: skip
    lines += [[(left + x * width, y * height), (left + (x + 1) * width, y * height)]
              for y, x in np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1])]  # fmt: skip
    ax.add_collection(LineCollection(lines, colors="black", linewidths=1.6))
    ax.add_collection(LineCollection(lines, colors="white", linewidths=0.8, linestyles=[(0, (2, 2))]))


def mark(ax: Axes, row: int, column: int, size: tuple[float, float], left: float) -> None:
    """Draw a blue frame around the query."""
    height, width = size
    for colour, thick in (("white", 3.2), ("#0072B2", 1.8)):
        ax.add_patch(
            plt.Rectangle((left + column * width, row * height), width, height, fill=False, ec=colour, lw=thick)
        )


def _bar(figure: Figure, ax: Axes, top: float) -> None:
    """Draw a colour bar to the right of a row, labelled with the weight of the brightest patch."""
    box = ax.get_position()
    bar = figure.add_axes(
        (box.x1 + 0.1 / figure.get_figwidth(), box.y0, 0.08 / figure.get_figwidth(), box.height), label="scale"
    )
    bar.imshow(np.linspace(0, 1, 64)[:, None], cmap=GLOW, aspect="auto", origin="lower", extent=(0, 1, 0, 1))
    bar.set(xticks=[], yticks=[0, 1])
    bar.set_yticklabels(["0", f"{100 * top:.3g} %" if top > 0 else "–"])
    bar.yaxis.tick_right()
    bar.tick_params(labelsize=7)


def _numbers(ax: Axes, weights: np.ndarray, top: float) -> None:
    for (row, column), weight in np.ndenumerate(weights):
        colour = "black" if weight > 0.55 * top else "white"
        ax.text(column, row, f"{100 * weight:.0f}", ha="center", va="center", fontsize=6.5, color=colour)


def name_row(ax: Axes, text: str) -> None:
    """Write the name of a row to its left."""
    ax.set_ylabel("x", fontsize=8).set_parse_math(False)
    ax.yaxis.label.set_text(printable(text))


def write_title(figure: Figure, text: str) -> None:
    """Write the title of a figure, as it is."""
    if text:
        figure.suptitle("x", fontsize=10, y=1 - 0.08 / figure.get_figheight(), va="top").set_parse_math(False)
        figure._suptitle.set_text(printable(text))  # type: ignore[attr-defined]
