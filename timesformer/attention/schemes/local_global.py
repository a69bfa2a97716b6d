"""Sparse local-global attention (L+G).

The paper describes it in one sentence: each patch first attends to "the neighboring F x H/2 x W/2 patches", then over
the whole clip "using a stride of 2 patches" in time and both spatial dimensions.  The authors say that they implemented
it with einops (issue 4 of their repository), which gives fixed quadrants and parities: `local_global`.  The other
readings are `window` (a window centred on the query) for the first step and `fixed` (one strided set of keys for all
queries) for the second.
"""

from torch import Tensor

from timesformer.attention.partition import ALL, Grid, Partition, blocks, stride
from timesformer.attention.predicate import Coordinates, Predicate
from timesformer.attention.scheme import Encoder, Scheme, Step

QUADRANTS = Partition(t=ALL, h=blocks(2), w=blocks(2))
PARITIES = Partition(t=stride(2), h=stride(2), w=stride(2))


def centred_window(query: Coordinates, key: Coordinates, grid: Grid) -> Tensor:
    """Keys in all frames within a window around the query, of half the rows and columns (rounded up)."""
    height, width = (grid[1] + 1) // 2, (grid[2] + 1) // 2
    row, column = key[1] - query[1] + height // 2, key[2] - query[2] + width // 2
    return (row >= 0) & (row < height) & (column >= 0) & (column < width)


def even_keys(query: Coordinates, key: Coordinates, grid: Grid) -> Tensor:
    """Keys with even frame, row and column, the same for every query."""
    return (key[0] % 2 == 0) & (key[1] % 2 == 0) & (key[2] % 2 == 0)


LOCAL = {
    "": Step("local", (QUADRANTS,), extra_linear=True),
    "_window": Step("local", (Predicate(centred_window),), cls="global", extra_linear=True),
}
GLOBAL = {
    "": Step("global", (PARITIES,)),
    "_fixed": Step("global", (Predicate(even_keys),), cls="global"),
}

SCHEMES = [
    Scheme(
        name=f"local_global{window}{fixed}",
        encoders=(Encoder(block=((local,), (globally,))),),
        code="L+G",
        title="Sparse Local Global" + ", centred window" * bool(window) + ", fixed keys" * bool(fixed),
    )
    for window, local in LOCAL.items()
    for fixed, globally in GLOBAL.items()
]
