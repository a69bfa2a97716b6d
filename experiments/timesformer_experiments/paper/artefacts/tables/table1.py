"""Table 1 of the paper: the five attention schemes, their size, their cost and their accuracy.

Size and cost are counted at the paper's scale. Accuracies are measured on two probes that play the parts of K400
(`appearance`) and SSv2 (`motion`). For each seed an image model is trained on stills of `appearance`; every scheme
starts from it on both probes, as the paper's start from ImageNet weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from timesformer import TimeSformerConfig
from timesformer.data import FrameCache
from timesformer.data.probes.diagnostics import ORDER_BLIND_CEILING_PERCENT
from timesformer.errors import InputError
from timesformer.files import write_atomic
from timesformer_experiments.cost.count import cost
from timesformer_experiments.paper.ablation import protocol_said, undecided, undecided_rows
from timesformer_experiments.paper.accuracy import Accuracy, Key, accuracy, columns_of, decided
from timesformer_experiments.paper.artefact import PROFILES, Artefact, Folders, Profile
from timesformer_experiments.paper.probes import describe
from timesformer_experiments.paper.setting import (
    ADAMW,
    FRAMES,
    NAMES_IN_THE_PAPER,
    PROBES,
    SETTINGS,
    image_fields,
    image_name,
)
from timesformer_experiments.records.folder import RunFolder
from timesformer_experiments.report.published import published, remarks
from timesformer_experiments.report.report import COLOURS, MARKERS, Report, new_figure
from timesformer_experiments.report.tables import Column, Table
from timesformer_experiments.run.inputs import prepare
from timesformer_experiments.specs.run import ProbeData, RunSpec
from timesformer_experiments.specs.sweep import Sweep, parse_sweep

SCHEMES = ("space", "joint", "divided", "local_global", "axial")
CHECKPOINT = Path("checkpoints/divided-motion")


def sweep(profile: Profile) -> Sweep:
    """Seeds x probes x schemes, each from the image model of its seed."""
    setting = SETTINGS[profile]
    seeds, videos, recipes = list(range(setting.seeds)), setting.videos, setting.recipes
    by_seed = {
        "seed": seeds,
        "init_from.seed": seeds,
        "init_from.name": [image_name(profile, seed) for seed in seeds],
    }
    by_probe = {
        "data.probe": list(PROBES),
        "data.num_train": [videos[probe][0] for probe in PROBES],
        "data.num_test": [videos[probe][1] for probe in PROBES],
        "data.flip": [probe == "appearance" for probe in PROBES],
        **{f"recipe.{name}": [recipes[probe][name] for probe in PROBES] for name in ("lr", "steps", "batch_size")},
    }
    return parse_sweep(
        {
            "name": f"table1-{profile}",
            "base": {
                "data": {"difficulty": setting.difficulty},
                "model": {**setting.model, "num_frames": FRAMES},
                "recipe": ADAMW,
                "init_from": image_fields(profile),
            },
            "axes": {**by_seed, **by_probe, "model.attention": list(SCHEMES)},
            "zip": [list(by_seed), list(by_probe)],
            "cell": "{name}-{data.probe}-{model.attention}-s{seed}",
        },
        f"table1, {profile}",
    )


def plan(profile: Profile) -> list[RunSpec]:
    """The image model of each seed, then the five schemes on both probes that start from it."""
    return sweep(profile).runs(f"table1, {profile}")


def accuracies_of(records: Sequence[dict[str, Any]]) -> dict[Key, Accuracy]:
    """Accuracy by scheme and probe; raises `InputError` where a run is missing, or there are two of one."""
    runs: dict[Key, dict[int, dict[str, Any]]] = {}
    for record in records:
        data, scheme = record["spec"]["data"], record["spec"]["model"]["attention"]
        if record["outcome"] != "done" or data["stills"]:
            continue
        seeds = runs.setdefault((scheme, data["probe"]), {})
        if record["seed"] in seeds and seeds[record["seed"]]["hash"] != record["hash"]:
            raise InputError(f"table1: two different runs of {scheme} on {data['probe']} with seed {record['seed']}")
        seeds[record["seed"]] = record
    missing = [f"{scheme} on {probe}" for scheme in SCHEMES for probe in PROBES if not runs.get((scheme, probe))]
    if missing:
        raise InputError(f"table1: no finished run of {', '.join(missing)} among the records")
    return {key: accuracy(seeds) for key, seeds in runs.items()}


def rows(measured: Mapping[Key, Accuracy]) -> pd.DataFrame:
    """One row for each scheme, published values beside ours."""
    printed, inference = published("table1", "schemes"), published("table1", "inference")
    found = []
    for scheme in SCHEMES:
        counted = cost(TimeSformerConfig(attention=scheme, num_classes=174), views=3)
        paper = printed.rows[scheme]
        row: dict[str, Any] = {
            "attention": scheme,
            "label": paper["label"],
            "counted_params": counted.params,
            "published_params_millions": paper["params_millions"],
            "counted_tflops_total": counted.tflops_total,
            "published_tflops_total": inference.rows.get(scheme, {}).get("tflops_total"),
        }
        for probe, dataset in PROBES.items():
            row |= columns_of(measured[scheme, probe], f"measured_{probe}")
            row[f"published_{dataset}_top1_percent"] = paper[f"{dataset}_top1_percent"]
        row["measured_above_chance"] = decided({probe: measured[scheme, probe] for probe in PROBES})
        found.append(row)
    return pd.DataFrame(found)


def _columns(frame: pd.DataFrame) -> tuple[Column, ...]:
    columns = [
        Column("label", "Attention", "label"),
        Column("counted_params", "Params [M]", "counted", scale=1e6),
        Column("published_params_millions", "paper [M]", "published"),
        Column("counted_tflops_total", "TFLOPs", "counted", decimals=2),
        Column("published_tflops_total", "paper", "published", decimals=2),
    ]
    for probe, dataset in PROBES.items():
        key = f"measured_{probe}_top1_percent"
        bounds = (f"measured_{probe}_top1_low_percent", f"measured_{probe}_top1_high_percent")
        paper = f"{NAMES_IN_THE_PAPER[dataset]}, paper [%]"
        columns.append(Column(key, f"{probe} [%]", "measured", bounds=bounds))
        columns.append(Column(f"published_{dataset}_top1_percent", paper, "published"))
    if not undecided_rows(frame).empty:
        columns.append(Column("measured_above_chance", "Above chance", "measured"))
    return tuple(columns)


def draw(frame: pd.DataFrame) -> Figure:
    """Accuracy over cost: filled, measured here, with its interval; hollow, published."""
    figure, axes = new_figure(10.5, 4.4, panels=2)
    lowest = 100.0
    for axis, (probe, dataset) in zip(axes, PROBES.items(), strict=True):
        ours, theirs = f"measured_{probe}_top1_percent", f"published_{dataset}_top1_percent"
        for row, colour, marker in zip(frame.to_dict(orient="records"), COLOURS, MARKERS, strict=False):
            x, y = row["counted_tflops_total"], row[ours]
            low, high = row[f"measured_{probe}_top1_low_percent"], row[f"measured_{probe}_top1_high_percent"]
            spread = [[y - low], [high - y]]
            axis.errorbar(x, y, yerr=spread, fmt=marker, color=colour, capsize=3, label=f"{row['label']}, {probe}")
            axis.plot(x, row[theirs], marker, color=colour, markerfacecolor="none", linestyle="none", markersize=8)
            lowest = min(lowest, low, row[theirs])
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


def findings(frame: pd.DataFrame) -> tuple[str, ...]:
    """What follows from the numbers of this table, whatever they are."""
    by_scheme = frame.set_index("attention")
    same = (by_scheme["counted_params"] / 1e6).round(1) == by_scheme["published_params_millions"]
    motion, appearance = by_scheme["measured_motion_top1_percent"], by_scheme["measured_appearance_top1_percent"]
    space, others = by_scheme.loc["space"], motion.drop("space")
    passes = space["measured_motion_top1_low_percent"] > ORDER_BLIND_CEILING_PERCENT
    ranked = motion.sort_values(ascending=False).index
    best, second = by_scheme.loc[ranked[0]], by_scheme.loc[ranked[1]]
    apart = best["measured_motion_top1_low_percent"] > second["measured_motion_top1_high_percent"]
    paper_order = by_scheme["published_ssv2_top1_percent"].sort_values(ascending=False).index
    reached = f"{space['measured_motion_top1_percent']:.1f} % and {'passes' if passes else 'does not pass'}"
    ceiling = f"{ORDER_BLIND_CEILING_PERCENT:.0f} %"
    return (
        f"Parameters: {int(same.sum())} of {len(frame)} as printed, to the last digit.",
        f"On motion, space reaches {reached} by more than its interval the ceiling of {ceiling} of a model blind to "
        f"the order of the frames; the lowest of the other schemes, {others.idxmin()}, is "
        f"{others.min() - motion['space']:.1f} points above space.",
        f"On appearance the five lie between {appearance.min():.1f} % ({appearance.idxmin()}) and "
        f"{appearance.max():.1f} % ({appearance.idxmax()}).",
        f"Order on motion: {', '.join(ranked)}; the intervals of the first two "
        f"{'do not overlap' if apart else 'overlap'}. Order on SSv2 in the paper: {', '.join(paper_order)}.",
        *undecided(frame),
        "The accuracies measured here are those of small models on synthetic probes: compare the schemes with one "
        "another, not the percentages with the paper's.",
    )


def report(records: Sequence[dict[str, Any]], profile: Profile) -> Report:
    """Table 1 from the records of its runs."""
    measured = accuracies_of(records)
    frame = rows(measured)
    return Report(
        name="table1",
        title="Table 1: five attention schemes",
        table=Table(
            frame,
            _columns(frame),
            f"Table 1. {protocol_said(profile, measured, frame)}; parameters with 174 classes; "
            "TFLOPs of 3 views of 8 x 224 x 224 (one multiply-accumulate counts as one)",
            measured="measured here, on this repository's probes",
        ),
        figure=draw(frame),
        findings=findings(frame),
        sources=(published("table1", "schemes"), published("table1", "inference")),
        remarks=remarks("table1"),
        records=tuple(records),
    )


def finish(records: Sequence[dict[str, Any]], profile: Profile, folders: Folders) -> list[Path]:
    """Contact sheets and cheap classifiers of the probes, and the divided model of the first seed on motion."""
    probes = {spec.data.probe: spec.data for spec in plan(profile) if isinstance(spec.data, ProbeData)}
    cache, files = FrameCache(folders.data / "frames"), []
    for name, data in probes.items():
        files += describe(prepare(data, folders.data), folders.out / "probes", f"{name}-{profile}", cache)
    for record in records:
        spec = record["spec"]
        if (spec["model"]["attention"], spec["data"]["probe"], record["seed"]) == ("divided", "motion", 0):
            files += keep_model(RunFolder(folders.runs, record["hash"]).model, folders.out / CHECKPOINT, profile)
    return files


def keep_model(model: Path, target: Path, profile: Profile) -> list[Path]:
    """Copy a model, unless one of a larger profile, or one from elsewhere, lies there."""
    if (target / "config.json").exists():
        provenance = target / "provenance.json"
        name = json.loads(provenance.read_text()).get("name", "") if provenance.is_file() else ""
        if not name.startswith(tuple(f"table1-{each}-" for each in PROFILES[: PROFILES.index(profile) + 1])):
            return []
    return [write_atomic(target / path.name, path.read_bytes()) for path in sorted(model.iterdir())]


ARTEFACT = Artefact("table1", "The five attention schemes: size, cost, accuracy", plan, report, finish)
