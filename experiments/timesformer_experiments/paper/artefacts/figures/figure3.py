"""Figure 3 of the paper: TFLOPs of joint and divided attention over the crop and over the number of frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from timesformer.attention import build
from timesformer_experiments.cost.count import cost
from timesformer_experiments.paper.artefact import Artefact, Profile
from timesformer_experiments.report.published import Published, published, remarks
from timesformer_experiments.report.report import Report
from timesformer_experiments.report.style import COLOURS, MARKERS, new_figure
from timesformer_experiments.report.tables import Column, Table
from timesformer_experiments.specs.sweep import Sweep, parse_sweep

SCHEMES = ("joint", "divided")
PANELS = {"crop": "Crop [pixels], 8 frames", "frames": "Frames, crop of 224 pixels"}


def sweep(panel: str) -> Sweep:
    """Return the sweep over the points of a panel: ViT-B with the 400 classes of Kinetics, as in the paper."""
    points = published("figure3", panel).rows
    size = "model.image_size" if panel == "crop" else "model.num_frames"
    axes = {"model.attention": [point["attention"] for point in points], size: [point[panel] for point in points]}
    values = {
        "name": f"figure3-{panel}",
        "base": {"model": {"num_frames": 8, "image_size": 224, "num_classes": 400}},
        "axes": axes,
        "zip": [list(axes)],
        "measure": ["macs"],
    }
    return parse_sweep(values, f"figure3, {panel}")


def rows() -> pd.DataFrame:
    """Return a row for each point of the figure, with our count beside the published value."""
    points = []
    for panel in PANELS:
        block = published("figure3", panel)
        for job, point in zip(sweep(panel).jobs().values(), block.rows, strict=True):
            counted = cost(job.spec.model)
            points.append(
                {
                    "panel": panel,
                    "attention": point["attention"],
                    "num_frames": counted.num_frames,
                    "crop_pixels": counted.image_height,
                    "counted_tflops_per_view": counted.tflops_total,
                    "counted_fvcore_tflops_per_view": counted.macs_fvcore / 1e12,
                    "published_tflops_per_view": point["tflops_per_view"],
                    "published_digitising_error_tflops": block.digitising_error,
                    "published_point": "partly hidden" if point.get("hidden") else "digitised",
                    "published_out_of_memory": "yes" if point.get("out_of_memory") else "no",
                }
            )
    return pd.DataFrame(points)


COLUMNS = (
    Column("panel", "Panel", "label"),
    Column("attention", "Attention", "label"),
    Column("num_frames", "Frames", "label", decimals=0),
    Column("crop_pixels", "Crop [px]", "label", decimals=0),
    Column("counted_tflops_per_view", "TFLOPs per view", "counted", decimals=3),
    Column("counted_fvcore_tflops_per_view", "TFLOPs per view, fvcore", "counted", decimals=3),
    Column("published_tflops_per_view", "TFLOPs per view, paper", "published", decimals=3),
    Column("published_digitising_error_tflops", "± reading error", "published", decimals=2),
    Column("published_point", "Point in the paper", "published"),
    Column("published_out_of_memory", "Out of memory in the paper", "published"),
)


def draw(frame: pd.DataFrame) -> Figure:
    """Draw counted curves, published points with reading errors, and crosses where the paper ran out of memory."""
    figure, axes = new_figure(9.5, 4.2, panels=2)
    for axis, (panel, label) in zip(axes, PANELS.items(), strict=True):
        for scheme, colour, marker in zip(SCHEMES, COLOURS, MARKERS, strict=False):
            points = frame[(frame["panel"] == panel) & (frame["attention"] == scheme)]
            x = points["crop_pixels" if panel == "crop" else "num_frames"]
            axis.plot(
                x,
                points["counted_tflops_per_view"],
                color=colour,
                label=f"{build(scheme).title or scheme}, counted here",
            )
            axis.errorbar(
                x,
                points["published_tflops_per_view"],
                yerr=points["published_digitising_error_tflops"],
                fmt=marker,
                markersize=7,
                markerfacecolor="none",
                color=colour,
                label=f"{build(scheme).title or scheme}, published",
            )
            lost = points["published_out_of_memory"] == "yes"
            if lost.any():
                y = points["published_tflops_per_view"]
                axis.plot(x[lost], y[lost], "x", color="black", markersize=9, label="out of GPU memory in the paper")
        axis.set_xlabel(label)
        axis.set_ylabel("TFLOPs per view (1 multiply–accumulate = 1)")
        axis.set_xticks(sorted(set(x)))
        axis.set_ylim(bottom=0)
    axes[0].legend(frameon=False, fontsize="small")
    return figure


def _findings(frame: pd.DataFrame) -> tuple[str, ...]:
    off = (frame["counted_tflops_per_view"] - frame["published_tflops_per_view"]).abs()
    inside = int((off <= frame["published_digitising_error_tflops"]).sum())
    points = zip(
        frame["num_frames"], frame["crop_pixels"], frame["attention"], frame["counted_tflops_per_view"], strict=True
    )
    tflops = {(frames, crop, attention): value for frames, crop, attention, value in points}

    def saving(frames: int, crop: int) -> str:
        change = 100 * (tflops[frames, crop, "divided"] / tflops[frames, crop, "joint"] - 1)
        return f"at {frames} frames of {crop} pixels {change:+.0f} %"

    return (
        f"{inside} of {len(frame)} points lie within the reading error of the published figure; the largest difference "
        f"is {off.max():.3f} TFLOPs.",
        f"Cost of divided attention against joint: {saving(8, 224)}, {saving(8, 560)}, {saving(96, 224)}.",
    )


def plan(profile: Profile) -> tuple[()]:
    """Return no runs: nothing is trained for this figure."""
    return ()


def report(records: Sequence[dict[str, Any]], profile: Profile) -> Report:
    """Make Figure 3.  Everything is counted; the records are not used."""
    frame = rows()
    blocks: tuple[Published, ...] = tuple(published("figure3", panel) for panel in PANELS)
    caption = "Figure 3: TFLOPs of one view (1 clip, 1 crop) of ViT-B; one multiply-accumulate counts as one"
    return Report(
        name="figure3",
        title="Figure 3: cost of joint and divided attention",
        table=Table(frame, COLUMNS, caption),
        figure=draw(frame),
        findings=_findings(frame),
        sources=blocks,
        remarks=remarks("figure3"),
    )


ARTEFACT = Artefact("figure3", "TFLOPs of joint and divided attention over crop and frames", plan, report)
