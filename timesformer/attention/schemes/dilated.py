"""Dilated windows: every d-th tile of a window, so that as many keys reach d times as far.

With tiles of one token this is dilated neighbourhood attention (Hassani and Shi, arXiv 2209.15001), as in NATTEN: a
query sees keys of its own residue alone, and the window is moved inwards at the edges.  attention-gym's
`dilated_sliding_window.py` is another pattern, in one dimension: its window is cut off at the edges, and spans
`window_size` to each side.  The class token sees and is seen by all.
"""

from timesformer.attention.rules import Size, Window
from timesformer.attention.scheme import Encoder, Scheme, Step
from timesformer.attention.tiles import Tiles


def dilated(
    tile: Size = (1, 2, 2), window: Size = (3, 3, 3), dilation: Size = (2, 2, 2), causal: bool = False
) -> Scheme:
    """Return the scheme with tiles of this size, in tokens, and windows and dilations in tiles."""
    step = Step("dilated", (Tiles(tile, Window(window, dilation=dilation, causal=causal)),), cls="global")
    return Scheme("dilated", (Encoder(block=((step,),)),), code="DNA", title="Dilated")


SCHEMES = [dilated]
