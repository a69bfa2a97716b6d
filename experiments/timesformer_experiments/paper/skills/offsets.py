"""`contact` read per offset: accuracy at each offset beside the share of clips in which the two textures meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from timesformer import TimeSformerConfig
from timesformer.attention import build
from timesformer.data.probes.kinds.contact import Contact, Place
from timesformer_experiments.analysis.seeds import mean_of
from timesformer_experiments.paper.skills.bounds import ALL, met, share_met
from timesformer_experiments.paper.skills.measured import Found, Point, kept, offsets_of
from timesformer_experiments.paper.skills.registered import skills
from timesformer_experiments.report.report import Part
from timesformer_experiments.report.tables import Column, Table

PROBE = "contact"
HALF = 50.0
"""Share of an offset's clips [percent] from which on the offset counts as one that meets."""
AXES = ("frames", "rows", "columns")


def frame(measured: Mapping[Point, Found]) -> pd.DataFrame:
    """Return a row for each scheme, depth and offset of the models that were trained on all offsets together."""
    rows = []
    for (probe, value, scheme, depth), found in measured.items():
        if probe == PROBE and value == ALL:
            rows += _of_model(scheme, depth, found)
    return pd.DataFrame(rows)


def _of_model(scheme: str, depth: int, found: Found) -> list[dict[str, Any]]:
    record = found.records[0]
    data, offsets = record["spec"]["data"], offsets_of(record)
    kind = Contact(**{name: data[name] for name in Contact().dials() if data.get(name) is not None})
    model = record["spec"]["model"]
    pairs = met(
        TimeSformerConfig(
            scheme, num_frames=kind.frames, image_size=kind.size, patch_size=kind.size // kind.grid, depth=depth,
            class_token=model.get("class_token", True),
        )
    )  # fmt: skip
    skill, place = skills().probes[PROBE], skills().schemes.index(scheme)
    rows = []
    for offset in kind.offsets:
        seeds = kept(found.seeds, {number for number, each in enumerate(offsets) if each == offset})
        if not seeds.percent:
            continue
        spread = mean_of(seeds)
        registered = skill.map_percent.get(" ".join(map(str, offset))) if depth == skill.expected[0].depth else None
        predicted = None if registered is None else registered[place]
        hit = predicted is not None and skills().hit.is_hit(spread.mean, predicted, found.chance)
        rows.append(
            {
                "scheme": scheme,
                "depth": depth,
                **{f"offset_{axis}": part for axis, part in zip(AXES, offset, strict=True)},
                "counted_meeting_percent": 100 * share_met(kind, pairs, offset),
                "predicted_percent": predicted,
                "measured_top1_percent": spread.mean,
                "measured_top1_low_percent": spread.low,
                "measured_top1_high_percent": spread.high,
                "measured_test_videos": len(next(iter(seeds.right.values()))),
                "outcome": None if predicted is None else "hit" if hit else "miss",
            }
        )
    return rows


COLUMNS = (
    Column("scheme", "Scheme", "label"),
    Column("depth", "Blocks", "label", decimals=0),
    *(Column(f"offset_{axis}", f"Offset, {axis}", "label", decimals=0) for axis in AXES),
    Column("counted_meeting_percent", "Clips in which the two meet [%]", "counted"),
    Column("predicted_percent", "Predicted [%]", "predicted"),
    Column(
        "measured_top1_percent",
        "top-1 [%]",
        "measured",
        bounds=("measured_top1_low_percent", "measured_top1_high_percent"),
    ),
    Column("outcome", "Outcome", "label"),
)


def part(measured: Mapping[Point, Found]) -> Part | None:
    """Return the map as a part of the report; None where `contact` was not run."""
    found = frame(measured)
    if found.empty:
        return None
    said = "Accuracy of one model a scheme on the clips of each offset, with 95 % intervals over test videos"
    return Part(
        "contact",
        "Contact: accuracy per offset beside who meets whom",
        Table(found, COLUMNS, said),
        draw(found),
        findings(found),
    )


