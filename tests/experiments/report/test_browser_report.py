"""Pages of reports in a real browser: tables sort, figures are there, nothing is fetched, the console is silent."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import Browser, BrowserError, Page, open_browser
from tests.experiments.report.test_report import NASTY, example
from tests.experiments.sweep_records import jobs, write_cell, write_failure
from timesformer_experiments.analysis.report import sweep_report, write_sweep_report
from timesformer_experiments.report.report import write

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as found:
        yield found


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep's page; one cell has failed with a reason that is markup."""
    folder = tmp_path_factory.mktemp("sweep")
    axes = {"model.attention": ["space", "divided", "axial"], "model.num_frames": [4, 8], "seed": [0, 1]}
    cells = list(jobs(axes).values())
    for job in cells[:-1]:
        write_cell(folder, job)
    write_failure(folder, cells[-1], NASTY)
    write_sweep_report(sweep_report(folder), folder, folder)
    return folder / "report.html"


def column(page: Page, table: str, number: int) -> list[str]:
    return page.evaluate(
        f"[...document.querySelectorAll('{table} tbody tr')].map(r => r.cells[{number - 1}].textContent)"
    )


def values(page: Page, table: str, number: int) -> list[float]:
    script = f"[...document.querySelectorAll('{table} tbody tr')].map(r => Number(r.cells[{number - 1}].dataset.value))"
    return page.evaluate(script)


def heading(page: Page, table: str, title: str) -> int:
    """The number of a column, from 1."""
    titles = page.evaluate(f"[...document.querySelectorAll('{table} th')].map(h => h.textContent)")
    return titles.index(title) + 1


def test_tables_sort_by_click_numbers_and_words(browser: Browser, report: Path) -> None:
    page = browser.open(report)
    number = heading(page, "#summary", "Top-1 [%]")
    before = values(page, "#summary", number)
    head = f"#summary th:nth-child({number})"
    assert before != sorted(before)
    assert page.evaluate(f"document.querySelector('{head}').getAttribute('aria-sort')") == "none"
    page.click(f"{head} button")
    assert values(page, "#summary", number) == sorted(before)
    assert page.evaluate(f"document.querySelector('{head}').getAttribute('aria-sort')") == "ascending"
    page.click(f"{head} button")
    assert values(page, "#summary", number) == sorted(before, reverse=True)
    assert page.evaluate(f"document.querySelector('{head}').getAttribute('aria-sort')") == "descending"
    page.click("#summary th:nth-child(1) button")
    words = column(page, "#summary", 1)
    assert words == sorted(words)
    assert page.evaluate(f"document.querySelector('{head}').getAttribute('aria-sort')") == "none"
    page.click("#comparisons th:nth-child(3) button")  # tables are sorted on their own
    assert column(page, "#summary", 1) == words


def test_numbers_are_sorted_as_numbers_and_missing_ones_are_last(browser: Browser, report: Path) -> None:
    page = browser.open(report)
    number = heading(page, "#comparisons", "First − second [points]")
    cells = f"[...document.querySelectorAll('#comparisons tbody tr')].map(r => r.cells[{number - 1}])"
    page.evaluate(f"delete {cells}[0].dataset.value")
    for _ in range(2):
        page.click(f"#comparisons th:nth-child({number}) button")
        there = page.evaluate(f"{cells}.map(cell => cell.dataset.value !== undefined)")
        assert there == [True] * (len(there) - 1) + [False]
    shown = values(page, "#comparisons", number)[:-1]
    assert shown == sorted(shown, reverse=True)
    assert min(shown) < 0 < max(shown)


def test_tables_sort_by_keyboard(browser: Browser, report: Path) -> None:
    page = browser.open(report)
    number = heading(page, "#summary", "Top-1 [%]")
    page.evaluate(f"document.querySelector('#summary th:nth-child({number - 1}) button').focus()")
    page.press("Tab", 9)
    assert page.evaluate("document.activeElement.textContent") == "Top-1 [%]"
    page.press("Enter", 13, "\r")
    shown = values(page, "#summary", number)
    assert shown == sorted(shown)
    page.press(" ", 32, " ")
    assert values(page, "#summary", number) == shown[::-1]


