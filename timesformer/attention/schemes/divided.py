"""Divided space-time attention (T+S), and the reversed and parallel forms of the ablation in section 4.7."""

from timesformer.attention.partition import ALL, EACH, Partition
from timesformer.attention.scheme import Encoder, Scheme, Step
from timesformer.attention.schemes.space import SPACE

TIME = Partition(t=ALL, h=EACH, w=EACH)

time = Step("time", (TIME,), cls="absent", extra_linear=True)
space = Step("space", (SPACE,))

SCHEMES = [
    Scheme(
        name="divided",
        encoders=(Encoder(block=((time,), (space,))),),
        code="T+S",
        title="Divided Space-Time",
        aliases=("divided_space_time",),
    ),
    Scheme(
        name="divided_st",
        encoders=(Encoder(block=((space,), (time,))),),
        code="S+T",
        title="Divided, space before time",
    ),
    Scheme(
        name="divided_parallel",
        encoders=(Encoder(block=((time, space),)),),
        code="T|S",
        title="Divided, time beside space",
    ),
]
