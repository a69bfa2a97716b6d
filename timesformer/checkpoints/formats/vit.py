"""ImageNet ViT weights as models of ours: one frame, attention over space.  `transfer` inflates them into any scheme.

Three formats: key names of timm (also DeiT and the released code's image weights), Hugging Face ViT, and the flax
weights of the ViT's authors (.npz; scenic's image models as msgpack).  Distilled models, relative positions, scaled
layers and registers have tensors without a place here and are refused by name.
"""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from timesformer.checkpoints.formats import fair
from timesformer.checkpoints.formats.flax import class_rule, dense_rules, dimensions, embedding_rules, encoder_rules
from timesformer.checkpoints.formats.hf_files import labels_of, pair_or_int
from timesformer.checkpoints.formats.hf_timesformer import ACTIVATIONS
from timesformer.checkpoints.formats.hf_vit import layout_of, model_rules, zero_biases
from timesformer.checkpoints.formats.scenic import training_state, weights_root
from timesformer.checkpoints.rules import (
    Rule,
    convert,
    depth_of,
    explain,
    flat,
    mlp_ratio,
    patches,
    square_side,
    stored_shape,
    weight_and_bias,
    without_batch,
)
from timesformer.checkpoints.source import Format, Raw, Source
from timesformer.config.transformer import TimeSformerConfig
from timesformer.errors import InputError

IMAGE = {"attention": "space", "position": "space", "num_frames": 1}
HUGE, HUGE_HEADS = 1280, 16  # ViT-H: heads of 80 channels; all smaller ones have 64
TIMM_BLOCK = {"norm": "norm1", "qkv": "attn.qkv", "proj": "attn.proj"}
PRE_LOGITS = "representation layer of the pre-training head, not part of the model"
PRE_LOGITS_HEAD = "reads the representation layer pre_logits, which is left out"


