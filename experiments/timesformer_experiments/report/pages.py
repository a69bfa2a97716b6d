"""Pages that need no other file: style, pictures and a script that sorts tables lie inside, nothing is fetched.

A page allows itself (Content-Security-Policy) its own style and script and pictures within it, and nothing else.  Text
is escaped by whoever makes the parts.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Sequence

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
ul, p, caption { max-width: 62rem; } h1 { line-height: 1.2; } h2 { margin-top: 2rem; font-size: 1.2rem; }
.wide { overflow-x: auto; width: max-content; max-width: min(100vw - 3rem, 50vw + 36rem); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .5rem; } th, td { padding: .35rem 1rem .35rem .4rem; text-align: right; }
th { border-bottom: 2px solid var(--line); vertical-align: bottom; position: relative; }
td { border-bottom: 1px solid var(--line); }
th.label, td.label { text-align: left; } td.published, span.published, th.published { background: var(--soft); }
td:not(.label), td.short { white-space: nowrap; } .wide { margin-top: 1.5rem; }
td.measured { font-weight: 600; } sup { font-weight: 400; opacity: .7; margin-left: .1em; }
th button { all: unset; cursor: pointer; } th button:focus-visible { outline: 2px solid; outline-offset: 2px; }
th button::after { content: "↕"; position: absolute; right: .15rem; bottom: .35rem; opacity: .35; }
th[aria-sort="ascending"] button::after { content: "↑"; opacity: 1; }
th[aria-sort="descending"] button::after { content: "↓"; opacity: 1; }
figure { margin: 1.5rem 0; } img { max-width: 100%; background: white; } .legend, .runs, .sources { font-size: .9rem; }
details { margin: 1rem 0; } summary { cursor: pointer; }
@media print { th button::after { content: none; } }
"""

# Without it the tables are as they are.  A column of numbers has data-value in every cell; what has none comes last.
SCRIPT = """
"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      const numbers = head.dataset.kind === "number";
      const value = row => {
        const cell = row.cells[column];
        if (!numbers) return cell.textContent;
        return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
      };
      const compare = (a, b) => numbers ? a - b : a.localeCompare(b, "en", { numeric: true });
      const rows = [...body.rows].map(row => [value(row), row]);
      rows.sort(([a], [b]) =>
        a === null || b === null ? (a === null) - (b === null) : down ? compare(b, a) : compare(a, b));
      body.append(...rows.map(([, row]) => row));
      for (const other of heads) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
    });
  });
}
"""


def document(title: str, body: str) -> str:
    """A whole page; `body` is HTML, `title` plain text."""
    policy = (
        f"default-src 'none'; img-src data:; style-src {_allowed(STYLE)}; script-src {_allowed(SCRIPT)}; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(policy)}">'
        f"<title>{html.escape(title)}</title>"
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>'
        f"<body>{body}<script>{SCRIPT}</script></body></html>\n"
    )


def _allowed(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def picture(image: bytes, said: str) -> str:
    """A figure from a PNG; said: what it shows, for who cannot see it."""
    source = "data:image/png;base64," + base64.b64encode(image).decode()
    return f'<figure><img alt="{html.escape(said)}" src="{source}"></figure>'


def items(sentences: Sequence[str]) -> str:
    """A list of sentences; nothing where there are none."""
    if not sentences:
        return ""
    return "<ul>" + "".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences) + "</ul>"
