"""The picture of a scheme shows what its declaration says."""

import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tests.attention.custom import SCHEMES, SHIPPED
from timesformer import InputError
from timesformer.attention import build
from timesformer.maps import draw_scheme


def coloured(figure: Figure) -> list[set[tuple[int, int]]]:
    """Per panel: the (row, column) of every patch that is not white."""
    return [
        {
            (int(patch.get_y()), int(patch.get_x()))
            for patch in ax.patches
            if isinstance(patch, Rectangle) and to_hex(patch.get_facecolor()) != "#ffffff"
        }
        for ax in figure.axes
    ]


def test_divided_on_a_rectangular_grid() -> None:
    panels = coloured(draw_scheme(build("divided"), (2, 2, 3), (1, 0, 2)))
    frame = {(h, w) for h in range(2) for w in range(3)}
    assert panels == [{(0, 2)}, {(0, 2)}, set(), frame]


def test_local_global_as_in_figure_2() -> None:
    panels = coloured(draw_scheme(build("local_global"), (3, 4, 4), (0, 0, 0)))
    block, lattice = {(0, 0), (0, 1), (1, 0), (1, 1)}, {(0, 0), (0, 2), (2, 0), (2, 2)}
    assert panels == [block, block, block, lattice, set(), lattice]


@pytest.mark.parametrize("scheme", [build(name) for name in SHIPPED] + SCHEMES, ids=lambda scheme: scheme.name)
def test_every_scheme_is_drawn(scheme) -> None:  # type: ignore[no-untyped-def]
    panels = coloured(draw_scheme(scheme, (2, 3, 4)))
    assert len(panels) == 2 * sum(len(step.over) for encoder in scheme.encoders for step in encoder.steps)
    assert any(panels)


def test_query_outside_the_grid() -> None:
    with pytest.raises(InputError, match="query"):
        draw_scheme(build("joint"), (2, 3, 4), (2, 0, 0))
