"""Localisation: attention maps of every scheme and method, scored against the probes' object masks.

Not part of the paper. Nothing is trained: the models are those of Table 1. The values are shown beside chance (the
object's share of the pixels, and a map of random numbers) and beside the maps of an untrained model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from timesformer.errors import InputError
from timesformer.parallel import side_by_side
from timesformer_experiments.analysis.seeds import Spread, spread_of_figure, students_interval
from timesformer_experiments.analysis.statistics.humps import MEAN_FROM_SEEDS, cannot_reveal
from timesformer_experiments.paper.artefact import Artefact, Folders, Profile
from timesformer_experiments.paper.artefacts.tables.table1 import ABLATION, SCHEMES
from timesformer_experiments.paper.measured.localisation import CURVES, KIND, PLACES, RANDOM, measured
from timesformer_experiments.paper.setting import PROBES
from timesformer_experiments.records.hits import join_clusters
from timesformer_experiments.report.report import Report
from timesformer_experiments.report.style import COLOURS, MARKERS
from timesformer_experiments.report.tables import Column, Table
from timesformer_experiments.specs.run import RunSpec

VIDEOS: dict[Profile, int] = {"smoke": 4, "quick": 32, "full": 32}
"""Number of test videos per probe; in `motion` every second video is the reversal of the one before."""
TITLES = {
    "energy_inside_percent": "energy inside [%]",
    "pointing_percent": "pointing game [%]",
    "deletion_area": "deletion, area",
    "insertion_area": "insertion, area",
}
GAIN = "insertion_less_deletion"
GIVEN = "for new seeds, given these videos"
"""Scope of intervals from records that have no more than the means over videos."""
Figure_ = Callable[[Mapping[str, Any]], Sequence[float]]
DECIMALS = {"deletion_area": 3, "insertion_area": 3}


def plan(profile: Profile) -> list[RunSpec]:
    """List the runs of Table 1."""
    return ABLATION.plan(profile)


def measure(records: Sequence[dict[str, Any]], profile: Profile, folders: Folders, jobs: int) -> list[dict[str, Any]]:
    """Return a record for each video model; earlier measurements are read from the folders of the runs."""
    specs = {spec.hash(): spec for spec in plan(profile)}
    wanted = [
        (record, specs[record["hash"]], folders.runs, folders.data, VIDEOS[profile])
        for record in records
        if record["outcome"] == "done" and not record["spec"]["data"]["stills"]
    ]
    return side_by_side(measured, wanted, jobs)


Key = tuple[str, str]


def _by_cell(records: Sequence[dict[str, Any]]) -> dict[Key, list[dict[str, Any]]]:
    """Group the records of the seeds by probe and scheme.

    Raises InputError if a cell has no record, or if the records differ in their seeds or methods.
    """
    found: dict[Key, dict[int, dict[str, Any]]] = {}
    for record in records:
        if record.get("kind") == KIND and record["outcome"] == "done":
            spec = record["spec"]
            seeds = found.setdefault((spec["data"]["probe"], spec["model"]["attention"]), {})
            seeds[record["seed"]] = record
    numbers = {tuple(sorted(seeds)) for seeds in found.values()}
    missing = [f"{scheme} on {probe}" for probe in PROBES for scheme in SCHEMES if not found.get((probe, scheme))]
    if missing:
        raise InputError(f"localisation: the records have no measurement of {', '.join(missing)}")
    if len(numbers) > 1:
        raise InputError("localisation: expected the same seeds for all schemes and probes in the records")
    cells = {key: [seeds[seed] for seed in sorted(seeds)] for key, seeds in found.items()}
    if len({tuple(methods_of(record)) for of_seeds in cells.values() for record in of_seeds}) > 1:
        raise InputError("localisation: expected the same methods in all records")
    return cells


def methods_of(record: Mapping[str, Any]) -> list[str]:
    """Return the methods that were measured, in order."""
    return list(record["spec"]["localisation"]["methods"])


def _with_interval(key: str, values: Sequence[float], spread: Spread | None) -> dict[str, Any]:
    """Mean and 95 % interval: `spread`, where the records have the figure of every video.

    Otherwise Student's over seeds, given these videos; none of one seed, or of seeds that do not differ.
    """
    if spread is not None:
        return {key: spread.mean, f"{key}_low": spread.low, f"{key}_high": spread.high}
    low, high = students_interval(list(values)) or (None, None)
    return {key: math.fsum(values) / len(values), f"{key}_low": low, f"{key}_high": high}


def _spread_of(seeds: Sequence[dict[str, Any]], figure: Figure_, limits: tuple[float, float]) -> Spread | None:
    """Estimate a figure of every video over seeds and groups of videos; None where a record has the means alone."""
    if any("each" not in record for record in seeds):
        return None
    values: dict[int, dict[str, float]] = {}
    clusters: dict[str, str] = {}
    for record in seeds:
        each, prefix = record["each"], record["dataset"]["test"]["fingerprint"]
        names = [f"{prefix}:{name}" for name in each["videos"]]
        values[record["seed"]] = dict(zip(names, figure(each), strict=True))
        join_clusters(clusters, dict(zip(names, (f"{prefix}:{group}" for group in each["groups"]), strict=True)))
    return spread_of_figure(values, clusters, limits)


def rows(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return a row for each probe, scheme and method."""
    cells, found = _by_cell(records), []
    for probe in PROBES:
        for scheme in SCHEMES:
            of_cell = cells[probe, scheme]
            seeds = [record["metrics"] for record in of_cell]
            for method in methods_of(of_cell[0]):
                row: dict[str, Any] = {"probe": probe, "attention": scheme, "method": method}
                for measure_ in PLACES + CURVES:
                    limits = (0.0, 100.0) if measure_ in PLACES else (0.0, 1.0)
                    spread = _spread_of(of_cell, partial(_figure_of, (method, measure_)), limits)
                    values = [metrics[method][measure_] for metrics in seeds]
                    row |= _with_interval(f"measured_{measure_}", values, spread)
                    alone = GIVEN if len(seeds) > 1 else None
                    row["measured_interval_over"] = alone if spread is None else spread.scope()
                gains = [metrics[method]["insertion_area"] - metrics[method]["deletion_area"] for metrics in seeds]
                spread = _spread_of(of_cell, partial(_gains_of, method), (-1.0, 1.0))
                row |= _with_interval(f"measured_{GAIN}", gains, spread)
                for measure_ in PLACES:
                    values = [metrics["untrained"][method][measure_] for metrics in seeds]
                    spread = _spread_of(of_cell, partial(_figure_of, ("untrained", method, measure_)), (0.0, 100.0))
                    row |= _with_interval(f"measured_untrained_{measure_}", values, spread)
                row["measured_object_area_percent"] = float(
                    np.mean([metrics["object_area_percent"] for metrics in seeds])
                )
                row["measured_seeds"], row["measured_test_videos"] = len(seeds), seeds[0]["videos"]
                found.append(row)
    return pd.DataFrame(found)


