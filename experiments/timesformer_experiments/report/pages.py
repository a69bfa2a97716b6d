"""Pages of reports on artefacts, sweeps and differences: templates, a style sheet and a script that sorts tables."""

from __future__ import annotations

from timesformer.pages import render_page

PACKAGE = "timesformer_experiments.report"
STYLE, SCRIPT = "report.css", "sort.js"


def page(template: str, title: str, **values: object) -> str:
    """Return the text of a page; values: variables of its template."""
    return render_page(PACKAGE, template, title=title, style=STYLE, scripts=(SCRIPT,), **values)