def read_npz(path: Path) -> Raw:
    """The arrays of an .npz file by their stored names.  Raises InputError where it is damaged or holds objects."""
    tensors: dict[str, Tensor] = {}
    try:
        with np.load(path, allow_pickle=False) as file:
            for name in file.files:
                tensors[name] = torch.from_numpy(np.ascontiguousarray(file[name]))
    except (
        OSError,
        ValueError,
        TypeError,
        EOFError,
        KeyError,
        AttributeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise InputError(f"{path}: not a readable .npz file of plain arrays ({error})") from error
    return Raw(path, None, tensors)


def _timm_prefix(raw: Raw) -> str:
    return "module." if all(name.startswith("module.") for name in raw.tensors) else ""


def _matches_timm(raw: Raw) -> bool:
    """Key names, which a TimeSformer of the released code has too: that is a format of its own."""
    if raw.config is not None and ("model_type" in raw.config or "library" in raw.config):
        return False
    if fair.FORMAT.matches(raw):
        return False
    prefix = _timm_prefix(raw)
    return {f"{prefix}{name}" for name in ("pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight")} <= set(
        raw.tensors
    )


def _read_timm(raw: Raw) -> Source:
    prefix = _timm_prefix(raw)
    depth = depth_of(raw, f"{prefix}blocks.")
    rules: list[Rule] = [
        *weight_and_bias("patch_embed.proj", f"{prefix}patch_embed.proj", patches),
        Rule("encoders.0.cls_token", (f"{prefix}cls_token",), flat),
        Rule("encoders.0.positions.space", (f"{prefix}pos_embed",), without_batch),
        *weight_and_bias("encoders.0.norm", f"{prefix}norm"),
    ]
    for number in range(depth):
        block, ours = f"{prefix}blocks.{number}.", f"encoders.0.blocks.{number}"
        for part, stored in TIMM_BLOCK.items():
            rules += weight_and_bias(f"{ours}.steps.space.{part}", block + stored)
        for part, stored in {"norm": "norm2", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}.items():
            rules += weight_and_bias(f"{ours}.mlp.{part}", block + stored)
    pre_logits = [name for name in raw.tensors if name.startswith(f"{prefix}pre_logits.")]
    unused = _without_head(raw, f"{prefix}head.", pre_logits)
    head = f"{prefix}head.weight" in raw.tensors
    if head and f"{prefix}head.weight" not in unused:
        rules += weight_and_bias("head", f"{prefix}head")
    explain(raw, rules, unused, TIMM.name)
    projection, positions = f"{prefix}patch_embed.proj.weight", f"{prefix}pos_embed"
    width, channels, patch, _ = stored_shape(raw, projection, 4)
    heads, whence = raw.heads_of(width, HUGE // HUGE_HEADS if width == HUGE else fair.HEAD_WIDTH)
    hidden = stored_shape(raw, f"{prefix}blocks.0.mlp.fc1.weight", 2)[0]
    config = TimeSformerConfig(
        **IMAGE,  # type: ignore[arg-type]
        image_size=patch * square_side(raw, positions, stored_shape(raw, positions, 3)[1] - 1),
        patch_size=patch,
        in_channels=channels,
        num_classes=stored_shape(raw, f"{prefix}head.weight", 2)[0] if head else 1000,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        mlp_ratio=mlp_ratio(hidden, width),
        activation="gelu",
        norm_eps=1e-6,
    )
    return Source(
        format=TIMM.name,
        config=config,
        tensors=convert(raw, rules, config),
        preprocessing=_timm_preprocessing(raw, config),
        unused=unused,
        assumed=("num_heads",) if head else ("num_heads", "num_classes"),
        notes=(f"num_heads {whence}",),
        where=str(raw.path),
    )


def _without_head(raw: Raw, head: str, pre_logits: list[str]) -> dict[str, str]:
    """Tensors that are left out where the head stands on a representation layer."""
    if not pre_logits:
        return {}
    heads = [name for name in raw.tensors if name.startswith(head)]
    return dict.fromkeys(pre_logits, PRE_LOGITS) | dict.fromkeys(heads, PRE_LOGITS_HEAD)


def _timm_preprocessing(raw: Raw, config: TimeSformerConfig) -> dict[str, Any] | None:
    """Mean and std of timm's config.json, where there is one; timm resizes to the image size over `crop_pct`."""
    given = (raw.config or {}).get("pretrained_cfg")
    if not isinstance(given, dict) or not all(isinstance(given.get(key), list) for key in ("mean", "std")):
        return None
    size = config.height_width[0]
    record = _image_preprocessing(config) | {"mean": given["mean"], "std": given["std"], "value_range": [0.0, 1.0]}
    return record | {"short_side": int(size / given.get("crop_pct", 1.0)), "antialias": True}


def _image_preprocessing(config: TimeSformerConfig) -> dict[str, Any]:
    """The ViT authors': pixels from -1 to 1."""
    size = config.height_width[0]
    return {
        "num_frames": 1,
        "short_side": size,
        "crop": size,
        "mean": [0.0] * 3,
        "std": [1.0] * 3,
        "value_range": [-1.0, 1.0],
        "colour_order": "RGB",
    }


def _matches_hf(raw: Raw) -> bool:
    return raw.config is not None and raw.config.get("model_type") == "vit"


def _read_hf(raw: Raw) -> Source:
    """With or without the prefix `vit.`, with or without a classifier; both layouts of key names."""
    given, where = raw.config or {}, raw.path / "config.json" if raw.path.is_dir() else raw.path
    prefix = "vit." if any(name.startswith("vit.") for name in raw.tensors) else ""
    layout, depth = layout_of(raw, prefix)
    head, qkv_bias = "classifier.weight" in raw.tensors, given.get("qkv_bias", True) is not False
    rules = model_rules(prefix, layout, depth, "space", head, qkv_bias)
    unused = {}
    for name in raw.tensors:
        if name.startswith(f"{prefix}pooler."):
            unused[name] = "the classifier reads the class token itself, not this pooling layer"
        elif name == f"{prefix}embeddings.mask_token":
            unused[name] = "only for pre-training with masked patches"
    explain(raw, rules, unused, HUGGING_FACE.name)
    activation, patch = given.get("hidden_act", "gelu"), pair_or_int(given.get("patch_size", 16))
    if activation not in ACTIVATIONS:
        raise InputError(f"{where}: hidden_act: expected one of {tuple(ACTIVATIONS)}, got {activation!r}")
    if not isinstance(patch, int):
        raise InputError(f"{where}: patch_size: expected square patches, got {patch}")
    try:
        width = given.get("hidden_size", 768)
        config = TimeSformerConfig(
            **IMAGE,  # type: ignore[arg-type]
            image_size=pair_or_int(given.get("image_size", 224)),
            patch_size=patch,
            in_channels=given.get("num_channels", 3),
            num_classes=raw.tensors["classifier.weight"].shape[0] if head else len(given.get("id2label") or (0, 1)),
            embed_dim=width,
            depth=depth,
            num_heads=given.get("num_attention_heads", 12),
            mlp_ratio=mlp_ratio(given.get("intermediate_size", 3072), width),
            activation=ACTIVATIONS[activation],
            norm_eps=given.get("layer_norm_eps", 1e-12),
            drop_rate=given.get("hidden_dropout_prob", 0.0),
        )
    except (InputError, TypeError, ZeroDivisionError) as error:
        raise InputError(f"{where}: {error}") from error
    tensors = convert(raw, rules, config)
    return Source(
        format=HUGGING_FACE.name,
        config=config,
        tensors=tensors if qkv_bias else tensors | zero_biases(config),
        labels=labels_of(raw, config.num_classes) if head else None,
        unused=unused,
        notes=() if qkv_bias else ("qkv_bias false: the biases of q, k and v are zero",),
        where=str(raw.path),
    )


def _flax_root(raw: Raw) -> tuple[str, str] | None:
    """Where the weights lie and what separates names: "/" in the authors' .npz, "." in a msgpack file."""
    if "embedding/kernel" in raw.tensors:
        return "", "/"
    root = weights_root(raw)
    return None if root is None else (root, ".")


def _matches_flax(raw: Raw) -> bool:
    found = _flax_root(raw)
    return raw.config is None and found is not None and raw.tensors[f"{found[0]}embedding{found[1]}kernel"].ndim == 4


def _read_flax(raw: Raw) -> Source:
    found = _flax_root(raw)
    assert found is not None
    root, sep = found
    body, head = f"{root}Transformer{sep}", f"{root}output_projection{sep}" if sep == "." else f"head{sep}"
    rules: list[Rule] = [
        *embedding_rules(f"{root}embedding{sep}"),
        class_rule("encoders.0", f"{root}cls"),
        *encoder_rules(raw, body, "encoders.0", "space", sep),
    ]
    unused = _without_head(raw, head, [name for name in raw.tensors if name.startswith(f"{root}pre_logits{sep}")])
    unused |= training_state(raw, root) if sep == "." else {}
    with_head = f"{head}kernel" in raw.tensors
    if with_head and f"{head}kernel" not in unused:
        rules += dense_rules("head", head)
    explain(raw, rules, unused, FLAX.name)
    depth = depth_of(raw, f"{body}encoderblock_", sep)
    if depth == 0:
        raise InputError(f"{raw.path}: {body}encoderblock_0 missing; a {FLAX.name} checkpoint needs it")
    width, heads, hidden = dimensions(raw, body, sep)
    _, patch, channels, _ = stored_shape(raw, f"{root}embedding{sep}kernel", 4)
    positions = f"{body}posembed_input{sep}pos_embedding"
    config = TimeSformerConfig(
        **IMAGE,  # type: ignore[arg-type]
        image_size=patch * square_side(raw, positions, stored_shape(raw, positions, 3)[1] - 1),
        patch_size=patch,
        in_channels=channels,
        num_classes=stored_shape(raw, f"{head}kernel", 2)[1] if with_head else 1000,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        mlp_ratio=mlp_ratio(hidden, width),
        activation="gelu_tanh",  # flax.linen.gelu
        norm_eps=1e-6,
    )
    return Source(
        format=FLAX.name,
        config=config,
        tensors=convert(raw, rules, config),
        preprocessing=_image_preprocessing(config),
        unused=unused,
        assumed=() if with_head else ("num_classes",),
        provenance={"licence": "Apache-2.0"},
        where=str(raw.path),
    )


HUGGING_FACE = Format("Hugging Face ViT", _matches_hf, _read_hf)
TIMM = Format("ViT image weights with timm's names", _matches_timm, _read_timm)
FLAX = Format("flax ViT image weights", _matches_flax, _read_flax)
