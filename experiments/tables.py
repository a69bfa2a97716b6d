"""A table whose every cell says where its value comes from, and its forms: csv, markdown, HTML and the terminal."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
from rich.table import Table as RichTable

Origin = Literal["label", "counted", "measured", "published"]
MARKS: dict[Origin, str] = {"label": "", "counted": "c", "measured": "m", "published": "p"}
MEANINGS: dict[Origin, str] = {
    "counted": "counted here, exactly",
    "measured": "measured here, on this repository's probes",
    "published": "printed or drawn by the authors of the paper",
}
RICH_STYLES: dict[Origin, str] = {"label": "bold", "counted": "green", "measured": "cyan", "published": "dim"}
NO_VALUE = "–"


@dataclass(frozen=True)
class Column:
    """One column of a table.

    `key`: column of the data frame and heading in the csv; ends in its unit and begins with its origin unless it is a
    label. `title`: heading for readers, with the unit. `decimals`: digits shown behind the point. `scale`: what a value
    is divided by before it is shown. `bounds`: the columns with the lower and upper end of the interval, if it has one.
    """

    key: str
    title: str
    origin: Origin
    decimals: int = 1
    scale: float = 1.0
    bounds: tuple[str, str] | None = None

    def text(self, row: dict[str, Any]) -> str:
        """The value of a row as shown, without its mark."""
        value = row[self.key]
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return NO_VALUE
        if isinstance(value, str):
            return value
        shown = f"{value / self.scale:,.{self.decimals}f}"
        if self.bounds is None:
            return shown
        low, high = (row[bound] / self.scale for bound in self.bounds)
        return f"{shown} {_interval(value / self.scale, low, high, self.decimals)}"


def _interval(value: float, low: float, high: float, decimals: int) -> str:
    """`± x` where the interval is symmetric (seeds), `(low–high)` where it is not (proportions)."""
    if math.isclose(value - low, high - value, abs_tol=1e-9):
        return f"± {high - value:.{decimals}f}"
    return f"({low:.{decimals}f}–{high:.{decimals}f})"


@dataclass(frozen=True)
class Table:
    """A data frame with its columns in order and a caption; `measured`: what the mark of measured values means."""

    frame: pd.DataFrame
    columns: tuple[Column, ...]
    caption: str
    measured: str = MEANINGS["measured"]

    def cells(self) -> list[list[tuple[str, Column]]]:
        """For each row the shown values, each beside its column."""
        rows = self.frame.to_dict(orient="records")
        return [[(column.text({str(k): v for k, v in row.items()}), column) for column in self.columns] for row in rows]

    def origins(self) -> list[Origin]:
        """The origins that occur, in the order of their explanation."""
        return [origin for origin in MEANINGS if any(column.origin == origin for column in self.columns)]

    def meaning(self, origin: Origin) -> str:
        """What the mark of an origin means in this table."""
        return self.measured if origin == "measured" else MEANINGS[origin]


def to_csv(table: Table) -> str:
    """Full precision, one column for each value and each end of an interval; the heading names the origin."""
    return table.frame.to_csv(index=False, lineterminator="\n")


def to_markdown(table: Table) -> str:
    """A pipe table; each value carries the mark of its origin, explained below it."""
    lines = [
        "| " + " | ".join(_markdown(column.title) for column in table.columns) + " |",
        "|" + "|".join("---" if column.origin == "label" else "---:" for column in table.columns) + "|",
    ]
    for row in table.cells():
        lines.append("| " + " | ".join(_markdown(text) + _superscript(text, column) for text, column in row) + " |")
    legend = " · ".join(f"<sup>{MARKS[origin]}</sup> {table.meaning(origin)}" for origin in table.origins())
    return "\n".join([*lines, "", legend, ""])


def _markdown(text: str) -> str:
    """Text in a cell of a pipe table: no pipe, no line break, no markup of its own."""
    return html.escape(text, quote=False).replace("|", "\\|").replace("\n", " ").replace("*", "\\*").replace("_", "\\_")


def _superscript(text: str, column: Column) -> str:
    mark = MARKS[column.origin]
    return f"<sup>{mark}</sup>" if mark and text != NO_VALUE else ""


def to_html(table: Table) -> str:
    """A `<table>` with everything escaped; origins are marked by letter and by class."""
    head = "".join(f'<th class="{column.origin}">{html.escape(column.title)}</th>' for column in table.columns)
    body = "".join(
        "<tr>"
        + "".join(
            f'<td class="{column.origin}">{html.escape(text)}{_superscript(text, column)}</td>' for text, column in row
        )
        + "</tr>"
        for row in table.cells()
    )
    legend = " · ".join(
        f'<span class="{origin}"><sup>{MARKS[origin]}</sup> {html.escape(table.meaning(origin))}</span>'
        for origin in table.origins()
    )
    caption = html.escape(table.caption)
    return (
        f'<div class="wide"><table><caption>{caption}</caption><thead><tr>{head}</tr></thead>'
        f'<tbody>{body}</tbody></table></div><p class="legend">{legend}</p>'
    )


def to_rich(table: Table) -> RichTable:
    """For the terminal; origins are marked by letter and by colour."""
    legend = " · ".join(f"{MARKS[origin]} {table.meaning(origin)}" for origin in table.origins())
    shown = RichTable(title=table.caption, caption=legend, header_style="bold", title_justify="left")
    for column in table.columns:
        justify: Literal["left", "right"] = "left" if column.origin == "label" else "right"
        shown.add_column(_rich(column.title), justify=justify, style=RICH_STYLES[column.origin], overflow="fold")
    for row in table.cells():
        shown.add_row(*(_rich(_marked(text, column)) for text, column in row))
    return shown


def _marked(text: str, column: Column) -> str:
    """A value with its interval and its mark stays in one line."""
    if column.origin == "label":
        return text
    mark = MARKS[column.origin] if text != NO_VALUE else ""
    return f"{text} {mark}".rstrip().replace(" ", "\N{NO-BREAK SPACE}")


def _rich(text: str) -> str:
    """Square brackets are markup to rich."""
    return text.replace("[", "\\[")
