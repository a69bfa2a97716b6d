"""The explorer page in a real browser: the patch that should light up does, and nothing is fetched."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.browser import Browser, Page, open_browser
from tests.maps.pointing import GRID, PLACE, pointing_model
from tests.maps.test_explorer import NASTY, seen_of
from timesformer.errors import InputError
from timesformer.maps import rollout
from timesformer.maps.explorer import Side, explorer_side, write_explorer
from timesformer_experiments.report import browser as report_browser
from timesformer_experiments.report.browser import screenshot

pytestmark = pytest.mark.integration
DRAWN = "document.body.dataset.drawn"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as found:
        yield found


def side_of(attention: str, name: str) -> Side:
    model, clip, _ = pointing_model(attention)
    guesses = [(NASTY, 0.75), ("other", 0.25)]
    rolled = {"rollout": rollout(model, clip)}
    return explorer_side(model, seen_of(clip), name=name, note=NASTY, guesses=guesses, methods=rolled)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Divided attention beside joint; from any patch that may see it, all look at the one bright patch."""
    sides = [side_of("divided", "first"), side_of("joint", NASTY)]
    return write_explorer(tmp_path_factory.mktemp("page") / "page.html", sides, title=NASTY)


@pytest.fixture
def page(browser: Browser, path: Path) -> Iterator[Page]:
    page = browser.open(path, width=1400, height=1000)
    page.wait_for(DRAWN)
    yield page
    assert page.errors() == []
    assert page.foreign() == []


def after(page: Page, action: str) -> None:
    """Runs a script that changes what is shown, and waits until it is drawn."""
    before = page.evaluate(DRAWN)
    page.evaluate(f"(() => {{ {action} }})()")
    page.wait_for(f"{DRAWN} !== {before!r}")


def choose(page: Page, name: str, value: object, panel: int = 0) -> None:
    after(
        page,
        f"const s = document.querySelectorAll('select.{name}')[{panel}]; s.value = {value!r};"
        " s.dispatchEvent(new Event('change'))",
    )


def canvas(frame: int, panel: int = 0) -> str:
    return f"#panels > section:nth-child({panel + 1}) .frames figure:nth-child({frame + 1}) canvas"


def click(page: Page, frame: int, row: int, column: int, panel: int = 0) -> None:
    """Clicks on a patch with the mouse."""
    before = page.evaluate(DRAWN)
    box = page.box(canvas(frame, panel))
    page.click(box["x"] + (column + 0.5) / GRID[2] * box["width"], box["y"] + (row + 0.5) / GRID[1] * box["height"])
    page.wait_for(f"{DRAWN} !== {before!r}")


def lit(page: Page, selector: str) -> list[tuple[int, int]]:
    """(row, column) of the patches of a canvas whose middles glow: orange to pale yellow on grey."""
    script = f"""(() => {{
      const c = document.querySelector({selector!r}), copy = document.createElement("canvas"), found = [];
      [copy.width, copy.height] = [c.width, c.height];
      const pen = copy.getContext("2d", {{ willReadFrequently: true }});
      pen.drawImage(c, 0, 0);
      for (let h = 0; h < {GRID[1]}; h++) for (let w = 0; w < {GRID[2]}; w++) {{
        const [r, g, b] = pen.getImageData(Math.floor((w + .5) * c.width / {GRID[2]}),
          Math.floor((h + .5) * c.height / {GRID[1]}), 1, 1).data;
        if (r > b + 20) found.push([h, w]);
      }}
      return found; }})()"""
    return [(row, column) for row, column in page.evaluate(script)]


def all_lit(page: Page, panel: int = 0) -> list[tuple[int, int, int]]:
    return [(frame, *place) for frame in range(GRID[0]) for place in lit(page, canvas(frame, panel))]


def said(page: Page, panel: int = 0) -> str:
    return page.evaluate(f"document.querySelectorAll('.said')[{panel}].textContent")


