"""Accuracy over executed MACs: what the sweep `sparse_250_steps.yaml` found, from its report in the results.

Its draws are evaluated on validation videos and its final runs on test videos; only the latter are read here.  What is
predicted for a pattern is the rule that the sweep's file registers: it learns the probe where patches that show the
same texture meet.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from matplotlib.figure import Figure

from timesformer import TimeSformerConfig
from timesformer.attention import build, meet
from timesformer.config.counting import block_runs, macs_per_view, step_pairs
from timesformer.data.probes import make_kind
from timesformer.data.probes.kinds.match import Match
from timesformer.errors import InputError
from timesformer_experiments.analysis.comparisons import read_right, seeds_of
from timesformer_experiments.analysis.seeds import mean_of
from timesformer_experiments.records.log import latest, read_records
from timesformer_experiments.records.read import load_results
from timesformer_experiments.report.report import Part
from timesformer_experiments.report.style import COLOURS, MARKERS, new_figure
from timesformer_experiments.report.tables import Column, Table, missing

KIND = "pattern"
FOLDER = Path("sweeps/sparse_250_steps")
"""Place of the sweep's report in the folder of the results."""
LOOKS = [*zip(COLOURS, MARKERS, strict=True), ("#777777", "*")]
CHANCE_PERCENT = 25.0
LEARNT_PERCENT, NOT_LEARNT_PERCENT = 85.0, 40.0
"""Registered: a pattern has learnt the probe from the first on, and is not seen to learn it up to the second."""


def patterns(results: Path) -> list[dict[str, Any]]:
    """Return an entry for each pattern of the sweep in the results folder, in its order; none without its report.

    Raises InputError for a report without finished final runs.
    """
    folder = results / FOLDER
    log = folder / "records.jsonl"
    if not log.is_file():
        return []
    finals = {
        key: record
        for key, record in latest(read_records(log)).items()
        if record.get("cell") and record["outcome"] == "done" and record["evaluated_on"] == "test"
    }
    if not finals:
        raise InputError(f"{log}: expected finished runs of the sweep on test videos")
    frame = load_results(folder)
    right = read_right(folder, frame)
    found = []
    by_pattern: dict[str, list[dict[str, Any]]] = {}
    for record in finals.values():
        by_pattern.setdefault(_model(record).label, []).append(record)
    for name, of_pattern in by_pattern.items():
        rows = frame[frame["hash"].astype(str).isin([record["hash"] for record in of_pattern])]
        spread = mean_of(seeds_of(rows, right))
        spec = of_pattern[0]["spec"]
        config = _model(of_pattern[0])
        met = pairs_met(config, spec["data"])
        percent = {int(record["seed"]): float(record["metrics"]["top1_percent"]) for record in of_pattern}
        found.append(
            {
                "kind": KIND,
                "attention": name,
                "title": build(config.attention).title or config.attention,
                "measured_top1_percent": spread.mean,
                "measured_top1_low_percent": spread.low,
                "measured_top1_high_percent": spread.high,
                "measured_each_seed_percent": ", ".join(f"{percent[seed]:.1f}" for seed in sorted(percent)),
                "measured_seeds": len(percent),
                "measured_test_videos": int(of_pattern[0]["metrics"]["test_videos"]),
                "draws": int(of_pattern[0]["selection"]["draws"]),
                "measured_validation_percent": float(of_pattern[0]["selection"]["best_percent"]),
                "counted_pairs_met_percent": ", ".join(f"{100 * share:.0f}" for share in met),
                "predicted": "learns" if any(met) else "does not",
                "found": found_word(spread.mean),
                "counted_core_mmacs_per_view": core_macs(config, "executed") / 1e6,
                "counted_core_mmacs_needed": core_macs(config, "needed") / 1e6,
                "counted_mmacs_per_view": macs_per_view(config, "executed") / 1e6,
            }
        )
    return found


def found_word(percent: float) -> str:
    """Return what an accuracy says, by the registered levels."""
    if percent >= LEARNT_PERCENT:
        return "learns"
    return "does not" if percent <= NOT_LEARNT_PERCENT else "in part"


def core_macs(config: TimeSformerConfig, kind: Any) -> int:
    """Count the MACs of q·k and attention·v in all blocks, for one clip; `kind` as in `macs_per_view`."""
    total = 0
    for encoder, blocks, streams, grid in block_runs(config):
        for step in encoder.steps:
            width, specials = config.embed_dim // len(step.over), config.specials(encoder)
            counted = step_pairs(step, grid, kind=kind, backend=config.backend, specials=specials)
            total += blocks * streams * sum(2 * width * pairs.total for pairs in counted if pairs is not None)
    return total


def pairs_met(config: TimeSformerConfig, data: Mapping[str, Any]) -> list[float]:
    """Return which share of the patches that show one texture in two frames meet in some step of the model.

    data: of a run on the probe `match`.  The shares are those of frames at a distance of 1, 2, …, over all moves.
    """
    kind = make_kind("match", {name: data[name] for name in ("move", "distance", "grid", "video_frames")})
    assert isinstance(kind, Match)
    (encoder,), grid = config.scheme.encoders, config.grid
    steps = dict.fromkeys(step for number in range(config.depth) for step in encoder.at(number).steps)
    met = torch.stack([meet(step, grid) for step in steps]).any(0)
    met = (met | met.T).unflatten(1, grid).unflatten(0, grid)
    found = []
    for apart in range(1, grid[0]):
        seen = [
            bool(met[t, y, x, t + apart, to_y, to_x])
            for down, right in map(kind.step, range(len(kind.labels)))
            for t, y, x in itertools.product(range(grid[0] - apart), range(grid[1]), range(grid[2]))
            for to_y, to_x in [(y + apart * down, x + apart * right)]
            if 0 <= to_y < grid[1] and 0 <= to_x < grid[2]
        ]
        found.append(sum(seen) / len(seen) if seen else 0.0)
    return found


