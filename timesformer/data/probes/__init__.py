"""Synthetic video datasets (probes), each of which tests one ability.

`appearance` (shape and hue of an object), `motion` (how an object moves), `mixture` (both, in an adjustable share),
`order` (which of two events came first, over a long range), `detail` (a texture visible only at higher resolution).
Probes of who must meet whom: `match`, `spin`, `contact`, `cue`, `bind` and `shell`.
"""

from timesformer.data.probes.difficulty import DIFFICULTY, Difficulty
from timesformer.data.probes.generate import ProbeInfo, generated_from, make_probe, open_probe
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
    "generated_from",
    "make_kind",
    "make_probe",
    "open_probe",
]