def test_the_patch_that_is_looked_at_lights_up(page: Page) -> None:
    """By the class token, by a patch that is clicked, in every layer, step and head."""
    assert all_lit(page, 1) == [PLACE]  # joint: the class token sees all
    assert "from the class token. Most weight on frame 1, row 0, column 3 (100 %)" in said(page, 1)
    click(page, 2, 1, 0)  # in the other panel: the query is the same for both
    assert all_lit(page, 1) == [PLACE]
    assert "from the patch at frame 2, row 1, column 0. Most weight on frame 1, row 0, column 3" in said(page, 1)
    assert "hold 100 % of the weight" in said(page, 1)
    assert {place[0] for place in all_lit(page)} == {2}  # divided, space: it stays in its frame
    choose(page, "step", "time")
    assert {place[1:] for place in all_lit(page)} == {(1, 0)}  # and in time at its place
    click(page, 2, 0, 3)
    through_time = [(t, *PLACE[1:]) for t in range(GRID[0])]
    for layer, expected in ((0, [PLACE]), (1, through_time)):  # the first layer has carried it to the other frames
        choose(page, "layer", layer)
        for head in (0, 1, 2):
            choose(page, "head", head)
            assert all_lit(page) == expected
            name = ("head 0", "head 1", "mean of heads")[head]
            assert f"Layer {layer}, time, {name}, from the patch at frame 2, row 0, column 3." in said(page)
    choose(page, "step", "space")
    click(page, 1, 1, 4)
    assert all_lit(page) == [PLACE]
    label = page.evaluate(f"document.querySelector({canvas(1)!r}).getAttribute('aria-label')")
    assert label == "frame 1, 0.33 s: 100 % of the weight"
    assert page.evaluate("document.querySelector('.said').getAttribute('aria-live')") == "polite"
    choose(page, "show", 0, 1)
    assert "rollout: contributions to the prediction. Most weight on frame 1, row 0, column 3" in said(page, 1)


def test_keyboard(page: Page) -> None:
    def press(key: str, code: int = 0, text: str = "") -> None:
        before = page.evaluate(DRAWN)
        page.press(key, code, text)
        page.wait_for(f"{DRAWN} !== {before!r}")

    page.evaluate("document.querySelector('.frames').focus()")
    press("PageDown", 34)  # from the class token into the middle frame
    place = page.evaluate("[query.t, query.h, query.w].map((x, i) => Math.floor(x * [3, 2, 5][i]))")
    assert place == [1, 1, 2]
    for key, code in (("ArrowRight", 39), ("ArrowUp", 38), ("PageDown", 34), ("ArrowRight", 39), ("ArrowRight", 39)):
        press(key, code)
    place = page.evaluate("[query.t, query.h, query.w].map((x, i) => Math.floor(x * [3, 2, 5][i]))")
    assert place == [2, 0, 4]  # the last column: it goes no further
    press("ArrowLeft", 37)
    press("s", 83, "s")
    assert "Layer 1, time, mean of heads, from the patch at frame 2, row 0, column 3." in said(page)
    press("[", 219, "[")
    assert all_lit(page) == [PLACE]
    press("h", 72, "h")
    assert "Layer 0, time, head 0, from" in said(page)
    press("c", 67, "c")
    assert "from the class token. No weight on patches. 100 % on the class token." in said(page)
    assert all_lit(page) == []


def test_play_compare_and_appearance(page: Page) -> None:
    """The video runs under the map of the nearest frame; both sides on one scale; smooth, and in colours."""
    film = "#panels > section:nth-child(2) canvas.film"
    assert lit(page, film) == []  # the first frame
    page.click("#play")
    page.wait_for(f"document.querySelectorAll('.when')[1].textContent.endsWith('frame {PLACE[0]}')")
    page.click("#play")
    assert page.evaluate("document.querySelector('#play').textContent") == "Play"
    for at, found in ((0.0, []), (0.34, [PLACE[1:]]), (0.6, [])):
        page.evaluate(f"(() => {{ const s = document.querySelector('#seek'); s.value = {at};"
                      " s.dispatchEvent(new Event('input')) })()")  # fmt: skip
        assert lit(page, film) == found
    most = "[...document.querySelectorAll('.most')].map(e => e.textContent)"
    first, second = page.evaluate(most)
    assert (first, second) == ("33 %", "100 %")  # the class token of divided looks into each frame by itself
    page.click("#same")
    page.wait_for(f"{most}[0] === '100 %'")
    page.click("#smooth")
    page.click("#colours")
    page.wait_for("document.querySelector('#colours').checked")
    assert PLACE[1:] in lit(page, canvas(PLACE[0], 1))


