"""ImageNet ViT weights in every format: the same logits, and a start for every scheme."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.attention.custom import SHIPPED
from tests.checkpoints.formats.flax_files import flattened, image_model, logits, pack, train_state
from timesformer import InputError, TimeSformer, TimeSformerConfig
from timesformer.attention import build
from timesformer.checkpoints import load_model, read_source, transfer

transformers = pytest.importorskip("transformers")

D, HEADS, CLASSES = 128, 2, 5
Tensors = dict[str, torch.Tensor]


def hf_model(**changes: Any) -> Any:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 24, "num_attention_heads": 2, "intermediate_size": 48}
    sizes |= {"image_size": 16, "patch_size": 8, "num_hidden_layers": 2, "num_labels": CLASSES} | changes
    model = transformers.ViTForImageClassification(transformers.ViTConfig(**sizes)).eval()
    for value in model.parameters():
        torch.nn.init.normal_(value, std=0.3)
    return model


def write_hf(folder: Path, model: Any, tensors: Tensors) -> Path:
    model.config.save_pretrained(folder)
    save_file({name: value.detach().contiguous() for name, value in tensors.items()}, folder / "model.safetensors")
    return folder


def timm_tensors(d: int = D, depth: int = 2, **changes: torch.Tensor) -> Tensors:
    """A ViT for images of 16 px with timm's names."""
    shapes: dict[str, tuple[int, ...]] = {"cls_token": (1, 1, d), "pos_embed": (1, 5, d)}
    shapes |= {"patch_embed.proj.weight": (d, 3, 8, 8), "patch_embed.proj.bias": (d,)}
    shapes |= {"norm.weight": (d,), "norm.bias": (d,), "head.weight": (CLASSES, d), "head.bias": (CLASSES,)}
    linears = {"attn.qkv": (3 * d, d), "attn.proj": (d, d), "mlp.fc1": (96, d), "mlp.fc2": (d, 96)}
    for i in range(depth):
        for name, (rows, columns) in linears.items():
            shapes |= {f"blocks.{i}.{name}.weight": (rows, columns), f"blocks.{i}.{name}.bias": (rows,)}
        for name in ("norm1", "norm2"):
            shapes |= {f"blocks.{i}.{name}.weight": (d,), f"blocks.{i}.{name}.bias": (d,)}
    generator = torch.Generator().manual_seed(0)
    return {name: 0.2 * torch.randn(shape, generator=generator) for name, shape in shapes.items()} | changes


def image_logits(t: Tensors, image: torch.Tensor) -> torch.Tensor:
    """A ViT with timm's names on one image (3, 16, 16), written out."""

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return torch.nn.functional.layer_norm(x, (D,), t[f"{name}.weight"], t[f"{name}.bias"], 1e-6)

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return x @ t[f"{name}.weight"].T + t[f"{name}.bias"]

    x = torch.nn.functional.conv2d(image[None], t["patch_embed.proj.weight"], t["patch_embed.proj.bias"], stride=8)
    x = torch.cat([t["cls_token"][0], x[0].flatten(1).T]) + t["pos_embed"][0]
    for i in range(2):
        qkv = linear(norm(x, f"blocks.{i}.norm1"), f"blocks.{i}.attn.qkv").split(64, 1)  # q, q, k, k, v, v
        heads = [(q @ k.T / 8).softmax(1) @ v for q, k, v in zip(qkv[:2], qkv[2:4], qkv[4:], strict=True)]
        x = x + linear(torch.cat(heads, 1), f"blocks.{i}.attn.proj")
        hidden = torch.nn.functional.gelu(linear(norm(x, f"blocks.{i}.norm2"), f"blocks.{i}.mlp.fc1"))
        x = x + linear(hidden, f"blocks.{i}.mlp.fc2")
    return linear(norm(x, "norm")[0], "head")


