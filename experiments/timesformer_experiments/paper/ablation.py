"""What the artefacts that train have in common: variants of Table 1's divided run, each on one or more probes.

An artefact states its variants and its published rows; the runs, the table with published values beside ours, the
figure and the sentences that follow from the numbers are made here. A variant that changes nothing is Table 1's own
run: a run is known by the hash of what defines it, so nothing is trained twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from timesformer_experiments.analysis.humps import MEAN_FROM_SEEDS, cannot_reveal
from timesformer_experiments.analysis.pairs import Comparison
from timesformer_experiments.analysis.seeds import Over
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
    """A table or figure of variants.

    axis: heading of the column that tells them apart. base: the key that the others are compared with, unless `pairs`
    say which. rows: published values by key of the variant, with fields such as `k400_top1_percent` or
    `k400_difference_points` (from the base; `difference_points` where the paper names no dataset). sources: blocks of
    `values.yaml` that are shown, as (artefact, block); remarks: artefacts whose remarks are. probes: probe -> the
    dataset whose part it plays. counted: whether parameters and cost at the paper's scale belong to the table, and with
    how many classes and views. also: further published fields, with the headings of their columns. curve: the axis
    where the variants are points of a curve. from_nothing: whether on the probes no run starts from an image model.
    headings: of columns, where not the usual ones. concludes: what a reader should conclude, from the frame.
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
        """The runs with their places in the table."""
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
        """All runs, each after the one that it starts from."""
        return list(with_dependencies(cell.spec for cell in self.cells(profile)).values())

    def ceilings(self, profile: Profile) -> dict[Key, float]:
        """What no model can pass, where a probe has such a bound for what a variant reads of it."""
        found = {(cell.variant, cell.part): ceiling_percent(cell.spec) for cell in self.cells(profile)}
        bounded = {part for (_, part), bound in found.items() if bound is not None}
        return {key: 100.0 if bound is None else bound for key, bound in found.items() if key[1] in bounded}

    def frame(self, measured: Mapping[Key, Accuracy], ceilings: Mapping[Key, float]) -> pd.DataFrame:
        """A row for each variant: published values beside ours."""
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
        """What is shown of the frame."""
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
        """Accuracy by variant and probe; raises `InputError` where a run is missing among the records."""
        return accuracies(self.cells(profile), records, self.name)

    def compared(self, measured: Mapping[Key, Accuracy]) -> list[Comparison]:
        """Each variant against the base, or the pairs, on each probe, judged as one family."""
        labels = {variant.key: variant.label for variant in self.variants}
        pairs = self.pairs or [(key, self.base) for key in labels if key != self.base]
        return comparisons(measured, pairs, labels)

    def findings(self, measured: Mapping[Key, Accuracy], frame: pd.DataFrame) -> tuple[str, ...]:
        """What follows from the numbers, whatever they are."""
        by_label, found = {row["label"]: row for row in frame.to_dict(orient="records")}, []
        for each in self.compared(measured):
            one, other, probe = by_label[each.first], by_label[each.second], each.setting["on"]
            theirs = _said_by_the_paper(one, other, self.probes[probe])
            found.append(f"{each.sentence()}{_bounds_said(one, other, probe)}{theirs}.")
        return (*self.concludes(frame), *found, *self.restrictions(measured), *undecided(frame), NOTE)

    def restrictions(self, measured: Mapping[Key, Accuracy]) -> tuple[str, ...]:
        """What the intervals and the number of seeds cannot say."""
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
        """What the table shows, measured and counted how."""
        return f"{self.title}. {protocol_said(profile, measured, frame)}{self._counted_said()}"

    def draw(self, frame: pd.DataFrame) -> Figure:
        """The variants as points of curves, or a row for each."""
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
        """The published values that are shown."""
        return tuple(published(artefact, block) for artefact, block in self.sources)

    def all_remarks(self) -> tuple[Remark, ...]:
        """What is to be known about them."""
        return tuple(remark for artefact in self.remarks for remark in remarks(artefact))

    def artefact(self) -> Artefact:
        """As `timesformer reproduce` finds it."""
        return Artefact(self.name, self.title, self.plan, self.report, beside=self.beside)


def _bounds_said(row: Mapping[Any, Any], base: Mapping[Any, Any], probe: str) -> str:
    """What construction says of a difference on a probe that bounds both."""
    bounds = [each[f"counted_{probe}_ceiling_percent"] for each in (row, base)]
    if any(missing(bound) for bound in bounds):
        return ""
    if bounds[0] == bounds[1]:
        return f" (by construction both have the same bound, {bounds[0]:.1f} %)"
    return f" (by construction the bounds are {bounds[0]:.1f} and {bounds[1]:.1f} %)"


def _said_by_the_paper(row: Mapping[Any, Any], base: Mapping[Any, Any], dataset: str) -> str:
    """The published difference from the base, if there is one."""
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
    untrained = "; – in place of an accuracy: not trained in this profile" if gaps else ""
    return (
        f"Profile {profile}: {seeds} seed{'s' if seeds > 1 else ''}, {' or '.join(map(str, videos))} test videos of "
        f"each probe{_groups_said(measured)}, {interval}; top-1 accuracy, chance {chance}{untrained}{nothing}"
    )


def interval_said(over: Set[Over]) -> str:
    """What intervals hold for, for a caption."""
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
    """The rows with an accuracy that is not above chance."""
    return frame[frame["measured_above_chance"].fillna("yes") != "yes"]


def undecided(frame: pd.DataFrame) -> tuple[str, ...]:
    """Which accuracies are not above chance, if any."""
    below = undecided_rows(frame)
    if below.empty:
        return ()
    cells = "; ".join(f"{row['label']}: {row['measured_above_chance']}" for row in below.to_dict(orient="records"))
    return (f"Not above chance by more than its interval, and so undecided: {cells}.",)
