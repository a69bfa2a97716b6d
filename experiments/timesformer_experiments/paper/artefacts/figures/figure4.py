"""Figure 4 of the paper: accuracy of divided attention and two 3D CNNs over the number of training videos.

The CNNs are compact and initialised from a 2D CNN trained on the same stills. The number of training steps is the same
for all shares of the videos. `quick` trains the end points of the curves, and for I3D only the last point.
"""

from __future__ import annotations

from typing import Any

from timesformer_experiments.paper.ablation import Ablation, Rows
from timesformer_experiments.paper.cnns import i3d, slowfast
from timesformer_experiments.paper.drawing import Curve
from timesformer_experiments.paper.variants import Variant
from timesformer_experiments.report.published import published

SHARES = (25, 50, 75, 100)


def _rows() -> Rows:
    found: dict[str, dict[str, Any]] = {}
    for dataset in ("k400", "ssv2"):
        for row in published("figure4", dataset).rows:
            found.setdefault(f"{row['key']} {row['share_percent']}", {}).update(row)
    return found


def _points(key: str, label: str, left_out: tuple[int, ...], **fields: Any) -> list[Variant]:
    return [
        Variant(
            f"{key} {share}",
            f"{label}, {share} % of the videos",
            share=share / 100,
            line=label,
            x=share,
            skip=("quick",) if share in left_out else (),
            **fields,
        )
        for share in SHARES
    ]


ABLATION = Ablation(
    name="figure4",
    title="Figure 4: accuracy over the number of training videos",
    axis="Model and training videos",
    variants=(
        *_points("divided", "TimeSformer", (50, 75)),
        *_points("slowfast", "SlowFast", (50, 75), **slowfast()),
        *_points("i3d", "I3D", (25, 50, 75), **i3d()),
    ),
    base="divided 100",
    pairs=tuple((f"divided {share}", f"{cnn} {share}") for share in SHARES for cnn in ("slowfast", "i3d")),
    rows=_rows,
    sources=(("figure4", "k400"), ("figure4", "ssv2")),
    remarks=("figure4",),
    curve=Curve("part of the training videos [%]"),
)
ARTEFACT = ABLATION.artefact()
