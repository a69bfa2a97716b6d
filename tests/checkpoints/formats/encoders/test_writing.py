"""Exports to VideoMAE, V-JEPA 2 and DINOv2, loaded by transformers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.checkpoints.formats.encoders.models import KINDS, saved, transformers
from timesformer import InputError, TimeSformer, TimeSformerConfig
from timesformer.checkpoints import export, load_model

JOINT = TimeSformerConfig(
    attention="joint", num_frames=4, image_size=48, patch_size=16, tubelet_size=2, num_classes=3, embed_dim=48, depth=2,
    num_heads=2, mlp_ratio=2, class_token=False,
)  # fmt: skip
VIDEOMAE = replace(JOINT, position="sinusoid", qkv_bias="qv", fc_norm=True, fc_norm_eps=1e-5)
VJEPA2 = replace(JOINT, position="rope", rope_pairing="vjepa2", pool="attentive", pooler_depth=1)
DINOV2 = replace(
    JOINT, attention="space", num_frames=1, tubelet_size=1, class_token=True, layer_scale=0.5, pool="class+mean"
)
GIANT = replace(DINOV2, mlp="swiglu", mlp_ratio=64 / 48 + 1e-9, qkv_bias="")
CASES: dict[str, tuple[TimeSformerConfig, str, str]] = {
    "videomae": (VIDEOMAE, "hf-videomae", "VideoMAEForVideoClassification"),
    "videomae_without_biases": (replace(VIDEOMAE, qkv_bias=""), "hf-videomae", "VideoMAEForVideoClassification"),
    "vjepa2": (VJEPA2, "hf-vjepa2", "VJEPA2ForVideoClassification"),
    "dinov2": (DINOV2, "hf-dinov2", "Dinov2ForImageClassification"),
    "dinov2_registers": (replace(DINOV2, registers=3), "hf-dinov2", "Dinov2WithRegistersForImageClassification"),
    "dinov2_giant": (GIANT, "hf-dinov2", "Dinov2ForImageClassification"),
}  # fmt: skip


def random_model(config: TimeSformerConfig) -> TimeSformer:
    torch.manual_seed(0)
    model = TimeSformer(config).eval()
    for value in model.parameters():
        torch.nn.init.normal_(value, std=0.2)
    return model


@pytest.mark.parametrize("case", CASES)
def test_transformers_gives_the_same_logits(case: str, tmp_path: Path) -> None:
    config, format_name, kind = CASES[case]
    model = random_model(config)
    model.extras = {"labels": ["one", "two", "three"]}
    export(model, tmp_path, format_name)
    theirs, told = getattr(transformers, kind).from_pretrained(tmp_path, output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    assert theirs.config.id2label == {0: "one", 1: "two", 2: "three"}
    clip = torch.randn(2, config.num_frames, 3, 48, 48)
    with torch.no_grad():
        expected = model(clip)
        found = theirs.eval()(clip[:, 0] if config.num_frames == 1 else clip).logits
    assert expected.std() > 0.05
    assert float((found - expected).abs().max()) < 1e-4
    back = load_model(tmp_path).model
    with torch.no_grad():
        assert torch.equal(back(clip), expected)
    assert back.config.changed_switches() == config.changed_switches()


@pytest.mark.parametrize("kind", ["videomae", "vjepa2", "dinov2", "dinov2_registers", "dinov2_giant"])
def test_round_trip_from_transformers(kind: str, tmp_path: Path) -> None:
    make, shape, _ = KINDS[kind]
    theirs = make()
    loaded = load_model(saved(theirs, tmp_path / "theirs"))
    export(loaded, tmp_path / "back", f"hf-{kind.split('_')[0]}")
    again = type(theirs).from_pretrained(tmp_path / "back").eval()
    clip = torch.randn(2, *shape)
    given = clip[:, 0] if shape[0] == 1 else clip
    with torch.no_grad():
        assert torch.equal(again(given).logits, theirs(given).logits)
    assert load_model(tmp_path / "back").preprocessing == loaded.preprocessing


@pytest.mark.parametrize(
    ("format_name", "base", "changes", "field"),
    [
        ("hf-videomae", VIDEOMAE, {"attention": "divided"}, "attention"),
        ("hf-videomae", VIDEOMAE, {"position": "table"}, "position"),
        ("hf-videomae", VIDEOMAE, {"class_token": True, "pool": "mean"}, "class_token"),
        ("hf-videomae", VIDEOMAE, {"qk_norm": True}, "qk_norm"),
        ("hf-vjepa2", VJEPA2, {"rope_pairing": "half"}, "rope_pairing"),
        ("hf-vjepa2", VJEPA2, {"rope_base": 100.0}, "rope_base"),
        ("hf-vjepa2", VJEPA2, {"pool": "mean", "pooler_depth": 0}, "pool"),
        ("hf-dinov2", DINOV2, {"layer_scale": None}, "layer_scale"),
        ("hf-dinov2", DINOV2, {"num_frames": 2}, "num_frames"),
        ("hf-dinov2", DINOV2, {"mlp_ratio": 2.5}, "mlp_ratio"),
        ("hf-dinov2", DINOV2, {"gate": "head"}, "gate"),
        ("hf-timesformer", JOINT, {"class_token": True, "tubelet_size": 1, "norm": "rms"}, "norm"),
        ("hf-vivit", JOINT, {"class_token": True, "position": "table", "registers": 2}, "registers"),
    ],
)
def test_what_a_format_cannot_express_is_named(
    format_name: str, base: TimeSformerConfig, changes: dict[str, Any], field: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=f"cannot express {field} ="):
        export(random_model(replace(base, **changes)), tmp_path / "out", format_name)
    assert not (tmp_path / "out").exists()


def test_part_of_a_pooler_is_not_enough(tmp_path: Path) -> None:
    """In our own format a pooler may be missing as a whole: another head is trained then."""
    path = random_model(VJEPA2).save_pretrained(tmp_path) / "model.safetensors"
    state = load_file(path)
    save_file({name: value for name, value in state.items() if name != "pooler.query"}, path)
    with pytest.raises(InputError, match=r"pooler\.query is missing"):
        load_model(tmp_path)
    save_file({name: value for name, value in state.items() if not name.startswith("pooler")}, path)
    report = load_model(tmp_path).report
    assert all(name.startswith("pooler.") for name in report.initialised)
