"""Two controlled video datasets: `appearance` (what is seen) and `motion` (how it moves)."""

from timesformer.data.probes.difficulty import DIFFICULTY, Difficulty
from timesformer.data.probes.generate import LABELS, ProbeInfo, make_probe, open_probe
from timesformer.data.probes.scene import MOTIONS
from timesformer.data.probes.shapes import FAMILIES

__all__ = ["DIFFICULTY", "FAMILIES", "LABELS", "MOTIONS", "Difficulty", "ProbeInfo", "make_probe", "open_probe"]
