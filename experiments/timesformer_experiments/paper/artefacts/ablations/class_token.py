"""Treatment of the class token in divided attention, on which the paper's equations and released code disagree."""

from __future__ import annotations

from timesformer_experiments.paper.ablation import Ablation
from timesformer_experiments.paper.variants import Variant

ABLATION = Ablation(
    name="class_token",
    title="The class token in divided attention",
    axis="Class token",
    variants=(
        Variant("released", "released code: absent from time, copied into every frame"),
        Variant(
            "replicated", "copied into every group of both steps", {"model.cls_policy": "replicated"}, skip=("quick",)
        ),
        Variant(
            "global",
            "the paper's equations: a key in every group, sees every patch",
            {"model.cls_policy": "global"},
            skip=("quick/motion",),
        ),
    ),
    base="released",
    remarks=("ablations",),
    counted=(174, 3),
)
ARTEFACT = ABLATION.artefact()
