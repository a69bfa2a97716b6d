"""Memory of Figure 3's models: predicted peak of a training step in fp32 with explicitly computed attention.

`mmaction2.csv` and `.md` compare the same prediction with mmaction2's published training memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from timesformer import TimeSformerConfig
from timesformer.attention import build
from timesformer.files import write_atomic
from timesformer_experiments.cost.memory import RESERVE_BYTES, Workload, candidates, highest
from timesformer_experiments.paper.artefact import Artefact, Folders, Profile
from timesformer_experiments.paper.artefacts.figures.figure3 import PANELS, SCHEMES, sweep
from timesformer_experiments.paper.measured.memory_peers import rows as mmaction2_rows
from timesformer_experiments.paper.measured.memory_peers import structure
from timesformer_experiments.report.published import published, remarks
from timesformer_experiments.report.report import Report
from timesformer_experiments.report.style import COLOURS, MARKERS, new_figure
from timesformer_experiments.report.tables import Column, Table, to_csv, to_markdown

CARDS_GIB = (16, 32)
"""Memory of V100 cards."""
CLIPS = (1, 2)
SOFTMAXES = {"": False, "_old_softmax": True}


def key(clips: int, softmax: str) -> str:
    """Return the name of the column of a predicted peak."""
    return f"predicted_{clips}_clip{'s' if clips > 1 else ''}{softmax}_gib"


def peaks(config: TimeSformerConfig) -> dict[str, float]:
    """Predict peaks in GiB, with today's softmax and with that of torch 1.10."""
    found = {}
    for softmax, keeps in SOFTMAXES.items():
        for clips in CLIPS:
            step = Workload(
                replace(config, backend="reference"), clips, train=True, device="cuda", softmax_keeps_input=keeps
            )
            found[key(clips, softmax)] = highest(candidates(step), step.how).peak_bytes / 2**30
    return found


def rows() -> pd.DataFrame:
    """Return a row for each point of the figure."""
    points, known = [], {}
    for panel in PANELS:
        for job, point in zip(sweep(panel).jobs().values(), published("figure3", panel).rows, strict=True):
            config = job.spec.model
            assert isinstance(config, TimeSformerConfig)
            if config not in known:
                known[config] = peaks(config)
            points.append(
                {
                    "panel": panel,
                    "attention": config.attention,
                    "num_frames": config.num_frames,
                    "crop_pixels": config.height_width[0],
                    **known[config],
                    "published_out_of_memory": "yes" if point.get("out_of_memory") else "no",
                }
            )
    return pd.DataFrame(points)


COLUMNS = (
    Column("panel", "Panel", "label"),
    Column("attention", "Attention", "label"),
    Column("num_frames", "Frames", "label", decimals=0),
    Column("crop_pixels", "Crop [px]", "label", decimals=0),
    Column(key(1, ""), "1 clip [GiB]", "predicted"),
    Column(key(2, ""), "2 clips [GiB]", "predicted"),
    Column(key(1, "_old_softmax"), "1 clip, torch 1.10 [GiB]", "predicted"),
    Column(key(2, "_old_softmax"), "2 clips, torch 1.10 [GiB]", "predicted"),
    Column("published_out_of_memory", "Out of memory in the paper", "published"),
)


def draw(frame: pd.DataFrame) -> Figure:
    """Draw predicted peaks at one clip per card, today's (solid) and torch 1.10's (dashed), and the cards' sizes."""
    figure, axes = new_figure(9.5, 4.2, panels=2)
    for axis, (panel, label) in zip(axes, PANELS.items(), strict=True):
        for scheme, colour, marker in zip(SCHEMES, COLOURS, MARKERS, strict=False):
            points = frame[(frame["panel"] == panel) & (frame["attention"] == scheme)]
            x = points["crop_pixels" if panel == "crop" else "num_frames"]
            title = build(scheme).title or scheme
            for softmax, line in zip(SOFTMAXES, ("-", "--"), strict=True):
                y = points[key(1, softmax)]
                name = f"{title}{', torch 1.10' * (softmax != '')}"
                axis.plot(x, y, line, marker=marker, color=colour, label=name)
                lost = points["published_out_of_memory"] == "yes"
                if lost.any():
                    axis.plot(x[lost], y[lost], "x", color="black", markersize=9)
        for card in CARDS_GIB:
            axis.axhline(card, color="#888888", linewidth=0.8)
            where = ("axes fraction", "data")
            axis.annotate(f"{card} GiB", (0.01, card), xycoords=where, fontsize="x-small", va="bottom")
        axis.set_xlabel(label)
        axis.set_ylabel("Predicted training peak, 1 clip [GiB]")
        axis.set_yscale("log")
        axis.set_xticks(sorted(set(x)))
    axes[0].legend(frameon=False, fontsize="small", title="× out of memory in the paper", title_fontsize="small")
    return figure


