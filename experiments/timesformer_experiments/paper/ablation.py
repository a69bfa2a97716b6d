"""Base of the artefacts that train: variants of Table 1's run of divided attention, each on one or more probes.

An artefact lists its variants and published rows. This module makes the runs, the table with published values beside
ours, the figure and the findings. A variant without changes is the run of Table 1: runs are identified by the hash of
their definition, so nothing is trained twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from timesformer_experiments.analysis.pairs import Comparison
from timesformer_experiments.analysis.seeds import Over
from timesformer_experiments.analysis.statistics.humps import MEAN_FROM_SEEDS, cannot_reveal
from timesformer_experiments.cost.count import cost
from timesformer_experiments.paper.accuracy import Accuracy, Cell, Key, accuracies, columns_of, comparisons, decided
from timesformer_experiments.paper.artefact import Artefact, Profile
from timesformer_experiments.paper.drawing import Curve, draw_curves, draw_dots
from timesformer_experiments.paper.gate import cheap_classifiers, reasons, told_apart
from timesformer_experiments.paper.probes import ceiling_percent
from timesformer_experiments.paper.setting import NAMES_IN_THE_PAPER, PROBES, SETTINGS
from timesformer_experiments.paper.variants import SCHEME, Variant, run_of
from timesformer_experiments.report.published import Published, Remark, published, remarks
from timesformer_experiments.report.report import Report
from timesformer_experiments.report.statistics import signed
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
            found.append(Column(f"{key}_each_seed_percent", f"{probe}, each seed [%]", "measured"))
            found.append(Column(f"{key}_two_humps", f"{probe}, failed seeds", "measured"))
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
        """Each variant against the base, or the pairs, on each probe, judged as one family."""
        labels = {variant.key: variant.label for variant in self.variants}
        pairs = self.pairs or [(key, self.base) for key in labels if key != self.base]
        return comparisons(measured, pairs, labels)

    def findings(self, measured: Mapping[Key, Accuracy], frame: pd.DataFrame) -> tuple[str, ...]:
        """Sentences that follow from the numbers."""
        by_label, found = {row["label"]: row for row in frame.to_dict(orient="records")}, []
        for each in self.compared(measured):
            one, other, probe = by_label[each.first], by_label[each.second], each.setting["on"]
            theirs = _said_by_the_paper(one, other, self.probes[probe])
            found.append(f"{each.sentence()}{_bounds_said(one, other, probe)}{theirs}.")
        return (*self.concludes(frame), *found, *self.restrictions(measured), *undecided(frame), NOTE)

    def restrictions(self, measured: Mapping[Key, Accuracy]) -> tuple[str, ...]:
        """Limits of the intervals and of the number of seeds."""
        labels = {variant.key: variant.label for variant in self.variants}
        return restrictions_said({(labels.get(key, key), part): each for (key, part), each in measured.items()})

    def report(self, records: Sequence[dict[str, Any]], profile: Profile) -> Report:
        """The artefact from the records of its runs, and the probes' cheap classifiers, where they are known."""
        records, cheap = told_apart(records)
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
            findings=(*self.findings(measured, frame), *self._not_ranked(measured, cheap)),
            sources=self.published_blocks(),
            remarks=self.all_remarks(),
            records=tuple(records),
        )

    def schemes(self) -> set[str]:
        """The attention schemes of the variants."""
        return {variant.change.get(SCHEME, "divided") for variant in self.variants}

    def beside(self, results: Path, profile: Profile) -> list[dict[str, Any]]:
        """The best cheap classifier of each probe, if schemes are compared."""
        return cheap_classifiers(results, profile, list(self.probes)) if len(self.schemes()) > 1 else []

    def _not_ranked(self, measured: Mapping[Key, Accuracy], cheap: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
        """On which probes the schemes of this table may not be ranked, and why."""
        best = {probe: max(each.mean for (_, part), each in measured.items() if part == probe) for _, probe in measured}
        found = reasons(cheap, best)
        return tuple(
            f"On {probe} schemes are not ranked: {why}. The differences there are numbers, not findings."
            for probe, why in found.items()
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
        """Return the artefact that `timesformer reproduce` finds."""
        return Artefact(self.name, self.title, self.plan, self.report, beside=self.beside)


def _bounds_said(row: Mapping[Any, Any], base: Mapping[Any, Any], probe: str) -> str:
    """Bound that settles a difference by construction, on a probe that bounds both sides."""
    bounds = [each[f"counted_{probe}_ceiling_percent"] for each in (row, base)]
    if any(missing(bound) for bound in bounds):
        return ""
    if bounds[0] == bounds[1]:
        return f" (by construction both have the same bound, {bounds[0]:.1f} %)"
    return f" (by construction the bounds are {bounds[0]:.1f} and {bounds[1]:.1f} %)"


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
    """Seeds, test videos, what the intervals are and why cells are empty, for a caption."""
    seeds = min(len(found.seeds.percent) for found in measured.values())
    videos = sorted({found.videos for found in measured.values()})
    nothing = "; steps too few to learn anything: these accuracies mean nothing" if profile == "smoke" else ""
    interval = interval_said({found.over for found in measured.values()})
    chance = " or ".join(f"{value:.1f} %" for value in sorted({found.chance for found in measured.values()}))
    gaps = frame.filter(regex="^measured_.*_top1_percent$").isna().any(axis=None)
    untrained = "; accuracies shown as – were not trained in this profile" if gaps else ""
    return (
        f"Profile {profile}: {seeds} seed{'s' if seeds > 1 else ''}, {' or '.join(map(str, videos))} test videos of "
        f"each probe{_groups_said(measured)}, {interval}; top-1 accuracy, chance {chance}{untrained}{nothing}"
    )


def interval_said(over: Set[Over]) -> str:
    """Scope of the intervals, for a caption."""
    if over == {"seeds and test videos"}:
        return "mean and 95 % interval for new seeds and new test videos"
    if over == {"test videos alone"}:
        return "95 % interval for new test videos alone: one seed says nothing of others"
    return f"95 % interval over {' or '.join(sorted(over))}"


def _groups_said(measured: Mapping[Key, Accuracy]) -> str:
    """Test videos that belong together, by probe, where there are any."""
    found = {part: each.groups for (_, part), each in measured.items() if each.groups < each.videos}
    if not found:
        return ""
    return f" (those that belong together count as one: {', '.join(f'{n} on {part}' for part, n in found.items())})"


def restrictions_said(measured: Mapping[Key, Accuracy]) -> tuple[str, ...]:
    """Seeds in two humps, what so few seeds cannot show, and intervals that hold for these test videos alone.

    measured: by label and probe.
    """
    found = [
        f"{label} on {part}: {each.humps.text()}."
        for (label, part), each in measured.items()
        if each.humps is not None and each.humps.two
    ]
    found += [f"{label} on {part}: {each.note}." for (label, part), each in measured.items() if each.note]
    several = {len(each.seeds.percent) for each in measured.values()} - {1}
    if several and min(several) < MEAN_FROM_SEEDS:
        found.append(f"{cannot_reveal(min(several))}.")
    return tuple(found)


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
