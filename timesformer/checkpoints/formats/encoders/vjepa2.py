"""V-JEPA 2 (config.json with `model_type` vjepa2): encoder, attentive pooler and classifier, read and written.

Joint attention over tubelets with rotary positions, as its released code repeats their frequencies.  The predictor,
which only pre-training uses, is left out.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from timesformer.checkpoints.formats.encoders.family import (
    BlockNames,
    Read,
    Settings,
    classes_of,
    has_head,
    inverse,
    left_out,
    prefix_of,
    require_expressible,
    source_of,
)
from timesformer.checkpoints.formats.hf_files import OURS, hf_labels, write_folder
from timesformer.checkpoints.formats.hf_timesformer import ACTIVATIONS
from timesformer.checkpoints.rules import Rule, depth_of, flat, joined, mlp_ratio, patches, weight_and_bias
from timesformer.checkpoints.source import Format, Raw, Source
from timesformer.config.registry import Model
from timesformer.heads import Labels

LICENCE = "MIT"
PREFIX = "vjepa2."
PREDICTOR = "the predictor of masked tokens, only for pre-training"
CROSS = "pooler.cross_attention_layer."


def _names(prefix: str) -> BlockNames:
    return BlockNames(
        start=f"{prefix}encoder.layer.",
        norms=("norm1", "norm2"),
        qkv=("attention.query", "attention.key", "attention.value"),
        proj="attention.proj",
        fc1="mlp.fc1",
        fc2="mlp.fc2",
    )


def _pooler_rules(depth: int) -> list[Rule]:
    rules = [
        Rule("pooler.query", ("pooler.query_tokens",), flat),
        *weight_and_bias("pooler.norm", f"{CROSS}layer_norm1"),
        *weight_and_bias("pooler.q", f"{CROSS}cross_attn.q_proj"),
        *weight_and_bias("pooler.kv", (f"{CROSS}cross_attn.k_proj", f"{CROSS}cross_attn.v_proj"), joined),
        *weight_and_bias("pooler.mlp.norm", f"{CROSS}layer_norm2"),
        *weight_and_bias("pooler.mlp.fc1", f"{CROSS}mlp.fc1"),
        *weight_and_bias("pooler.mlp.fc2", f"{CROSS}mlp.fc2"),
    ]
    for number in range(depth):
        stored, ours = f"pooler.self_attention_layers.{number}.", f"pooler.blocks.{number}."
        qkv = tuple(f"{stored}self_attn.{part}_proj" for part in "qkv")
        rules += [
            *weight_and_bias(f"{ours}steps.joint.norm", f"{stored}layer_norm1"),
            *weight_and_bias(f"{ours}steps.joint.qkv", qkv, joined),
            *weight_and_bias(f"{ours}steps.joint.proj", f"{stored}self_attn.out_proj"),
            *weight_and_bias(f"{ours}mlp.norm", f"{stored}layer_norm2"),
            *weight_and_bias(f"{ours}mlp.fc1", f"{stored}mlp.fc1"),
            *weight_and_bias(f"{ours}mlp.fc2", f"{stored}mlp.fc2"),
        ]
    return rules


def _rules(prefix: str, depth: int, biased: bool, pooler_depth: int | None) -> list[Rule]:
    """pooler_depth: None without pooler and classifier."""
    return [
        *weight_and_bias("patch_embed.proj", f"{prefix}encoder.embeddings.patch_embeddings.proj", patches),
        *_names(prefix).rules(depth, "joint", "qkv" if biased else ""),
        *weight_and_bias("encoders.0.norm", f"{prefix}encoder.layernorm"),
        *(() if pooler_depth is None else (*_pooler_rules(pooler_depth), *weight_and_bias("head", "classifier"))),
    ]


def _matches(raw: Raw) -> bool:
    return raw.config is not None and raw.config.get("model_type") == "vjepa2"


def _read(raw: Raw) -> Source:
    given = Settings.of(raw)
    prefix, head = prefix_of(raw, PREFIX), has_head(raw)
    depth = depth_of(raw, f"{prefix}encoder.layer.")
    given.require_depth("num_hidden_layers", 24, depth)
    biased, width = given.flag("qkv_bias", True), given.get("hidden_size", 1024)
    pooler_depth = depth_of(raw, "pooler.self_attention_layers.")
    if head:
        given.require_depth("num_pooler_layers", 3, pooler_depth)
    config = given.build(
        attention="joint",
        class_token=False,
        position="rope",
        rope_pairing="vjepa2",
        num_frames=given.get("frames_per_clip", 64),
        image_size=given.get("crop_size", 256),
        patch_size=given.side("patch_size", 16),
        tubelet_size=given.get("tubelet_size", 2),
        in_channels=given.get("in_chans", 3),
        num_classes=classes_of(raw, head),
        embed_dim=width,
        depth=depth,
        num_heads=given.get("num_attention_heads", 16),
        mlp_ratio=mlp_ratio(int(width * given.get("mlp_ratio", 4.0)), width),
        activation=given.activation(),
        norm_eps=given.get("layer_norm_eps", 1e-6),
        drop_path_rate=given.get("drop_path_rate", 0.0),
        qkv_bias="qkv" if biased else "",
        pool="attentive" if head else None,
        pooler_depth=pooler_depth if head else 0,
    )
    rules = _rules(prefix, depth, biased, pooler_depth if head else None)
    unused = left_out(raw, {f"{prefix}predictor.": PREDICTOR})
    return source_of(raw, FORMAT.name, LICENCE, Read(config, rules, unused), head)


def write(model: Model, folder: Path, labels: Labels | None, preprocessing: dict[str, Any] | None) -> Path:
    """Write config.json, preprocessor_config.json and model.safetensors, which `transformers` loads.

    The predictor, which this library does not have, is written without blocks and with zeros.

    Raises:
        InputError: the model has an option that the format cannot express (names the field), or the folder cannot be
            written.
    """
    config = model.config
    height, width = config.height_width
    require_expressible(
        config,
        FORMAT.name,
        {
            "attention": (config.scheme.name == "joint", "attention over the whole clip alone (joint)"),
            "class_token": (not config.class_token, "false"),
            "position": (config.resolved_position == "rope", "rope"),
            "rope_pairing": (config.rope_pairing == "vjepa2", "vjepa2"),
            "image_size": (height == width, "square images alone"),
            "drop_rate": (config.drop_rate == 0, "0 alone"),
            "num_classes": (isinstance(config.num_classes, int), "one head"),
            "pool": (config.resolved_pool == "attentive", "attentive"),
            "pooler_depth": (True, ""),
            "qkv_bias": (config.qkv_bias in ("qkv", ""), "all of them or none"),
        },
    )
    d = config.embed_dim
    values = {
        "architectures": ["VJEPA2ForVideoClassification"],
        "model_type": "vjepa2",
        "crop_size": height,
        "patch_size": config.patch_size,
        "in_chans": config.in_channels,
        "frames_per_clip": config.num_frames,
        "tubelet_size": config.tubelet_size,
        "hidden_size": d,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.num_heads,
        "mlp_ratio": config.mlp_ratio,
        "hidden_act": {ours: theirs for theirs, ours in ACTIVATIONS.items()}[config.activation],
        "layer_norm_eps": config.norm_eps,
        "drop_path_rate": config.drop_path_rate,
        "qkv_bias": config.qkv_bias == "qkv",
        "num_pooler_layers": config.pooler_depth,
        "pred_hidden_size": config.num_heads,
        "pred_num_attention_heads": config.num_heads,
        "pred_num_hidden_layers": 0,
        "pred_num_mask_tokens": 1,
        **hf_labels(labels, config.num_classes),
        OURS: {},
    }
    rules = _rules(PREFIX, config.depth, config.qkv_bias == "qkv", config.pooler_depth)
    tensors = inverse(rules, model.state_dict(), config) | _empty_predictor(d, config.num_heads)
    return write_folder(folder, values, tensors, preprocessing)


def _empty_predictor(width: int, inner: int) -> dict[str, Tensor]:
    shapes = {
        "embeddings.mask_tokens": (1, 1, 1, inner),
        "embeddings.predictor_embeddings.weight": (inner, width),
        "embeddings.predictor_embeddings.bias": (inner,),
        "layernorm.weight": (inner,),
        "layernorm.bias": (inner,),
        "proj.weight": (width, inner),
        "proj.bias": (width,),
    }
    return {f"{PREFIX}predictor.{name}": torch.zeros(shape) for name, shape in shapes.items()}


FORMAT = Format("Hugging Face V-JEPA 2", _matches, _read)
