"""Sparse patterns: from which size on they need fewer MACs, how much of a trained model's attention they keep, and the
accuracy with which they learn a probe.

Not part of the paper.  Cost is counted for ViT-B; recall is measured on Table 1's models of joint attention.  Accuracy
over executed MACs at equal tuning is read from the report of the sweep `experiments/sweeps/sparse_250_steps.yaml`,
where the results folder has it as `sweeps/sparse_250_steps`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from timesformer import TimeSformerConfig
from timesformer.attention import build
from timesformer.config.counting import macs_per_view, step_pairs
from timesformer.errors import InputError
from timesformer.parallel import side_by_side
from timesformer_experiments.cost.break_even import FRAMES, PATCHES, first_less
from timesformer_experiments.paper.artefact import Artefact, Folders, Profile
from timesformer_experiments.paper.artefacts.tables.table1 import ABLATION
from timesformer_experiments.paper.measured import patterns
from timesformer_experiments.paper.measured.recall import KIND, measured
from timesformer_experiments.paper.setting import PROBES
from timesformer_experiments.report.report import Part, Report
from timesformer_experiments.report.style import COLOURS, MARKERS, new_figure
from timesformer_experiments.report.tables import Column, Table
from timesformer_experiments.specs.run import RunSpec, with_dependencies

DENSE = ("joint", "divided")
PATTERNS = ("local_global", "swin", "sliding_tile", "neighbourhood", "radial", "dilated")
BASE = TimeSformerConfig(num_frames=32)
"""ViT-B at 32 x 224, where patterns are compared; curves change its frames or its resolution."""
NARROWER = {
    "swin": [f"swin(window=[{t},2,2])" for t in (2, 4, 8)],
    "sliding_tile": [f"sliding_tile(tile=[2,2,2],window=[{t},{s},{s}])" for t, s in ((1, 1), (3, 1), (1, 2), (3, 2))],
    "neighbourhood": [f"neighbourhood(window=[{t},3,3])" for t in (1, 3, 5, 7)],
    "radial": [f"radial(tile=[1,2,2],decay={decay})" for decay in (1.0, 1.5, 2.0, 4.0)],
    "dilated": [f"dilated(tile=[1,1,1],window=[{t},2,2],dilation=[{d},2,2])" for t, d in ((2, 2), (3, 2), (4, 2))],
}
"""Patterns whose recall is measured, for the probes' clips of 8 x 4 x 4 patches."""
VIDEOS: dict[Profile, int] = {"smoke": 2, "quick": 32, "full": 64}
"""Number of test videos per probe."""


def plan(profile: Profile) -> list[RunSpec]:
    """List Table 1's runs of joint attention, each after the image model from which it starts."""
    cells = [cell for cell in ABLATION.cells(profile) if cell.variant == "joint"]
    return list(with_dependencies(cell.spec for cell in cells).values())


def measure(records: Sequence[dict[str, Any]], profile: Profile, folders: Folders, jobs: int) -> list[dict[str, Any]]:
    """Return a record of recall for each video model; earlier measurements are read from the folders of the runs."""
    specs = {spec.hash(): spec for spec in plan(profile)}
    narrower = [pattern for family in NARROWER.values() for pattern in family]
    wanted = [
        (record, specs[record["hash"]], folders.runs, folders.data, VIDEOS[profile], narrower)
        for record in records
        if record["outcome"] == "done" and not record["spec"]["data"]["stills"]
    ]
    return side_by_side(measured, wanted, jobs)


