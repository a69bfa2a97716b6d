"""Initialisation of divided attention: random, from an image model, or from that model after training on another probe.

The paper's analogues are ImageNet weights (64.8 % on K400 without them), and K400 before HowTo100M.
"""

from __future__ import annotations

from typing import Any

from timesformer_experiments.paper.ablation import Ablation, Rows
from timesformer_experiments.paper.variants import Variant
from timesformer_experiments.report.published import published


def _rows() -> Rows:
    (nothing,) = published("table2", "from_scratch").rows
    start: dict[str, Any] = next(
        row
        for row in published("table3", "models").rows
        if (row["model"], row["pretraining"]) == ("TimeSformer", "ImageNet-21K")
    )
    return {"none": nothing, "stills": start}


ABLATION = Ablation(
    name="pretraining",
    title="Staged pretraining of divided attention",
    axis="Starts from",
    variants=(
        Variant("none", "nothing", image=None),
        Variant("stills", "stills, in the paper ImageNet-21K"),
        Variant("stills_then_other", "stills, then the other probe", through="other", skip=("quick/motion",)),
    ),
    base="stills",
    rows=_rows,
    sources=(("table2", "from_scratch"), ("table3", "models")),
)
ARTEFACT = ABLATION.artefact()
