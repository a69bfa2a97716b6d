"""DINOv2, with and without registers (config.json with `model_type` dinov2 or dinov2_with_registers); read and written.

An image model: attention over the patches of a frame, layer scale, in the giant a gated MLP; its classifier reads the
class token and the mean of the patches.
"""

from pathlib import Path
from typing import Any

import torch

from timesformer.checkpoints.formats.encoders.family import (
    PRE_TRAINING,
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
from timesformer.checkpoints.formats.hf_files import OURS, hf_labels, pair_or_int, write_folder
from timesformer.checkpoints.formats.hf_timesformer import ACTIVATIONS
from timesformer.checkpoints.rules import Rule, depth_of, flat, mlp_ratio, patches, weight_and_bias, without_batch
from timesformer.checkpoints.source import Format, Raw, Source
from timesformer.config.registry import Model
from timesformer.config.transformer import TimeSformerConfig
from timesformer.heads import Labels

PLAIN, REGISTERS = "dinov2", "dinov2_with_registers"
LICENCE = "Apache-2.0"


def _names(prefix: str, gated: bool, in_memory: bool) -> BlockNames:
    """The names in files, or those of transformers' modules."""
    attention = "attention." if in_memory else "attention.attention."
    parts = ("q_proj", "k_proj", "v_proj") if in_memory else ("query", "key", "value")
    fc1: str | tuple[str, str] = "mlp.fc1"
    if gated:
        fc1 = ("mlp.gate_proj", "mlp.up_proj") if in_memory else "mlp.weights_in"
    fc2 = "mlp.fc2" if not gated else "mlp.down_proj" if in_memory else "mlp.weights_out"
    return BlockNames(
        start=f"{prefix}encoder.layer.",
        norms=("norm1", "norm2"),
        qkv=(attention + parts[0], attention + parts[1], attention + parts[2]),
        proj="attention.o_proj" if in_memory else "attention.output.dense",
        fc1=fc1,
        fc2=fc2,
        scales=("layer_scale1.lambda1", "layer_scale2.lambda1"),
    )


def _rules(
    prefix: str, names: BlockNames, depth: int, step: str, biased: bool, registers: int, head: bool
) -> list[Rule]:
    embeddings = f"{prefix}embeddings."
    return [
        *weight_and_bias("patch_embed.proj", f"{embeddings}patch_embeddings.projection", patches),
        Rule("encoders.0.cls_token", (f"{embeddings}cls_token",), flat),
        Rule("encoders.0.positions.space", (f"{embeddings}position_embeddings",), without_batch),
        *([Rule("encoders.0.registers", (f"{embeddings}register_tokens",), without_batch)] if registers else []),
        *names.rules(depth, step, "qkv" if biased else ""),
        *weight_and_bias("encoders.0.norm", f"{prefix}layernorm"),
        *(weight_and_bias("head", "classifier") if head else ()),
    ]


def _matches(raw: Raw) -> bool:
    return raw.config is not None and raw.config.get("model_type") in (PLAIN, REGISTERS)


def _read(raw: Raw) -> Source:
    """With or without prefix, with or without a classifier; both layouts of key names."""
    given = Settings.of(raw)
    kind = str(given.values["model_type"])
    prefix, head = prefix_of(raw, f"{kind}."), has_head(raw)
    depth = depth_of(raw, f"{prefix}encoder.layer.")
    given.require_depth("num_hidden_layers", 12, depth)
    gated, biased = bool(given.get("use_swiglu_ffn", False)), given.flag("qkv_bias", True)
    in_memory = f"{prefix}encoder.layer.0.attention.q_proj.weight" in raw.tensors
    registers = given.get("num_register_tokens", 4) if kind == REGISTERS else 0
    width, ratio = given.get("hidden_size", 768), given.get("mlp_ratio", 4)
    hidden = int(width * ratio)
    if gated:
        hidden = (int(hidden * 2 / 3) + 7) // 8 * 8
    config = given.build(
        attention="space",
        position="space",
        num_frames=1,
        image_size=pair_or_int(given.get("image_size", 224)),
        patch_size=given.side("patch_size", 14 if kind == PLAIN else 16),
        in_channels=given.get("num_channels", 3),
        num_classes=classes_of(raw, head),
        embed_dim=width,
        depth=depth,
        num_heads=given.get("num_attention_heads", 12),
        mlp_ratio=mlp_ratio(hidden, width),
        activation=given.activation(),
        norm_eps=given.get("layer_norm_eps", 1e-6),
        drop_rate=given.get("hidden_dropout_prob", 0.0),
        drop_path_rate=given.get(OURS, {}).get("drop_path_rate", given.get("drop_path_rate", 0.0)),
        registers=registers,
        layer_scale=given.get("layerscale_value", 1.0),
        mlp="swiglu" if gated else "gelu",
        qkv_bias="qkv" if biased else "",
        pool="class+mean" if head else None,
    )
    rules = _rules(prefix, _names(prefix, gated, in_memory), depth, "space", biased, registers, head)
    unused = left_out(raw, {f"{prefix}embeddings.mask_token": PRE_TRAINING})
    return source_of(raw, FORMAT.name, LICENCE, Read(config, rules, unused), head)


def write(model: Model, folder: Path, labels: Labels | None, preprocessing: dict[str, Any] | None) -> Path:
    """Write config.json, preprocessor_config.json and model.safetensors, which `transformers` loads.

    Raises:
        InputError: the model has an option that the format cannot express (names the field), or the folder cannot be
            written.
    """
    config = model.config
    gated = config.mlp == "swiglu"
    ratio = _expressible(config)
    kind = REGISTERS if config.registers else PLAIN
    prefix = f"{kind}."
    values = {
        "architectures": [f"Dinov2{'WithRegisters' if config.registers else ''}ForImageClassification"],
        "model_type": kind,
        "image_size": config.height_width[0],
        "patch_size": config.patch_size,
        "num_channels": config.in_channels,
        "hidden_size": config.embed_dim,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.num_heads,
        "mlp_ratio": ratio,
        "hidden_act": {ours: theirs for theirs, ours in ACTIVATIONS.items()}[config.activation],
        "hidden_dropout_prob": config.drop_rate,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": config.norm_eps,
        "layerscale_value": config.layer_scale,
        "qkv_bias": config.qkv_bias == "qkv",
        "use_swiglu_ffn": gated,
        **({"num_register_tokens": config.registers} if config.registers else {"use_mask_token": False}),
        **hf_labels(labels, config.num_classes),
        OURS: {"drop_path_rate": config.drop_path_rate},
    }
    step = config.scheme.encoders[0].steps[0].name
    names = _names(prefix, gated, in_memory=False)
    rules = _rules(prefix, names, config.depth, step, config.qkv_bias == "qkv", config.registers, head=True)
    tensors = inverse(rules, model.state_dict(), config)
    if config.registers:  # transformers has it in every such model
        tensors[f"{prefix}embeddings.mask_token"] = torch.zeros(1, config.embed_dim)
    return write_folder(folder, values, tensors, preprocessing)


def _expressible(config: TimeSformerConfig) -> int:
    """The `mlp_ratio` there, a whole number; InputError that names the first field without an equivalent."""
    gated, d = config.mlp == "swiglu", config.embed_dim
    ratios = [ratio for ratio in range(1, 17) if _hidden(d, ratio, gated) == int(d * config.mlp_ratio)]
    height, width = config.height_width
    require_expressible(
        config,
        FORMAT.name,
        {
            "attention": (config.scheme.name == "space", "attention inside a frame (space)"),
            "num_frames": (config.num_frames == 1, "images, one frame"),
            "tubelet_size": (config.tubelet_size == 1, "1 alone"),
            "position": (config.resolved_position == "space", "space"),
            "image_size": (height == width, "square images alone"),
            "num_classes": (isinstance(config.num_classes, int), "one head"),
            "cls_policy": (config.cls_policy != "absent", "the scheme's own policy"),
            "pool": (config.pool == "class+mean", "class+mean"),
            "layer_scale": (config.layer_scale is not None, "a start value"),
            "mlp": (True, ""),
            "registers": (True, ""),
            "qkv_bias": (config.qkv_bias in ("qkv", ""), "all of them or none"),
            "mlp_ratio": (bool(ratios), "whole numbers, with swiglu two thirds of it in steps of 8 channels"),
        },
    )
    return ratios[0]


def _hidden(width: int, ratio: int, gated: bool) -> int:
    return (int(width * ratio * 2 / 3) + 7) // 8 * 8 if gated else width * ratio


FORMAT = Format("Hugging Face DINOv2", _matches, _read)
