"""Table 4 of the paper: divided attention without positions, with positions in space, and in space and time.

Without temporal positions, the model cannot recognise the order of the frames, which matters in `motion` but not in
`appearance`.
"""

from __future__ import annotations

from timesformer_experiments.paper.ablation import Ablation
from timesformer_experiments.paper.variants import Variant
from timesformer_experiments.report.published import published

ABLATION = Ablation(
    name="table4",
    title="Table 4: positional embeddings",
    axis="Positions",
    variants=(
        Variant("none", "none", {"model.position": "none"}),
        Variant("space", "space only", {"model.position": "space"}),
        Variant("space_time", "space and time"),
    ),
    base="space_time",
    rows=lambda: published("table4", "positions").rows,
    sources=(("table4", "positions"),),
    counted=(174, 3),
)
ARTEFACT = ABLATION.artefact()
