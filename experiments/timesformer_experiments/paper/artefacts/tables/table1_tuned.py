"""Table 1 anew, and the order of time and space: recipes chosen on validation data, fresh seeds, a probe that ranks.

What is trained is in `paper.tuned`.  Every variant had the same draws of a recipe; it is trained for the same number of
steps, and in `full` also for as many as cost the training MACs of `divided`, with the same recipe.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from timesformer.data import FrameCache
from timesformer_experiments.paper.ablation import Ablation, Rows
from timesformer_experiments.paper.accuracy import Accuracy, Cell, Key
from timesformer_experiments.paper.artefact import Artefact, Folders, Profile
from timesformer_experiments.paper.gate import told_apart
from timesformer_experiments.paper.probes import describe
from timesformer_experiments.paper.setting import PROBES as FIRST
from timesformer_experiments.paper.tuned import BASE, NAME, PROBES, SEEDS, Budget, recipes, spec_of
from timesformer_experiments.paper.variants import Variant
from timesformer_experiments.report.published import published
from timesformer_experiments.report.report import Part, Report
from timesformer_experiments.report.tables import Column, Table, missing
from timesformer_experiments.run.inputs import prepare
from timesformer_experiments.specs.run import ProbeData, RunSpec, with_dependencies

ORDERS = ("divided_st", "divided_parallel")
LABELS = {
    "space": "Space (S)",
    "joint": "Joint Space-Time (ST)",
    "divided": "Divided Space-Time (T+S)",
    "local_global": "Sparse Local Global (L+G)",
    "axial": "Axial (T+W+H)",
    "divided_st": "Divided, space first (S+T)",
    "divided_parallel": "Divided, both at once",
}
APART_POINTS = 20.0
"""Difference from which two schemes whose intervals do not overlap are named."""


def _rows() -> Rows:
    inference = published("table1", "inference").rows
    schemes = {name: {**row, **inference.get(name, {})} for name, row in published("table1", "schemes").rows.items()}
    return {**schemes, **published("ablations", "order").rows}


@dataclass(frozen=True)
class Tuned(Ablation):
    """The schemes of Table 1 and the orders of time and space under one budget; `quick` trains the schemes alone."""

    budget: Budget = "steps"

    def cells(self, profile: Profile) -> list[Cell]:
        """List the runs with their places in the table; none of equal training MACs in `quick`."""
        if self.budget == "macs" and profile == "quick":
            return []
        return [
            Cell(variant.key, probe, seed, spec_of(profile, probe, variant.key, seed, self.budget))
            for seed in SEEDS[profile]
            for probe in PROBES
            for variant in self.variants
            if variant.is_run(profile, probe)
        ]

    def findings(self, measured: Mapping[Key, Accuracy], frame: pd.DataFrame) -> tuple[str, ...]:
        """Return how recipes were found, which schemes lie far apart, and the tests of the table."""
        return (_chosen_said(), *_apart(frame), *super().findings(measured, frame))


def _chosen_said() -> str:
    """Return the sentence on the choice of the recipes."""
    draws = sorted({each.selection.draws for schemes in recipes().root.values() for each in schemes.values()})
    return (
        f"Recipes were chosen on validation videos, of {' or '.join(map(str, draws))} draws for every scheme and "
        "probe, the same ones for all; each seed has videos of its own, which no draw had seen."
    )


def _apart(frame: pd.DataFrame) -> tuple[str, ...]:
    """Return a sentence for each probe: which space-time schemes lie far apart, with intervals that do not overlap."""
    found = []
    rows = [row for row in frame.to_dict(orient="records") if row["variant"] not in ("space", *ORDERS)]
    for probe in PROBES:
        key = f"measured_{probe}_top1"
        pairs = []
        for one, two in itertools.permutations(rows, 2):
            ends = one[f"{key}_low_percent"], two[f"{key}_high_percent"]
            gap = one[f"{key}_percent"] - two[f"{key}_percent"]
            if not any(map(missing, ends)) and ends[0] > ends[1] and gap >= APART_POINTS:
                pairs.append(f"{one['variant']} above {two['variant']} by {gap:.1f} points")
        seeds = int(frame[f"measured_{probe}_seeds"].min())
        said = "; ".join(pairs) if pairs else f"no two lie {APART_POINTS:.0f} points apart"
        found.append(
            f"Space-time schemes on {probe} whose intervals do not overlap and whose means lie {APART_POINTS:.0f} "
            f"points or more apart, of {seeds} seeds each: {said}."
        )
    return tuple(found)


STEPS = Tuned(
    name=NAME,
    title="Table 1 anew: schemes and orders with recipes from validation data",
    axis="Attention",
    variants=tuple(
        Variant(name, label, {"model.attention": name}, skip=("quick",) if name in ORDERS else ())
        for name, label in LABELS.items()
    ),
    base=BASE,
    rows=_rows,
    sources=(("table1", "schemes"), ("table1", "inference"), ("ablations", "order")),
    remarks=("table1",),
    probes=PROBES,
    counted=(174, 3),
    headings={"published_tflops_total": "paper"},
)
MACS = replace(STEPS, title="At equal training MACs", sources=(), remarks=(), counted=None, budget="macs")


def plan(profile: Profile) -> list[RunSpec]:
    """List all runs, each after the run from which it is initialised."""
    cells = [*STEPS.cells(profile), *MACS.cells(profile)]
    return list(with_dependencies(cell.spec for cell in cells).values())


def report(records: Sequence[dict[str, Any]], profile: Profile) -> Report:
    """Return the table at equal steps, and in a section of its own the one at equal training MACs."""
    runs, _ = told_apart(records)
    main = STEPS.report(records, profile)
    if not MACS.cells(profile):
        said = "Equal training MACs, and the orders of time and space, are trained in the profile full alone."
        return replace(main, findings=(*main.findings, said))
    return replace(main, parts=(_at_equal_macs(runs, profile),))


def _at_equal_macs(runs: Sequence[dict[str, Any]], profile: Profile) -> Part:
    measured = MACS.measured(runs, profile)
    frame = MACS.frame(measured, {})
    steps = {(cell.variant, cell.part): cell.spec.recipe.steps for cell in MACS.cells(profile)}
    columns = [Column("label", MACS.axis, "label")]
    for probe in PROBES:
        frame[f"counted_{probe}_steps"] = [steps[key, probe] for key in frame["variant"]]
        columns.append(Column(f"counted_{probe}_steps", f"{probe}, steps", "counted", decimals=0))
        columns += [column for column in MACS.columns(frame) if column.key.startswith(f"measured_{probe}")]
    table = Table(
        frame,
        tuple(columns),
        f"{MACS.caption(profile, measured, frame)}. Steps are those with which a scheme's training comes nearest to "
        f"the MACs of {BASE}'s; recipes are those of the table at equal steps",
        measured="measured here, on this repository's probes",
    )
    return Part("macs", MACS.title, table, findings=MACS.findings(measured, frame)[1:])


def finish(records: Sequence[dict[str, Any]], profile: Profile, folders: Folders) -> list[Path]:
    """Write contact sheet and cheap classifiers of the probe that Table 1 does not have, as the first seed sees it."""
    cache, files = FrameCache(folders.data / "frames"), []
    for cell in STEPS.cells(profile):
        data = cell.spec.data
        first = (cell.variant, cell.seed) == (BASE, SEEDS[profile][0])
        if first and cell.part not in FIRST and isinstance(data, ProbeData):
            files += describe(prepare(data, folders.data), folders.out / "probes", f"{cell.part}-{profile}", cache)
    return files


ARTEFACT = Artefact(NAME, STEPS.title, plan, report, finish, beside=STEPS.beside)
