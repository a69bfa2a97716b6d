"""Attention schemes: a scheme is a list of steps; a step splits the token grid, attends inside each group, and puts
the tokens back."""

from timesformer.attention.attend import attend
from timesformer.attention.backends import BACKENDS, BackendError
from timesformer.attention.mixer import Mixer, MixerInputs
from timesformer.attention.operator import StepOperator, operator
from timesformer.attention.oracle import oracle
from timesformer.attention.partition import ALL, EACH, Grid, Partition, Split, blocks, stride
from timesformer.attention.predicate import Predicate
from timesformer.attention.registry import build, load_file, names, register
from timesformer.attention.scheme import Encoder, Scheme, Step

__all__ = [
    "ALL",
    "BACKENDS",
    "EACH",
    "BackendError",
    "Encoder",
    "Grid",
    "Mixer",
    "MixerInputs",
    "Partition",
    "Predicate",
    "Scheme",
    "Split",
    "Step",
    "StepOperator",
    "attend",
    "blocks",
    "build",
    "load_file",
    "names",
    "operator",
    "oracle",
    "register",
    "stride",
]
