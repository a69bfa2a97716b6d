"""Section 4.7 of the paper: a smaller and a larger transformer.

On the probes these have half the width, and a third more width and depth. Each is initialised from an image model of
its own size.
"""

from __future__ import annotations

from timesformer_experiments.paper.ablation import Ablation
from timesformer_experiments.paper.variants import Variant
from timesformer_experiments.report.published import published

ABLATION = Ablation(
    name="backbone",
    title="Size of the transformer in divided attention (section 4.7)",
    axis="Transformer",
    variants=(
        Variant(
            "small",
            "ViT-S, here 48 wide",
            {"model.embed_dim": 48},
            paper={"embed_dim": 384, "num_heads": 6},
        ),
        Variant("base", "ViT-B, here 96 wide, 3 deep"),
        Variant(
            "large",
            "ViT-L, here 128 wide, 4 deep",
            {"model.embed_dim": 128, "model.depth": 4},
            paper={"embed_dim": 1024, "depth": 24, "num_heads": 16},
            skip=("quick",),
        ),
    ),
    base="base",
    rows=lambda: published("ablations", "backbone").rows,
    sources=(("ablations", "backbone"),),
    counted=(174, 3),
)
ARTEFACT = ABLATION.artefact()
