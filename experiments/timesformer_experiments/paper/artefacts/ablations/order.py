"""Section 4.7 of the paper: temporal attention before, after or in parallel with spatial attention in a block."""

from __future__ import annotations

from timesformer_experiments.paper.ablation import Ablation
from timesformer_experiments.paper.variants import Variant
from timesformer_experiments.report.published import published

ABLATION = Ablation(
    name="order",
    title="Order of time and space in divided attention (section 4.7)",
    axis="Order in a block",
    variants=(
        Variant("divided", "time, then space"),
        Variant("divided_st", "space, then time", {"model.attention": "divided_st"}),
        Variant(
            "divided_parallel",
            "both at once, added",
            {"model.attention": "divided_parallel"},
            skip=("quick/motion",),
        ),
    ),
    base="divided",
    rows=lambda: published("ablations", "order").rows,
    sources=(("ablations", "order"),),
    remarks=("ablations",),
    counted=(174, 3),
)
ARTEFACT = ABLATION.artefact()
