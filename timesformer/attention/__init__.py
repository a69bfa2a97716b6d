"""Attention schemes.

A scheme is a list of steps.  A step splits the token grid into groups, attends inside each group, and puts the tokens
back.
"""

from timesformer.attention.attend import attend
from timesformer.attention.backends import BACKENDS, BackendError
from timesformer.attention.mixer import Mixer, MixerInputs
from timesformer.attention.operator import StepOperator, operator
from timesformer.attention.oracle import oracle
from timesformer.attention.partition import ALL, EACH, Grid, Partition, Split, blocks, stride
from timesformer.attention.predicate import Predicate
from timesformer.attention.reach import After, all_reached, first_meeting, meet, reach
from timesformer.attention.registry import SchemeSource, build, is_known, load_file, names, register, source_of
from timesformer.attention.scheme import Encoder, Scheme, Step

__all__ = [
    "ALL",
    "BACKENDS",
    "EACH",
    "After",
    "BackendError",
    "Encoder",
    "Grid",
    "Mixer",
    "MixerInputs",
    "Partition",
    "Predicate",
    "Scheme",
    "SchemeSource",
    "Split",
    "Step",
    "StepOperator",
    "all_reached",
    "attend",
    "blocks",
    "build",
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
    "stride",
]
