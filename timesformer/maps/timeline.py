"""Picture of a timeline: a model's predictions for a long video over time."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from timesformer.evaluation.prediction import Guess, Timeline
from timesformer.text import printable

# Okabe-Ito colours are distinct for any colour vision; line styles distinguish the classes without colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))


def draw_timelines(timelines: Sequence[Timeline], classes: int = 5) -> Figure:
    """Draw the probability over time of the classes with the highest peaks, at most 5, in a row for each video.

    Each line is constant over a segment, with gaps for segments that could not be read.
    """
    figure, axes = plt.subplots(
        len(timelines), 1, figsize=(9, 2.6 * len(timelines) + 0.6), squeeze=False, layout="constrained"
    )
    for ax, timeline in zip(axes[:, 0], timelines, strict=True):
        lines, names = [], []
        for number, guess in enumerate(_peaks(timeline)[: min(classes, len(COLOURS))]):
            values, edges = _steps(timeline, guess.column)
            lines.append(
                ax.stairs(values, edges, baseline=None, color=COLOURS[number], linestyle=STYLES[number], linewidth=2)
            )
            names.append(f"{guess.head}: {guess.label}" if guess.head else guess.label)
        ax.set(xlim=(0, timeline.seconds), ylim=(-0.02, 1.02), xlabel="time [s]", ylabel="probability")
        ax.set_title(printable(timeline.path), fontsize=9, loc="left").set_parse_math(False)
        ax.set_axisbelow(True)
        ax.grid(axis="y", color="0.9")
        numbers = [str(number) for number in range(len(names))]
        legend = ax.legend(lines, numbers, loc="upper left", bbox_to_anchor=(1, 1), fontsize=8)
        for text, name in zip(legend.get_texts(), names, strict=True):  # names are never formulas or hidden
            text.set_parse_math(False)
            text.set_text(printable(name))
    plt.close(figure)
    return figure


def _peaks(timeline: Timeline) -> list[Guess]:
    """Classes that are among the top classes of a segment, in decreasing order of their peak."""
    known = {guess.column: guess for stretch in timeline.stretches for guess in stretch.top}
    peak = np.max([stretch.probabilities for stretch in timeline.stretches], 0)
    return sorted(known.values(), key=lambda guess: (-peak[guess.column], guess.column))


def _steps(timeline: Timeline, column: int) -> tuple[list[float], list[float]]:
    """Values and edges of a class's line; values are NaN between segments that are not adjacent."""
    values, edges = list[float](), [0.0]
    for stretch in timeline.stretches:
        if stretch.start_seconds > edges[-1]:
            values.append(np.nan)
            edges.append(stretch.start_seconds)
        values.append(float(stretch.probabilities[column]))
        edges.append(stretch.end_seconds)
    return values, edges
