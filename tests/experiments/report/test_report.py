"""The files of a report: what they show, that text is escaped, that origins are marked."""

import csv
import io
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from timesformer.errors import InputError
from timesformer.pages import environment, source
from timesformer_experiments.report import style
from timesformer_experiments.report.pages import PACKAGE, SCRIPT
from timesformer_experiments.report.published import Published, Remark, published, remarks
from timesformer_experiments.report.report import Part, Report, require_writable, write, write_together
from timesformer_experiments.report.style import new_figure
from timesformer_experiments.report.tables import Column, Table, to_csv, to_markdown, to_rich

NASTY = """<script>alert('x')</script> "q" {{ 7 * 7 }} | *a_b* [red]"""
OUR_SCRIPT = f"<script>{source(PACKAGE, SCRIPT)}</script>"


def table_html(table: Table) -> str:
    """A table as it stands on every page."""
    return str(environment(PACKAGE).get_template("parts.html").module.table(table))  # type: ignore[attr-defined]


def example(text: str = "divided") -> Report:
    frame = pd.DataFrame(
        [
            {
                "name": text,
                "counted_params": 121_392_558,
                "measured_percent": 1 / 3,
                "low": 0.1,
                "high": 0.6,
                "published_x": 9.5,
            },
            {
                "name": "b",
                "counted_params": 7,
                "measured_percent": 2.0,
                "low": 1.5,
                "high": 2.5,
                "published_x": math.nan,
            },
        ]
    )
    columns = (
        Column("name", "Name", "label"),
        Column("counted_params", "Parameters [M]", "counted", decimals=1, scale=1e6),
        Column("measured_percent", "Top-1 [%]", "measured", decimals=2, bounds=("low", "high")),
        Column("published_x", "X", "published"),
    )
    figure, axes = new_figure(3, 2, panels=1)
    axes[0].plot([0, 1], [0, 1])
    source = Published("x", source=f"source {text}", confidence="seen", rows=[], note="a note")
    return Report(
        name="example",
        title=f"Title {text}",
        table=Table(frame, columns, f"Caption {text}"),
        figure=figure,
        findings=(f"Finding {text}",),
        sources=(source,),
        remarks=(Remark(f"Remark {text}", "where", "derived"),),
    )


def test_markdown_shows_values_intervals_and_origins() -> None:
    lines = to_markdown(example().table).splitlines()
    assert lines[0] == "| Name | Parameters [M] | Top-1 [%] | X |"
    assert lines[2] == "| divided | 121.4<sup>c</sup> | 0.33 (0.10–0.60)<sup>m</sup> | 9.5<sup>p</sup> |"
    assert lines[3] == "| b | 0.0<sup>c</sup> | 2.00 ± 0.50<sup>m</sup> | – |"
    assert all(word in lines[-1] for word in ("counted here", "measured here", "authors of the paper"))


def test_csv_keeps_full_precision() -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(example().table))))
    assert float(rows[0]["measured_percent"]) == 1 / 3
    assert rows[1]["published_x"] == ""
    assert list(rows[0]) == ["name", "counted_params", "measured_percent", "low", "high", "published_x"]


def test_terminal_shows_text_as_it_is() -> None:
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(to_rich(example(NASTY).table))
    shown = console.export_text().replace("\N{NO-BREAK SPACE}", " ")
    assert NASTY in shown
    assert "121.4 c" in shown
    assert "2.00 ± 0.50 m" in shown


