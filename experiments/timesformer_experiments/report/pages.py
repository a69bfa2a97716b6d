"""Pages of reports, of artefacts, sweeps and differences alike: templates, a style, and a script that sorts tables."""

from __future__ import annotations

from timesformer.pages import render_page

PACKAGE = "timesformer_experiments.report"
STYLE, SCRIPT = "report.css", "sort.js"


def page(template: str, title: str, **values: object) -> str:
    """Return the text of a page; values: what its template shows."""
    return render_page(PACKAGE, template, title=title, style=STYLE, scripts=(SCRIPT,), **values)
