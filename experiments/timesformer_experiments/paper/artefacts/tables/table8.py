"""Table 8 of the paper: long videos, covered end to end by clips of 8 to 96 frames.

In `order`, two events lie up to half the video apart. A clip that does not span both says nothing about their order, so
no model can exceed a bound that grows with the length of the clip.
"""

from __future__ import annotations

from typing import Any

from timesformer_experiments.paper.ablation import Ablation, Rows
from timesformer_experiments.paper.cnns import slowfast
from timesformer_experiments.paper.drawing import Curve
from timesformer_experiments.paper.variants import Variant
from timesformer_experiments.report.published import published

FRAMES = {1: 8, 2: 32, 4: 64, 8: 96}
"""{frames of a clip here: frames in the paper}."""
BLIND_ON_ORDER = (
    "On order, chance is 25 %; a model that recognises the events but not which of them came first reaches 50 %, which "
    "is above chance although it has learnt nothing about their order."
)


def _rows() -> Rows:
    return {f"{row['model']} {row['frames']}": row for row in published("table8", "frames").rows}


def _variants(model: str) -> tuple[Variant, ...]:
    found = []
    for here, there in FRAMES.items():
        own: dict[str, Any] = slowfast(here) if model == "SlowFast" else {"change": {"model.num_frames": here}}
        own.setdefault("paper", {"num_frames": there})
        label = f"{model}, {there} frames (here {here})"
        skip = ("quick",) if (model, there) == ("SlowFast", 32) else ()  # it has the same bound as 8 frames
        found.append(Variant(f"{model} {there}", label, line=model, x=here, paper_x=there, skip=skip, **own))
    return tuple(found)


ABLATION = Ablation(
    name="table8",
    title="Table 8: long videos",
    axis="Model and frames of a clip",
    variants=(*_variants("SlowFast"), *_variants("TimeSformer")),
    base="TimeSformer 96",
    pairs=tuple(
        (f"{name} {there}", f"{other} {less}")
        for name, other, there, less in (
            ("TimeSformer", "TimeSformer", 32, 8),
            ("TimeSformer", "TimeSformer", 64, 32),
            ("TimeSformer", "TimeSformer", 96, 64),
            ("TimeSformer", "SlowFast", 96, 96),
        )
    ),
    rows=_rows,
    sources=(("table8", "frames"), ("table8", "without_kinetics")),
    remarks=("table8",),
    concludes=lambda frame: (BLIND_ON_ORDER,),
    probes={"order": "howto100m"},
    also={"clip_seconds": "Clip, paper [s]", "test_clips": "Clips, paper"},
    curve=Curve("frames of a clip, order", "frames of a clip, HowTo100M"),
)
ARTEFACT = ABLATION.artefact()
