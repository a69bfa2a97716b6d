"""A scheme of a user's own: all parities of the clip, then each frame."""

from timesformer.attention.partition import ALL, EACH, Partition, stride
from timesformer.attention.scheme import Encoder, Scheme, Step

parities = Step("parities", (Partition(t=ALL, h=stride(2), w=stride(2)),))
space = Step("space", (Partition(t=EACH, h=ALL, w=ALL),))

SCHEMES = [Scheme(name="checkers", encoders=(Encoder(block=((parities,), (space,))),), title="Checkers")]
