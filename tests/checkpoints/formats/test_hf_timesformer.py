"""transformers' TimeSformer: read, written, and the same logits, at sizes that it serves."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import TimesformerConfig, TimesformerForVideoClassification, TimesformerModel

from timesformer import InputError, TimeSformer, TimeSformerConfig
from timesformer.checkpoints import export, load_model, save_model

SMALL = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 256}
TINY = SMALL | {"image_size": 32, "patch_size": 8, "num_frames": 4, "num_labels": 5}
TYPES = {"joint": "joint_space_time", "divided": "divided_space_time", "space": "space_only"}


def make(scheme: str = "divided", body: bool = False, **fields: object) -> torch.nn.Module:
    """A model with random weights, extra linears and positions among them."""
    torch.manual_seed(3)
    config = TimesformerConfig(**{"attention_type": TYPES[scheme]} | TINY | fields)
    model = (TimesformerModel if body else TimesformerForVideoClassification)(config).eval()
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, mean=float("layernorm" in name and "weight" in name), std=0.05)
    return model


@torch.no_grad()
def logits(model: torch.nn.Module, clip: Tensor) -> Tensor:
    """The port's; for space-only with the average over frames that it leaves out."""
    if model.config.attention_type != "space_only":
        return model(clip).logits
    body, frames = model.timesformer, clip.shape[1]
    tokens = body.encoder(body.embeddings(clip)).last_hidden_state.unflatten(0, (-1, frames))
    return model.classifier(body.layernorm(tokens.mean(1))[:, 0])


@torch.no_grad()
def assert_agrees(
    folder: Path, theirs: torch.nn.Module, frames: int, size: int, clips: int = 2, **options: object
) -> None:
    loaded = load_model(folder, **options)
    assert not loaded.report.initialised
    clip = torch.randn(clips, frames, 3, size, size)
    expected = logits(theirs, clip)
    assert expected.std() > 0.01
    assert (loaded.model(clip) - expected).abs().max() <= 1e-4


@pytest.mark.parametrize("scheme", sorted(TYPES))
def test_same_logits(scheme: str, tmp_path: Path) -> None:
    theirs = make(scheme)
    theirs.save_pretrained(tmp_path)
    assert_agrees(tmp_path, theirs, 4, 32)


