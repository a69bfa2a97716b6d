"""ViViT: number of layers in the temporal transformer of the factorised encoder; 0 averages the frames (`space`)."""

from __future__ import annotations

from typing import Any

from timesformer_experiments.paper.ablation import Ablation
from timesformer_experiments.paper.drawing import Curve
from timesformer_experiments.paper.variants import Variant
from timesformer_experiments.report.published import published

DEPTHS = (1, 4, 8, 12)
PAPER: dict[str, Any] = {"position": "table", "num_frames": 32, "tubelet_size": 2}


def _layers(depth: int) -> Variant:
    scheme = {"attention": "factorised_encoder", **({} if depth == 4 else {"temporal_depth": depth})}
    change = {f"model.{name}": value for name, value in scheme.items()}
    skip = () if depth == 4 else ("quick",)
    return Variant(
        str(depth), f"{depth} layer{'s' if depth > 1 else ''}", change, {**scheme, **PAPER}, x=depth, skip=skip
    )


ABLATION = Ablation(
    name="vivit_depth",
    title="ViViT: layers of the temporal encoder",
    axis="Temporal layers",
    variants=(
        Variant("0", "none, frames averaged", {"model.attention": "space"}, {"attention": "space", **PAPER}, x=0),
        *map(_layers, DEPTHS),
    ),
    base="4",
    rows=lambda: {str(row["temporal_depth"]): row for row in published("vivit", "temporal_depth").rows},
    sources=(("vivit", "temporal_depth"),),
    remarks=("vivit",),
    counted=(400, 1),
    curve=Curve("layers of the temporal encoder"),
)
ARTEFACT = ABLATION.artefact()
