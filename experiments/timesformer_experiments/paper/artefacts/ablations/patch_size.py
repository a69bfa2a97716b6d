"""Section 4.7 of the paper: patches of twice the size; on the probes 16 instead of 8 pixels in frames of 32."""

from __future__ import annotations

from timesformer_experiments.paper.ablation import Ablation
from timesformer_experiments.paper.variants import Variant
from timesformer_experiments.report.published import published

ABLATION = Ablation(
    name="patch_size",
    title="Patch size of divided attention (section 4.7)",
    axis="Patch, in the paper of 224 pixels, here of 32",
    variants=(
        Variant("16", "16 pixels, here 8"),
        Variant("32", "32 pixels, here 16", {"model.patch_size": 16}, paper={"patch_size": 32}),
    ),
    base="16",
    rows=lambda: {str(row["patch_size"]): row for row in published("ablations", "patch_size").rows},
    sources=(("ablations", "patch_size"),),
    counted=(174, 3),
)
ARTEFACT = ABLATION.artefact()