def findings(found: pd.DataFrame) -> tuple[str, ...]:
    """Sentences that compare the measured map of each scheme with the declared one."""
    lines = []
    depth = found["depth"].max()
    for scheme, rows in found[found["depth"] == depth].groupby("scheme", sort=False):
        meets, apart = rows[rows["counted_meeting_percent"] >= HALF], rows[rows["counted_meeting_percent"] == 0]
        between = len(rows) - len(meets) - len(apart)
        said = [
            f"{each['measured_top1_percent'].mean():.1f} % at the {len(each)} offsets where {what}"
            for each, what in (
                (meets, "the two meet in at least half of the clips"),
                (rows.drop(meets.index).drop(apart.index), "they do in fewer"),
                (apart, "they never do"),
            )
            if len(each)
        ]
        hits = rows["outcome"].value_counts()
        line = f"{scheme}, {depth} blocks: {', '.join(said)}"
        if between or (len(meets) and len(apart)):
            line += f"; correlation with the declared share {_correlation(rows)}"
        lines.append(f"{line}; {hits.get('hit', 0)} of {len(rows)} offsets as predicted.")
    return tuple(lines)


def _correlation(rows: pd.DataFrame) -> str:
    shares, percents = rows["counted_meeting_percent"], rows["measured_top1_percent"]
    if shares.std() == 0 or percents.std() == 0:
        return "not defined"
    return f"{np.corrcoef(shares, percents)[0, 1]:.2f}"


def draw(found: pd.DataFrame) -> Figure:
    """Draw for each scheme, at the largest depth, the declared map above the measured one, a panel per frame offset."""
    depth = found["depth"].max()
    rows = found[found["depth"] == depth]
    schemes, times = list(dict.fromkeys(rows["scheme"])), sorted(set(rows["offset_frames"]))
    most = int(rows[["offset_rows", "offset_columns"]].abs().to_numpy().max())
    figure = Figure(figsize=(1.2 + 1.75 * len(schemes), 0.6 + 1.8 * 2 * len(times)), layout="constrained")
    axes = figure.subplots(2 * len(times), len(schemes), squeeze=False)
    kinds: Sequence[tuple[str, str, float, float, str]] = (
        ("counted_meeting_percent", "declared: clips in which\nthe two meet [%]", 0, 100, "Greys"),
        ("measured_top1_percent", "measured: top-1 accuracy [%]", 50, 100, "viridis"),
    )
    for block, (key, said, low, high, colours) in enumerate(kinds):
        for at, time in enumerate(times):
            line = axes[block * len(times) + at]
            for axis, scheme in zip(line, schemes, strict=True):
                picture = axis.imshow(
                    _map(rows[rows["scheme"] == scheme], time, most, key),
                    vmin=low,
                    vmax=high,
                    cmap=colours,
                    extent=(-most - 0.5, most + 0.5, most + 0.5, -most - 0.5),
                )
                axis.set(xticks=range(-most, most + 1), yticks=range(-most, most + 1))
                axis.tick_params(labelsize=6)
                if block == 0 and at == 0:
                    axis.set_title(build(scheme).title.partition(" (")[0], fontsize=8)
            line[0].set_ylabel(f"{time} frame{'' if time == 1 else 's'} on\nrows", fontsize=7)
        figure.colorbar(picture, ax=axes[block * len(times) : (block + 1) * len(times)].ravel().tolist(), label=said)
    for axis in axes[-1]:
        axis.set_xlabel("columns", fontsize=7)
    return figure


def _map(rows: pd.DataFrame, time: int, most: int, key: str) -> np.ndarray:
    """Return a map over offsets in rows and columns; within a frame an offset and its opposite are the same."""
    found = np.full((2 * most + 1, 2 * most + 1), np.nan)
    for row in rows[rows["offset_frames"] == time].to_dict(orient="records"):
        place: Place = (time, row["offset_rows"], row["offset_columns"])
        found[place[1] + most, place[2] + most] = row[key]
        if time == 0:
            found[most - place[1], most - place[2]] = row[key]
    return found
