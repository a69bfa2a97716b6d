"""Linear layer after temporal attention: in the released code and the paper's counts, but not in its equations."""

from __future__ import annotations

from timesformer_experiments.paper.ablation import Ablation
from timesformer_experiments.paper.variants import Variant

ABLATION = Ablation(
    name="temporal_fc",
    title="Divided attention with and without the linear layer after temporal attention",
    axis="Linear layer after temporal attention",
    variants=(
        Variant("with", "with (released code)"),
        Variant("without", "without (equations)", {"model.temporal_fc": False}, skip=("quick/motion",)),
    ),
    base="with",
    remarks=("table2",),
    counted=(174, 3),
)
ARTEFACT = ABLATION.artefact()