@pytest.mark.parametrize("scheme", sorted(TYPES))
def test_ours_to_hugging_face_and_back_is_exact(scheme: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = TimeSformerConfig(
        attention=scheme, num_frames=4, image_size=32, patch_size=8, embed_dim=48, depth=2, num_heads=4, num_classes=3,
        mlp_ratio=2.5, drop_path_rate=0.1, drop_rate=0.2, activation="gelu_tanh", norm_eps=1e-5,
    )  # fmt: skip
    model = TimeSformer(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    labels = ["left", "größer", "right"]
    folder = save_model(tmp_path / "ours", model, labels=labels, provenance={"seed": 3})
    loaded = load_model(folder)
    export(loaded, tmp_path / "hf")
    again = load_model(tmp_path / "hf")
    assert again.model.config == config
    assert again.labels == labels
    assert again.preprocessing == loaded.preprocessing
    assert again.provenance["seed"] == 3
    assert "licence" not in again.provenance
    assert again.model.state_dict().keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value)
    theirs = TimesformerForVideoClassification.from_pretrained(tmp_path / "hf").eval()
    assert theirs.config.id2label == dict(enumerate(labels))
    clip = torch.randn(2, 4, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(again.model(clip), logits(theirs, clip), atol=1e-4, rtol=1e-4)


def test_every_way_it_is_stored(tmp_path: Path) -> None:
    """Safetensors in one file or several, torch's format, the body alone without its prefix, half precision."""
    theirs = make()
    theirs.save_pretrained(tmp_path / "one")
    expected = load_model(tmp_path / "one").model.state_dict()
    tensors = load_file(tmp_path / "one" / "model.safetensors")
    config = (tmp_path / "one" / "config.json").read_text()

    def folder(name: str) -> Path:
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(config)
        return tmp_path / name

    theirs.save_pretrained(tmp_path / "several", max_shard_size="200KB")
    assert len(list((tmp_path / "several").glob("*.safetensors"))) > 2
    torch.save(tensors, folder("bin") / "pytorch_model.bin")
    shards = folder("shards")
    names = sorted(tensors)
    for number, part in enumerate((names[:20], names[20:])):
        torch.save({name: tensors[name] for name in part}, shards / f"{number}.bin")
    table = {name: f"{int(names.index(name) >= 20)}.bin" for name in names}
    (shards / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": table}))
    for source in ("several", "bin", "shards", "one/model.safetensors"):
        state = load_model(tmp_path / source).model.state_dict()
        assert all(torch.equal(state[name], value) for name, value in expected.items()), source

    body = {name.removeprefix("timesformer."): value for name, value in tensors.items() if "classifier" not in name}
    save_file({name: value.half() for name, value in body.items()}, folder("body") / "model.safetensors")
    loaded = load_model(tmp_path / "body")
    assert sorted(loaded.report.initialised) == ["head.bias", "head.weight"]
    name = "encoders.0.blocks.1.steps.time.fc.weight"
    assert torch.equal(loaded.model.state_dict()[name], expected[name].half().float())
    assert loaded.model.config.num_classes == 5


def test_the_body_as_transformers_saves_it(tmp_path: Path) -> None:
    theirs = make(body=True, layer_norm_eps=1e-3, hidden_act="relu")
    theirs.save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    clip = torch.randn(1, 4, 3, 32, 32)
    with torch.no_grad():
        expected = theirs(clip).last_hidden_state[:, 0]
        torch.testing.assert_close(loaded.model.features(clip), expected, atol=1e-5, rtol=0)


def test_without_biases_of_q_k_and_v(tmp_path: Path) -> None:
    theirs = make(qkv_bias=False, hidden_act="gelu_new", attention_probs_dropout_prob=0.1)
    theirs.save_pretrained(tmp_path)
    assert_agrees(tmp_path, theirs, 4, 32)
    text = str(load_model(tmp_path).report)
    assert "qkv_bias false: the biases of q, k and v are zero" in text
    assert "attention_probs_dropout_prob" in text


def test_label_names(tmp_path: Path) -> None:
    make().save_pretrained(tmp_path)
    assert load_model(tmp_path).labels == [f"class {i}" for i in range(5)]
    names = {0: "zero", 1: "one", 2: "two", 3: "three", 4: "four"}
    make(id2label=names, label2id={name: i for i, name in names.items()}).save_pretrained(tmp_path)
    assert load_model(tmp_path).labels == list(names.values())
    assert load_model(tmp_path, num_classes=2).labels == ["class 0", "class 1"]
    config = json.loads((tmp_path / "config.json").read_text())
    for broken in ({"0": "zero"}, {str(i + 1): str(i) for i in range(5)}):
        (tmp_path / "config.json").write_text(json.dumps(config | {"id2label": broken}))
        with pytest.raises(InputError, match="id2label: expected the names of classes 0 to 4"):
            load_model(tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"attention_type": "sideways"}, r"config\.json: attention_type: expected one of"),
        ({"hidden_act": "quick_gelu"}, r"config\.json: hidden_act: expected one of"),
        ({"patch_size": [8, 4]}, r"config\.json: patch_size: expected square patches, got \(8, 4\)"),
        ({"num_attention_heads": 7}, r"config\.json: embed_dim: expected a multiple of num_heads 7, got 128"),
        ({"num_hidden_layers": 3}, r"encoders\.0\.blocks\.2\..* is missing"),
        ({"num_hidden_layers": 1}, r"encoder\.layer\.1\..* and \d+ more: no known use"),
        ({"attention_type": "joint_space_time"}, "temporal_.*: no known use in a Hugging Face TimeSformer checkpoint"),
        ({"num_frames": 8}, r"positions.time has shape \(4, 128\), expected \(8, 128\)"),
    ],
)
def test_a_config_that_does_not_fit(fields: dict[str, object], message: str, tmp_path: Path) -> None:
    make().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | fields))
    with pytest.raises(InputError, match=message):
        load_model(tmp_path)