def of_image(model: TimeSformer, image: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(image[None, None])[0]


@pytest.mark.parametrize("changes", [{}, {"qkv_bias": False}, {"hidden_act": "gelu_new", "image_size": [16, 24]}])
@pytest.mark.parametrize("in_memory", [True, False], ids=["in_memory", "in_files"])
def test_hugging_face(in_memory: bool, changes: dict[str, Any], tmp_path: Path) -> None:
    model = hf_model(**changes)
    if in_memory:
        write_hf(tmp_path, model, model.state_dict())
    else:
        model.save_pretrained(tmp_path)
    names = read_source(tmp_path).tensors
    loaded = load_model(tmp_path)
    assert loaded.model.config.norm_eps == 1e-12
    assert set(names) == set(loaded.model.state_dict())
    image = torch.randn(3, 16, 16 if "image_size" not in changes else 24)
    with torch.no_grad():
        expected = model(image[None]).logits[0]
    torch.testing.assert_close(of_image(loaded.model, image), expected, rtol=1e-4, atol=1e-4)


def test_hugging_face_bodies_without_prefix_and_classifier(tmp_path: Path) -> None:
    config = hf_model().config
    body = transformers.ViTModel(config, use_mask_token=True)
    write_hf(tmp_path, body, body.state_dict())
    loaded = load_model(tmp_path)
    assert {name.split(".")[0] for name in loaded.report.left_out} == {"pooler", "embeddings"}
    assert sorted(loaded.report.initialised) == ["head.bias", "head.weight"]


def test_label_names_and_preprocessing_of_hugging_face(tmp_path: Path) -> None:
    names = {i: f"thing {i}" for i in range(CLASSES)}
    model = hf_model(id2label=names)
    write_hf(tmp_path, model, model.state_dict())
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"height": 16, "width": 16}})
    )
    loaded = load_model(tmp_path)
    assert loaded.labels == list(names.values())
    assert loaded.preprocessing["mean"] == [0.5] * 3


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_timm(prefix: str, suffix: str, tmp_path: Path) -> None:
    tensors = timm_tensors()
    stored, path = {prefix + name: value for name, value in tensors.items()}, tmp_path / f"vit{suffix}"
    save_file(stored, path) if suffix == ".safetensors" else torch.save(stored, path)
    loaded = load_model(path)
    config = loaded.model.config
    assert (config.attention, config.num_frames, config.num_heads, config.norm_eps) == ("space", 1, HEADS, 1e-6)
    image = torch.randn(3, 16, 16)
    torch.testing.assert_close(of_image(loaded.model, image), image_logits(tensors, image), rtol=1e-4, atol=1e-4)
    assert any("num_heads not in the file" in note for note in loaded.report.notes)
    assert load_model(path, num_heads=4).model.config.num_heads == 4


def test_heads_of_vit_h(tmp_path: Path) -> None:
    """ViT-H has 16 heads of 80 channels; every smaller ViT has heads of 64."""
    save_file(timm_tensors(d=1280, depth=1), tmp_path / "vit.safetensors")
    assert read_source(tmp_path / "vit.safetensors").config.num_heads == 16


