"""Axial attention (T+W+H): time, then width, then height."""

from timesformer.attention.partition import ALL, EACH, Partition
from timesformer.attention.scheme import Encoder, Scheme, Step
from timesformer.attention.schemes.divided import time

WIDTH = Partition(t=EACH, h=EACH, w=ALL)
HEIGHT = Partition(t=EACH, h=ALL, w=EACH)

width = Step("width", (WIDTH,), extra_linear=True)
height = Step("height", (HEIGHT,))

SCHEMES = [Scheme(name="axial", encoders=(Encoder(block=((time,), (width,), (height,))),), code="T+W+H", title="Axial")]
