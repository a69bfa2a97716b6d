"""Space-only attention (S): every frame is an image; the frames' tokens are averaged before the last norm."""

from timesformer.attention.partition import ALL, EACH, Partition
from timesformer.attention.scheme import Encoder, Scheme, Step

SPACE = Partition(t=EACH, h=ALL, w=ALL)

SCHEMES = [
    Scheme(
        name="space",
        encoders=(Encoder(block=((Step("space", (SPACE,)),),), class_tokens="frame"),),
        position="space",
        code="S",
        title="Space",
        aliases=("space_only",),
    )
]
