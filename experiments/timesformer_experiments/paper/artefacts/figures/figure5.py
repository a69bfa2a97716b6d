"""Figure 5 of the paper: accuracy over the crop and over the number of frames.

The crop is varied on `detail`, whose class is visible only if its texture is resolved, with models trained from
scratch.  The number of frames is varied on `order`, with the runs of Table 8. Both probes have a bound on the accuracy
that any model can reach. The paper's accuracies are those of clips, ours those of videos.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from timesformer_experiments.paper.ablation import Ablation, Rows
from timesformer_experiments.paper.artefacts.tables.table8 import BLIND_ON_ORDER, FRAMES
from timesformer_experiments.paper.drawing import Curve
from timesformer_experiments.paper.panels import panels
from timesformer_experiments.paper.variants import Variant
from timesformer_experiments.report.published import published

CROPS = {16: 224, 32: 336, 64: 448}
"""{pixels here: pixels in the paper}.  The paper's 560 pixels, where its accuracy falls, have no counterpart here."""


def _rows(panel: str) -> Rows:
    found: dict[str, Mapping[str, Any]] = {}
    for row in published("figure5", panel).rows:
        found[f"{panel} {row[panel]}"] = {"k400_top1_percent": row["clip_top1_percent"]}
    return found


def _crop(there: int, here: int | None) -> Variant:
    label = f"{there} pixels" + (f" (here {here})" if here else "")
    change = {} if here in (None, 32) else {"model.image_size": here}
    paper = {"image_size": there}
    return Variant(f"crop {there}", label, change, paper, trained=here is not None, x=here, paper_x=there)


CROP = Ablation(
    name="figure5",
    title="Crop",
    axis="Crop or frames",
    variants=(*(_crop(there, here) for here, there in CROPS.items()), _crop(560, None)),
    base="crop 224",
    rows=lambda: _rows("crop"),
    sources=(("figure5", "crop"),),
    probes={"detail": "k400"},
    counted=(400, 1),
    curve=Curve("crop [pixels], detail", "crop [pixels], K400"),
    from_nothing=True,
)
FRAME = Ablation(
    name="figure5",
    title="Frames",
    axis="Crop or frames",
    variants=tuple(
        Variant(
            f"frames {there}",
            f"{there} frames (here {here})",
            {"model.num_frames": here},
            {"num_frames": there},
            x=here,
            paper_x=there,
        )
        for here, there in FRAMES.items()
    ),
    base="frames 8",
    rows=lambda: _rows("frames"),
    sources=(("figure5", "frames"),),
    concludes=lambda frame: (BLIND_ON_ORDER,),
    probes={"order": "k400"},
    counted=(400, 1),
    curve=Curve("frames of a clip, order", "frames, K400"),
)
ARTEFACT = panels("figure5", "Figure 5: more pixels and more frames", (CROP, FRAME), remarks_of=("figure5",))
