"""Tables as text: markdown, LaTeX and HTML, with missing values and with signs that mean something there."""

import pandas as pd

from tests.experiments.report.test_report import table_html
from timesformer_experiments.report.tables import Column, Table, to_latex, to_markdown, to_rich


def test_latex_is_escaped_and_long_tables_run_over_pages() -> None:
    columns = (Column("name", "100% [a_b]", "label"), Column("x", "X", "measured", bounds=("low", "high")))
    frame = pd.DataFrame([{"name": "a&b_c\\d#${}~^<|>", "x": 1.0, "low": 0.5, "high": 1.5}])
    text = to_latex(Table(frame, columns, "50 % of x"), "t")
    assert r"100\% [a\_b] & X \\" in text
    assert (
        r"a\&b\_c\textbackslash{}d\#\$\{\}\textasciitilde{}\textasciicircum{}\textless{}\textbar{}\textgreater{}"
        in text
    )
    assert r"1.0 $\pm$ 0.5\textsuperscript{m} \\" in text
    assert r"\caption{50 \% of x. \textsuperscript{m}\,measured here" in text
    assert text.count(r"\begin{") == text.count(r"\end{") == 2
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\label{tab:t}")] == [1, 1, 1, 1]
    long = to_latex(Table(pd.concat([frame] * 60), columns, "long"), "t")
    assert long.count(r"\begin{longtable}{@{}lr@{}}") == long.count(r"\endhead") == 1
    assert long.count(r"a\&b") == 60


def test_tables_with_missing_values_and_small_numbers() -> None:
    columns = (
        Column("n", "N", "label", decimals=None),
        Column("p", "p", "label", decimals=4, least=1e-4),
        Column("x", "X", "predicted", bounds=("low", "high")),
        Column("word", "Word", "label"),
    )
    frame = pd.DataFrame(
        {
            "n": [1234567.0, 0.00001234],
            "p": [0.00001, 0.25],
            "x": [None, 2.0],
            "low": [None, None],
            "high": [None, 3.0],
            "word": ["a", "much longer than what is kept in one line"],
        }
    )
    table = Table(frame, columns, "c")
    assert to_markdown(table).splitlines()[2:4] == [
        "| 1.23457e+06 | &lt; 0.0001 | – | a |",
        "| 1.234e-05 | 0.2500 | 2.0<sup>e</sup> | much longer than what is kept in one line |",
    ]
    page = table_html(table)
    assert 'data-kind="number">p' in page
    assert 'data-kind="text">Word' in page
    assert '<td class="label short" data-value="1e-05">&lt; 0.0001</td>' in page
    assert '<td class="predicted">–</td>' in page
    assert '<td class="label">much longer' in page
    assert "estimated: predicted without running" in page
    assert '<p class="legend">' not in table_html(Table(frame, columns[:1], "c"))
    nasty = Table(pd.DataFrame([{"n": "a\x1b[31mb"}]), columns[:1], "c")
    assert "\x1b" not in str(list(to_rich(nasty).columns[0].cells))