@pytest.mark.parametrize("dark", [False, True])
def test_figures_are_there_and_nothing_is_fetched_or_complained_about(
    browser: Browser, report: Path, dark: bool
) -> None:
    page = browser.open(report, dark=dark)
    sizes = page.evaluate("[...document.images].map(i => [i.complete, i.naturalWidth, i.alt])")
    assert len(sizes) == 7
    assert all(complete and width > 300 and said for complete, width, said in sizes)
    assert page.errors() == []
    assert page.foreign() == []
    assert page.evaluate("document.querySelectorAll('script').length") == 1
    assert NASTY in page.evaluate("document.querySelector('#failures tbody').textContent")
    ground = page.evaluate("getComputedStyle(document.documentElement).colorScheme")
    assert ground == "light dark"
    image = page.screenshot()
    assert image[:8] == b"\x89PNG\r\n\x1a\n"


def test_values_with_their_intervals_stay_in_one_line(browser: Browser, report: Path) -> None:
    page = browser.open(report, width=500)
    heights = page.evaluate(  # of the text: another cell of the row may be higher
        "[...document.querySelectorAll('td.measured')].map(c => { const text = document.createRange();"
        " text.selectNodeContents(c); return text.getBoundingClientRect().height"
        " / parseFloat(getComputedStyle(c).lineHeight) })"
    )
    assert heights
    assert max(heights) < 2
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")  # tables scroll in themselves


def test_the_page_of_an_artefact_sorts_too(browser: Browser, tmp_path: Path) -> None:
    write(example(NASTY), tmp_path)
    page = browser.open(tmp_path / "report.html")
    assert column(page, "table", 1) == [NASTY, "b"]
    page.click("th:nth-child(2) button")
    assert column(page, "table", 1) == ["b", NASTY]
    assert (page.errors(), page.foreign()) == ([], [])


def test_the_browser_reports_what_pages_do(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(
        "<!doctype html><title>t</title><img src='missing.png'>"
        "<button onclick='document.title = event.clientX'>b</button>"
        "<script>console.warn('careful', 3); setTimeout(() => { throw new Error('late') }, 0)</script>"
    )
    page = browser.open(tmp_path / "page.html", width=300, height=200)
    page.wait_for("document.readyState === 'complete'")
    page.wait_for("new Promise(done => setTimeout(() => done(true), 50))")
    assert [url.rpartition("/")[2] for url in page.foreign()] == ["missing.png"]
    assert "warning: careful 3" in page.errors()
    assert any("late" in text for text in page.errors())
    box = page.box("button")
    page.click(box["x"] + 3, box["y"] + 3)
    assert float(page.evaluate("document.title")) == pytest.approx(box["x"] + 3, abs=1)
    for wrong, said in (("nothing.here", "nothing is not defined"), ("(() => { throw 1 })()", "1")):
        with pytest.raises(BrowserError, match=said):
            page.evaluate(wrong)
    with pytest.raises(BrowserError, match="no such element"):
        page.click("#nothing")
    with pytest.raises(BrowserError, match="not true within 0 s"):
        page.wait_for("false", seconds=0)
    with pytest.raises(BrowserError, match="ERR_FILE_NOT_FOUND"):
        page.goto(tmp_path / "nothing.html")
    with pytest.raises(BrowserError, match=r"Page\.nothing"):
        page.call("Page.nothing")


def test_without_a_browser_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setenv("PATH", "")
    for named, ends in (("", pytest.skip.Exception), ("1", pytest.fail.Exception)):
        monkeypatch.setenv("CI", named)
        with pytest.raises(ends, match="no Chromium found"), open_browser():
            pass