def costs() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a row for each scheme at 32 x 224, and the points of its curves over frames and resolution."""
    axes = (
        ("frames", FRAMES, lambda size: {"num_frames": size}),
        ("patches a side", PATCHES, lambda size: {"image_size": size * BASE.patch_size}),
    )
    points = [
        {"attention": name, "along": along, "size": size, **_counted(name, **fields(size))}
        for along, sizes, fields in axes
        for name in (*DENSE, *PATTERNS)
        for size in sizes
    ]
    curves = pd.DataFrame(points)
    rows = []
    for name in (*DENSE, *PATTERNS):
        row: dict[str, Any] = {"attention": name, "title": build(name).title or name}
        row |= _counted(name) | _density(name)
        for along in ("frames", "patches a side"):
            for reference in DENSE:
                ours, theirs = (_curve(curves, each, along) for each in (name, reference))
                found = first_less((ours["counted_gmacs_per_view"] < theirs["counted_gmacs_per_view"]).tolist())
                key = f"counted_fewer_than_{reference}_from_{along.replace(' ', '_')}"
                row[key] = None if found is None else int(ours["size"].iloc[found])
        rows.append(row)
    return pd.DataFrame(rows), curves


def _curve(curves: pd.DataFrame, name: str, along: str) -> pd.DataFrame:
    return curves[(curves["attention"] == name) & (curves["along"] == along)].reset_index(drop=True)


def _counted(attention: str, **fields: Any) -> dict[str, float]:
    config = replace(BASE, attention=attention, **fields)
    needed, executed = macs_per_view(config, "needed"), macs_per_view(config, "executed")
    return {"counted_gmacs_per_view": executed / 1e9, "counted_gmacs_needed": needed / 1e9}


def _density(name: str) -> dict[str, float]:
    """Pairs of patches that a block compares, as shares of all pairs in percent: declared, and executed."""
    steps = build(name).encoders[0].at(0).steps
    tokens = math.prod(BASE.grid)
    found = {}
    for kind in ("needed", "executed"):
        pairs = [
            sum(each.patches - tokens * (step.cls != "absent") for each in heads if each is not None) / len(heads)
            for step in steps
            for heads in [step_pairs(step, BASE.grid, kind=kind)]
        ]
        found[f"counted_pairs_{kind}_percent"] = 100 * sum(pairs) / tokens**2
    return found


COLUMNS = (
    Column("title", "Attention", "label"),
    Column("counted_pairs_needed_percent", "Pairs declared [%]", "counted", decimals=2),
    Column("counted_pairs_executed_percent", "Pairs executed [%]", "counted", decimals=2),
    Column("counted_gmacs_per_view", "GMACs per view", "counted", decimals=0),
    *(
        Column(f"counted_fewer_than_{reference}_from_{along}", f"Fewer than {reference} from [{unit}]", "counted", 0)
        for reference in DENSE
        for along, unit in (("frames", "frames"), ("patches_a_side", "patches a side"))
    ),
)


def draw(curves: pd.DataFrame) -> Figure:
    """Draw executed MACs, as shares of joint attention's, over frames and over resolution."""
    figure, axes = new_figure(10.5, 4.6, panels=2)
    fixed = {"frames": "14 x 14 patches a frame", "patches a side": f"{BASE.num_frames} frames"}
    for axis, (along, beside) in zip(axes, fixed.items(), strict=True):
        joint = _curve(curves, "joint", along)["counted_gmacs_per_view"]
        for number, name in enumerate((*DENSE, *PATTERNS)):
            points = _curve(curves, name, along)
            look = {
                "color": patterns.LOOKS[number][0],
                "marker": patterns.LOOKS[number][1],
                "linestyle": "-" if name in DENSE else "--",
            }
            share = 100 * points["counted_gmacs_per_view"] / joint
            axis.plot(points["size"], share, label=build(name).title or name, **look)
        axis.set_xscale("log", base=2)
        axis.set_xticks(list(points["size"]), [str(size) for size in points["size"]])
        axis.set_ylim(bottom=0)
        axis.set_xlabel(f"{along} ({beside})")
        axis.set_ylabel("executed MACs [% of joint attention's]")
    axes[0].legend(frameon=False, fontsize="small")
    return figure


