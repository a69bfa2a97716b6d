"""The picture of who can depend on whom shows what its declaration says."""

from pathlib import Path

import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from typer.testing import CliRunner

from tests.attention.custom import SHIPPED
from timesformer import InputError
from timesformer.attention import EACH, Encoder, Partition, Scheme, Step, build
from timesformer.maps import draw_reach
from timesformer.maps.reach import MET, NOT_YET, QUERY, REACHED
from timesformer_experiments.cli.main import app

LETTERS = {QUERY.lower(): "Q", MET.lower(): "m", REACHED.lower(): "r", to_hex(NOT_YET): "."}


def letters(figure: Figure) -> list[str]:
    """Per row of panels: the patches row by row, a space between frames."""
    found: dict[float, list[tuple[float, str]]] = {}
    for ax in figure.axes:
        patches = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
        patches.sort(key=lambda patch: (patch.get_y(), patch.get_x()))
        place = ax.get_subplotspec()
        assert place is not None
        text = "".join(LETTERS[to_hex(patch.get_facecolor())] for patch in patches)
        found.setdefault(place.rowspan.start, []).append((place.colspan.start, text))
    return [" ".join(text for _, text in sorted(found[line])) for line in sorted(found)]


def test_every_step_by_hand() -> None:
    """Two rows and two columns in three frames; the query in frame 0, row 0, column 1."""
    query = (0, 0, 1)

    def drawn(name: str, steps: int | None = None) -> list[str]:
        return letters(draw_reach(build(name), (3, 2, 2), query, steps=steps))

    assert drawn("divided") == [".Q.. .m.. .m..", "mQmm rmrr rmrr"]
    assert drawn("divided_parallel", 1) == ["mQmm .m.. .m.."]
    assert drawn("axial") == [".Q.. .m.. .m..", "mQ.. rm.. rm..", "mQrm rmrr rmrr"]
    assert drawn("joint", 2) == ["mQmm mmmm mmmm"] * 2
    assert drawn("space") == ["mQmm .... ...."] * 2


def test_the_bridge_shows() -> None:
    """Every patch alone with the class token: after two steps it has carried everything everywhere."""
    alone = Step("alone", (Partition(EACH, EACH, EACH),))
    scheme = Scheme("alone", (Encoder(((alone,),)),))
    assert letters(draw_reach(scheme, (2, 1, 2), (1, 0, 1))) == [".. .Q", "rr rQ"]
    assert letters(draw_reach(scheme, (2, 1, 2), (1, 0, 1), bridge=False)) == [".. .Q", ".. .Q"]


def test_labels_and_length() -> None:
    figure = draw_reach(build("divided"), (2, 2, 2), blocks=2)
    assert [ax.get_ylabel() for ax in figure.axes if ax.get_ylabel()] == [
        "step 1, block 1\ntime",
        "step 2, block 1\nspace",
        "step 3, block 2\ntime",
        "step 4, block 2\nspace",
    ]
    assert "with the class token" in figure.get_suptitle()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "the patch",
        "met directly",
        "reached through others",
        "not yet",
    ]


@pytest.mark.parametrize("name", [name for name in SHIPPED if len(build(name).encoders) == 1])
def test_every_scheme_is_drawn(name: str) -> None:
    last = letters(draw_reach(build(name), (2, 2, 3)))[-1]
    assert last.count("Q") == 1
    assert ("." in last) == (name == "space")


def test_refusals() -> None:
    with pytest.raises(InputError, match="query"):
        draw_reach(build("joint"), (2, 3, 4), (2, 0, 0))
    with pytest.raises(InputError, match="passes on one token per frame"):
        draw_reach(build("factorised_encoder"))
    with pytest.raises(InputError, match="expected 1 to 16 steps to draw, got 18"):
        draw_reach(build("divided"), blocks=9)
    with pytest.raises(InputError, match="expected one of them"):
        draw_reach(build("divided"), steps=1, blocks=1)


def test_from_the_command_line(tmp_path: Path) -> None:
    def run(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["draw", *words])
        return done.exit_code, " ".join(done.output.split())

    picture = tmp_path / "reach.svg"
    words = ("divided", "--reach", "--steps", "1", "--no-bridge", "--grid", "2x2x3", "--out", str(picture))
    assert run(*words)[0] == 0
    assert picture.read_text().lstrip().startswith("<?xml")
    code, said = run("joint", "--steps", "1", "--out", str(picture))
    assert code == 2
    assert "expected only together with --reach" in said
    code, said = run("factorised_encoder", "--reach", "--out", str(picture))
    assert code == 2
    assert "factorised_encoder" in said
