"""Learning curves: loss and accuracy of training over steps, videos and multiply-accumulates, a line a scheme.

`curves.parquet` beside a report holds what is drawn: for each run (hash) up to `POINTS` rows with `step`, the number of
steps done, and the means of `loss` and `accuracy_percent` of the training clips since the row before; also
`validation_percent`, where the run measured it there (`validate_every`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from scipy import special

from timesformer.config.registry import macs_per_view, read_config
from timesformer.errors import InputError
from timesformer_experiments.analysis.axes import groups
from timesformer_experiments.analysis.figures import series, style, title_of
from timesformer_experiments.analysis.summary import Summary
from timesformer_experiments.cost.training import train_macs
from timesformer_experiments.records.folder import RunFolder
from timesformer_experiments.records.read import HASH_NAMED

CURVES = "curves.parquet"
COLUMNS = ("hash", "step", "loss", "accuracy_percent")
VALIDATION = "validation_percent"
POINTS = 40
BAND_FROM = 3
"""Seeds from which the mean of curves has a band; that of two would reach 12.7 standard errors."""
MOST_FIGURES = 6
"""Most settings whose curves are drawn; the others are in the file."""
OVER = {"step": "steps", "videos": "training videos", "macs": "training {}MACs (forward and backward)"}
UNITS = {1e15: "P", 1e12: "T", 1e9: "G", 1e6: "M"}
SHOWN = {
    "loss": "training loss",
    "accuracy_percent": "training accuracy [%]",
    VALIDATION: "validation accuracy [%]",
}

Records = Mapping[str, Mapping[str, Any]]


def read_curves(folder: Path, results: pd.DataFrame) -> pd.DataFrame:
    """The curves of finished runs as they are kept, from the runs' own folders, else from a file beside their log.

    Raises InputError for a file that is none.
    """
    found = []
    for log in results["log"].unique():
        place = (folder / log).parent if folder.is_dir() else folder.parent
        kept = _read(place / CURVES, COLUMNS) if (place / CURVES).is_file() else None
        done = results[(results["log"] == log) & (results["outcome"] == "done")]
        for key in done["hash"].astype(str):
            curve = RunFolder(place, key).curve
            if HASH_NAMED.fullmatch(key) and curve.is_file():
                found.append(curve_of(curve, key))
            elif kept is not None:
                found.append(kept[kept["hash"].astype(str) == key].astype({"hash": str}))
    return together(found)


def together(curves: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return the curves of several runs as they are kept in one file."""
    if not curves:
        return pd.DataFrame(columns=list(COLUMNS))
    found = pd.concat(curves, ignore_index=True)
    validated = VALIDATION in found and found[VALIDATION].notna().any()
    return found[[*COLUMNS, *([VALIDATION] if validated else [])]]


def curve_of(path: Path, key: str) -> pd.DataFrame:
    """Return the curve that a run has left, as it is kept.  Raises InputError for a file that is none."""
    return thinned(_read(path, ("step", "loss", "accuracy"))).assign(hash=key)


def kept_curves(path: Path) -> pd.DataFrame:
    """Return the curves beside a report, none where there is no file.  Raises InputError for a file that is none."""
    return _read(path, COLUMNS).astype({"hash": str}) if path.is_file() else together([])


def parquet(curves: pd.DataFrame) -> bytes:
    """Return the content of the file of curves."""
    buffer = BytesIO()
    curves.astype({"hash": "category"}).to_parquet(buffer, index=False, compression="zstd")
    return buffer.getvalue()


