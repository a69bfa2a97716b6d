"""Attention schemes.

A scheme is a list of steps.  A step splits the token grid into groups, attends inside each group, and puts the tokens
back.
"""

from timesformer.attention.attend import attend
from timesformer.attention.backends import BACKENDS, BackendError
from timesformer.attention.mixer import Mixer, MixerInputs
from timesformer.attention.operator import StepOperator, operator
from timesformer.attention.oracle import oracle
from timesformer.attention.partition import ALL, EACH, Grid, Partition, Split, blocks, stride, windows
from timesformer.attention.predicate import Predicate
from timesformer.attention.reach import After, all_reached, first_meeting, meet, reach
from timesformer.attention.registry import (
    SchemeSource,
    build,
    chosen,
    is_known,
    load_file,
    names,
    register,
    source_of,
    spelling,
)
from timesformer.attention.rules import Earlier, Everywhere, Radial, Rule, Window
from timesformer.attention.scheme import Encoder, Scheme, Step
from timesformer.attention.tiles import Tiles

__all__ = [
    "ALL",
    "BACKENDS",
    "EACH",
    "After",
    "BackendError",
    "Earlier",
    "Encoder",
    "Everywhere",
    "Grid",
    "Mixer",
    "MixerInputs",
    "Partition",
    "Predicate",
    "Radial",
    "Rule",
    "Scheme",
    "SchemeSource",
    "Split",
    "Step",
    "StepOperator",
    "Tiles",
    "Window",
    "all_reached",
    "attend",
    "blocks",
    "build",
    "chosen",
    "first_meeting",
    "is_known",
    "load_file",
    "meet",
    "names",
    "operator",
    "oracle",
    "reach",
    "register",
    "source_of",
    "spelling",
    "stride",
    "windows",
]
