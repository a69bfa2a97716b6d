"""Tables for a terminal of any width: no number, unit or word is broken across lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.table import Table
from rich.text import Text

LONGEST_WORD = 28
"""Longer words, such as paths, may be broken."""
BORDERS = 3
"""Characters of a column besides its content, with one more for the table."""


class Fitted(Table):
    """A table that is cut into several, one below the other, where the terminal is too narrow for its numbers.

    Each part repeats the first columns of text.  `add_fitted` adds a column; `is_text` columns wrap at words, others
    keep each cell on one line, and only their headings wrap.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.options = options
        self.text: list[bool] = []

    def add_fitted(self, heading: str, is_text: bool, **options: Any) -> None:
        """Add a column."""
        self.text.append(is_text)
        self.add_column(heading, overflow="fold", **options)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        if options.no_wrap:  # printed with soft_wrap: the lines are as long as they are
            yield from super().__rich_console__(console, options)
            return
        parts = self._parts(options.max_width)
        for number, chosen in enumerate(parts):
            part = Table(**self.options | {"title": None, "caption": None})
            if number == 0:
                part.title = self.title
            if number == len(parts) - 1:
                part.caption = self.caption
            widths = self._widths(chosen, options.max_width)
            for place, width in zip(chosen, widths, strict=True):
                column = self.columns[place]
                part.add_column(column.header, justify=column.justify, style=column.style, overflow="fold", width=width)
            for row in zip(*(list(self.columns[place].cells) for place in chosen), strict=True):
                part.add_row(*row)
            yield from part.__rich_console__(console, options)

    def _parts(self, width: int) -> list[list[int]]:
        """Return the columns of each part."""
        every = list(range(len(self.columns)))
        if self._least(every) <= width:
            return [every]
        leading = next((place for place in every if not self.text[place]), len(every))
        keys = every[:leading] or every[:1]
        while len(keys) > 1 and self._least(keys) > width // 2:
            keys.pop()
        parts, rest = [list(keys)], [place for place in every if place not in keys]
        for place in rest:
            if len(parts[-1]) > len(keys) and self._least([*parts[-1], place]) > width:
                parts.append(list(keys))
            parts[-1].append(place)
        return parts

    def _least(self, chosen: Sequence[int]) -> int:
        return sum(self._bounds(place)[0] + BORDERS for place in chosen) + 1

    def _bounds(self, place: int) -> tuple[int, int]:
        """Return the least and the most characters that a column needs."""
        head, cells = _plain(self.columns[place].header), list(map(_plain, self.columns[place].cells))
        most = max(map(cell_len, [head, *cells]), default=1)
        kept = [word for text in ([head, *cells] if self.text[place] else [head]) for word in text.split(" ")]
        words = max((min(cell_len(word), LONGEST_WORD) for word in kept), default=1)
        whole = 0 if self.text[place] else max(map(cell_len, cells), default=1)
        return max(words, whole, 1), max(most, 1)

    def _widths(self, chosen: Sequence[int], width: int) -> list[int]:
        """Return the width of each column: what it needs at least, and a share of what is left over."""
        bounds = [self._bounds(place) for place in chosen]
        widths = [least for least, _ in bounds]
        left = width - 1 - sum(widths) - BORDERS * len(widths)
        while left > 0:
            open_ones = [place for place, (_, most) in enumerate(bounds) if widths[place] < most]
            if not open_ones:
                break
            place = min(open_ones, key=lambda each: widths[each])
            widths[place] += 1
            left -= 1
        return widths


def _plain(cell: Any) -> str:
    return cell.plain if isinstance(cell, Text) else Text.from_markup(str(cell)).plain
