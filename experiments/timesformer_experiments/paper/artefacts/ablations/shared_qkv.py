"""Projections to queries, keys and values: separate in each step of a block, or shared by its steps.

The paper states that schemes of several steps learn separate projections, and gives no numbers.
"""

from __future__ import annotations

from timesformer_experiments.paper.ablation import Ablation
from timesformer_experiments.paper.variants import Variant

ABLATION = Ablation(
    name="shared_qkv",
    title="Separate or shared projections to queries, keys and values",
    axis="Scheme and projections",
    variants=(
        Variant("divided", "divided, separate"),
        Variant("divided_shared", "divided, shared", {"model.share_qkv": True}, skip=("quick/motion",)),
        Variant("axial", "axial, separate", {"model.attention": "axial"}),
        Variant(
            "axial_shared",
            "axial, shared",
            {"model.attention": "axial", "model.share_qkv": True},
            skip=("quick",),
        ),
    ),
    base="divided",
    pairs=(("divided_shared", "divided"), ("axial_shared", "axial")),
    remarks=("ablations",),
    counted=(174, 3),
)
ARTEFACT = ABLATION.artefact()
