"""Switches of the backbone that later encoders have, in divided attention: positions, qk-norm, registers, gates.

The image model from which a run starts has the same switches.
"""

from __future__ import annotations

from typing import Any

from timesformer_experiments.paper.ablation import Ablation
from timesformer_experiments.paper.variants import Variant


def _switched(key: str, label: str, change: dict[str, Any], skip: tuple[str, ...] = ()) -> Variant:
    changes = {f"model.{name}": value for name, value in change.items()}
    return Variant(key, label, changes, image=changes, skip=skip)


ABLATION = Ablation(
    name="switches",
    title="Switches of the backbone in divided attention",
    axis="Switch",
    variants=(
        Variant("learned", "learned positions, no switch"),
        _switched("none", "no positions", {"position": "none"}),
        _switched("rope", "rotary positions", {"position": "rope"}),
        _switched("qk_norm", "norm of queries and keys", {"qk_norm": True}, skip=("quick/motion",)),
        _switched("registers", "4 registers", {"registers": 4}, skip=("quick/motion",)),
        _switched("gate", "a gate for each head", {"gate": "head"}, skip=("quick/motion",)),
    ),
    base="learned",
    counted=(174, 3),
)
ARTEFACT = ABLATION.artefact()