def test_preprocessing_of_timm(tmp_path: Path) -> None:
    save_file(timm_tensors(), tmp_path / "model.safetensors")
    config = {"architecture": "vit_tiny", "pretrained_cfg": {"mean": [0.4] * 3, "std": [0.2] * 3, "crop_pct": 0.9}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    record = load_model(tmp_path).preprocessing
    assert (record["mean"], record["std"], record["short_side"], record["crop"]) == ([0.4] * 3, [0.2] * 3, 17, 16)


@pytest.mark.parametrize("old_names", [True, False])
def test_npz_of_the_authors(old_names: bool, tmp_path: Path) -> None:
    params = image_model(old_names=old_names)
    np.savez(tmp_path / "ViT-B_16.npz", **flattened(params))
    loaded = load_model(tmp_path / "ViT-B_16.npz")
    assert (loaded.model.config.attention, loaded.model.config.num_heads) == ("space", 2)
    image = np.random.default_rng(1).normal(size=(1, 16, 16, 3)).astype(np.float32)
    found = of_image(loaded.model, torch.from_numpy(image[0]).movedim(-1, 0)).numpy()
    np.testing.assert_allclose(found, logits(params, image), rtol=1e-4, atol=1e-4)
    assert loaded.preprocessing["value_range"] == [-1.0, 1.0]


def test_scenics_image_models(tmp_path: Path) -> None:
    params = image_model(head="output_projection")
    (tmp_path / "checkpoint").write_bytes(pack(train_state(params)))
    loaded = load_model(tmp_path)
    image = np.random.default_rng(1).normal(size=(1, 16, 16, 3)).astype(np.float32)
    found = of_image(loaded.model, torch.from_numpy(image[0]).movedim(-1, 0)).numpy()
    np.testing.assert_allclose(found, logits(params, image), rtol=1e-4, atol=1e-4)


def test_representation_layers_are_left_out_with_the_head_on_them(tmp_path: Path) -> None:
    params = image_model() | {"pre_logits": {"kernel": np.ones((16, 16)), "bias": np.ones(16)}}
    np.savez(tmp_path / "a.npz", **flattened(params))
    report = load_model(tmp_path / "a.npz").report
    assert sorted(report.left_out) == ["head/bias", "head/kernel", "pre_logits/bias", "pre_logits/kernel"]
    assert "representation" in report.reasons["pre_logits/kernel"]
    assert "pre_logits" in report.reasons["head/kernel"]
    assert sorted(report.initialised) == ["head.bias", "head.weight"]
    extra = {"pre_logits.fc.weight": torch.ones(D, D), "pre_logits.fc.bias": torch.ones(D)}
    save_file(timm_tensors(**extra), tmp_path / "a.safetensors")
    assert "pre_logits.fc.weight" in load_model(tmp_path / "a.safetensors").report.left_out


def write_timm(folder: Path) -> Path:
    save_file(timm_tensors(), folder / "vit.safetensors")
    return folder / "vit.safetensors"


def write_npz(folder: Path) -> Path:
    np.savez(folder / "vit.npz", **flattened(image_model(d=D, k=HEADS, hidden=96)))
    return folder / "vit.npz"


def write_vit(folder: Path) -> Path:
    model = hf_model(hidden_size=D, num_attention_heads=HEADS, intermediate_size=96)
    return write_hf(folder, model, model.state_dict())


@pytest.mark.parametrize("write", [write_timm, write_npz, write_vit])
@pytest.mark.parametrize("attention", SHIPPED)
def test_every_scheme_starts_from_image_weights(attention: str, write: Callable[[Path], Path], tmp_path: Path) -> None:
    source = write(tmp_path)
    image = read_source(source).tensors
    config = TimeSformerConfig(
        attention=attention, num_frames=4, tubelet_size=2, image_size=24, patch_size=8, num_classes=3, embed_dim=D,
        depth=2, temporal_depth=1, num_heads=HEADS, mlp_ratio=0.75,
    )  # fmt: skip
    model = TimeSformer(config)
    report = transfer(model, source)
    state = model.state_dict()
    steps = {step.name: step for step in build(attention).encoders[0].steps}
    for number in range(2):
        for name, step in steps.items():
            for part in ("norm", "qkv", "proj"):
                found = state[f"encoders.0.blocks.{number}.steps.{name}.{part}.weight"]
                start = image[f"encoders.0.blocks.{number}.steps.space.{part}.weight"]
                assert torch.equal(found, start * 0 if part == "proj" and step.zero_start else start)
            if step.extra_linear:
                assert not state[f"encoders.0.blocks.{number}.steps.{name}.fc.weight"].any()
        assert torch.equal(
            state[f"encoders.0.blocks.{number}.mlp.fc1.weight"], image[f"encoders.0.blocks.{number}.mlp.fc1.weight"]
        )
    central = state["patch_embed.proj.weight"].view(D, 3, 2, 64)
    assert torch.equal(central[:, :, 1], image["patch_embed.proj.weight"].view(D, 3, 64))
    assert not central[:, :, 0].any()
    assert "encoders.0.positions.table" in report.resized or "encoders.0.positions.space" in report.resized
    assert not [name for name in report.left_out if not name.startswith("head") and not name.endswith("cls_token")]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"dist_token": torch.ones(1, 1, D), "pos_embed": torch.ones(1, 6, D)}, "dist_token"),
        ({"blocks.0.ls1.gamma": torch.ones(D)}, r"blocks\.0\.ls1\.gamma"),
        ({"blocks.1.attn.relative_position_bias_table": torch.ones(9, 1)}, "relative_position_bias_table"),
        ({"reg_token": torch.ones(1, 4, D)}, "reg_token"),
        ({"pos_embed": torch.ones(1, 6, D)}, "pos_embed: 5 rows"),
        ({"pos_embed": torch.ones(5, D)}, "pos_embed: expected 3 axes"),
        ({"norm.weight": torch.ones(D + 1)}, "norm.weight: shape"),
        ({"norm.weight": None}, "norm.weight missing"),
        ({"patch_embed.proj.weight": torch.ones(24, 3, 8, 8)}, "width 24"),
    ],
)
def test_timm_variants_that_do_not_fit_are_named(
    extra: dict[str, torch.Tensor | None], message: str, tmp_path: Path
) -> None:
    tensors = {name: value for name, value in (timm_tensors() | extra).items() if value is not None}
    save_file(tensors, tmp_path / "vit.safetensors")
    with pytest.raises(InputError, match=message):
        load_model(tmp_path / "vit.safetensors")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "silu"}, "hidden_act"),
        ({"patch_size": [8, 4]}, "patch_size"),
        ({"num_attention_heads": 5}, "num_heads"),
        ({"hidden_size": 0}, "config.json"),
        ({"intermediate_size": 40}, "fc1.weight"),
    ],
)
def test_settings_of_hugging_face_that_do_not_fit_are_named(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    model = hf_model()
    write_hf(tmp_path, model, model.state_dict())
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(InputError, match=message):
        load_model(tmp_path)


def test_image_weights_of_other_models_are_unknown(tmp_path: Path) -> None:
    save_file(timm_tensors(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "deit"}')
    with pytest.raises(InputError, match=r"unknown format.*'deit'"):
        load_model(tmp_path)


def test_tensors_of_hugging_face_that_do_not_fit_are_named(tmp_path: Path) -> None:
    model = hf_model()
    state = model.state_dict()
    write_hf(tmp_path, model, state | {"vit.layers.0.ls": torch.ones(3)})
    with pytest.raises(InputError, match=r"vit\.layers\.0\.ls"):
        load_model(tmp_path)
    write_hf(tmp_path, model, {name: value for name, value in state.items() if "q_proj" not in name})
    with pytest.raises(InputError, match=r"q_proj\.weight and \d+ more missing"):
        load_model(tmp_path)
    write_hf(tmp_path, model, {"vit.layernorm.weight": torch.ones(24)})
    with pytest.raises(InputError, match=r"no vit\.layers\.0"):
        load_model(tmp_path)


def test_damaged_npz(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, **flattened(image_model()))
    whole = path.read_bytes()
    for content in (b"", b"PK", whole[:2000], b"\x93NUMPY"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"a\.npz: not a readable"):
            load_model(path)
    np.savez(path, objects=np.array([{}], dtype=object))
    with pytest.raises(InputError, match="not a readable"):
        load_model(path)
    np.save(tmp_path / "b.npy", np.ones(3))
    (tmp_path / "b.npy").rename(path)
    with pytest.raises(InputError, match="not a readable"):
        load_model(path)


def test_npz_that_does_not_fit(tmp_path: Path) -> None:
    params = flattened(image_model())
    path = tmp_path / "a.npz"
    np.savez(path, **(params | {"Transformer/encoderblock_0/LayerScale/gamma": np.ones(3)}))
    with pytest.raises(InputError, match="LayerScale/gamma"):
        load_model(path)
    np.savez(path, **{name: value for name, value in params.items() if name != "cls"})
    with pytest.raises(InputError, match="cls missing"):
        load_model(path)
    np.savez(path, **{name: value for name, value in params.items() if "encoderblock" not in name})
    with pytest.raises(InputError, match="encoderblock_0 missing"):
        load_model(path)
    np.savez(path, **{name: value for name, value in params.items() if "head" not in name})
    assert sorted(load_model(path).report.initialised) == ["head.bias", "head.weight"]