class Tags(HTMLParser):
    """Collects the tags of a page and the attributes that load something."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href")]


def test_page_is_escaped_and_needs_no_other_file(tmp_path: Path) -> None:
    write(example(NASTY), tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    parser = Tags()
    parser.feed(text)
    assert text.count("<script") == text.count(OUR_SCRIPT) == 1
    assert not {"link", "iframe", "object", "base"} & parser.tags
    assert all(address.startswith("data:image/png;base64,") for address in parser.loaded)
    assert len(parser.loaded) == 1
    assert text.count("&lt;script&gt;") >= 6
    assert text.count("{{ 7 * 7 }}") == text.count("&lt;script&gt;")
    assert 'class="published"' in table_html(example().table)


def test_one_page_of_several_reports_leads_to_their_own(tmp_path: Path) -> None:
    both = [replace(example(NASTY), name="first"), replace(example(), name="second")]
    path = write_together(both, "quick", tmp_path)
    assert path == tmp_path / "quick.html"
    text = path.read_text(encoding="utf-8")
    parser = Tags()
    parser.feed(text)
    assert text.count("<script") == text.count(OUR_SCRIPT) == 1
    pictures = [address for address in parser.loaded if address.startswith("data:image/png;base64,")]
    assert len(pictures) == 2
    assert [address for address in parser.loaded if address not in pictures] == [
        "#first",
        "#second",
        "first/quick/report.html",
        "second/quick/report.html",
    ]
    assert 'id="first"' in text
    assert 'id="second"' in text


def test_markdown_table_keeps_its_columns_whatever_the_text() -> None:
    lines = to_markdown(example(NASTY).table).splitlines()
    counts = {len(re.findall(r"(?<!\\)\|", line)) for line in lines[:4]}
    assert counts == {5}
    assert "<script>" not in lines[2]


def test_files_are_the_same_from_the_same_report(tmp_path: Path) -> None:
    first, second = write(example(), tmp_path / "a"), write(example(), tmp_path / "b")
    assert [path.name for path in first] == ["example.csv", "example.md", "example.png", "report.html"]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(first, second, strict=True))


def test_parts_and_those_within_them_are_on_the_page_with_their_files(tmp_path: Path) -> None:
    report = example()
    picture, _ = new_figure(1, 1, panels=1)
    inner = (Part("picture", "A picture", figure=picture), Part("", table=report.table))
    shown = Part("further", "Further", report.table, findings=("so it is",), within=inner)
    hidden = Part("hidden", "On the page", findings=("alone",), files={"more.bin": b"1"}, on_page_only=True)
    write(replace(report, parts=(shown, hidden)), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "example.csv", "example.md", "example.png", "report.html", "further.csv", "picture.png", "more.bin",
    }  # fmt: skip
    text, page = (tmp_path / "example.md").read_text(), (tmp_path / "report.html").read_text()
    for said in ("## Further", "- so it is", "### A picture", "![A picture](picture.png)"):
        assert said in text
    assert "On the page" not in text
    for said in ("<h2>Further</h2>", "<h3>A picture</h3>", '<img alt="A picture"', "<h2>On the page</h2>", "alone"):
        assert said in page
    assert page.count("<table") == 3
    assert page.index("<h2>Further</h2>") < page.index("<h3>A picture</h3>") < page.index("<h2>On the page</h2>")


def test_unwritable_results_name_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=re.escape(str(tmp_path / "file" / "results"))):
        require_writable(tmp_path / "file" / "results")


def test_published_values_have_a_source_and_a_confidence(tmp_path: Path) -> None:
    for artefact, blocks in {"table1": ("schemes", "inference"), "figure3": ("crop", "frames")}.items():
        assert all(published(artefact, block).source for block in blocks)
        assert all(remark.source and remark.text for remark in remarks(artefact))
    path = tmp_path / "values.yaml"
    path.write_text(
        "table1: {schemes: {confidence: seen, rows: {}}, other: {source: a, confidence: hearsay, rows: {}}}"
    )
    with pytest.raises(InputError, match=r"table1\.schemes: `source` is missing"):
        published("table1", "schemes", path)
    with pytest.raises(InputError, match=r"table1\.other: confidence: .* got 'hearsay'"):
        published("table1", "other", path)
    with pytest.raises(InputError, match=r"table1\.nothing"):
        published("table1", "nothing", path)


def test_colours_and_shapes_differ() -> None:
    assert len(set(style.COLOURS)) == len(style.COLOURS) == len(set(style.MARKERS)) == len(style.MARKERS)


def test_a_table_says_what_measured_means_in_it() -> None:
    columns = (Column("name", "Name", "label"), Column("seconds", "Seconds", "measured"))
    frame = pd.DataFrame([{"name": "a", "seconds": 1.0}])
    for table, said in (
        (Table(frame, columns, "Here"), "measured here"),
        (Table(frame, columns, "Here", measured="measured on this machine"), "measured on this machine"),
    ):
        assert f"</sup> {said}" in to_markdown(table)
        assert f"</sup> {said}" in table_html(table)
        assert str(to_rich(table).caption) == f"m {said}"
