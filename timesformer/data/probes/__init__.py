"""Controlled video datasets, each with one thing that it tests.

`appearance` (what is seen) and `motion` (how it moves), `mixture` (a dial between the two), `order` (which of two
events came first, at a long range), `detail` (a texture that shows only at higher resolution).
"""

from timesformer.data.probes.difficulty import DIFFICULTY, Difficulty
from timesformer.data.probes.generate import ProbeInfo, make_probe, open_probe
from timesformer.data.probes.kind import Kind
from timesformer.data.probes.registry import DIAL_TYPES, KINDS, LABELS, make_kind
from timesformer.data.probes.scene import MOTIONS
from timesformer.data.probes.shapes import FAMILIES

__all__ = [
    "DIAL_TYPES",
    "DIFFICULTY",
    "FAMILIES",
    "KINDS",
    "LABELS",
    "MOTIONS",
    "Difficulty",
    "Kind",
    "ProbeInfo",
    "make_kind",
    "make_probe",
    "open_probe",
]
