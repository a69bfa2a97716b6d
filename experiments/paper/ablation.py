"""What the artefacts that train have in common: variants of Table 1's divided run, each on one or more probes.

An artefact states its variants and its published rows; the runs, the table with published values beside ours, the
figure and the sentences that follow from the numbers are made here. A variant that changes nothing is Table 1's own
run: a run is known by the hash of what defines it, so nothing is trained twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from experiments.cost import cost
from experiments.paper import Artefact, Profile
from experiments.paper.accuracy import Accuracy, Cell, accuracies, comparisons
from experiments.paper.drawing import draw_curves, draw_dots
from experiments.paper.published import Published, published, remarks
from experiments.paper.setting import (
    NAMES_IN_THE_PAPER,
    PROBES,
    SETTINGS,
    changed,
    image_fields,
    image_name,
    video_fields,
    video_name,
)
from experiments.report import Report
from experiments.spec import RunSpec, with_dependencies
from experiments.statistics import Comparison, signed
from experiments.tables import Column, Table, missing
from timesformer import TimeSformerConfig
from timesformer.checkpoints.transfer import SHARED_FIELDS

Rows = Mapping[str, Mapping[str, Any]]
NOTE = (
    "The accuracies measured here are those of small models on synthetic probes: compare the rows with one another, "
    "not the percentages with the paper's."
)


@dataclass(frozen=True)
class Variant:
    """One row: what it changes in Table 1's divided run, by dotted path.

    key: in the csv, in names of runs and in `values.yaml`. paper: fields of the model at the paper's scale, where they
    are not those of `change`. image: what it changes in the image model that it starts from, beside the fields that the
    two share (width, depth, patch size, …); None starts from nothing. through: whether a divided run on the other probe
    comes between the image model and this run. x: its place on a curve.
    """

    key: str
    label: str
    change: Mapping[str, Any] = field(default_factory=dict)
    paper: Mapping[str, Any] | None = None
    image: Mapping[str, Any] | None = field(default_factory=dict)
    through: bool = False
    x: float | None = None

    @property
    def changes_something(self) -> bool:
        """Whether it is another run than Table 1's of divided attention."""
        return bool(self.change or self.image is None or self.image or self.through)

    def config(self, num_classes: int = 400) -> TimeSformerConfig:
        """The model at the paper's scale, ViT-B at 8 x 224 x 224 where nothing is changed."""
        if self.paper is not None:
            return TimeSformerConfig.from_dict({"num_classes": num_classes, **self.paper})
        models = {path.removeprefix("model."): value for path, value in self.change.items() if path[:6] == "model."}
        return TimeSformerConfig.from_dict({"num_classes": num_classes, **models})