def test_two_names_for_one_weight(tmp_path: Path) -> None:
    make().save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file(
        tensors | {"layernorm.bias": tensors["timesformer.layernorm.bias"].clone()}, tmp_path / "model.safetensors"
    )
    with pytest.raises(InputError, match="both with and without the prefix"):
        load_model(tmp_path)


def resized(theirs: torch.nn.Module, scheme: str, rule: str, frames: int, side: int) -> torch.nn.Module:
    """The same model at another number of frames and patches a side, by the released rules written out as indices."""
    state = {name: value.clone() for name, value in theirs.state_dict().items()}
    old_frames, old = theirs.config.num_frames, theirs.config.image_size // theirs.config.patch_size
    if rule == "fair-load":
        rows = [i * old * old // (side * side) for i in range(side * side)]
    else:
        nearest = [i * old // side for i in range(side)]
        rows = [y * old + x for y in nearest for x in nearest]
    positions, times = "timesformer.embeddings.position_embeddings", "timesformer.embeddings.time_embeddings"
    state[positions] = state[positions][:, [0] + [1 + row for row in rows]]
    if times in state:
        state[times] = state[times][:, [i * old_frames // frames for i in range(frames)]]
    target = make(scheme, num_frames=frames, image_size=side * theirs.config.patch_size)
    target.load_state_dict(state)
    return target


@pytest.mark.parametrize(("frames", "side"), [(8, 8), (2, 3), (4, 6), (6, 4)])
@pytest.mark.parametrize("rule", ["fair-load", "fair-forward"])
@pytest.mark.parametrize("scheme", sorted(TYPES))
def test_other_sizes_by_the_released_rules(scheme: str, rule: str, frames: int, side: int, tmp_path: Path) -> None:
    theirs = make(scheme)
    theirs.save_pretrained(tmp_path)
    target = resized(theirs, scheme, rule, frames, side)
    assert_agrees(
        tmp_path, target, frames, side * 8, num_frames=frames, image_size=side * 8, position_resize=rule
    )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attention": "axial"}, "attention = 'axial'"),
        ({"cls_policy": "global"}, "cls_policy = 'global'"),
        ({"temporal_fc": False}, "temporal_fc = False"),
        ({"share_qkv": True}, "share_qkv = True"),
        ({"position": "none"}, "position = 'none'"),
        ({"tubelet_size": 2}, "tubelet_size = 2"),
        ({"image_size": (16, 32)}, r"image_size = \(16, 32\)"),
        ({"num_classes": (2, 3)}, r"num_classes = \(2, 3\)"),
    ],
)
def test_what_the_format_cannot_express(change: dict[str, object], message: str, tmp_path: Path) -> None:
    fields = {"num_frames": 4, "image_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}
    model = TimeSformer(TimeSformerConfig(**fields | {"num_classes": 2} | change))
    with pytest.raises(InputError, match="Hugging Face TimeSformer cannot express " + message):
        export(model, tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


@pytest.mark.parametrize(
    ("frames", "size", "patch", "scheme"),
    [(16, 448, 16, "divided"), (16, 448, 32, "joint"), (96, 224, 16, "divided"), (96, 224, 56, "joint")],
)
def test_the_sizes_of_the_large_variants(frames: int, size: int, patch: int, scheme: str, tmp_path: Path) -> None:
    small = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 1, "intermediate_size": 64}
    theirs = make(scheme, **small, num_frames=frames, image_size=size, patch_size=patch)
    theirs.save_pretrained(tmp_path)
    assert_agrees(tmp_path, theirs, frames, size, clips=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheme", "frames", "size"),
    [("divided", 8, 224), ("joint", 8, 224), ("space", 8, 224), ("divided", 16, 448), ("divided", 96, 224)],
)
def test_vit_base(scheme: str, frames: int, size: int, tmp_path: Path) -> None:
    base = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
    theirs = make(scheme, **base, num_frames=frames, image_size=size, patch_size=16, num_labels=400)
    for name, parameter in theirs.named_parameters():
        if "layernorm" not in name:
            torch.nn.init.normal_(parameter, std=0.02)
    theirs.save_pretrained(tmp_path)
    assert_agrees(tmp_path, theirs, frames, size, clips=1)
