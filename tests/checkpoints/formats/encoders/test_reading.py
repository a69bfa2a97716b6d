"""Folders of today's encoders, as transformers saves them, against transformers with random weights."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.checkpoints.formats.encoders.models import (
    KINDS,
    dinov2,
    dinov3,
    hidden,
    saved,
    siglip,
    tokens,
    videomae,
    vit_mae,
    vjepa2,
)
from timesformer import InputError, TimeSformer
from timesformer.checkpoints import load_model


def difference(theirs: Any, ours: TimeSformer, clip: torch.Tensor, what: str = "logits") -> float:
    with torch.no_grad():
        if what == "tokens":
            return float((hidden(theirs, clip) - tokens(ours, clip)).abs().max())
        given = clip[:, 0] if ours.config.num_frames == 1 else clip
        return float((theirs(given).logits - ours(clip)).abs().max())


@pytest.mark.parametrize("in_memory", [False, True], ids=["in_files", "in_memory"])
@pytest.mark.parametrize("kind", KINDS)
def test_native_size(kind: str, in_memory: bool, tmp_path: Path) -> None:
    make, shape, what = KINDS[kind]
    theirs = make()
    loaded = load_model(saved(theirs, tmp_path, in_memory))
    clip = torch.randn(2, *shape)
    assert difference(theirs, loaded.model, clip, what) < 1e-4
    assert tokens(loaded.model, clip).std() > 0.01
    initialised = {"head.weight", "head.bias"} if what == "tokens" else set()
    assert set(loaded.report.initialised) == initialised
    assert all(loaded.report.reasons[name] for name in loaded.report.left_out)
    assert set(loaded.preprocessing["crop"]) <= {*shape[2:], 28, 32, 48}


@pytest.mark.parametrize(
    "theirs",
    [
        lambda: videomae(qv_bias=False),
        lambda: videomae(hidden_act="relu", tubelet_size=1),
        lambda: vjepa2(qkv_bias=False, mlp_ratio=3, num_pooler_layers=0),
        lambda: vjepa2(hidden_size=40, tubelet_size=4),  # heads of 20 channels: 2 stay unturned
        lambda: dinov2(qkv_bias=False),
        lambda: dinov2(registers=True, use_swiglu_ffn=True, num_register_tokens=1),
        lambda: dinov3(num_register_tokens=0, key_bias=True),
        lambda: dinov3(use_gated_mlp=True, hidden_act="silu", query_bias=False),
        lambda: dinov3(proj_bias=False, mlp_bias=False, rope_theta=50.0),
        lambda: vit_mae(qkv_bias=False),
    ],
)
def test_their_options(theirs: Any, tmp_path: Path) -> None:
    model = theirs()
    loaded = load_model(saved(model, tmp_path))
    config = loaded.model.config
    what = "tokens" if type(model).__name__.endswith("Model") else "logits"
    clip = torch.randn(2, config.num_frames, 3, *config.height_width)
    assert difference(model, loaded.model, clip, what) < 1e-4


@pytest.mark.parametrize(("frames", "size"), [(8, 32), (4, 64), (2, 16)])
def test_videomae_at_other_sizes(frames: int, size: int, tmp_path: Path) -> None:
    """transformers refuses other sizes: a model is built at the size, with the same weights."""
    theirs = videomae()
    ours = load_model(saved(theirs, tmp_path)).model
    other = videomae(num_frames=frames, image_size=size)
    other.load_state_dict(theirs.state_dict())
    clip = torch.randn(2, frames, 3, size, size)
    assert difference(other, ours, clip) < 1e-4
    built = load_model(tmp_path, num_frames=frames, image_size=size).model
    assert difference(other, built, clip) < 1e-4


@pytest.mark.parametrize(("frames", "size"), [(8, 48), (4, 64), (2, 32)])
def test_vjepa2_at_other_sizes(frames: int, size: int, tmp_path: Path) -> None:
    """transformers numbers positions by its configured crop: a model is built at the size, with the same weights."""
    theirs = vjepa2()
    ours = load_model(saved(theirs, tmp_path)).model
    other = vjepa2(frames_per_clip=frames, crop_size=size)
    other.load_state_dict(theirs.state_dict())
    assert difference(other, ours, torch.randn(2, frames, 3, size, size)) < 1e-4


def test_dinov2_at_other_sizes(tmp_path: Path) -> None:
    theirs = dinov2()
    assert difference(theirs, load_model(saved(theirs, tmp_path)).model, torch.randn(2, 1, 3, 56, 42)) < 1e-4


@pytest.mark.parametrize("mean", [True, False])
def test_videomae_pretraining_encoder(mean: bool, tmp_path: Path) -> None:
    theirs = videomae("ForPreTraining", use_mean_pooling=mean)
    loaded = load_model(saved(theirs, tmp_path), num_classes=7)
    clip = torch.randn(2, 4, 3, 32, 32)
    with torch.no_grad():
        assert float((theirs.videomae(clip).last_hidden_state - tokens(loaded.model, clip)).abs().max()) < 1e-4
    fresh = {"head.weight", "head.bias"} | ({"fc_norm.weight", "fc_norm.bias"} if mean else set())
    assert set(loaded.report.initialised) == fresh
    assert {name.split(".")[0] for name in loaded.report.left_out} == {"decoder", "encoder_to_decoder", "mask_token"}


def test_vjepa2_encoder_alone(tmp_path: Path) -> None:
    theirs = vjepa2("Model")
    ours = load_model(saved(theirs, tmp_path)).model
    clip = torch.randn(2, 4, 3, 48, 48)
    with torch.no_grad():
        expected = theirs(clip, skip_predictor=True).last_hidden_state
        assert float((expected - tokens(ours, clip)).abs().max()) < 1e-4
    assert ours.config.resolved_pool == "mean"


def test_bodies(tmp_path: Path) -> None:
    for number, (theirs, inner) in enumerate(
        [
            (dinov2("Model"), None),
            (vit_mae("ForPreTraining"), "vit"),
            (siglip("Model"), "vision_model"),
        ]
    ):
        config = load_model(saved(theirs, tmp_path / str(number))).model
        clip = torch.randn(2, 1, 3, *config.config.height_width)
        assert difference(theirs if inner is None else getattr(theirs, inner), config, clip, "tokens") < 1e-4


def test_a_classifier_on_the_first_patch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="use_mean_pooling"):
        load_model(saved(videomae(use_mean_pooling=False), tmp_path))


def stored_name(kind: str, names: list[str]) -> str:
    """A weight of the second block."""
    return next(name for name in names if ".1." in f".{name}" and name.endswith("weight") and "pre" not in name)


@pytest.mark.parametrize("kind", KINDS)
def test_one_tensor_missing_one_too_many_one_of_another_shape(kind: str, tmp_path: Path) -> None:
    folder = saved(KINDS[kind][0](), tmp_path)
    path = folder / "model.safetensors"
    state = load_file(path)
    name = stored_name(kind, sorted(state))
    save_file({key: value for key, value in state.items() if key != name}, path)
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        load_model(folder)
    save_file(state | {"encoder.surplus.weight": torch.zeros(2)}, path)
    with pytest.raises(InputError, match=r"encoder\.surplus\.weight"):
        load_model(folder)
    save_file(state | {name: torch.zeros(5, 7)}, path)
    with pytest.raises(InputError, match=name.replace(".", r"\.") + r".*\(5, 7\)"):
        load_model(folder)


@pytest.mark.parametrize("kind", ["videomae", "vjepa2", "dinov2", "siglip"])
def test_a_classifier_without_its_weight_and_weights_of_whole_numbers_are_named(kind: str, tmp_path: Path) -> None:
    folder = saved(KINDS[kind][0](), tmp_path)
    path = folder / "model.safetensors"
    state = load_file(path)
    save_file({key: value for key, value in state.items() if key != "classifier.weight"}, path)
    with pytest.raises(InputError, match=r"classifier\.weight missing"):
        load_model(folder)
    name = next(
        name
        for name in sorted(state)
        if ".1." in name and ("v_bias" in name or "value.bias" in name or "v_proj.bias" in name)
    )
    save_file(state | {name: state[name].int()}, path)
    with pytest.raises(InputError, match=name.replace(".", r"\.") + r" holds torch\.int32"):
        load_model(folder)


@pytest.mark.parametrize("kind", ["videomae", "vjepa2", "dinov2", "dinov3", "siglip_tower"])
def test_settings_of_another_type_are_named(kind: str, tmp_path: Path) -> None:
    folder = saved(KINDS[kind][0](), tmp_path)
    config = json.loads((folder / "config.json").read_text())
    ratio = "intermediate_size" if "intermediate_size" in config else "mlp_ratio"
    for field in ("hidden_size", "hidden_act", "num_hidden_layers", ratio):
        for value in ([1, 2], 0, *(() if field == "hidden_act" else ("x",))):
            (folder / "config.json").write_text(json.dumps(config | {field: value}))
            with pytest.raises(InputError, match=rf"config\.json: {field}: "):
                load_model(folder)


def test_settings_that_contradict_the_file_are_named(tmp_path: Path) -> None:
    folder = saved(dinov2(), tmp_path)
    config = json.loads((folder / "config.json").read_text())
    for field, value in (("num_hidden_layers", 5), ("hidden_act", "mish"), ("num_attention_heads", 7)):
        (folder / "config.json").write_text(json.dumps(config | {field: value}))
        with pytest.raises(InputError, match="num_heads" if "heads" in field else field):
            load_model(folder)


def test_licences_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="timesformer")
    for kind, licence in (("videomae", "CC-BY-NC"), ("vjepa2", "MIT"), ("dinov2", "Apache-2.0"), ("dinov3", "DINOv3")):
        caplog.clear()
        loaded = load_model(saved(KINDS[kind][0](), tmp_path / kind))
        assert licence in (loaded.report.licence or "")
        assert any(licence in message for message in caplog.messages)
    loaded.model.save_pretrained(tmp_path / "own")
    assert load_model(tmp_path / "own").report.licence == "DINOv3 License"
