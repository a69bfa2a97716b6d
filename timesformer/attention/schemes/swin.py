"""Shifted windows (Liu et al., Video Swin Transformer, arXiv 2106.13230), as partitions.

Blocks alternate: in the first, third, … block windows begin at the edge, in the others they are shifted by half their
size.  Along an axis that is no longer than a window there is one window and no shift.  Video Swin rolls the tokens and
masks what the roll brought together, which gives the same groups, shorter at the edges; it pads the grid to whole
windows where they do not fit, and padded tokens are keys in it, which they are not here.

Only its windows are here: no patch merging, no relative position bias.  Video Swin has no class token; here it is
copied into every window, and `cls_policy` may change that.
"""

from timesformer.attention.partition import Partition, windows
from timesformer.attention.rules import Size, size_of
from timesformer.attention.scheme import Encoder, Scheme, Step


def swin(window: Size = (8, 7, 7)) -> Scheme:
    """Return the scheme with windows of this size, in tokens.

    Raises:
        InputError: not three positive integers.
    """
    window = size_of("window", window)
    plain = Partition(*(windows(n) for n in window))
    shifted = Partition(*(windows(n, shift=n // 2) for n in window))
    return Scheme(
        "swin",
        (Encoder(block=((Step("window", (plain,)),),), more=(((Step("window", (shifted,)),),),)),),
        code="SW",
        title="Shifted windows",
    )


SCHEMES = [swin]
