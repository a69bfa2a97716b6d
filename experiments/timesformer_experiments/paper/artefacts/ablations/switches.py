"""Switches of the backbone that later encoders use, in divided attention: positions, norms of queries and keys,
registers and gates.  The paper has none of them.

All variants start from Table 1's image model, which has none of the switches either: what it lacks starts anew, and its
positions are dropped where the variant has none or rotates them.
"""

from __future__ import annotations

from timesformer_experiments.paper.ablation import Ablation
from timesformer_experiments.paper.variants import Variant

SLOW = ("quick/motion",)
"""Training on `motion` takes minutes a variant."""

ABLATION = Ablation(
    name="switches",
    title="Switches of later encoders in divided attention",
    axis="Switch",
    variants=(
        Variant("learned", "learned positions (Table 1)", skip=SLOW),
        Variant("none", "no positions", {"model.position": "none"}, skip=SLOW),
        Variant("rope", "rotary positions", {"model.position": "rope"}, skip=SLOW),
        Variant("qk_norm", "norm of queries and keys", {"model.qk_norm": True}, skip=SLOW),
        Variant("registers", "4 registers", {"model.registers": 4}, skip=SLOW),
        Variant("gate_head", "gate for each head", {"model.gate": "head"}, skip=SLOW),
        Variant("gate_channel", "gate for each channel", {"model.gate": "channel"}, skip=SLOW),
    ),
    base="learned",
    counted=(174, 3),
)
ARTEFACT = ABLATION.artefact()
