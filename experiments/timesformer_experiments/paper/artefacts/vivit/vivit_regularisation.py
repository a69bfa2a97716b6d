"""ViViT's ladder of regularisation: each row adds one technique to the row above.

It runs on `appearance`, whose clips can be mirrored. `mixture`, which has the classes of `appearance` and `motion`,
stands in for K400, from which the second row is initialised.
"""

from __future__ import annotations

from typing import Any

from timesformer_experiments.paper.ablation import Ablation
from timesformer_experiments.paper.variants import Variant
from timesformer_experiments.report.published import published

LADDER: dict[str, tuple[str, dict[str, Any]]] = {
    "augmentation": ("crop, flip, colour jitter", {"data.colour_jitter": 0.8}),
    "pretraining": ("+ start from mixture, in ViViT K400", {}),
    "drop_path": ("+ stochastic depth", {"model.drop_path_rate": 0.2}),
    "randaugment": ("+ random augment", {"data.randaugment": {"ops": 2, "magnitude": 15}}),
    "label_smoothing": ("+ label smoothing", {"recipe.label_smoothing": 0.2}),
    "mixup": ("+ mixup", {"recipe.mixup_alpha": 0.1}),
}


def _variants() -> tuple[Variant, ...]:
    change: dict[str, Any] = {"model.attention": "factorised_encoder"}
    found = []
    for key, (label, added) in LADDER.items():
        change = {**change, **added}
        found.append(Variant(key, label, change, through=None if key == "augmentation" else "mixture"))
    return tuple(found)


ABLATION = Ablation(
    name="vivit_regularisation",
    title="ViViT: a ladder of regularisation",
    axis="Added",
    variants=_variants(),
    base="augmentation",
    pairs=tuple(zip(list(LADDER)[1:], list(LADDER)[:-1], strict=True)),
    rows=lambda: {row["key"]: row for row in published("vivit", "regularisation").rows},
    sources=(("vivit", "regularisation"),),
    remarks=("vivit",),
    probes={"appearance": "epic_kitchens"},
)
ARTEFACT = ABLATION.artefact()