def _over(frame: pd.DataFrame) -> str:
    """Return what the intervals hold for, in words; empty without any."""
    return " or ".join(dict.fromkeys(frame["measured_interval_over"].dropna()))


def _figure_of(path: Sequence[str], each: Any) -> Any:
    """Return the values at a path of keys."""
    return reduce(lambda found, key: found[key], path, each)


def _gains_of(method: str, each: Any) -> list[float]:
    """Return insertion less deletion of each video, by a method."""
    values = each[method]
    return [a - b for a, b in zip(values["insertion_area"], values["deletion_area"], strict=True)]


def _columns() -> tuple[Column, ...]:
    columns = [Column("probe", "Probe", "label"), Column("attention", "Attention", "label")]
    columns.append(Column("method", "Method", "label"))
    for measure_ in PLACES + CURVES:
        for prefix, who in (("measured_", ""), ("measured_untrained_", ", untrained"))[: 1 + (measure_ in PLACES)]:
            key, decimals = f"{prefix}{measure_}", DECIMALS.get(measure_, 1)
            bounds = (f"{key}_low", f"{key}_high")
            columns.append(Column(key, f"{TITLES[measure_]}{who}", "measured", decimals=decimals, bounds=bounds))
    columns.append(Column("measured_object_area_percent", "object's area [%]", "measured"))
    return tuple(columns)


