"""Joint space-time attention (ST): every patch attends to every patch of the clip."""

from timesformer.attention.partition import ALL, Partition
from timesformer.attention.scheme import Encoder, Scheme, Step

JOINT = Partition(t=ALL, h=ALL, w=ALL)

SCHEMES = [
    Scheme(
        name="joint",
        encoders=(Encoder(block=((Step("joint", (JOINT,)),),)),),
        code="ST",
        title="Joint Space-Time",
        aliases=("joint_space_time",),
    )
]