def contradictions(frame: pd.DataFrame, card_gib: int, column: str) -> list[str]:
    """List the points at which a card of this size would behave differently from the paper's card."""
    found = []
    for point in frame.to_dict(orient="records"):
        fits = point[column] * 2**30 <= card_gib * 2**30 - RESERVE_BYTES
        if fits == (point["published_out_of_memory"] == "yes"):
            size = f"{point['num_frames']} x {point['crop_pixels']}"
            found.append(f"{point['attention']} at {size} {'fits' if fits else 'does not'} ({point[column]:.1f} GiB)")
    return list(dict.fromkeys(found))


def _findings(frame: pd.DataFrame) -> tuple[str, ...]:
    alike, unlike = [], []
    for card, softmax, clips in product(CARDS_GIB, SOFTMAXES, CLIPS):
        wrong = contradictions(frame, card, key(clips, softmax))
        torch = "torch 1.10" if softmax else "torch of today"
        what = f"{card} GiB, {clips} clip{'s' * (clips > 1)} a card, {torch}"
        if wrong:
            unlike.append(f"They do not follow from: {what} ({'; '.join(wrong)}).")
        else:
            alike.append(what)
    return (
        f"The paper's out-of-memory points, and no others, follow from: {'; '.join(alike) or 'none of those tried'}. "
        f"({RESERVE_BYTES / 2**30:g} GiB of each card are reserved; divided attention is assumed to have run at every "
        "point.)",
        *unlike,
        *(_explained(row) for row in mmaction2_rows()),
        f"At 8 clips a card, mmaction2's joint structure would take {structure('joint', 8)[1] / 2**20:,.0f} MiB. With "
        "the unexplained remainder this exceeds its cards of 32 GB; its configuration has 6 clips.",
    )


def _explained(row: dict[str, Any]) -> str:
    """Return the breakdown of one of mmaction2's figures, in words."""
    return (
        f"mmaction2, {row['attention']}, {row['clips']} clips a card: published {row['published_peak_mib']:,} MiB, "
        f"ours {row['predicted_ours_mib']:,.0f}. Its structure adds up to {row['predicted_structure_mib']:,.0f}: "
        f"a block keeps {row['predicted_structure_kept_mib']:,.0f} MiB where ours keeps "
        f"{row['predicted_ours_kept_mib']:,.0f} (scores beside probabilities, copies of the sequence), and gradients "
        f"that stay and their buckets take {row['predicted_gradient_copies_mib']:,.0f}. What is left, "
        f"{row['predicted_left_mib']:,.0f} MiB, is {row['predicted_left_copies']:.1f} copies of the tokens for each "
        "attention step of each block, the size of the buffer in which q, k and v are computed; which operator of that "
        "time kept it is not established."
    )


MMACTION2 = (
    Column("attention", "Attention", "label"),
    Column("clips", "Clips a card", "label", decimals=0),
    Column("published_peak_mib", "mmaction2 [MiB]", "published", decimals=0),
    Column("predicted_ours_mib", "Ours [MiB]", "predicted", decimals=0),
    Column("predicted_structure_mib", "mmaction2's structure [MiB]", "predicted", decimals=0),
    Column("predicted_ours_kept_mib", "Kept by a block, ours [MiB]", "predicted", decimals=0),
    Column("predicted_structure_kept_mib", "Kept by a block, its structure [MiB]", "predicted", decimals=0),
    Column("predicted_gradient_copies_mib", "Gradients that stay, and buckets [MiB]", "predicted", decimals=0),
    Column("predicted_left_mib", "Left [MiB]", "predicted", decimals=0),
    Column("predicted_left_copies", "Left, in copies of the tokens per step", "predicted", decimals=2),
)


def plan(profile: Profile) -> tuple[()]:
    """Return no runs: everything is predicted."""
    return ()


def report(records: Sequence[dict[str, Any]], profile: Profile) -> Report:
    """Make the report of the figure's points with their predicted peaks; the records are not used."""
    frame = rows()
    caption = (
        "Predicted peak of a training step of ViT-B with attention written out, fp32, SGD with momentum, on a GPU; "
        "with today's softmax, and with that of torch 1.10, which keeps its input"
    )
    return Report(
        name="memory",
        title="Memory of Figure 3's models, and of mmaction2's",
        table=Table(frame, COLUMNS, caption),
        figure=draw(frame),
        findings=_findings(frame),
        sources=(*(published("figure3", panel) for panel in PANELS), published("memory", "mmaction2")),
        remarks=remarks("memory"),
    )


def finish(records: Sequence[dict[str, Any]], profile: Profile, folders: Folders) -> list[Path]:
    """Write the comparison with mmaction2 as a separate table."""
    caption = "mmaction2's published training memory (ViT-B, 8 frames of 224 pixels, fp32) and what it consists of"
    table = Table(pd.DataFrame(mmaction2_rows()), MMACTION2, caption)
    folder = folders.out / ARTEFACT.name / profile
    contents = {"mmaction2.csv": to_csv(table), "mmaction2.md": f"# {caption}\n\n{to_markdown(table)}"}
    for name, text in contents.items():
        write_atomic(folder / name, text.encode())
    return [folder / name for name in contents]


ARTEFACT = Artefact("memory", "predicted training memory of Figure 3's models and of mmaction2's", plan, report, finish)