@dataclass(frozen=True)
class Ablation:
    """A table or figure of variants.

    axis: heading of the column that tells them apart. base: the key that the others are compared with. rows: published
    values by key of the variant, with fields such as `k400_top1_percent` or `k400_difference_points` (from the base;
    `difference_points` where the paper names no dataset). sources: blocks of `values.yaml` that are shown, as
    (artefact, block); remarks: artefacts whose remarks are. probes: probe -> the paper's dataset whose part it plays.
    counted: whether parameters and TFLOPs at the paper's scale belong to the table, and with how many classes and
    views. curve: label of the x axis where the variants are points of a curve. concludes: what a reader should
    conclude, from the frame.
    """

    name: str
    title: str
    axis: str
    variants: tuple[Variant, ...]
    base: str
    rows: Callable[[], Rows] = dict
    sources: tuple[tuple[str, str], ...] = ()
    remarks: tuple[str, ...] = ()
    probes: Mapping[str, str] = field(default_factory=lambda: dict(PROBES))
    counted: tuple[int, int] | None = None
    curve: str | None = None
    concludes: Callable[[pd.DataFrame], tuple[str, ...]] = lambda frame: ()

    def cells(self, profile: Profile) -> list[Cell]:
        """The runs with their places in the table."""
        seeds = range(SETTINGS[profile].seeds)
        return [
            Cell(variant.key, probe, seed, self.run(variant, profile, probe, seed))
            for seed in seeds
            for probe in self.probes
            for variant in self.variants
        ]

    def run(self, variant: Variant, profile: Profile, probe: str, seed: int) -> RunSpec:
        """The run of a variant."""
        fields = changed(video_fields(profile, probe), variant.change)
        start = self._start(variant, profile, probe, seed)
        own = f"{self.name}-{profile}-{probe}-{variant.key}-s{seed}"
        name = own if variant.changes_something else video_name(profile, probe, seed)
        return RunSpec.parse({"name": name, "seed": seed, **fields, "init_from": start}, self.name)

    def _start(self, variant: Variant, profile: Profile, probe: str, seed: int) -> dict[str, Any] | None:
        """Fields of the run that a variant starts from."""
        if variant.image is None:
            return None
        shared = {path: value for path, value in variant.change.items() if path.removeprefix("model.") in SHARED_FIELDS}
        changes = {**shared, **variant.image}
        own = f"{self.name}-{profile}-image-{variant.key}-s{seed}" if changes else image_name(profile, seed)
        image = {"name": own, "seed": seed, **changed(image_fields(profile), changes)}
        if not variant.through:
            return image
        other = next(name for name in PROBES if name != probe)
        return {
            "name": video_name(profile, other, seed),
            "seed": seed,
            **video_fields(profile, other),
            "init_from": image,
        }

    def plan(self, profile: Profile) -> list[RunSpec]:
        """All runs, each after the one that it starts from."""
        return list(with_dependencies(cell.spec for cell in self.cells(profile)).values())

    def frame(self, measured: Mapping[tuple[str, str], Accuracy]) -> pd.DataFrame:
        """A row for each variant: published values beside ours."""
        printed = self.rows()
        return pd.DataFrame([self._row(variant, printed.get(variant.key, {}), measured) for variant in self.variants])

    def _row(
        self, variant: Variant, printed: Mapping[str, Any], measured: Mapping[tuple[str, str], Accuracy]
    ) -> dict[str, Any]:
        row: dict[str, Any] = {"variant": variant.key, "label": variant.label, "x": variant.x}
        if self.counted is not None:
            classes, views = self.counted
            counted = cost(variant.config(classes), views=views)
            row |= {"counted_params": counted.params, "counted_tflops_total": counted.tflops_total}
        undecided = []
        for probe, dataset in self.probes.items():
            found = measured[variant.key, probe]
            row |= found.columns(f"measured_{probe}")
            if not found.above_chance:
                undecided.append(probe)
            for name in (f"{dataset}_top1_percent", f"{dataset}_difference_points"):
                row[f"published_{name}"] = printed.get(name)
        row["published_difference_points"] = printed.get("difference_points")
        row["measured_above_chance"] = f"undecided on {', '.join(undecided)}" if undecided else "yes"
        return row

    def columns(self, frame: pd.DataFrame) -> tuple[Column, ...]:
        """What is shown of the frame."""
        found = [Column("label", self.axis, "label")]
        if self.counted is not None:
            found.append(Column("counted_params", "Params [M]", "counted", scale=1e6))
            found.append(Column("counted_tflops_total", "TFLOPs", "counted", decimals=2))
        for probe, dataset in self.probes.items():
            key = f"measured_{probe}"
            bounds = (f"{key}_top1_low_percent", f"{key}_top1_high_percent")
            found.append(Column(f"{key}_top1_percent", f"{probe} [%]", "measured", bounds=bounds))
            for name, unit in ((f"{dataset}_top1_percent", "%"), (f"{dataset}_difference_points", "points")):
                title = f"{NAMES_IN_THE_PAPER.get(dataset, dataset)}, paper [{unit}]"
                found.append(Column(f"published_{name}", title, "published"))
        found.append(Column("published_difference_points", "paper, dataset not named [points]", "published"))
        if (frame["measured_above_chance"] != "yes").any():
            found.append(Column("measured_above_chance", "Above chance", "measured"))
        return tuple(column for column in found if column.origin != "published" or frame[column.key].notna().any())

    def measured(self, records: Sequence[dict[str, Any]], profile: Profile) -> dict[tuple[str, str], Accuracy]:
        """Accuracy by variant and probe; raises `InputError` where a run is missing among the records."""
        return accuracies(self.cells(profile), records, self.name)

    def compared(self, measured: Mapping[tuple[str, str], Accuracy]) -> list[Comparison]:
        """Each variant against the base on each probe, corrected for their number."""
        labels = {variant.key: variant.label for variant in self.variants}
        return comparisons(measured, [(key, self.base) for key in labels if key != self.base], labels)

    def findings(self, measured: Mapping[tuple[str, str], Accuracy], frame: pd.DataFrame) -> tuple[str, ...]:
        """What follows from the numbers, whatever they are."""
        by_label = {row["label"]: row for row in frame.to_dict(orient="records")}
        found = [
            f"{each.sentence()}{_said_by_the_paper(by_label[each.first], by_label[each.second], self.probes[part])}."
            for each in self.compared(measured)
            for part in [each.setting["on"]]
        ]
        return (*self.concludes(frame), *found, *undecided(frame), NOTE)

    def report(self, records: Sequence[dict[str, Any]], profile: Profile) -> Report:
        """The artefact from the records of its runs."""
        measured = self.measured(records, profile)
        frame = self.frame(measured)
        draw = draw_dots if self.curve is None else draw_curves
        return Report(
            name=self.name,
            title=self.title,
            table=Table(
                frame,
                self.columns(frame),
                f"{self.title}. {protocol_said(profile, measured)}{self._counted_said()}",
                measured="measured here, on this repository's probes",
            ),
            figure=draw(frame, self.probes, self.curve or self.axis),
            findings=self.findings(measured, frame),
            sources=self._sources(),
            remarks=tuple(remark for artefact in self.remarks for remark in remarks(artefact)),
            records=tuple(records),
        )

    def _counted_said(self) -> str:
        if self.counted is None:
            return ""
        return f"; parameters with {self.counted[0]} classes, TFLOPs of {self.counted[1]} views at the paper's scale"

    def _sources(self) -> tuple[Published, ...]:
        return tuple(published(artefact, block) for artefact, block in self.sources)

    def artefact(self) -> Artefact:
        """As `timesformer reproduce` finds it."""
        return Artefact(self.name, self.title, self.plan, self.report)


