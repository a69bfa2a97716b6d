"""Table 1 of the paper: size, cost and accuracy of the five attention schemes.

Size and cost are counted at the paper's scale. Accuracies are measured on two probes that stand in for K400
(`appearance`) and SSv2 (`motion`). For each seed, an image model is trained on stills of `appearance`; every scheme is
initialised from it on both probes, as the paper's models are initialised from ImageNet weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from timesformer.data import FrameCache
from timesformer.data.probes.diagnostics import ORDER_BLIND_CEILING_PERCENT
from timesformer.files import write_atomic
from timesformer_experiments.paper.ablation import Ablation, Rows, protocol_said, undecided
from timesformer_experiments.paper.accuracy import Accuracy, Key, columns_of
from timesformer_experiments.paper.artefact import PROFILES, Artefact, Folders, Profile
from timesformer_experiments.paper.drawing import measured_of
from timesformer_experiments.paper.probes import describe
from timesformer_experiments.paper.setting import NAMES_IN_THE_PAPER, PROBES
from timesformer_experiments.paper.variants import Variant
from timesformer_experiments.records.folder import RunFolder
from timesformer_experiments.report.published import published
from timesformer_experiments.report.style import COLOURS, MARKERS, new_figure
from timesformer_experiments.report.tables import missing
from timesformer_experiments.run.inputs import prepare
from timesformer_experiments.specs.run import ProbeData

SCHEMES = ("space", "joint", "divided", "local_global", "axial")
CHECKPOINT = Path("checkpoints/divided-motion")


def _rows() -> Rows:
    inference = published("table1", "inference").rows
    return {scheme: {**row, **inference.get(scheme, {})} for scheme, row in published("table1", "schemes").rows.items()}


class Schemes(Ablation):
    """Table 1: an ablation of the attention scheme with the paper's labels and its own figure and findings."""

    def frame(self, measured: Mapping[Key, Accuracy], ceilings: Mapping[Key, float]) -> pd.DataFrame:
        """Return a row for each scheme, with published values beside ours."""
        frame = super().frame(measured, ceilings)
        printed = self.rows()
        frame["label"] = [printed[scheme]["label"] for scheme in frame["variant"]]
        size = ["counted_params", "published_params_millions", "counted_tflops_total", "published_tflops_total"]
        accuracy = [
            name
            for probe, dataset in self.probes.items()
            for name in (*columns_of(None, f"measured_{probe}"), f"published_{dataset}_top1_percent")
        ]
        kept = ["variant", "label", *size, *accuracy, "measured_above_chance"]
        return frame[kept].rename(columns={"variant": "attention"})

    def caption(self, profile: Profile, measured: Mapping[Key, Accuracy], frame: pd.DataFrame) -> str:
        """Return the caption: protocol, and the models and views for which parameters and TFLOPs are counted."""
        return (
            f"Table 1. {protocol_said(profile, measured, frame)}; parameters with 174 classes; "
            "TFLOPs of 3 views of 8 x 224 x 224 (one multiply-accumulate counts as one)"
        )

    def draw(self, frame: pd.DataFrame) -> Figure:
        """Draw accuracy over cost: filled with interval, measured here; hollow, published."""
        figure, axes = new_figure(10.5, 4.4, panels=2)
        lowest = 100.0
        for axis, (probe, dataset) in zip(axes, PROBES.items(), strict=True):
            ours, theirs = f"measured_{probe}_top1_percent", f"published_{dataset}_top1_percent"
            for row, colour, marker in zip(frame.to_dict(orient="records"), COLOURS, MARKERS, strict=False):
                x, y = row["counted_tflops_total"], row[ours]
                _, spread = measured_of(row, probe)
                axis.errorbar(x, y, yerr=spread, fmt=marker, color=colour, capsize=3, label=f"{row['label']}, {probe}")
                axis.plot(x, row[theirs], marker, color=colour, markerfacecolor="none", linestyle="none", markersize=8)
                lowest = min(lowest, y - spread[0][0], row[theirs])
            axis.set_title(
                f"filled: {probe}, measured here   hollow: {NAMES_IN_THE_PAPER[dataset]}, published", fontsize="small"
            )
            axis.set_xlabel("TFLOPs at the paper's scale, 3 views, counted here")
            axis.set_ylabel("top-1 accuracy [%]")
        for axis in axes:
            axis.set_ylim(max(0, lowest - 5), 102)
        axes[1].axhline(ORDER_BLIND_CEILING_PERCENT, color="black", linestyle="--", linewidth=1)
        note = "ceiling of a model blind to the order of the frames"
        axes[1].annotate(note, (1, ORDER_BLIND_CEILING_PERCENT), xycoords=("axes fraction", "data"), fontsize="x-small",
                         ha="right", va="bottom")  # fmt: skip
        handles = axes[0].get_legend_handles_labels()[0]
        figure.legend(
            handles, list(frame["label"]), loc="outside lower center", ncols=len(frame), frameon=False, fontsize="small"
        )
        return figure

    def findings(self, measured: Mapping[Key, Accuracy], frame: pd.DataFrame) -> tuple[str, ...]:
        """Return the findings, computed from the numbers of this table."""
        by_scheme = frame.set_index("attention")
        same = (by_scheme["counted_params"] / 1e6).round(1) == by_scheme["published_params_millions"]
        motion, appearance = by_scheme["measured_motion_top1_percent"], by_scheme["measured_appearance_top1_percent"]
        space, others = by_scheme.loc["space"], motion.drop("space")
        passes = bool(space["measured_motion_top1_low_percent"] > ORDER_BLIND_CEILING_PERCENT)
        ranked = motion.sort_values(ascending=False).index
        best, second = by_scheme.loc[ranked[0]], by_scheme.loc[ranked[1]]
        ends = best["measured_motion_top1_low_percent"], second["measured_motion_top1_high_percent"]
        known = not any(missing(end) for end in ends)
        overlap = ("do not overlap" if ends[0] > ends[1] else "overlap") if known else "are not known"
        paper_order = by_scheme["published_ssv2_top1_percent"].sort_values(ascending=False).index
        reached = f"{space['measured_motion_top1_percent']:.1f} % and {'passes' if passes else 'does not pass'}"
        ceiling = f"{ORDER_BLIND_CEILING_PERCENT:.0f} %"
        return (
            f"Parameters: {int(same.sum())} of {len(frame)} as printed, to the last digit.",
            f"On motion, space reaches {reached} the order-blind ceiling of {ceiling} by more than its interval; the "
            f"lowest of the other schemes, {others.idxmin()}, is {others.min() - motion['space']:.1f} points above "
            "space.",
            f"On appearance the five lie between {appearance.min():.1f} % ({appearance.idxmin()}) and "
            f"{appearance.max():.1f} % ({appearance.idxmax()}).",
            f"Order of the means on motion: {', '.join(ranked)}; the intervals of the first two {overlap}. "
            f"Order on SSv2 in the paper: {', '.join(paper_order)}.",
            *(f"{each.sentence()}." for each in self.compared(measured) if each.setting["on"] == "motion"),
            *self.restrictions(measured),
            *undecided(frame),
            "The accuracies measured here are those of small models on synthetic probes: compare the schemes with one "
            "another, not the percentages with the paper's.",
        )


