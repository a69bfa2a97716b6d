"""Hugging Face ViViT, read and written, against transformers with random weights."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from timesformer import InputError, TimeSformer, TimeSformerConfig
from timesformer.checkpoints import LoadedModel, export, load_model
from timesformer.checkpoints.formats.vivit import write
from timesformer.data import Preprocessing

transformers = pytest.importorskip("transformers")

TINY: dict[str, Any] = {
    "image_size": 16, "num_frames": 4, "tubelet_size": (2, 8, 8), "hidden_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 2, "intermediate_size": 48, "num_labels": 5,
}  # fmt: skip


def hf_model(std: float = 0.3, **changes: Any) -> Any:
    torch.manual_seed(0)
    model = transformers.VivitForVideoClassification(transformers.VivitConfig(**(TINY | changes))).eval()
    for value in model.parameters():  # class token and positions are zero at first
        torch.nn.init.normal_(value, std=std)
    return model


def write_hf(folder: Path, model: Any, in_memory: bool = False, **tensors: torch.Tensor) -> Path:
    """The layout of transformers' modules, or that of its files."""
    if not in_memory:
        model.save_pretrained(folder)
        return folder
    model.config.save_pretrained(folder)
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state | tensors, folder / "model.safetensors")
    return folder


def largest_difference(theirs: Any, ours: TimeSformer, clip: torch.Tensor) -> float:
    with torch.no_grad():
        return float((theirs(clip).logits - ours(clip)).abs().max())


@pytest.mark.parametrize("changes", [{}, {"qkv_bias": False}, {"hidden_act": "gelu"}], ids=str)
@pytest.mark.parametrize("in_memory", [True, False], ids=["in_memory", "in_files"])
def test_both_key_layouts(in_memory: bool, changes: dict[str, Any], tmp_path: Path) -> None:
    theirs = hf_model(**changes)
    loaded = load_model(write_hf(tmp_path, theirs, in_memory))
    names = load_file(tmp_path / "model.safetensors")
    assert any(name.startswith("vivit.layers.0." if in_memory else "vivit.encoder.layer.0.") for name in names)
    assert largest_difference(theirs, loaded.model, torch.randn(2, 4, 3, 16, 16)) < 1e-4
    config = loaded.model.config
    assert (config.attention, config.position, config.tubelet_size, config.patch_size) == ("joint", "table", 2, 8)
    assert not loaded.report.left_out
    assert not loaded.report.initialised


@pytest.mark.slow
@pytest.mark.parametrize("in_memory", [True, False], ids=["in_memory", "in_files"])
def test_vivit_b(in_memory: bool, tmp_path: Path) -> None:
    """ViViT-B/16x2 at 32 x 224 x 224, the largest difference between logits in fp32."""
    theirs = transformers.VivitForVideoClassification(transformers.VivitConfig(num_labels=400)).eval()
    torch.manual_seed(0)
    for name, value in theirs.named_parameters():
        if value.ndim > 1:
            torch.nn.init.normal_(value, std=0.2 if "classifier" in name else 0.04)
    ours = load_model(write_hf(tmp_path, theirs, in_memory)).model
    assert ours.config == TimeSformerConfig(
        attention="joint", position="table", num_frames=32, tubelet_size=2, activation="gelu_fast"
    )
    assert sum(value.numel() for value in ours.parameters()) == 88_954_000
    clip = torch.randn(1, 32, 3, 224, 224)
    assert largest_difference(theirs, ours, clip) < 1e-4
    assert ours(clip).std() > 0.1


def test_gelu_fast_is_the_approximation_with_tanh() -> None:
    x = torch.linspace(-8, 8, 10_001)
    model = TimeSformer(TimeSformerConfig(activation="gelu_fast", embed_dim=12, depth=1))
    ours = model.encoders[0].blocks[0].mlp.act(x)
    torch.testing.assert_close(ours, transformers.activations.ACT2FN["gelu_fast"](x), rtol=0, atol=1e-6)


def test_bodies_without_prefix_and_classifier(tmp_path: Path) -> None:
    body = transformers.VivitModel(hf_model().config)
    loaded = load_model(write_hf(tmp_path, body, in_memory=True), num_classes=7)
    assert sorted(loaded.report.initialised) == ["head.bias", "head.weight"]
    assert sorted(loaded.report.left_out) == ["pooler.dense.bias", "pooler.dense.weight"]


