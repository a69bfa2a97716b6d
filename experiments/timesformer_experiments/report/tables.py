"""Tables that mark the origin of every value, as csv, markdown, LaTeX and in the terminal."""

from __future__ import annotations

import html
import math
import numbers
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import pandas as pd

from timesformer.text import printable
from timesformer_experiments.report.fitted import Fitted

Origin = Literal["label", "counted", "predicted", "measured", "needs_data", "published"]
MARKS: dict[Origin, str] = {
    "label": "",
    "counted": "c",
    "predicted": "e",
    "measured": "m",
    "needs_data": "d",
    "published": "p",
}
MEANINGS: dict[Origin, str] = {
    "counted": "counted here, exactly",
    "predicted": "estimated: predicted without running",
    "measured": "measured here",
    "needs_data": "not measured: needs the real dataset",
    "published": "printed or drawn by the authors of the paper",
}
RICH_STYLES: dict[Origin, str] = {
    "label": "bold",
    "counted": "green",
    "predicted": "yellow",
    "measured": "cyan",
    "needs_data": "magenta",
    "published": "dim",
}
NO_VALUE = "–"
SHORT = 24
"""Largest number of characters of a text that is kept on one line."""


@dataclass(frozen=True)
class Column:
    """One column of a table.

    `key`: column of the data frame and heading in the csv; ends in its unit and begins with its origin unless it is a
    label. `title`: heading for readers, with the unit. `decimals`: digits shown after the point, None for six
    significant digits. `scale`: divisor for display. `bounds`: columns with the lower and upper end of the interval, if
    there is one. `least`: smaller values are shown as less than this.
    """

    key: str
    title: str
    origin: Origin
    decimals: int | None = 1
    scale: float = 1.0
    bounds: tuple[str, str] | None = None
    least: float | None = None

    def text(self, row: dict[str, Any]) -> str:
        """Return the value of a row as shown, without its mark."""
        value = row[self.key]
        if missing(value):
            return NO_VALUE
        if isinstance(value, str):
            return value
        if self.least is not None and value < self.least:
            return f"< {self.least:g}"
        shown = _number(value / self.scale, self.decimals)
        if self.bounds is None or any(missing(row[bound]) for bound in self.bounds):
            return shown
        low, high = (row[bound] / self.scale for bound in self.bounds)
        return f"{shown} {_interval(value / self.scale, low, high, self.decimals)}"


def missing(value: Any) -> bool:
    """Return True if there is no value."""
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def _number(value: float, decimals: int | None) -> str:
    text = f"{value:,.6g}" if decimals is None else f"{value:,.{decimals}f}"
    if not text.startswith("-"):
        return text
    return text[1:] if float(text.replace(",", "")) == 0 else f"−{text[1:]}"  # a minus sign, not a hyphen


def _interval(value: float, low: float, high: float, decimals: int | None) -> str:
    """Return `± x` for a symmetric interval (seeds), `(low–high)` for an asymmetric one (proportions)."""
    if math.isclose(value - low, high - value, abs_tol=1e-9):
        return f"± {_number(high - value, decimals)}"
    return f"({_number(low, decimals)}–{_number(high, decimals)})"


class Cell(NamedTuple):
    """A value as shown; number: value to sort by, None for text and missing values."""

    text: str
    column: Column
    number: float | None

    @property
    def mark(self) -> str:
        """Letter of the value's origin."""
        return MARKS[self.column.origin] if self.text != NO_VALUE else ""

    @property
    def short(self) -> bool:
        """True for a short text, which stays on one line."""
        return self.column.origin == "label" and len(self.text) <= SHORT


def _numeric(values: list[Any]) -> bool:
    """Return True if there are values and all of them are numbers."""
    there = [value for value in values if not missing(value)]
    return bool(there) and all(isinstance(value, numbers.Real) and not isinstance(value, bool) for value in there)


@dataclass(frozen=True)
class Table:
    """A data frame with its columns in order and a caption; `measured`: meaning of the mark of measured values."""

    frame: pd.DataFrame
    columns: tuple[Column, ...]
    caption: str
    measured: str = MEANINGS["measured"]

    def rows(self) -> list[dict[str, Any]]:
        """Return the values of each row by column."""
        return [{str(key): value for key, value in row.items()} for row in self.frame.to_dict(orient="records")]

    def cells(self) -> list[list[tuple[str, Column]]]:
        """Return for each row the values as shown, each with its column."""
        return [[(column.text(row), column) for column in self.columns] for row in self.rows()]

    def sortable_cells(self) -> list[list[Cell]]:
        """Return for each row the values as shown, each with the number to sort by."""
        rows = self.rows()
        return [
            [
                Cell(
                    column.text(row),
                    column,
                    float(row[column.key]) if numeric and not missing(row[column.key]) else None,
                )
                for column, numeric in zip(self.columns, self.numeric(), strict=True)
            ]
            for row in rows
        ]

    def numeric(self) -> list[bool]:
        """Return for each column True if all its values are numbers."""
        return [_numeric(self.frame[column.key].tolist()) for column in self.columns]

    def legend(self) -> list[tuple[Origin, str, str]]:
        """Return the origins that occur, each with its mark and its meaning in this table."""
        occurring = {column.origin for column in self.columns}
        meanings = MEANINGS | {"measured": self.measured}
        return [(origin, MARKS[origin], meaning) for origin, meaning in meanings.items() if origin in occurring]


