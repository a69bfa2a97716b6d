"""Base of the artefacts that train: variants of Table 1's run of divided attention, each on one or more probes.

An artefact lists its variants and published rows. This module makes the runs, the table with published values beside
ours, the figure and the findings. A variant without changes is the run of Table 1: runs are identified by the hash of
their definition, so nothing is trained twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from timesformer_experiments.cost.count import cost
from timesformer_experiments.paper.accuracy import Accuracy, Cell, Key, accuracies, columns_of, comparisons, decided
from timesformer_experiments.paper.artefact import Artefact, Profile
from timesformer_experiments.paper.drawing import Curve, draw_curves, draw_dots
from timesformer_experiments.paper.probes import ceiling_percent
from timesformer_experiments.paper.setting import NAMES_IN_THE_PAPER, PROBES, SETTINGS
from timesformer_experiments.paper.variants import Variant, run_of
from timesformer_experiments.report.published import Published, Remark, published, remarks
from timesformer_experiments.report.report import Report
from timesformer_experiments.report.statistics import Comparison, signed
from timesformer_experiments.report.tables import Column, Table, missing
from timesformer_experiments.specs.run import RunSpec, with_dependencies

COUNTED = ("params_millions", "gmacs_per_view", "tflops_total")
Rows = Mapping[str, Mapping[str, Any]]
NOTE = (
    "The accuracies measured here are those of small models on synthetic probes: compare the rows with one another, "
    "not the percentages with the paper's."
)


@dataclass(frozen=True)
class Ablation:
    """Table or figure of variants.

    axis: heading of the column that distinguishes the variants. base: key of the variant with which the others are
    compared, unless `pairs` are given. rows: published values by key of the variant, with fields such as
    `k400_top1_percent` or `k400_difference_points` (from the base; `difference_points` if the paper names no dataset).
    sources: blocks of `values.yaml` that are shown, as (artefact, block). remarks: artefacts whose remarks are shown.
    probes: {probe: dataset that it stands in for}. counted: (classes, views) with which parameters and cost at the
    paper's scale are counted; None leaves them out. also: further published fields, with the headings of their columns.
    curve: axis of a curve whose points are the variants. from_nothing: on the probes, train all runs from scratch.
    headings: headings that replace the usual ones, by column. concludes: function that makes additional findings from
    the frame.
    """

    name: str
    title: str
    axis: str
    variants: tuple[Variant, ...]
    base: str
    pairs: tuple[tuple[str, str], ...] = ()
    rows: Callable[[], Rows] = dict
    sources: tuple[tuple[str, str], ...] = ()
    remarks: tuple[str, ...] = ()
    probes: Mapping[str, str] = field(default_factory=lambda: dict(PROBES))
    counted: tuple[int, int] | None = None
    also: Mapping[str, str] = field(default_factory=dict)
    curve: Curve | None = None
    from_nothing: bool = False
    headings: Mapping[str, str] = field(default_factory=dict)
    concludes: Callable[[pd.DataFrame], tuple[str, ...]] = lambda frame: ()

    def cells(self, profile: Profile) -> list[Cell]:
        """List the runs with their places in the table."""
        seeds = range(SETTINGS[profile].seeds)
        return [
            Cell(variant.key, probe, seed, run_of(self.name, self._started(variant), profile, probe, seed))
            for seed in seeds
            for probe in self.probes
            for variant in self.variants
            if variant.is_run(profile, probe)
        ]

    def _started(self, variant: Variant) -> Variant:
        return replace(variant, image=None) if self.from_nothing else variant

    def plan(self, profile: Profile) -> list[RunSpec]:
        """List all runs, each after the run from which it is initialised."""
        return list(with_dependencies(cell.spec for cell in self.cells(profile)).values())

    def ceilings(self, profile: Profile) -> dict[Key, float]:
        """Return the ceiling of each variant and probe, for probes that bound the accuracy of some variant."""
        found = {(cell.variant, cell.part): ceiling_percent(cell.spec) for cell in self.cells(profile)}
        bounded = {part for (_, part), bound in found.items() if bound is not None}
        return {key: 100.0 if bound is None else bound for key, bound in found.items() if key[1] in bounded}

    def frame(self, measured: Mapping[Key, Accuracy], ceilings: Mapping[Key, float]) -> pd.DataFrame:
        """Return a row for each variant, with published values beside ours."""
        printed = self.rows()
        return pd.DataFrame([self._row(each, printed.get(each.key, {}), measured, ceilings) for each in self.variants])

    def _row(
        self,
        variant: Variant,
        printed: Mapping[str, Any],
        measured: Mapping[Key, Accuracy],
        ceilings: Mapping[Key, float],
    ) -> dict[str, Any]:
        places = {"line": variant.line, "x": variant.x, "paper_x": variant.paper_x}
        row: dict[str, Any] = {"variant": variant.key, "label": variant.label, **places}
        row |= {f"published_{name}": printed.get(name) for name in self.also}
        if self.counted is not None:
            classes, views = self.counted
            counted = cost(variant.config(classes), views=variant.views or views)
            row |= {
                "counted_params": counted.params,
                "counted_gmacs_per_view": counted.macs_per_view / 1e9,
                "counted_tflops_total": counted.tflops_total,
            }
            row |= {f"published_{name}": printed.get(name) for name in COUNTED}
        for probe, dataset in self.probes.items():
            found = measured.get((variant.key, probe))
            row |= columns_of(found, f"measured_{probe}")
            row[f"counted_{probe}_ceiling_percent"] = ceilings.get((variant.key, probe))
            for name in (f"{dataset}_top1_percent", f"{dataset}_difference_points"):
                row[f"published_{name}"] = printed.get(name)
        row["published_difference_points"] = printed.get("difference_points")
        row["needs_data"] = f"needs {', '.join(NAMES_IN_THE_PAPER.get(name, name) for name in self.probes.values())}"
        own = {probe: measured[variant.key, probe] for probe in self.probes if (variant.key, probe) in measured}
        row["measured_above_chance"] = decided(own)
        return row

    def columns(self, frame: pd.DataFrame) -> tuple[Column, ...]:
        """Return the columns of the frame that are shown."""
        found = [Column("label", self.axis, "label")]
        found += [Column(f"published_{name}", title, "published", decimals=None) for name, title in self.also.items()]
        if self.counted is not None:
            found.append(Column("counted_params", "Params [M]", "counted", scale=1e6))
            found.append(Column("published_params_millions", "paper [M]", "published"))
            if self.counted[1] == 1:
                found.append(Column("counted_gmacs_per_view", "GMACs per view", "counted"))
                found.append(Column("published_gmacs_per_view", "paper [GMACs]", "published"))
            else:
                found.append(Column("counted_tflops_total", "TFLOPs", "counted", decimals=2))
                found.append(Column("published_tflops_total", "paper [TFLOPs]", "published", decimals=2))
        for probe, dataset in self.probes.items():
            key = f"measured_{probe}"
            bounds = (f"{key}_top1_low_percent", f"{key}_top1_high_percent")
            found.append(Column(f"{key}_top1_percent", f"{probe} [%]", "measured", bounds=bounds))
            found.append(Column(f"counted_{probe}_ceiling_percent", f"bound on {probe} [%]", "counted"))
            for name, unit in ((f"{dataset}_top1_percent", "%"), (f"{dataset}_difference_points", "points")):
                title = f"{NAMES_IN_THE_PAPER.get(dataset, dataset)}, paper [{unit}]"
                found.append(Column(f"published_{name}", title, "published"))
        found.append(Column("published_difference_points", "paper, dataset not named [points]", "published"))
        found.append(Column("needs_data", "Real data, here", "needs_data"))
        if not undecided_rows(frame).empty:
            found.append(Column("measured_above_chance", "Above chance", "measured"))
        return tuple(
            replace(column, title=self.headings.get(column.key, column.title))
            for column in found
            if column.key in frame and (column.origin == "label" or frame[column.key].notna().any())
        )

    def measured(self, records: Sequence[dict[str, Any]], profile: Profile) -> dict[Key, Accuracy]:
        """Return accuracies by variant and probe.  Raises `InputError` if the records lack a run."""
        return accuracies(self.cells(profile), records, self.name)

    def compared(self, measured: Mapping[Key, Accuracy]) -> list[Comparison]:
        """Compare each variant with the base, or the pairs, on each probe, corrected for the number of comparisons."""
        labels = {variant.key: variant.label for variant in self.variants}
        pairs = self.pairs or [(key, self.base) for key in labels if key != self.base]
        return comparisons(measured, pairs, labels)

    def findings(self, measured: Mapping[Key, Accuracy], frame: pd.DataFrame) -> tuple[str, ...]:
        """Return the findings, computed from the numbers."""
        by_label = {row["label"]: row for row in frame.to_dict(orient="records")}
        found = [
            f"{each.sentence()}{_said_by_the_paper(by_label[each.first], by_label[each.second], self.probes[part])}."
            for each in self.compared(measured)
            for part in [each.setting["on"]]
        ]
        return (*self.concludes(frame), *found, *undecided(frame), NOTE)

    def report(self, records: Sequence[dict[str, Any]], profile: Profile) -> Report:
        """Make the artefact from the records of its runs."""
        measured = self.measured(records, profile)
        frame = self.frame(measured, self.ceilings(profile))
        return Report(
            name=self.name,
            title=self.title,
            table=Table(
                frame,
                self.columns(frame),
                self.caption(profile, measured, frame),
                measured="measured here, on this repository's probes",
            ),
            figure=self.draw(frame),
            findings=self.findings(measured, frame),
            sources=self.published_blocks(),
            remarks=self.all_remarks(),
            records=tuple(records),
        )

    def caption(self, profile: Profile, measured: Mapping[Key, Accuracy], frame: pd.DataFrame) -> str:
        """Return the caption: content of the table, and how it was measured and counted."""
        return f"{self.title}. {protocol_said(profile, measured, frame)}{self._counted_said()}"

    def draw(self, frame: pd.DataFrame) -> Figure:
        """Draw the variants as points of curves, or as one row each."""
        if self.curve is None:
            return draw_dots(frame, self.probes, self.axis)
        return draw_curves([(frame, probe, dataset, self.curve) for probe, dataset in self.probes.items()])

    def _counted_said(self) -> str:
        if self.counted is None:
            return ""
        classes, views = self.counted
        cost = "GMACs of one view" if views == 1 else f"TFLOPs of {views} views"
        return f"; parameters with {classes} classes and {cost} at the paper's scale"

    def published_blocks(self) -> tuple[Published, ...]:
        """Return the published values that are shown."""
        return tuple(published(artefact, block) for artefact, block in self.sources)

    def all_remarks(self) -> tuple[Remark, ...]:
        """Return the remarks on the published values."""
        return tuple(remark for artefact in self.remarks for remark in remarks(artefact))

    def artefact(self) -> Artefact:
        """Return the artefact for `timesformer reproduce`."""
        return Artefact(self.name, self.title, self.plan, self.report)


def _said_by_the_paper(row: Mapping[Any, Any], base: Mapping[Any, Any], dataset: str) -> str:
    """Return the published difference from the base in words, empty if there is none."""
    theirs = row[f"published_{dataset}_top1_percent"], base[f"published_{dataset}_top1_percent"]
    where, points = f", on {NAMES_IN_THE_PAPER.get(dataset, dataset)}", row[f"published_{dataset}_difference_points"]
    if not any(missing(value) for value in theirs):
        points = theirs[0] - theirs[1]
    elif missing(points):
        where, points = "", row["published_difference_points"]
    return "" if missing(points) else f". In the paper{where}: {signed(points)} points"


def protocol_said(profile: Profile, measured: Mapping[Key, Accuracy], frame: pd.DataFrame) -> str:
    """Return seeds, test videos, kind of intervals and reasons for empty cells, for a caption."""
    seeds = min(len(found.percent) for found in measured.values())
    videos = sorted({found.videos for found in measured.values()})
    nothing = "; too few steps to learn anything: these accuracies mean nothing" if profile == "smoke" else ""
    interval = "mean ± 95 % interval over seeds" if seeds > 1 else "with the 95 % interval over test videos"
    chance = " or ".join(f"{value:.1f} %" for value in sorted({found.chance for found in measured.values()}))
    gaps = frame.filter(regex="^measured_.*_top1_percent$").isna().any(axis=None)
    untrained = "; accuracies shown as – were not trained in this profile" if gaps else ""
    return (
        f"Profile {profile}: {seeds} seed{'s' if seeds > 1 else ''}, {' or '.join(map(str, videos))} test videos of "
        f"each probe, {interval}; top-1 accuracy, chance {chance}{untrained}{nothing}"
    )


def undecided_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with an accuracy that is not above chance."""
    return frame[frame["measured_above_chance"].fillna("yes") != "yes"]


def undecided(frame: pd.DataFrame) -> tuple[str, ...]:
    """Return a sentence on the accuracies that are not above chance, if any."""
    below = undecided_rows(frame)
    if below.empty:
        return ()
    cells = "; ".join(f"{row['label']}: {row['measured_above_chance']}" for row in below.to_dict(orient="records"))
    return (f"Undecided, because the interval does not lie above chance: {cells}.",)