def _read(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    try:
        found = pd.read_parquet(path)
        return found[[*columns, *([VALIDATION] if VALIDATION in found else [])]]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: not a readable learning curve ({' '.join(str(error).split())})") from error


def thinned(curve: pd.DataFrame) -> pd.DataFrame:
    """Means over equal stretches of a run's steps, at most `POINTS` of them."""
    steps = len(curve)
    ends = [*range(0, steps, math.ceil(steps / POINTS)), steps]
    stretches = list(pairwise(ends))
    means = {
        name: [float(curve[name].iloc[first:last].mean()) for first, last in stretches] for name in ("loss", "accuracy")
    }
    accuracy = [100 * value for value in means["accuracy"]]
    found = pd.DataFrame({"step": ends[1:], "loss": means["loss"], "accuracy_percent": accuracy})
    if VALIDATION in curve and curve[VALIDATION].notna().any():  # measured here and there: the last of a stretch
        parts = [curve[VALIDATION].iloc[first:last].dropna() for first, last in stretches]
        found[VALIDATION] = [float(part.iloc[-1]) if len(part) else math.nan for part in parts]
    return found


def curve_figures(
    curves: pd.DataFrame, results: pd.DataFrame, summary: Summary, records: Records
) -> tuple[dict[str, Figure], list[str]]:
    """A figure for each setting of what is not compared, and what to say of those that are not drawn."""
    if curves.empty:
        return {}, []
    runs = {str(key): with_costs(rows, records[str(key)]) for key, rows in curves.groupby("hash", sort=False)}
    done = results[results["hash"].astype(str).isin(runs)]
    settings = list(groups(done, summary.axes.others))
    found = {}
    for number, (values, rows) in enumerate(settings[:MOST_FIGURES], start=1):
        titles = (summary.axes.title(column) for column in summary.axes.others)
        said = ", ".join(f"{title} {value}" for title, value in zip(titles, values, strict=True))
        figure = curve_figure(list(_lines(rows, summary, runs)), said)
        found["learning_curves" if number == 1 else f"learning_curves_{number}"] = figure
    left = len(settings) - len(found)
    return found, [f"Learning curves of {len(found)} of {len(settings)} settings are drawn; {CURVES} has all."] * (
        left > 0
    )


def with_costs(curve: pd.DataFrame, record: Mapping[str, Any]) -> pd.DataFrame:
    """A curve with the videos that were seen, and the MACs where the model can be counted here."""
    videos = curve["step"] * record["spec"]["recipe"]["batch_size"]
    if "train_macs_per_clip" in record["metrics"]:  # it freezes weights
        return curve.assign(videos=videos, macs=(record["metrics"]["train_macs_per_clip"] * videos).astype(float))
    macs = _macs(record)
    return curve.assign(videos=videos, macs=np.nan if macs is None else train_macs(macs, videos).astype(float))


def _macs(record: Mapping[str, Any]) -> int | None:
    """MACs of a view as they were measured, else counted; None for a scheme that only its own file knows."""
    if "macs_per_view" in record["metrics"]:
        return int(record["metrics"]["macs_per_view"])
    if record["spec"].get("scheme_file_sha256") is not None:
        return None
    return macs_per_view(read_config(record["spec"]["model"]))


def _lines(
    rows: pd.DataFrame, summary: Summary, runs: Mapping[str, pd.DataFrame]
) -> Iterator[tuple[str, dict[str, Any], list[pd.DataFrame]]]:
    """Title, look and curves of each value of the compared axis."""
    numbers, compared = series(summary), summary.axes.compared
    for values, part in groups(rows, [] if compared is None else [compared]):
        value = values[0] if values else None
        look = style(numbers[value]) | {"marker": "none"}
        yield title_of(value), look, [runs[key] for key in part["hash"].astype(str)]


def curve_figure(lines: list[tuple[str, dict[str, Any], list[pd.DataFrame]]], said: str) -> Figure:
    """Loss and accuracy in rows, what they are over in columns; each seed is thin, their mean is thick, with a band."""
    every = [curve for _, _, curves in lines for curve in curves]
    over = [x for x in OVER if all(curve[x].notna().all() for curve in every)]
    most = max(float(curve["macs"].iloc[-1]) for curve in every) if "macs" in over else math.nan
    unit = next((unit for unit in UNITS if most >= unit), min(UNITS))
    rows = [y for y in SHOWN if any(y in curve and curve[y].notna().any() for curve in every)]
    figure = Figure(figsize=(3.6 * len(over), 3.0 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), len(over), squeeze=False, sharex="col", sharey="row")
    for row, y in enumerate(rows):
        for column, x in enumerate(over):
            axis = panels[row, column]
            scale = unit if x == "macs" else 1
            having = [(title, look, _with(curves, y)) for title, look, curves in lines]
            for _, look, curves in having if len(every) > len(lines) else ():
                for curve in curves:
                    thin = look | {"color": _lighter(look["color"]), "linewidth": 0.7}
                    axis.plot(curve[x] / scale, curve[y], **thin, zorder=1.5)
            for title, look, curves in having:
                if not curves:
                    continue
                mean = _mean(curves, x, y)
                axis.plot(mean[x] / scale, mean[y], **look, linewidth=1.4, label=title)
                if "low" in mean:
                    band = {"color": look["color"], "alpha": 0.15, "linewidth": 0}
                    axis.fill_between(mean[x] / scale, mean["low"], mean["high"], **band)
            axis.grid(True, color="#dddddd", linewidth=0.6)
            axis.set_axisbelow(True)
            axis.spines[["top", "right"]].set_visible(False)
            axis.set_xlim(left=0)
        panels[row, 0].set_ylabel(SHOWN[y])
    for column, x in enumerate(over):
        panels[-1, column].set_xlabel(OVER[x].format(UNITS[unit]))
    if said:
        figure.suptitle(said, fontsize="small")
    if len(lines) > 1:
        handles, titles = panels[0, 0].get_legend_handles_labels()
        columns = min(len(titles), 7)
        figure.legend(handles, titles, loc="outside lower center", ncols=columns, frameon=False, fontsize="small")
    figure.draw_without_rendering()  # laid out once, for all forms in which it is written
    figure.set_layout_engine("none")
    return figure


def _with(curves: Sequence[pd.DataFrame], y: str) -> list[pd.DataFrame]:
    """The curves that have these values, where they have them."""
    found = [curve[curve[y].notna()] for curve in curves if y in curve]
    return [curve for curve in found if len(curve)]


def _lighter(colour: str) -> tuple[float, float, float]:
    """Opaque, so that a picture has few colours."""
    red, green, blue = (0.35 * part + 0.65 for part in to_rgb(colour))
    return red, green, blue


def _mean(curves: Sequence[pd.DataFrame], x: str, y: str) -> pd.DataFrame:
    """The mean over seeds, as far as all of them go; from `BAND_FROM` of them on the ends of its 95 % interval for new
    seeds, at each place by itself."""
    longest = max(curves, key=len)
    places = longest[x].to_numpy(dtype=float)
    places = places[places <= min(float(curve[x].iloc[-1]) for curve in curves)]
    values = [np.interp(places, curve[x], curve[y]) for curve in curves]
    found = pd.DataFrame({x: places, y: np.mean(values, axis=0)})
    if len(curves) < BAND_FROM:
        return found
    half = special.stdtrit(len(curves) - 1, 0.975) * np.std(values, axis=0, ddof=1) / math.sqrt(len(curves))
    low, high = found[y] - half, found[y] + half
    if y != "loss":
        low, high = low.clip(lower=0), high.clip(upper=100)
    return found.assign(low=low, high=high)
