"""Sliding tile attention (Zhang et al., Fast Video Generation with Sliding Tile Attention, arXiv 2502.04507).

Every token of a tile sees the tiles in a window around it.  The window is counted in tiles, is moved inwards at the
edges and reaches one tile further to the left where its size is even, as in attention-gym's `sta.py`, which counts it
in tokens.  There the canvas must be a multiple of the tile; here the last tile of an axis is shorter, and a window that
is longer than the axis is the whole axis.  The class token takes the part of the text tokens: it sees and is seen by
all.
"""

from timesformer.attention.rules import Size, Window
from timesformer.attention.scheme import Encoder, Scheme, Step
from timesformer.attention.tiles import Tiles


def sliding_tile(tile: Size = (2, 4, 4), window: Size = (3, 3, 3), causal: bool = False) -> Scheme:
    """Return the scheme with tiles of this size, in tokens, and windows of this size, in tiles.

    `causal`: a tile sees none that is later in time.
    """
    step = Step("sliding", (Tiles(tile, Window(window, causal=causal)),), cls="global")
    return Scheme("sliding_tile", (Encoder(block=((step,),)),), code="STA", title="Sliding tile")


SCHEMES = [sliding_tile]
