"""Figure 6 of the paper: accuracy over the number of clips at test time, each with one crop.

Nothing is trained: the models of Table 8 are evaluated again. The model with 8 frames, whose clip spans the whole
video, stands in for TimeSformer-L; the one with 4 frames, whose clip spans half of it, for TimeSformer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from timesformer.parallel import side_by_side
from timesformer_experiments.paper.ablation import Ablation, Rows
from timesformer_experiments.paper.artefact import Artefact, Folders, Profile
from timesformer_experiments.paper.artefacts.tables.table8 import ABLATION as TABLE8
from timesformer_experiments.paper.artefacts.tables.table8 import BLIND_ON_ORDER
from timesformer_experiments.paper.cnns import slowfast
from timesformer_experiments.paper.drawing import Curve
from timesformer_experiments.paper.measured.evaluations import evaluated
from timesformer_experiments.paper.variants import Variant
from timesformer_experiments.report.published import published
from timesformer_experiments.specs.run import RunSpec, with_dependencies

CLIPS = (1, 3, 5, 10)
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "TimeSformer-L": ("TimeSformer-L (here 8 frames)", {"change": {}}),
    "TimeSformer": ("TimeSformer (here 4 frames)", {"change": {"model.num_frames": 4}}),
    "SlowFast R101+NL": ("SlowFast R101+NL (here SlowFast, 4 frames)", slowfast(4)),
    "X3D-XL": ("X3D-XL", {"trained": False}),
}


def _rows() -> Rows:
    return {f"{row['model']} {row['clips']}": row for row in published("figure6", "clips").rows}


def _variant(model: str, clips: int) -> Variant:
    label, fields = MODELS[model]
    change = {**fields.get("change", {}), "protocol": f"{clips}x1"}
    shown = f"{label}, {clips} clip{'s' if clips > 1 else ''}"
    return Variant(f"{model} {clips}", shown, **{**fields, "change": change, "line": model, "x": clips})


ABLATION = Ablation(
    name="figure6",
    title="Figure 6: number of clips at test",
    axis="Model and clips",
    variants=tuple(_variant(model, clips) for model in MODELS for clips in CLIPS),
    base="TimeSformer 1",
    pairs=tuple((f"{model} {clips}", f"{model} 1") for model in MODELS for clips in CLIPS[1:]),
    rows=_rows,
    sources=(("figure6", "clips"),),
    remarks=("figure6",),
    concludes=lambda frame: (BLIND_ON_ORDER,),
    probes={"order": "k400"},
    curve=Curve("clips at test"),
)


def _trained(wanted: RunSpec, profile: Profile) -> RunSpec:
    """Return the run of Table 8 that differs only in the protocol."""
    return wanted.model_copy(update={"protocol": TABLE8.cells(profile)[0].spec.protocol})


def plan(profile: Profile) -> list[RunSpec]:
    """List the runs of Table 8 that are evaluated."""
    return list(with_dependencies(_trained(cell.spec, profile) for cell in ABLATION.cells(profile)).values())


def measure(records: Sequence[dict[str, Any]], profile: Profile, folders: Folders, jobs: int) -> list[dict[str, Any]]:
    """Evaluate the models under the figure's protocols and return the records."""
    wanted = [cell.spec for cell in ABLATION.cells(profile)]
    return side_by_side(evaluated, [(_trained(spec, profile), spec, folders) for spec in wanted], jobs)


ARTEFACT = Artefact("figure6", ABLATION.title, plan, ABLATION.report, measure=measure)
