"""Published figures that can be counted without a dataset, compared with our own count.

Covers parameters and multiply-accumulates (each counted as one FLOP) of Tables 1, 2 and 5, of Figure 3, of ViViT's
Table 2, and of the CNNs as listed in their model zoos. Where a count cannot agree, the reason is given. Models of other
authors in Table 5 are not implemented here and therefore not counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import pandas as pd
import torch
from matplotlib.figure import Figure

from timesformer.config.registry import ModelConfig, build_model, macs_per_view, read_config
from timesformer_experiments.paper.artefact import Artefact, Profile
from timesformer_experiments.report.published import published, remarks
from timesformer_experiments.report.report import Report
from timesformer_experiments.report.style import COLOURS, MARKERS, new_figure
from timesformer_experiments.report.tables import Column, Table

DECIMALS = {"params_millions": 1, "tflops_total": 2, "gmacs_per_view": 1}
"""Printed decimals of each quantity; points read off figures have a reading error instead."""
SAID = {
    "params_millions": "parameters [M]",
    "tflops_total": "TFLOPs, all views",
    "gmacs_per_view": "GMACs, one view",
    "tflops_per_view": "TFLOPs, one view",
}
CNN_VIEWS, VIEWS = 30, 3
SIZES = {
    "TimeSformer": {"num_frames": 8, "image_size": 224},
    "TimeSformer-HR": {"num_frames": 16, "image_size": 448},
    "TimeSformer-L": {"num_frames": 96, "image_size": 224},
}
CNNS = {
    "i3d": {"baseline": "i3d", "num_frames": 8, "image_size": 256},
    "slowfast": {"baseline": "slowfast", "num_frames": 32, "image_size": 256},
}
VIVIT = {"num_frames": 32, "tubelet_size": 2, "position": "table", "num_classes": 400}
AVERAGE = {**VIVIT, "attention": "space", "position": "space"}
"""Model of ViViT's factorised encoder without temporal layers: like `space`, it averages the frames' class tokens."""

CLASS_COPIES = (
    "the released code projects the copy of the class token in every frame (95 x 4 x 768² x 12 = 2.7 GMACs a view), "
    "which are one and the same and projected once here; with them ours is 7.14 too"
)
ELEMENTWISE = (
    "ours are matrix products alone; theirs seem to hold element-wise work: 2 for each attention score would make up "
    "for 2.8 of the 3.7 G that the first model lacks, and for the difference between the models"
)
ROUNDING = (
    "ours is 0.004 M (0.005 %) above what rounds to the printed figure; what would make up for it is not in the paper"
)
NORMS = "the published figure holds 5 for each element of a batch norm, as fvcore counts; with them ours is 37.53 too"


@dataclass(frozen=True)
class Cell:
    """Published figure that can be counted.

    quantity: key of `DECIMALS`, or `tflops_per_view`. config: fields of the model. error: reading error of a value read
    off a figure. reason: why our count differs; empty where it must agree.
    """

    artefact: str
    row: str
    quantity: str
    printed: float
    config: tuple[tuple[str, Any], ...]
    views: int = 1
    error: float | None = None
    reason: str = ""

    @property
    def counted(self) -> float:
        """Count of this library, in the unit of the quantity."""
        config = read_config(dict(self.config))
        if self.quantity == "params_millions":
            return _params(config) / 1e6
        return macs_per_view(config) * self.views / (1e9 if self.quantity == "gmacs_per_view" else 1e12)

    @property
    def agrees(self) -> bool:
        """True if both agree to the printed precision or within the reading error."""
        if self.error is not None:
            return abs(self.counted - self.printed) <= self.error
        return round(self.counted, DECIMALS.get(self.quantity, 1)) == self.printed


@cache
def _params(config: ModelConfig) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_model(config).parameters())


def cells() -> list[Cell]:
    """List all cells, table by table."""
    return [*_table1(), *_table2(), *_table5(), *_figure3(), *_vivit(), *_zoos()]


def _cells(artefact: str, row: str, values: dict[str, Any], config: dict[str, Any], **fields: Any) -> Iterator[Cell]:
    for quantity in DECIMALS:
        if quantity in values:
            yield Cell(artefact, row, quantity, values[quantity], tuple(config.items()), **fields)


def _table1() -> Iterator[Cell]:
    for scheme, values in published("table1", "schemes").rows.items():
        yield from _cells("Table 1", values["label"], values, {"attention": scheme, "num_classes": 174})


def _table2() -> Iterator[Cell]:
    seen = set()
    for values in published("table2", "models").rows:
        if values["key"] in seen:  # the same network, trained longer
            continue
        seen.add(values["key"])
        cnn = values["key"] in CNNS
        config = CNNS[values["key"]] if cnn else {"attention": values["key"], "num_classes": 174}
        yield from _cells("Table 2", values["model"], values, config, views=CNN_VIEWS if cnn else VIEWS)


def _table5() -> Iterator[Cell]:
    for values in published("table5", "models").rows:
        if values["model"] in SIZES:
            config = {"attention": "divided", **SIZES[values["model"]]}
            reason = CLASS_COPIES if values["model"] == "TimeSformer-L" else ""
            yield from _cells("Table 5", values["model"], values, config, views=VIEWS, reason=reason)


def _figure3() -> Iterator[Cell]:
    for panel, size in (("crop", "image_size"), ("frames", "num_frames")):
        block = published("figure3", panel)
        for point in block.rows:
            row = f"{point['attention']}, {panel} {point[panel]}"
            config = {"attention": point["attention"], size: point[panel]}
            printed = point["tflops_per_view"]
            yield Cell("Figure 3", row, "tflops_per_view", printed, tuple(config.items()), error=block.digitising_error)


def _vivit() -> Iterator[Cell]:
    for scheme, values in published("vivit", "models").rows.items():
        config = AVERAGE if scheme == "average" else {**VIVIT, "attention": scheme}
        for cell in _cells("ViViT, Table 2", values["label"], values, config):
            reason = ELEMENTWISE if cell.quantity == "gmacs_per_view" else ""
            if cell.quantity == "params_millions" and scheme in ("joint", "factorised_dot_product"):
                reason = ROUNDING
            yield Cell(**{**vars(cell), "reason": reason})


def _zoos() -> Iterator[Cell]:
    for values in published("table2", "zoo").rows:
        if values["who"] == "PyTorchVideo":
            for quantity in ("params_millions", "gmacs_per_view"):
                reason = NORMS if (values["key"], quantity) == ("i3d", "gmacs_per_view") else ""
                config = tuple(CNNS[values["key"]].items())
                printed = values[quantity]
                yield Cell("PyTorchVideo", values["model"], quantity, printed, config, error=0.005, reason=reason)


def rows() -> pd.DataFrame:
    """Return a row for each cell."""
    found = []
    for cell in cells():
        counted = cell.counted
        found.append(
            {
                "artefact": cell.artefact,
                "row": cell.row,
                "quantity": SAID[cell.quantity],
                "counted_value": counted,
                "published_value": cell.printed,
                "published_reading_error": cell.error if cell.artefact == "Figure 3" else None,
                "counted_difference_percent": 100 * (counted / cell.printed - 1),
                "agreement": "yes" if cell.agrees else "no",
                "reason": cell.reason or None,
            }
        )
    return pd.DataFrame(found)


COLUMNS = (
    Column("artefact", "Where", "label"),
    Column("row", "Row", "label"),
    Column("quantity", "Quantity", "label"),
    Column("counted_value", "Counted", "counted", decimals=3),
    Column("published_value", "Published", "published", decimals=None),
    Column("published_reading_error", "± reading error", "published", decimals=2),
    Column("counted_difference_percent", "Difference [%]", "counted", decimals=2),
    Column("agreement", "Agrees", "label"),
)


def draw(frame: pd.DataFrame) -> Figure:
    """Draw the difference of every cell with its reading error, a colour per artefact; hollow where it disagrees."""
    figure, (axis,) = new_figure(9.5, 4.2, panels=1)
    for (artefact, part), colour, marker in zip(frame.groupby("artefact", sort=False), COLOURS, MARKERS, strict=False):
        same = part["agreement"] == "yes"
        for kept, face in ((part[same], colour), (part[~same], "none")):
            label = f"{artefact}" if face == colour else f"{artefact}, not to the printed digit"
            if len(kept):
                error = 100 * kept["published_reading_error"].astype(float) / kept["published_value"]
                axis.errorbar(
                    kept.index + 1,
                    kept["counted_difference_percent"],
                    yerr=error.fillna(0.0),
                    fmt=marker,
                    color=colour,
                    markerfacecolor=face,
                    label=label,
                )
    axis.axhline(0, color="black", linewidth=0.8)
    axis.set_xlabel("row of the table")
    axis.set_ylabel("our count above the published figure [%]")
    axis.legend(frameon=False, fontsize="small", loc="lower right")
    return figure


def findings(frame: pd.DataFrame) -> tuple[str, ...]:
    """Return the number of figures that agree, and the reasons for the others."""
    other = frame[frame["agreement"] == "no"]
    named = [
        f"No agreement for {', '.join(_cell_said(row) for row in part.to_dict(orient='records'))}: {reason}."
        for reason, part in other.groupby("reason", sort=False)
    ]
    largest = other["counted_difference_percent"].abs().max()
    return (
        f"{len(frame) - len(other)} of {len(frame)} figures agree to the last printed digit or within the reading "
        f"error; the largest difference of the others is {largest:.2f} %.",
        *named,
    )


def _cell_said(row: dict[Any, Any]) -> str:
    return (
        f"{row['artefact']}, {row['row']}, {row['quantity']} (counted {row['counted_value']:.3f}, published "
        f"{row['published_value']:g})"
    )


def plan(profile: Profile) -> tuple[()]:
    """Return no runs: everything is counted."""
    return ()


def report(records: Sequence[dict[str, Any]], profile: Profile) -> Report:
    """Make the report of all cells; the records are not used."""
    frame = rows()
    blocks = (("table1", "schemes"), ("table2", "models"), ("table2", "zoo"), ("table5", "models"))
    return Report(
        name="counted",
        title="Published parameters and TFLOPs against our own counts",
        table=Table(
            frame, COLUMNS, "Every published figure that can be counted; one multiply-accumulate counts as one"
        ),
        figure=draw(frame),
        findings=findings(frame),
        sources=tuple(
            published(*block) for block in (*blocks, ("figure3", "crop"), ("figure3", "frames"), ("vivit", "models"))
        ),
        remarks=remarks("counts"),
    )


ARTEFACT = Artefact("counted", "Every published figure that can be counted, against our count", plan, report)
