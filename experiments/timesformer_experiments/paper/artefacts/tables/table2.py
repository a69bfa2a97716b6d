"""Table 2 of the paper: TimeSformer compared with 3D CNNs, with training time and cost of inference.

Size and cost are counted at the paper's scale. Accuracies are those of compact models on the probes, with `appearance`
in place of K400; for TimeSformer, a quarter of the stills stands in for ImageNet-1K. Speeds are measured on this
machine at the paper's scale, and hours are extrapolated from them to the size of K400.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from timesformer.config.registry import ModelConfig, read_config
from timesformer_experiments.paper.ablation import Ablation, Rows
from timesformer_experiments.paper.artefact import Artefact, Folders, Profile
from timesformer_experiments.paper.cnns import VIEWS, i3d, slowfast
from timesformer_experiments.paper.datasets import DATASETS
from timesformer_experiments.paper.measured.speed import TRAINING, speed_record
from timesformer_experiments.paper.variants import Variant
from timesformer_experiments.report.published import published
from timesformer_experiments.report.report import Report
from timesformer_experiments.report.tables import Column
from timesformer_experiments.specs.cost import CostSpec

EPOCHS = {"i3d ImageNet-1K 1440": 118, "slowfast ImageNet-1K 3840": 118, "slowfast none 6336": 196}
"""Epochs of the paper's full schedules (appendix A); it does not state those of the shorter ones."""
TRANSFORMER_EPOCHS = 15
TINY: dict[str, dict[str, Any]] = {
    "i3d": {"baseline": "i3d", "image_size": 32, "width": 8, "blocks": (1, 1, 1, 1)},
    "slowfast": {"baseline": "slowfast", "image_size": 32, "width": 8, "blocks": (1, 1, 1, 1)},
    "divided": {"image_size": 32, "embed_dim": 16, "depth": 1, "num_heads": 2},
}
"""Models whose speed the smoke test measures."""


def _rows() -> Rows:
    hours = {row["model"]: row["inference_hours"] for row in published("table2", "runtime").rows}
    return {
        f"{row['key']} {row['pretraining']} {row['train_gpu_hours']}": {
            **row,
            "inference_hours": hours.get(row["model"]),
        }
        for row in published("table2", "models").rows
    }


def _cnn(key: str, label: str, fields: dict[str, Any], **other: Any) -> Variant:
    return Variant(key, label, **{**fields, **other})


ABLATION = Ablation(
    name="table2",
    title="Table 2: against 3D CNNs",
    axis="Model and what it starts from",
    variants=(
        _cnn("i3d ImageNet-1K 444", "I3D R50, ImageNet-1K, short", i3d(), trained=False),
        _cnn("i3d ImageNet-1K 1440", "I3D R50, ImageNet-1K (here stills)", i3d()),
        _cnn("slowfast ImageNet-1K 448", "SlowFast R50, ImageNet-1K, short", slowfast(), trained=False),
        _cnn("slowfast ImageNet-1K 3840", "SlowFast R50, ImageNet-1K (here stills)", slowfast()),
        _cnn("slowfast none 6336", "SlowFast R50, from nothing", slowfast(), image=None, skip=("quick/motion",)),
        Variant("divided ImageNet-1K 416", "TimeSformer, ImageNet-1K (here a quarter of the stills)", image_share=0.25),
        Variant("divided ImageNet-21K 416", "TimeSformer, ImageNet-21K (here all stills)"),
    ),
    base="divided ImageNet-21K 416",
    rows=_rows,
    sources=(("table2", "models"), ("table2", "runtime"), ("table2", "zoo")),
    remarks=("table2",),
    counted=(400, 3),
    also={"train_gpu_hours": "Training, paper [V100 h]", "inference_hours": "Inference, paper [h on 8 V100]"},
)


def _timed(profile: Profile) -> dict[str, ModelConfig]:
    """Return the models whose speed is measured, by key."""
    if profile == "smoke":
        return {key: read_config({**fields, "num_frames": 8}) for key, fields in TINY.items()}
    found: dict[str, ModelConfig] = {}
    for variant in ABLATION.variants:
        found.setdefault(variant.key.split()[0], variant.config(DATASETS["k400"].classes))
    return found


def measure(records: Sequence[dict[str, Any]], profile: Profile, folders: Folders, jobs: int) -> list[dict[str, Any]]:
    """Measure the speeds of the three models on this machine, one after the other."""
    return [
        speed_record(f"table2-{profile}-speed-{key}", config, folders.runs) for key, config in _timed(profile).items()
    ]


def _speeds(records: Sequence[dict[str, Any]], profile: Profile) -> dict[str, dict[str, float]]:
    by_hash = {record["hash"]: record["metrics"] for record in records if record["outcome"] == "done"}
    wanted = {key: CostSpec(name=key, model=config).hash() for key, config in _timed(profile).items()}
    return {key: by_hash[value] for key, value in wanted.items() if value in by_hash}


def with_speeds(frame: pd.DataFrame, speeds: dict[str, dict[str, float]]) -> pd.DataFrame:
    """Add clips per second, and the hours on this machine that they imply for K400."""
    k400, rows = DATASETS["k400"], []
    for row in frame.to_dict(orient="records"):
        key, views = row["variant"].split()[0], 3 if row["variant"].startswith("divided") else VIEWS
        epochs = TRANSFORMER_EPOCHS if key == "divided" else EPOCHS.get(row["variant"])
        found = speeds.get(key)
        row["measured_clips_per_second"] = None if found is None else found["clips_per_second"]
        row["predicted_inference_hours"] = (
            None if found is None else k400.num_test * views / found["clips_per_second"] / 3600
        )
        row["measured_train_clips_per_second"] = None if found is None else found[TRAINING]
        row["predicted_train_hours"] = (
            None if found is None or epochs is None else k400.num_train * epochs / found[TRAINING] / 3600
        )
        rows.append(row)
    return pd.DataFrame(rows)


COLUMNS = (
    Column("measured_clips_per_second", "Inference, here [clips/s]", "measured", decimals=2),
    Column("predicted_inference_hours", "K400's 20,000 videos, here [h]", "predicted", decimals=0),
    Column("measured_train_clips_per_second", "Training, here [clips/s]", "measured", decimals=2),
    Column("predicted_train_hours", "K400's schedule, here [h]", "predicted", decimals=0),
)


def report(records: Sequence[dict[str, Any]], profile: Profile) -> Report:
    """Make Table 2 from the records of its runs and of the speeds."""
    found = ABLATION.report(records, profile)
    frame = with_speeds(found.table.frame, _speeds(records, profile))
    scale = "tiny models" if profile == "smoke" else "at the paper's scale"
    caption = (
        f"{found.table.caption}; TFLOPs of 3 views, of the CNNs of {VIEWS}. Speeds: this machine, one clip at a time, "
        f"fp32, {scale}; hours: extrapolated to all views of 20,000 videos, and to 240,000 videos per epoch of the "
        "paper's schedules"
    )
    shown = (*found.table.columns, *COLUMNS)
    return replace(found, table=replace(found.table, frame=frame, columns=shown, caption=caption))


ARTEFACT = Artefact("table2", ABLATION.title, ABLATION.plan, report, measure=measure)
