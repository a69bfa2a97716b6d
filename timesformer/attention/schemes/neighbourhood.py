"""Neighbourhood attention (Hassani et al., arXiv 2204.07143; strides from arXiv 2504.16922), as in NATTEN.

Every token sees the window of `window` tokens around it, which is moved inwards at the edges, so that all tokens see as
many.  A window of an even size reaches one further to the left.  With a stride, the tokens of a stride group share the
window of the one in their middle; with a dilation, a token sees every d-th one, of its own residue.  `causal` is
NATTEN's `is_causal` along time.

NATTEN refuses a window (times dilation) that is longer than the axis; here it is the whole axis.  attention-gym's
`natten.py` differs where the size is even: it keeps one key more.  There are no relative position biases.  NATTEN has
no class token; here it sees and is seen by all.
"""

from timesformer.attention.rules import ONE, Size, Window
from timesformer.attention.scheme import Encoder, Scheme, Step
from timesformer.attention.tiles import Tiles


def neighbourhood(
    window: Size = (3, 7, 7),
    stride: Size = ONE,
    dilation: Size = ONE,
    causal: bool = False,
    tile: Size = (2, 4, 4),
) -> Scheme:
    """Return the scheme with windows of this size, in tokens.

    `tile` decides only which queries are computed together, with a mask where their windows differ.
    """
    tokens = Window(window, stride, dilation, causal)
    step = Step("neighbourhood", (Tiles(tile, tokens=tokens),), cls="global")
    return Scheme("neighbourhood", (Encoder(block=((step,),)),), code="NA", title="Neighbourhood")


SCHEMES = [neighbourhood]
