"""Tables of published accuracies on real datasets (5, 6 and 7), with counts for our models among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from timesformer import TimeSformerConfig
from timesformer_experiments.cost.count import cost
from timesformer_experiments.paper.artefact import Artefact, Profile
from timesformer_experiments.paper.datasets import DATASETS, MODELS, VIEWS
from timesformer_experiments.paper.drawing import OURS, PAPER, legend_above
from timesformer_experiments.paper.setting import NAMES_IN_THE_PAPER
from timesformer_experiments.report.published import published, remarks
from timesformer_experiments.report.report import Report
from timesformer_experiments.report.style import MARKERS, new_figure
from timesformer_experiments.report.tables import Column, Table, missing


@dataclass(frozen=True)
class Listed:
    """Table of models by name. datasets: datasets of the accuracies; models are counted with the classes of the first.

    Published values come from `values.yaml`, block `models` of the artefact.
    """

    name: str
    title: str
    datasets: tuple[str, ...]

    def frame(self) -> pd.DataFrame:
        """Return a row for each model, in the order of the paper."""
        return pd.DataFrame([self._row(row) for row in published(self.name, "models").rows])

    def _row(self, printed: dict[str, Any]) -> dict[str, Any]:
        ours = MODELS.get(printed["model"])
        row: dict[str, Any] = {"model": printed["model"], "counted_params": None, "counted_tflops_total": None}
        if ours is not None:
            classes = DATASETS[self.datasets[0]].classes
            counted = cost(TimeSformerConfig.from_dict({**ours, "num_classes": classes}), views=VIEWS)
            row |= {"counted_params": counted.params, "counted_tflops_total": counted.tflops_total}
        row["published_tflops_total"] = printed.get("tflops_total")
        for dataset in self.datasets:
            row[f"needs_data_{dataset}"] = None if ours is None else f"needs {NAMES_IN_THE_PAPER[dataset]}"
            for metric in ("top1", "top5"):
                row[f"published_{dataset}_{metric}_percent"] = printed.get(f"{dataset}_{metric}_percent")
        return row

    def columns(self, frame: pd.DataFrame) -> tuple[Column, ...]:
        """Return the columns that are shown, without those for which the paper prints nothing."""
        found = [
            Column("model", "Model", "label"),
            Column("counted_params", "Params [M]", "counted", scale=1e6),
            Column("counted_tflops_total", f"TFLOPs, {VIEWS} views", "counted", decimals=2),
            Column("published_tflops_total", "paper [TFLOPs]", "published", decimals=2),
        ]
        for dataset in self.datasets:
            name = NAMES_IN_THE_PAPER[dataset]
            found.append(Column(f"needs_data_{dataset}", f"{name}, here", "needs_data"))
            for metric in ("top1", "top5"):
                title = f"{name}, paper {metric.replace('top', 'top-')} [%]"
                found.append(Column(f"published_{dataset}_{metric}_percent", title, "published"))
        return tuple(column for column in found if column.origin != "published" or frame[column.key].notna().any())

    def findings(self, frame: pd.DataFrame) -> tuple[str, ...]:
        """Return the findings, computed from the counts and the published values."""
        found = []
        both = frame.dropna(subset=["counted_tflops_total", "published_tflops_total"])
        if not both.empty:
            same = int((both["counted_tflops_total"].astype(float).round(2) == both["published_tflops_total"]).sum())
            found.append(f"TFLOPs of our models: {same} of {len(both)} agree to the last printed digit.")
            found += [line for row in both.to_dict(orient="records") if (line := _explained(row))]
        for dataset in self.datasets:
            name, ranked = NAMES_IN_THE_PAPER[dataset], frame.dropna(subset=[f"published_{dataset}_top1_percent"])
            best = ranked.sort_values(f"published_{dataset}_top1_percent", ascending=False).iloc[0]
            found.append(
                f"Published on {name}: {best['model']} first, with {best[f'published_{dataset}_top1_percent']:.1f} %. "
                f"Our own accuracies need the dataset: timesformer reproduce {self.name} --profile paper --data "
                f"{dataset}=FOLDER."
            )
        return tuple(found)

    def report(self, records: Sequence[dict[str, Any]], profile: Profile) -> Report:
        """Make the table; the records are not used."""
        frame = self.frame()
        classes = DATASETS[self.datasets[0]].classes
        caption = (
            f"{self.title}: accuracies as published, TFLOPs of all views; counted with {classes} classes and {VIEWS} "
            "views (one multiply-accumulate counts as one)"
        )
        return Report(
            name=self.name,
            title=self.title,
            table=Table(frame, self.columns(frame), caption),
            figure=self.draw(frame),
            findings=self.findings(frame),
            sources=(published(self.name, "models"),),
            remarks=remarks(self.name),
        )

    def draw(self, frame: pd.DataFrame) -> Figure:
        """Draw published accuracies, filled for TimeSformer, over TFLOPs if the paper prints them, else in rows."""
        figure, axes = new_figure(3.0 + 4.2 * len(self.datasets), 4.6, panels=len(self.datasets))
        over_cost = frame["published_tflops_total"].notna().any()
        for number, (axis, dataset) in enumerate(zip(axes, self.datasets, strict=True)):
            for place, row in enumerate(frame.to_dict(orient="records")):
                value, ours = row[f"published_{dataset}_top1_percent"], row["model"] in MODELS
                x, y = (row["published_tflops_total"], value) if over_cost else (value, place)
                if missing(x) or missing(y):
                    continue
                style = {"color": OURS} if ours else {"color": PAPER, "markerfacecolor": "none"}
                name = "TimeSformer, published" if ours else "others, published"
                axis.plot(x, y, MARKERS[0] if ours else MARKERS[1], label=name, **style)
                if over_cost:
                    axis.annotate(row["model"], (x, y), xytext=(4, 4), textcoords="offset points", fontsize="x-small")
            accuracy = f"{NAMES_IN_THE_PAPER[dataset]}, top-1 accuracy [%]"
            if over_cost:
                axis.set_xscale("log")
                axis.set_xlabel("TFLOPs of all views (1 multiply–accumulate = 1)")
                axis.set_ylabel(accuracy)
            else:
                axis.set_yticks(range(len(frame)), list(frame["model"]) if number == 0 else [""] * len(frame))
                axis.set_ylim(len(frame) - 0.5, -0.5)
                axis.set_xlabel(accuracy)
            legend_above(axis)
        return figure

    def artefact(self) -> Artefact:
        """Return the artefact for `timesformer reproduce`; nothing is trained on the probes."""
        return Artefact(self.name, self.title, lambda profile: (), self.report)


def copies_tflops(model: str) -> float:
    """Return the TFLOPs by which the released code exceeds our count of a model.

    It projects a copy of the class token in every frame to queries, keys, values and output; here the token is
    projected once.
    """
    config = TimeSformerConfig.from_dict(dict(MODELS[model]))
    return VIEWS * (config.num_frames - 1) * config.depth * 4 * config.embed_dim**2 / 1e12


def _explained(row: dict[Any, Any]) -> str:
    """Return why a count differs from the printed one; empty if it agrees or if the copies do not explain it."""
    ours, theirs, copies = row["counted_tflops_total"], row["published_tflops_total"], copies_tflops(row["model"])
    if round(ours, 2) == theirs or round(ours + copies, 2) != theirs:
        return ""
    return (
        f"{row['model']}: {ours:.4f} TFLOPs here and {theirs:.2f} printed. The released code projects a copy of the "
        f"class token in every frame, here it is projected once; with the copies it would be {ours + copies:.4f}."
    )