def to_csv(table: Table) -> str:
    """Return csv in full precision, one column for each value and each end of an interval, with origins in headings."""
    return table.frame.to_csv(index=False, lineterminator="\n")


def to_markdown(table: Table) -> str:
    """Return a pipe table; each value carries the mark of its origin, explained below the table."""
    lines = [
        "| " + " | ".join(_markdown(column.title) for column in table.columns) + " |",
        "|" + "|".join("---" if column.origin == "label" else "---:" for column in table.columns) + "|",
    ]
    for row in table.cells():
        lines.append("| " + " | ".join(_markdown(text) + _superscript(text, column) for text, column in row) + " |")
    legend = " · ".join(f"<sup>{mark}</sup> {meaning}" for _, mark, meaning in table.legend())
    return "\n".join([*lines, "", legend, ""])


def _markdown(text: str) -> str:
    """Escape text for a cell of a pipe table: no pipe, no line break, no markup."""
    return html.escape(text, quote=False).replace("|", "\\|").replace("\n", " ").replace("*", "\\*").replace("_", "\\_")


def _superscript(text: str, column: Column) -> str:
    mark = MARKS[column.origin]
    return f"<sup>{mark}</sup>" if mark and text != NO_VALUE else ""


LONG_ROWS = 45
"""Number of rows above which a LaTeX table may span pages."""
LATEX: dict[str, str] = {
    **{char: f"\\{char}" for char in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "−": r"$-$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "–": "--",
    "—": "---",
    "…": r"\ldots{}",
    "\n": " ",
}


def to_latex(table: Table, label: str) -> str:
    """Return a LaTeX table with booktabs (and longtable above `LONG_ROWS` rows), with all text escaped.

    label: label of the table without `tab:`.
    """
    columns = "".join("l" if column.origin == "label" else "r" for column in table.columns)
    head = " & ".join(latex_text(column.title) for column in table.columns) + r" \\"
    body = [
        " & ".join(latex_text(text) + _latex_mark(text, column) for text, column in row) + r" \\"
        for row in table.cells()
    ]
    legend = r" $\cdot$ ".join(
        rf"\textsuperscript{{{mark}}}\,{latex_text(meaning)}" for _, mark, meaning in table.legend()
    )
    caption = rf"\caption{{{latex_text(table.caption)}.{' ' + legend + '.' if legend else ''}}}\label{{tab:{label}}}"
    if len(body) > LONG_ROWS:
        lines = [
            r"% needs \usepackage{booktabs,longtable}",
            rf"\begin{{longtable}}{{@{{}}{columns}@{{}}}}",
            caption + r"\\",
            r"\toprule",
            head,
            r"\midrule",
            r"\endhead",
            *body,
            r"\bottomrule",
            r"\end{longtable}",
        ]
    else:
        lines = [
            r"% needs \usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            caption,
            rf"\begin{{tabular}}{{@{{}}{columns}@{{}}}}",
            r"\toprule",
            head,
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    return "\n".join([*lines, ""])


def latex_text(text: str) -> str:
    """Escape text for LaTeX."""
    return "".join(LATEX.get(char, char) for char in text)


def _latex_mark(text: str, column: Column) -> str:
    mark = MARKS[column.origin]
    return rf"\textsuperscript{{{mark}}}" if mark and text != NO_VALUE else ""


def to_rich(table: Table) -> Fitted:
    """Return a table for the terminal; origins are marked by letter and colour, and no number is broken."""
    legend = " · ".join(f"{mark} {meaning}" for _, mark, meaning in table.legend())
    shown = Fitted(title=table.caption, caption=legend, header_style="bold", title_justify="left")
    for column, numeric in zip(table.columns, table.numeric(), strict=True):
        justify: Literal["left", "right"] = "left" if column.origin == "label" else "right"
        is_text = column.origin == "label" and not numeric
        shown.add_fitted(_rich(column.title), is_text, justify=justify, style=RICH_STYLES[column.origin])
    for row in table.cells():
        shown.add_row(*(_rich(_marked(printable(text), column)) for text, column in row))
    return shown


def _marked(text: str, column: Column) -> str:
    """Add the mark to a value and keep value, interval and mark on one line."""
    if column.origin == "label":
        return text
    mark = MARKS[column.origin] if text != NO_VALUE else ""
    return f"{text} {mark}".rstrip().replace(" ", "\N{NO-BREAK SPACE}")


def _rich(text: str) -> str:
    """Escape square brackets, which are markup to rich."""
    return text.replace("[", "\\[")