ABLATION = Schemes(
    name="table1",
    title="Table 1: five attention schemes",
    axis="Attention",
    variants=tuple(Variant(scheme, scheme, {"model.attention": scheme}) for scheme in SCHEMES),
    base="divided",
    rows=_rows,
    sources=(("table1", "schemes"), ("table1", "inference")),
    remarks=("table1",),
    counted=(174, 3),
    headings={"published_tflops_total": "paper"},
)


def finish(records: Sequence[dict[str, Any]], profile: Profile, folders: Folders) -> list[Path]:
    """Write contact sheets and cheap classifiers of the probes, and the divided model of the first seed on motion."""
    probes = {spec.data.probe: spec.data for spec in ABLATION.plan(profile) if isinstance(spec.data, ProbeData)}
    cache, files = FrameCache(folders.data / "frames"), []
    for name, data in probes.items():
        files += describe(prepare(data, folders.data), folders.out / "probes", f"{name}-{profile}", cache)
    for record in records:
        spec = record["spec"]
        if (spec["model"]["attention"], spec["data"]["probe"], record["seed"]) == ("divided", "motion", 0):
            files += keep_model(RunFolder(folders.runs, record["hash"]).model, folders.out / CHECKPOINT, profile)
    return files


def keep_model(model: Path, target: Path, profile: Profile) -> list[Path]:
    """Copy a model, unless the target holds one of a larger profile or of other origin."""
    if (target / "config.json").exists():
        provenance = target / "provenance.json"
        name = json.loads(provenance.read_text()).get("name", "") if provenance.is_file() else ""
        if not name.startswith(tuple(f"table1-{each}-" for each in PROFILES[: PROFILES.index(profile) + 1])):
            return []
    return [write_atomic(target / path.name, path.read_bytes()) for path in sorted(model.iterdir())]


ARTEFACT = Artefact(
    "table1",
    "The five attention schemes: size, cost, accuracy",
    ABLATION.plan,
    ABLATION.report,
    finish,
    beside=ABLATION.beside,
)
