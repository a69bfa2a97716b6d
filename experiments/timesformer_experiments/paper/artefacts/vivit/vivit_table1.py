"""Table 1 of ViViT: conversion of frames to tokens, and initialisation of the tubelet embedding.

As in ViViT, all rows have the same number of tokens: tubelets of two frames, or half as many frames. On the probes,
attention is joint with positions in space and time. A full table of positions is initialised equally for all frames,
and small models learn the order of the frames from it too slowly to distinguish the rows.
"""

from __future__ import annotations

from typing import Any

from timesformer_experiments.paper.ablation import Ablation
from timesformer_experiments.paper.variants import Variant
from timesformer_experiments.report.published import published

JOINT = {"model.attention": "joint"}
PAPER: dict[str, Any] = {"attention": "joint", "position": "table", "num_frames": 32, "tubelet_size": 2}


def _tubelets(key: str, label: str, start: str) -> Variant:
    change = {**JOINT, "model.tubelet_size": 2, "model.tubelet_init": start}
    return Variant(key, label, change, paper={**PAPER, "tubelet_init": start})


ABLATION = Ablation(
    name="vivit_table1",
    title="ViViT, Table 1: frames or tubelets",
    axis="Embedding",
    variants=(
        Variant(
            "frames",
            "every second frame",
            {**JOINT, "model.num_frames": 4},
            {**PAPER, "num_frames": 16, "tubelet_size": 1},
        ),
        _tubelets("random", "tubelets, from random weights", "random"),
        _tubelets("inflation", "tubelets, the image's filters spread", "filter_inflation"),
        _tubelets("central", "tubelets, the image's filters in one frame", "central_frame"),
    ),
    base="central",
    rows=lambda: published("vivit", "input_encoding").rows,
    sources=(("vivit", "input_encoding"),),
    remarks=("vivit",),
    probes={"appearance": "k400"},
    counted=(400, 1),
)
ARTEFACT = ABLATION.artefact()