def draw(frame: pd.DataFrame) -> Figure:
    """Draw energy inside the mask relative to chance (top) and insertion minus deletion (bottom).

    Filled markers are trained models, hollow ones untrained models.
    """
    methods = list(dict.fromkeys(frame["method"]))
    figure = Figure(figsize=(12.5, 7.2), layout="constrained")
    axes = figure.subplots(2, len(PROBES), sharex=True, sharey="row", squeeze=False)
    for column, probe in enumerate(PROBES):
        for axis in axes[:, column]:
            axis.grid(True, axis="y", color="#dddddd", linewidth=0.6)
            axis.set_axisbelow(True)
            axis.spines[["top", "right"]].set_visible(False)
        above, below = axes[:, column]
        for number, scheme in enumerate(SCHEMES):
            part = frame[(frame["probe"] == probe) & (frame["attention"] == scheme)].set_index("method").loc[methods]
            place = np.arange(len(methods)) + (number - (len(SCHEMES) - 1) / 2) * 0.15
            look = {"color": COLOURS[number], "marker": MARKERS[number], "linestyle": "none"}
            energy, area = "energy_inside_percent", part["measured_object_area_percent"]
            values, spread = _spread(part, energy)
            above.errorbar(place, values / area, yerr=spread / area.to_numpy(), capsize=2, label=scheme, **look)
            above.plot(place, part[f"measured_untrained_{energy}"] / area, markerfacecolor="none", **look)
            gains, spread = _spread(part, GAIN)
            below.errorbar(place, gains, yerr=spread, capsize=2, **look)
        above.set_title(probe)
        above.axhline(1, color="black", linestyle="--", linewidth=1)
        below.axhline(0, color="black", linestyle="--", linewidth=1)
        below.set_xticks(range(len(methods)), methods, rotation=20, ha="right")
        below.set_xlabel("method")
    axes[0, 0].set_ylim(bottom=0)
    axes[0, 0].set_ylabel("energy inside the mask ÷ object's area\n(chance: 1)")
    axes[1, 0].set_ylabel("insertion area − deletion area\n(probability)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    over = _over(frame)
    title = f"filled: trained{f', with 95 % interval {over}' if over else ', one seed'}   hollow: untrained"
    figure.legend(handles, labels, loc="outside lower center", ncols=len(SCHEMES), frameon=False, title=title)
    return figure


def _spread(part: pd.DataFrame, measure_: str) -> tuple[pd.Series, np.ndarray]:
    """Return the values and the lengths (2, n) of their intervals below and above; 0 without interval."""
    values = part[f"measured_{measure_}"]
    low, high = (part[f"measured_{measure_}_{end}"].astype(float) for end in ("low", "high"))
    return values, np.stack([(values - low).fillna(0), (high - values).fillna(0)])


def findings(frame: pd.DataFrame) -> tuple[str, ...]:
    """Return the findings, computed from the numbers."""
    found = []
    for probe, part in frame.groupby("probe", sort=False):
        real = part[part["method"] != RANDOM]
        energy, area = real["measured_energy_inside_percent"], real["measured_object_area_percent"]
        ratio = (energy / area).groupby(real["method"], sort=False).mean().sort_values(ascending=False)
        best = real.iloc[int((energy / area).argmax())]
        known = real["measured_energy_inside_percent_low"].notna().any()
        over = _over(real)
        low = real["measured_energy_inside_percent_low"].astype(float) if known else energy
        untrained = real["measured_untrained_energy_inside_percent"]
        over_chance, over_untrained = int((low > area).sum()), int((low > untrained).sum())
        said = f"with the whole 95 % interval {over}" if known else "of these models, one seed"
        found.append(
            f"On {probe}, {over_chance} of {len(real)} pairs of scheme and method have more energy on the object than "
            f"its share of the pixels ({area.mean():.1f} %), and {over_untrained} have more than the untrained model, "
            f"{said}. "
            f"Mean over schemes: {', '.join(f'{name} {value:.2f}' for name, value in ratio.items())} times the "
            f"object's area; the highest is {best['method']} with {best['attention']}, which has "
            f"{best['measured_energy_inside_percent']:.1f} % of its energy on the object."
        )
        means = part.groupby("method", sort=False)[f"measured_{GAIN}"].mean().sort_values(ascending=False)
        found.append(
            f"On {probe}, insertion minus deletion, mean over schemes: "
            f"{', '.join(f'{name} {_signed(value)}' for name, value in means.items())}."
        )
    real = frame[frame["method"] != RANDOM]
    chance = real["measured_untrained_energy_inside_percent"] / real["measured_object_area_percent"]
    by_method = chance.groupby(real["method"]).mean()
    found.append(
        f"The energy on the object of an untrained model's maps is {by_method.min():.2f} ({by_method.idxmin()}) to "
        f"{by_method.max():.2f} ({by_method.idxmax()}) times the object's area, mean over schemes and probes."
    )
    found.append(
        "Energy measures where a map lies; insertion and deletion measure whether the model depends on that region. A "
        "map may do well in one and not in the other."
    )
    seeds = int(frame["measured_seeds"].min())
    if 1 < seeds < MEAN_FROM_SEEDS:
        found.append(f"{cannot_reveal(seeds)}.")
    return tuple(found)


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def report(records: Sequence[dict[str, Any]], profile: Profile) -> Report:
    """Make the table from the records of the measurements."""
    frame = rows(records)
    seeds, videos = int(frame["measured_seeds"].min()), int(frame["measured_test_videos"].min())
    over = _over(frame)
    known = frame["measured_energy_inside_percent_low"].notna().any()
    interval = f"mean and 95 % interval {over}" if known else "one seed, so no interval"
    return Report(
        name="localisation",
        title="Localisation: do the maps lie on the object?",
        table=Table(
            frame,
            _columns(),
            f"Maps of Table 1's models against the object's mask, profile {profile}: {seeds} "
            f"seed{'s' if seeds > 1 else ''}, {videos} test videos per probe, {interval}; for the predicted class. "
            "Energy inside: share of the map on the object (by chance, the object's share of the pixels). Pointing "
            "game: share of videos in which the map's maximum lies on the object. Deletion, insertion: area under the "
            "probability of the class while patches are deleted or inserted in the map's order; low deletion and high "
            f"insertion are good. {RANDOM}: a map of random numbers",
            measured="measured here, on this repository's probes",
        ),
        figure=draw(frame),
        findings=findings(frame),
        sources=(),
        remarks=(),
        records=tuple(records),
    )


ARTEFACT = Artefact(
    "localisation", "Do the maps lie on the object? Schemes and methods against masks", plan, report, measure=measure
)