COLUMNS = (
    Column("attention", "Attention", "label"),
    Column("counted_pairs_met_percent", "Pairs met [%], 1, 2, … frames apart", "counted"),
    Column("predicted", "Predicted", "label"),
    Column("found", "Found", "label"),
    Column(
        "measured_top1_percent",
        "Top-1 [%]",
        "measured",
        bounds=("measured_top1_low_percent", "measured_top1_high_percent"),
    ),
    Column("measured_each_seed_percent", "Each seed [%]", "measured"),
    Column("counted_core_mmacs_per_view", "Attention core [MMACs]", "counted", decimals=3),
    Column("counted_core_mmacs_needed", "of them declared [MMACs]", "counted", decimals=3),
    Column("counted_mmacs_per_view", "Model [MMACs]", "counted", decimals=2),
    Column("measured_validation_percent", "Best draw, validation [%]", "measured"),
)


def part(entries: Sequence[dict[str, Any]]) -> Part | None:
    """Return the section with table and figure; None without entries."""
    if not entries:
        return None
    frame = pd.DataFrame(entries).drop(columns="kind")
    seeds, videos, draws = (int(frame[name].min()) for name in ("measured_seeds", "measured_test_videos", "draws"))
    hits = int((frame["predicted"] == frame["found"]).sum())
    missed = [f"{row['attention']} {row['found']}" for row in entries if row["found"] != row["predicted"]]
    core = frame.set_index("attention")["counted_core_mmacs_per_view"]
    findings = [
        f"The sweep's file says beforehand: a pattern learns the probe (from {LEARNT_PERCENT:.0f} % on) where patches "
        f"of one texture meet, and does not (up to {NOT_LEARNT_PERCENT:.0f} %) where none do. {hits} of {len(frame)} "
        f"are as predicted{'; not so: ' + ', '.join(missed) if missed else ''}."
    ]
    findings += [
        f"{row['attention']}: {row['measured_each_seed_percent']} % by seed"
        + (
            f", with {100 * core[row['attention']] / core['joint']:.0f} % of joint's MACs in the attention core."
            if "joint" in core
            else "."
        )
        for row in entries
    ]
    unclear = [row["attention"] for row in entries if _reaches_chance(row)]
    if unclear:
        findings.append(
            f"The intervals of {len(unclear)} of {len(frame)} reach down to chance, and seeds of one pattern lie far "
            "apart: between patterns nothing is decided, and the figure ranks none."
        )
    findings.append(
        f"One probe, {seeds} seeds and {draws} draws a pattern: this says what these options learn on match, in these "
        "many steps, and nothing of other data."
    )
    caption = (
        "Probe match, 4 x 4 x 4 patches, two blocks, width 96, no class token. Each pattern has the same "
        f"{draws} draws of a recipe, compared on validation videos; the best is trained with {seeds} seeds, each with "
        f"videos of its own, and tested on {videos} videos. Means with 95 % intervals for new seeds and new videos, a "
        "clip and its reversal together; in the figure small points are seeds and the dotted line is chance. "
        "MACs of one clip: those of q·k and attention·v in all blocks, and of the model"
    )
    table = Table(frame, COLUMNS, caption, measured="measured here, on this repository's probes")
    return Part("accuracy", "Accuracy over executed MACs", table, draw(frame), tuple(findings))


def _reaches_chance(row: Mapping[str, Any]) -> bool:
    low = row["measured_top1_low_percent"]
    return low is None or low <= CHANCE_PERCENT


def draw(frame: pd.DataFrame) -> Figure:
    """Draw accuracy over the executed MACs of the attention core, and over those of the model.

    Large: means with their intervals; small: seeds; dotted: chance.
    """
    figure, axes = new_figure(10.5, 4.8, panels=2)
    keys = ("counted_core_mmacs_per_view", "counted_mmacs_per_view")
    for axis, key, of in zip(axes, keys, ("attention core", "whole model"), strict=True):
        for number, row in enumerate(frame.to_dict(orient="records")):
            ends = (row["measured_top1_low_percent"], row["measured_top1_high_percent"])
            middle = row["measured_top1_percent"]
            known = not any(missing(end) for end in ends)
            error = [[middle - ends[0]], [ends[1] - middle]] if known else None
            colour, marker = LOOKS[number % len(LOOKS)]
            axis.errorbar(
                row[key],
                middle,
                error,
                color=colour,
                marker=marker,
                capsize=3,
                linestyle="none",
                label=row["attention"],
            )
            each = [float(percent) for percent in row["measured_each_seed_percent"].split(", ")]
            axis.scatter([row[key]] * len(each), each, s=14, color=colour, alpha=0.5)
        axis.axhline(CHANCE_PERCENT, color="black", linestyle=":", linewidth=1)
        axis.set_ylim(0, 104)
        axis.set_xlim(left=0)
        axis.set_xlabel(f"executed MACs per clip, {of} [millions]")
    axes[0].set_ylabel("top-1 on match [%]")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize="small")
    return figure


def _model(record: Mapping[str, Any]) -> TimeSformerConfig:
    return TimeSformerConfig.from_dict(dict(record["spec"]["model"]))