def test_labels_and_preprocessing(tmp_path: Path) -> None:
    folder = write_hf(tmp_path, hf_model(id2label={i: f"act {i}" for i in range(5)}))
    loaded = load_model(folder)
    assert loaded.labels == [f"act {i}" for i in range(5)]
    record = Preprocessing.from_dict(loaded.preprocessing)
    assert (record.value_range, record.std) == ((-1.0, 1.0), (1.0, 1.0, 1.0))
    transformers.VivitImageProcessor().save_pretrained(folder)
    record = Preprocessing.from_dict(load_model(folder).preprocessing)
    scale, shift = record.affine()
    assert shift[0] == pytest.approx(-3)
    assert 255 * scale[0] + shift[0] == pytest.approx(1)  # x / 127.5 - 1, then (x - 0.5) / 0.5
    assert (record.short_side, record.crop_size) == (256, (224, 224))


def ours(**changes: Any) -> TimeSformer:
    torch.manual_seed(1)
    fields: dict[str, Any] = {"attention": "joint", "position": "table", "tubelet_size": 2, "num_frames": 4}
    fields |= {"image_size": 16, "patch_size": 8, "num_classes": 5, "embed_dim": 24, "depth": 2, "num_heads": 2}
    model = TimeSformer(TimeSformerConfig(**(fields | {"activation": "gelu_fast"} | changes))).eval()
    for value in model.parameters():
        torch.nn.init.normal_(value, std=0.3)
    return model


@pytest.mark.parametrize("changes", [{}, {"activation": "gelu_tanh", "image_size": (16, 24), "drop_path_rate": 0.1}])
def test_round_trip_is_exact(changes: dict[str, Any], tmp_path: Path) -> None:
    model = ours(**changes)
    labels = [f"act {i}" for i in range(5)]
    loaded = LoadedModel(model, load_model_record(model), labels, {}, None)  # type: ignore[arg-type]
    export(loaded, tmp_path, "hf-vivit")
    clip = torch.randn(2, 4, 3, *model.config.height_width)
    theirs = transformers.VivitForVideoClassification.from_pretrained(tmp_path).eval()
    assert theirs.config.id2label == dict(enumerate(labels))
    assert largest_difference(theirs, model, clip) < 1e-4
    back = load_model(tmp_path)
    assert back.model.config == model.config
    assert back.labels == labels
    assert back.preprocessing == loaded.preprocessing
    for name, value in model.state_dict().items():
        assert torch.equal(back.model.state_dict()[name], value), name
    assert not transformers.VivitForVideoClassification.from_pretrained(tmp_path, output_loading_info=True)[1][
        "missing_keys"
    ]


def load_model_record(model: TimeSformer) -> dict[str, Any]:
    record = Preprocessing(num_frames=4, short_side=18, crop=model.config.height_width, sampling="dense", frame_rate=2)
    return record.to_dict()


def test_theirs_to_ours_to_theirs_is_exact(tmp_path: Path) -> None:
    theirs = hf_model()
    write(load_model(write_hf(tmp_path / "a", theirs)).model, tmp_path / "b", None, None)
    again = transformers.VivitForVideoClassification.from_pretrained(tmp_path / "b")
    for name, value in theirs.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention": "divided"}, "attention"),
        ({"attention": "factorised_encoder"}, "attention"),
        ({"position": "space_time"}, "position"),
        ({"num_classes": (2, 3)}, "num_classes"),
    ],
)
def test_what_the_format_cannot_express(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"cannot express {message}"):
        write(ours(**changes), tmp_path, None, None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "silu"}, "hidden_act"),
        ({"tubelet_size": [2, 8, 4]}, "tubelet_size"),
        ({"tubelet_size": 2}, "tubelet_size"),
        ({"num_hidden_layers": 3}, "num_hidden_layers"),
        ({"num_attention_heads": 5}, "num_heads"),
        ({"hidden_size": 0}, "config.json"),
        ({"num_frames": 8}, "position_embeddings"),
        ({"hidden_size": 12}, "shape"),
    ],
)
def test_settings_that_do_not_fit_are_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write_hf(tmp_path, hf_model()) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(InputError, match=message):
        load_model(tmp_path)


def test_tensors_that_do_not_fit_are_named(tmp_path: Path) -> None:
    theirs = hf_model()
    write_hf(tmp_path, theirs, in_memory=True, **{"vivit.layers.0.gamma": torch.ones(3)})
    with pytest.raises(InputError, match=r"vivit\.layers\.0\.gamma: no known use"):
        load_model(tmp_path)
    assert load_model(tmp_path, strict=False).report.left_out == ["vivit.layers.0.gamma"]
    state = theirs.state_dict()
    save_file({name: value for name, value in state.items() if "k_proj" not in name}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"k_proj\.weight and 3 more missing"):
        load_model(tmp_path)


def test_attention_dropout_is_noted(tmp_path: Path) -> None:
    folder = write_hf(tmp_path, hf_model(attention_probs_dropout_prob=0.1, hidden_dropout_prob=0.2))
    loaded = load_model(folder)
    assert loaded.model.config.drop_rate == 0.2
    assert any("attention_probs_dropout_prob" in note for note in loaded.report.notes)
