"""Tuning of a sweep as it is read: quality of the search over its budget, learning rates, and the chosen recipes.

From the records alone: runs with `tuning` are draws, and final runs have `selection`.  A draw whose loss was not finite
counts as 0 %.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from timesformer.errors import InputError
from timesformer_experiments.analysis.figures import PANELS_A_FIGURE, style, title_of
from timesformer_experiments.analysis.seeds import Seeds, mean_of
from timesformer_experiments.analysis.statistics.bands import (
    CONFIDENCE_PERCENT,
    BestOf,
    Plateau,
    best_of,
    compare,
    plateau,
)
from timesformer_experiments.records.frame import scheme_text
from timesformer_experiments.report.style import new_figure
from timesformer_experiments.report.tables import Column, Table
from timesformer_experiments.specs.tune import Space

RATE = "recipe.lr"
Record = Mapping[str, Any]
SeedsOf = Callable[[Sequence[str]], Seeds]


@dataclass(frozen=True)
class Variant:
    """A variant with its draws, in order, and the test accuracies of its final runs [percent].

    searched: the space of each field that was drawn; chosen: place of the draw that became the recipe; finals: hashes
    of the final runs that have finished.
    """

    values: Mapping[str, Any]
    draws: tuple[Mapping[str, Any], ...]
    validation: tuple[float, ...]
    diverged: int
    searched: Mapping[str, Any]
    search: str
    chosen: int | None
    test: tuple[float, ...]
    finals: tuple[str, ...] = ()

    def name(self, axes: Sequence[str]) -> str:
        """Return the values of these axes in words."""
        return ", ".join(title_of(self.values[path]) for path in axes)

    def curve(self) -> BestOf | None:
        """Return the best of k draws; None where no band holds: for a grid, and for a single draw."""
        return best_of(self.validation) if self.search == "random" and len(self.validation) > 1 else None

    def rate_range(self) -> tuple[float, float]:
        """Return the ends of the learning rates that were searched, equal ones where that is no range."""
        space = Space.parse(self.searched.get(RATE, [0.0]))
        return (min(space.values), max(space.values)) if space.values else (space.low, space.high)

    def rates(self) -> Plateau | None:
        """Return accuracy over learning rate; None where no range of it was searched."""
        low, high = self.rate_range()
        return plateau([draw[RATE] for draw in self.draws], self.validation, (low, high)) if low < high else None


def variants_of(records: Iterable[Record]) -> list[Variant]:
    """Return the variants whose draws have all ended, in the order of their first draws."""
    drawn: dict[str, dict[int, Record]] = {}
    finals: dict[str, list[Record]] = {}
    values: dict[str, dict[str, Any]] = {}
    records = list(records)
    for record in records:
        if "tuning" in record:
            key = _key(record["tuning"]["variant"])
            values[key] = {path: _shown(path, value) for path, value in record["tuning"]["variant"].items()}
            drawn.setdefault(key, {})[record["tuning"]["draw"]] = record
    paths = next(iter(values.values()), {}).keys()
    for record in records:
        if record.get("selection") and record.get("cell") is not None:
            finals.setdefault(_key({path: record["cell"].get(path) for path in paths}), []).append(record)
    found = []
    for key, by_draw in drawn.items():
        runs, final = [by_draw[number] for number in sorted(by_draw)], finals.get(key, [])
        if not final or len({run["tuning"]["draw"] for run in runs}) < final[0]["selection"]["draws"]:
            continue
        selection = final[0]["selection"]
        done = [run["outcome"] == "done" for run in runs]
        found.append(
            Variant(
                values[key],
                tuple(run["tuning"]["values"] for run in runs),
                tuple(float(run["metrics"]["top1_percent"]) if ok else 0.0 for run, ok in zip(runs, done, strict=True)),
                done.count(False),
                selection["over"],
                selection["search"],
                selection["draw"],
                tuple(float(run["metrics"]["top1_percent"]) for run in final if run["outcome"] == "done"),
                tuple(str(run.get("hash")) for run in final if run["outcome"] == "done"),
            )
        )
    return found


def _shown(path: str, value: Any) -> Any:
    """Return a value of an axis as it is shown: schemes with options, schedules and lists as text."""
    text = scheme_text(path, value)
    return json.dumps(text) if isinstance(text, dict | list) else text


def _key(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True)


def tables(variants: Sequence[Variant], seeds_of: SeedsOf | None = None) -> dict[str, Table]:
    """Return the chosen recipes, the best of k draws, and the plateau of learning rates, by the stem of their files.

    seeds_of: what the final runs say of accuracy, from their hashes; without it their accuracies alone.
    """
    labels = {path: path.rpartition(".")[2] for path in variants[0].values}
    columns = [Column(path, title, "label", None) for path, title in labels.items()]
    found = {"tuning": _chosen(variants, columns, seeds_of)}
    curves = [(variant, curve) for variant in variants if (curve := variant.curve()) is not None]
    if curves:
        rows = [
            {**variant.values, "draws": int(k), "measured_best_percent": expected,
             "measured_best_low_percent": low, "measured_best_high_percent": high}
            for variant, curve in curves
            for k, expected, low, high in zip(curve.budgets, curve.expected, curve.low, curve.high, strict=True)
        ]  # fmt: skip
        bounds = ("measured_best_low_percent", "measured_best_high_percent")
        shown = Column("measured_best_percent", "Best on validation [%]", "measured", 1, bounds=bounds)
        found["tuning_best_of"] = Table(
            pd.DataFrame(rows),
            (*columns, Column("draws", "Draws", "label", 0), shown),
            f"expected best accuracy on validation of so many draws, with a {CONFIDENCE_PERCENT:g} % band that holds "
            "for all numbers of draws at once",
        )
    rates = [(variant, found_rates) for variant in variants if (found_rates := variant.rates()) is not None]
    if rates:
        rows = [
            {**variant.values, "best_lr": each.best_learning_rate, "measured_best_percent": each.best,
             "measured_plateau_percent": 100 * each.share}
            for variant, each in rates
        ]  # fmt: skip
        found["tuning_learning_rate"] = Table(
            pd.DataFrame(rows),
            (
                *columns,
                Column("best_lr", "Best learning rate", "label", None),
                Column("measured_best_percent", "There [%]", "measured"),
                Column("measured_plateau_percent", "Plateau [% of the range]", "measured", 0),
            ),
            f"learning rates: the plateau is the part of the searched range, on a logarithmic scale, within "
            f"{rates[0][1].points:g} points of the best on validation; what else was drawn shows as noise",
        )
    return found


def _chosen(variants: Sequence[Variant], columns: Sequence[Column], seeds_of: SeedsOf | None) -> Table:
    paths = list(variants[0].searched)
    rows, scopes = [], dict[str, None]()
    for variant in variants:
        row: dict[str, Any] = {**variant.values, "draws": len(variant.draws), "diverged": variant.diverged}
        drawn = variant.draws[variant.chosen] if variant.chosen is not None else {}
        row |= {path: drawn.get(path) for path in paths}
        row["measured_validation_percent"] = math.nan if variant.chosen is None else variant.validation[variant.chosen]
        spread = None
        if variant.test:
            alone = Seeds(dict(enumerate(variant.test)))
            spread = mean_of(alone if seeds_of is None else seeds_of(variant.finals))
            scopes[spread.scope()] = None
        mean, low, high = (math.nan, None, None) if spread is None else (spread.mean, spread.low, spread.high)
        row |= {"seeds": len(variant.test), "measured_test_interval_over": None if spread is None else spread.over,
                "measured_test_percent": mean,
                "measured_test_low_percent": math.nan if low is None else low,
                "measured_test_high_percent": math.nan if high is None else high}  # fmt: skip
        rows.append(row)
    bounds = ("measured_test_low_percent", "measured_test_high_percent")
    more = [Column("draws", "Draws", "label", 0)]
    if any(variant.diverged for variant in variants):
        more.append(Column("diverged", "Diverged", "label", 0))
    more += [Column(path, path.rpartition(".")[2], "label", None) for path in paths]
    more += [
        Column("measured_validation_percent", "Validation [%]", "measured"),
        Column("seeds", "Fresh seeds", "label", 0),
        Column("measured_test_percent", "Test [%]", "measured", bounds=bounds),
    ]
    return Table(
        pd.DataFrame(rows),
        (*columns, *more),
        f"recipes chosen on validation, by {variants[0].search} search with the same draws for all, and their accuracy "
        f"on test with fresh seeds (mean and 95 % interval {' or '.join(filter(None, scopes)) or 'of none'})",
    )


def findings(variants: Sequence[Variant]) -> list[str]:
    """Return what may be said of the searches against one another: only what their bands show."""
    curves = [variant for variant in variants if variant.curve() is not None]
    pairs = list(itertools.combinations(curves, 2))
    if not pairs:
        return []
    percent = 100 - (100 - CONFIDENCE_PERCENT) / len(pairs)  # all pairs together
    paths, said = list(variants[0].values), []
    for first, second in pairs:
        found = compare(first.validation, second.validation, percent)
        if found.wins or found.losses:
            said.append(f"Tuning: {found.text(first.name(paths), second.name(paths))} (expected best on validation).")
    most = len(curves[0].validation)
    return said or [f"Tuning: the bands do not tell the variants apart at any budget up to {most} draws."]


def figures(variants: Sequence[Variant], compared: str | None) -> dict[str, Figure]:
    """Return best of k and accuracy over learning rate, a line a value of the compared axis, a panel the others."""
    paths = list(variants[0].values)
    line = compared if compared in paths else paths[0] if paths else None
    others = [path for path in paths if path != line]
    panels: dict[str, list[Variant]] = {}
    for variant in variants:
        title = ", ".join(f"{path.rpartition('.')[2]} {variant.values[path]}" for path in others)
        panels.setdefault(title, []).append(variant)
    names = list(dict.fromkeys(_line_of(variant, line) for variant in variants))
    found = {}
    for start in range(0, len(panels), PANELS_A_FIGURE):
        part = dict(itertools.islice(panels.items(), start, start + PANELS_A_FIGURE))
        suffix = f"_{start // PANELS_A_FIGURE + 1}" if start else ""
        if any(variant.curve() is not None for variant in variants):
            found[f"tuning_best_of_draws{suffix}"] = _best_of_figure(part, line, names)
        if any(variant.rates() is not None for variant in variants):
            found[f"tuning_learning_rate{suffix}"] = _rates_figure(part, line, names)
    return found


def _line_of(variant: Variant, line: str | None) -> str:
    return "all" if line is None else title_of(variant.values[line])


def _best_of_figure(panels: Mapping[str, Sequence[Variant]], line: str | None, names: Sequence[str]) -> Figure:
    figure, axes = new_figure(max(4.6, 3.6 * len(panels)), 3.8, len(panels))
    for axis, (title, variants) in zip(axes, panels.items(), strict=True):
        for variant in variants:
            curve, name = variant.curve(), _line_of(variant, line)
            if curve is None:
                continue
            look = style(names.index(name))
            axis.plot(curve.budgets, curve.expected, label=name, markersize=4, linewidth=1.4, **look)
            axis.fill_between(curve.budgets, curve.low, curve.high, color=look["color"], alpha=0.12, linewidth=0)
        axis.set_title(title, fontsize="small")
        axis.set_xlabel("draws")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_ylim(0, 100)
    return _finished(figure, axes, "expected best on validation [%]")


def _rates_figure(panels: Mapping[str, Sequence[Variant]], line: str | None, names: Sequence[str]) -> Figure:
    figure, axes = new_figure(max(4.6, 3.6 * len(panels)), 3.8, len(panels))
    for axis, (title, variants) in zip(axes, panels.items(), strict=True):
        for variant in variants:
            found, name = variant.rates(), _line_of(variant, line)
            if found is None:
                continue
            axis.plot(found.learning_rates, found.accuracies, label=f"{name}: plateau {found.share:.0%}", markersize=4,
                      linewidth=1.4, **style(names.index(name)))  # fmt: skip
        axis.set_xscale("log")
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_xlim(*variants[0].rate_range())  # the searched range, so that the plateau's share of it shows
        axis.margins(y=0.2)
        axis.set_title(title, fontsize="small")
        axis.set_xlabel("learning rate")
        axis.legend(fontsize="x-small", frameon=False)
    return _finished(figure, axes, "accuracy on validation [%]", legend=False)


def _finished(figure: Figure, axes: Sequence[Any], label: str, legend: bool = True) -> Figure:
    axes[0].set_ylabel(label)
    if legend:
        handles, names = axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False, fontsize="small")
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def require_one_search(variants: Sequence[Variant]) -> None:
    """Raise InputError where variants were searched in different spaces: they are no equal tuning."""
    spaces = {
        _key({"over": variant.searched, "search": variant.search, "n": len(variant.draws)}) for variant in variants
    }
    if len(spaces) > 1:
        raise InputError(f"tuning: {len(spaces)} different searches in one folder; expected the same for all variants")