def _said_by_the_paper(row: Mapping[Any, Any], base: Mapping[Any, Any], dataset: str) -> str:
    """The published difference from the base, if there is one."""
    theirs = row[f"published_{dataset}_top1_percent"], base[f"published_{dataset}_top1_percent"]
    where, points = f", on {NAMES_IN_THE_PAPER.get(dataset, dataset)}", row[f"published_{dataset}_difference_points"]
    if not any(missing(value) for value in theirs):
        points = theirs[0] - theirs[1]
    elif missing(points):
        where, points = "", row["published_difference_points"]
    return "" if missing(points) else f". In the paper{where}: {signed(points)} points"


def protocol_said(profile: Profile, measured: Mapping[tuple[str, str], Accuracy]) -> str:
    """Seeds, test videos and what the intervals are, for a caption."""
    seeds = min(len(found.percent) for found in measured.values())
    videos = sorted({found.videos for found in measured.values()})
    interval = "mean ± 95 % interval over seeds" if seeds > 1 else "with the 95 % interval over test videos"
    return (
        f"Profile {profile}: {seeds} seed{'s' if seeds > 1 else ''}, {' or '.join(map(str, videos))} test videos of "
        f"each probe, {interval}; top-1 accuracy"
    )


def undecided(frame: pd.DataFrame) -> tuple[str, ...]:
    """Which accuracies are not above chance, if any."""
    below = frame[frame["measured_above_chance"] != "yes"]
    if below.empty:
        return ()
    cells = "; ".join(f"{row['label']}: {row['measured_above_chance']}" for row in below.to_dict(orient="records"))
    return (f"Not above chance by more than its interval, and so undecided: {cells}.",)
