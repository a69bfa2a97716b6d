"""Table 3 of the paper: pretraining on more or fewer images.

On the probes, a quarter of the stills stands in for ImageNet-1K and all of them for ImageNet-21K. The larger inputs of
HR and L are counted, not trained.
"""

from __future__ import annotations

from timesformer_experiments.paper.ablation import Ablation
from timesformer_experiments.paper.datasets import MODELS
from timesformer_experiments.paper.variants import Variant
from timesformer_experiments.report.published import published

STARTS = {"ImageNet-1K": ("a quarter of the stills", 0.25), "ImageNet-21K": ("all stills", 1.0)}


def _variants() -> tuple[Variant, ...]:
    found = []
    for model, size in MODELS.items():
        for start, (stills, share) in STARTS.items():
            here = f" (here {stills})" if model == "TimeSformer" else ""
            label, trained = f"{model}, {start}{here}", model == "TimeSformer"
            found.append(Variant(f"{model} {start}", label, paper=size, image_share=share, trained=trained))
    return tuple(found)


ABLATION = Ablation(
    name="table3",
    title="Table 3: pretraining",
    axis="Model and what it starts from",
    variants=_variants(),
    base="TimeSformer ImageNet-21K",
    rows=lambda: {f"{row['model']} {row['pretraining']}": row for row in published("table3", "models").rows},
    sources=(("table3", "models"),),
    remarks=("table3",),
    counted=(400, 3),
)
ARTEFACT = ABLATION.artefact()
