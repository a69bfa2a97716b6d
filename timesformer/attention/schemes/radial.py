"""Radial attention (Li et al., arXiv 2506.19852): the density of keys falls with the distance in time.

The rule is `timesformer.attention.rules.Radial`, on tiles of a frame.  The published masks are in blocks of 128 tokens
in raster order, and their windows are intervals of a frame's flattened tokens; here tiles are rectangles, and windows
have rows and columns.  As there, the frame itself is seen as a whole, the share of a frame halves each time that the
distance doubles, frames are left out where it falls below one tile, and every query sees the first frame.  The class
token sees and is seen by all.
"""

from timesformer.attention.rules import Radial, Size
from timesformer.attention.scheme import Encoder, Scheme, Step
from timesformer.attention.tiles import Tiles


def radial(tile: Size = (1, 7, 7), decay: float = 2.0, sink: bool = True) -> Scheme:
    """Return the scheme; a frame at distance 1 is seen to the share decay / 2, and `sink` shows all the first frame."""
    step = Step("radial", (Tiles(tile, Radial(decay, sink)),), cls="global")
    return Scheme("radial", (Encoder(block=((step,),)),), code="RA", title="Radial")


SCHEMES = [radial]
