"""Table 2 of ViViT: its four models, and a baseline that averages the frames' tokens.

On the probes, each frame gives one set of tokens in time, and the unfactorised models have positions in space and time
instead of a full table, which is initialised equally for all frames. The last row (`space`) averages the frames' class
tokens.
"""

from __future__ import annotations

from typing import Any

from timesformer_experiments.paper.ablation import Ablation
from timesformer_experiments.paper.variants import Variant
from timesformer_experiments.report.published import published

PAPER: dict[str, Any] = {"position": "table", "num_frames": 32, "tubelet_size": 2}
IN_SPACE_AND_TIME = {"model.position": "space_time"}


def _model(attention: str, label: str, skip: tuple[str, ...] = (), **change: Any) -> Variant:
    scheme = {"model.attention": attention, **change}
    return Variant(attention, label, scheme, {"attention": attention, **PAPER}, skip=skip)


ABLATION = Ablation(
    name="vivit_table2",
    title="ViViT, Table 2: its models",
    axis="Model",
    variants=(
        _model("joint", "spatio-temporal (1)"),
        _model("factorised_encoder", "factorised encoder (2)"),
        _model("factorised_self_attention", "factorised self-attention (3)", ("quick/motion",), **IN_SPACE_AND_TIME),
        _model("factorised_dot_product", "factorised dot-product (4)", ("quick/motion",), **IN_SPACE_AND_TIME),
        Variant("average", "frames averaged", {"model.attention": "space"}, {"attention": "space", **PAPER}),
    ),
    base="joint",
    rows=lambda: published("vivit", "models").rows,
    sources=(("vivit", "models"),),
    remarks=("vivit",),
    probes={"appearance": "k400", "motion": "epic_kitchens"},
    counted=(400, 1),
)
ARTEFACT = ABLATION.artefact()