def recalls(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return a row for each probe, pattern, layer and step, means over seeds.

    Raises InputError if the records lack a probe.
    """
    rows = [
        {
            "probe": record["spec"]["data"]["probe"],
            "seed": record["seed"],
            "pattern": each["pattern"],
            "layer": each["layer"],
            "measured_recall_percent": 100 * each["recall"],
            "measured_lowest_head_percent": 100 * min(each["recall_by_head"]),
            "measured_highest_head_percent": 100 * max(each["recall_by_head"]),
            "counted_pairs_percent": 100 * each["density"],
        }
        for record in records
        if record.get("kind") == KIND
        for each in record["metrics"]["recall"]
    ]
    missing = [probe for probe in PROBES if probe not in {row["probe"] for row in rows}]
    if missing:
        raise InputError(f"sparse: the records have no measurement of recall on {', '.join(missing)}")
    keys = ["probe", "pattern", "layer"]
    frame = pd.DataFrame(rows)
    means = frame.groupby(keys, sort=False).mean(numeric_only=True).drop(columns="seed").reset_index()
    return means.assign(measured_seeds=frame["seed"].nunique())


RECALL_COLUMNS = (
    Column("probe", "Probe", "label"),
    Column("pattern", "Pattern", "label"),
    Column("layer", "Block", "label", decimals=0),
    Column("counted_pairs_percent", "Pairs kept [%]", "counted"),
    Column("measured_recall_percent", "Recall [%]", "measured"),
    Column("measured_lowest_head_percent", "Lowest head [%]", "measured"),
    Column("measured_highest_head_percent", "Highest head [%]", "measured"),
)


def draw_recall(frame: pd.DataFrame) -> Figure:
    """Draw recall over the share of pairs kept, a panel for each block and a row for each probe."""
    layers = sorted(frame["layer"].unique())
    figure = Figure(figsize=(max(7.0, 3.6 * len(layers)), 3.4 * len(PROBES)), layout="constrained")
    axes = figure.subplots(len(PROBES), len(layers), sharex=True, sharey=True, squeeze=False)
    for row, probe in zip(axes, PROBES, strict=True):
        for axis, layer in zip(row, layers, strict=True):
            part = frame[(frame["probe"] == probe) & (frame["layer"] == layer)]
            axis.grid(True, color="#dddddd", linewidth=0.6)
            axis.plot([0, 100], [0, 100], color="black", linestyle="--", linewidth=1, label="attention spread evenly")
            for number, name in enumerate(NARROWER):
                points = part[part["pattern"].isin(NARROWER[name])].sort_values("counted_pairs_percent")
                look = {"color": COLOURS[number], "marker": MARKERS[number]}
                x, y = points["counted_pairs_percent"], points["measured_recall_percent"]
                axis.plot(x, y, label=build(name).title or name, **look)
            axis.set_title(f"{probe}, block {layer}")
            axis.set_xlabel("pairs kept [%]")
        row[0].set_ylabel("recall [%]")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure


def findings(rows: pd.DataFrame, frame: pd.DataFrame) -> tuple[str, ...]:
    """Return sentences that follow from the numbers."""
    found = []
    joint = rows["counted_gmacs_per_view"][rows["attention"] == "joint"].iloc[0]
    for row in rows[rows["attention"].isin(PATTERNS)].to_dict(orient="records"):
        added = 100 * (row["counted_gmacs_per_view"] / row["counted_gmacs_needed"] - 1)
        found.append(
            f"{row['title']}, at its defaults, executes {100 * row['counted_gmacs_per_view'] / joint:.0f} % of joint "
            f"attention's MACs at 32 x 224; its tiles add {added:.1f} % to what is declared."
        )
    for probe, part in frame.groupby("probe", sort=False):
        gain = (part["measured_recall_percent"] - part["counted_pairs_percent"]).groupby(part["pattern"]).mean()
        best, worst = str(gain.idxmax()), str(gain.idxmin())
        found.append(
            f"On {probe}, recall exceeds the share of pairs kept most with {best} (by {gain[best]:.1f} points, mean "
            f"over blocks) and least with {worst} ({gain[worst]:+.1f})."
        )
    found.append("Recall says what is kept without training, and not what accuracy a model trained with it reaches.")
    return tuple(text.replace("(-", "(−") for text in found)


def beside(results: Path, profile: Profile) -> list[dict[str, Any]]:
    """The patterns of the sweep, where the results folder has its report; none for the profile smoke."""
    return [] if profile == "smoke" else patterns.patterns(results)


def left_out(profile: Profile) -> str:
    """Return why the page has no accuracy over executed MACs."""
    if profile == "smoke":
        return "Accuracy over executed MACs is no part of the profile smoke."
    name = patterns.FOLDER.name
    return (
        f"Accuracy over executed MACs is left out: these results have no {patterns.FOLDER}. `timesformer sweep "
        f"experiments/sweeps/{name}.yaml --out runs/{name}` and `timesformer report runs/{name} --out "
        f"RESULTS/{patterns.FOLDER}` make it."
    )


def report(records: Sequence[dict[str, Any]], profile: Profile) -> Report:
    """Make the table of costs and those of recall and, where the sweep's report is there, of accuracy."""
    learnt = patterns.part([record for record in records if record["kind"] == patterns.KIND])
    records = [record for record in records if record["kind"] != patterns.KIND]
    rows, curves = costs()
    frame = recalls(records)
    seeds, videos = int(frame["measured_seeds"].min()), VIDEOS[profile]
    title = "Sparse patterns: break-even, recall and accuracy" if learnt else "Sparse patterns: break-even and recall"
    recall = Part(
        "recall",
        "Attention recall over density",
        Table(
            frame,
            RECALL_COLUMNS,
            f"Share of the attention of Table 1's models of joint attention that falls on the pairs which a pattern "
            f"keeps, class token included. Profile {profile}: {seeds} model{'s' if seeds > 1 else ''} and the first "
            f"{videos} test videos of each probe, means; no interval",
            measured="measured here, on this repository's probes",
        ),
        draw_recall(frame),
    )
    return Report(
        name="sparse",
        title=title,
        table=Table(
            rows,
            COLUMNS,
            "Patterns at their defaults: pairs of patches that a block compares, as shares of all pairs, and GMACs of "
            "one view of 32 x 224 x 224, ViT-B (one multiply-accumulate counts as one); sizes tried from which on a "
            f"pattern executes fewer MACs: {', '.join(map(str, FRAMES))} frames at 14 x 14 patches, "
            f"{', '.join(map(str, PATCHES))} patches a side at 32 frames",
        ),
        figure=draw(curves),
        findings=findings(rows, frame) if learnt else (*findings(rows, frame), left_out(profile)),
        sources=(),
        remarks=(),
        records=tuple(records),
        parts=(learnt, recall) if learnt else (recall,),
    )


ARTEFACT = Artefact(
    "sparse",
    "Sparse patterns: break-even, recall of joint attention, and accuracy over executed MACs",
    plan,
    report,
    measure=measure,
    beside=beside,
)