def test_touch_and_a_narrow_dark_screen(browser: Browser, path: Path) -> None:
    page = browser.open(path, width=400, height=800, dark=True)
    page.call("Emulation.setTouchEmulationEnabled", {"enabled": True})
    page.wait_for(DRAWN)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    before, box = page.evaluate(DRAWN), page.box(canvas(2))
    point = {"x": box["x"] + 0.1 * box["width"], "y": box["y"] + 0.75 * box["height"]}
    page.call("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [point]})
    page.call("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    page.wait_for(f"{DRAWN} !== {before!r}")
    assert "from the patch at frame 2, row 1, column 0." in said(page)
    assert page.errors() == []


def test_hostile_names_are_shown_as_text(page: Page) -> None:
    shown = NASTY.replace("\x1b", "\\x1b").replace("\u2028", "\\u2028")
    assert page.evaluate("document.title") == shown
    assert shown in page.evaluate("document.querySelector('h1').textContent")
    assert page.evaluate("document.querySelectorAll('h2')[1].textContent") == shown
    assert page.evaluate("document.querySelector('.guesses li').textContent") == f"{shown} 75 %"
    assert page.evaluate("document.images.length") == 0
    unnamed = (
        "[...document.querySelectorAll('select, input, button')].filter(e => !(e.labels?.length || e.textContent))"
    )
    assert page.evaluate(f"{unnamed}.length") == 0


def test_the_address_says_what_is_shown(browser: Browser, path: Path) -> None:
    """A patch, layer, step and head after #; what the model does not have is left as it is."""
    page = browser.open(f"{path.as_uri()}#query=2,0,3&layer=0&step=time&head=1&seconds=1e9", width=1400, height=1000)
    page.wait_for(DRAWN)
    assert "Layer 0, time, head 1, from the patch at frame 2, row 0, column 3." in said(page)
    assert "from the patch at frame 2, row 0, column 3." in said(page, 1)  # joint has no step `time`
    assert all_lit(page) == [PLACE]
    assert page.evaluate("Number(by('seek').value)") == pytest.approx(page.evaluate("Number(by('seek').max)"))
    page = browser.open(f"{path.as_uri()}#query=2,0,99&layer=7", width=1400, height=1000)
    page.wait_for(DRAWN)
    assert "from the class token." in said(page)
    assert page.errors() == []


def test_a_picture_of_the_page(path: Path, tmp_path: Path) -> None:
    """As many pixels as the window has, and the patch that was asked for lights up."""
    plain = screenshot(path, tmp_path / "plain.png", size=(700, 600))
    other = screenshot(path, tmp_path / "new" / "patch.png", size=(700, 600), fragment="query=2,0,3")
    first, second = (np.asarray(Image.open(each).convert("RGB")) for each in (plain, other))
    assert first.shape == second.shape == (600, 700, 3)
    assert first.std() > 5
    assert (first != second).any()


def test_a_browser_that_makes_no_picture(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHROMIUM", "/bin/false")
    with pytest.raises(InputError, match=f"/bin/false: no picture of {path.name}"):
        screenshot(path, tmp_path / "x.png", size=(700, 600))
    monkeypatch.setattr(report_browser, "find_browser", lambda: None)
    with pytest.raises(InputError, match="no Chromium found"):
        screenshot(path, tmp_path / "x.png", size=(700, 600))
