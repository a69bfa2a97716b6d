"""Hugging Face TimeSformer: config.json with `model_type` timesformer; read and written.

Faults of that port, which matter when an exported model runs there: `space_only` gives logits for each frame and does
not average them; clips of another number of frames than the configuration's are regrouped wrongly.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from timesformer.attention import build
from timesformer.checkpoints.formats.fair import LICENCE
from timesformer.checkpoints.formats.hf_files import OURS, hf_labels, labels_of, pair_or_int, write_folder
from timesformer.checkpoints.layout import Layout
from timesformer.checkpoints.rules import mlp_ratio
from timesformer.checkpoints.source import Format, Raw, Source
from timesformer.config.registry import Model
from timesformer.config.transformer import TimeSformerConfig
from timesformer.errors import InputError
from timesformer.heads import Labels

ATTENTION_TYPES = {"space_only": "space", "joint_space_time": "joint", "divided_space_time": "divided"}
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_fast",
    "relu": "relu",
}
PREFIX = "timesformer."

LAYOUT = Layout(
    blocks="timesformer.encoder.layer",
    top={
        "patch_embed.proj": "timesformer.embeddings.patch_embeddings.projection",
        "cls_token": "timesformer.embeddings.cls_token",
        "positions.space": "timesformer.embeddings.position_embeddings",
        "positions.time": "timesformer.embeddings.time_embeddings",
        "norm": "timesformer.layernorm",
        "head": "classifier",
    },
    block={
        "attention.norm": "layernorm_before",
        "attention.qkv": "attention.attention.qkv",
        "attention.proj": "attention.output.dense",
        "time.norm": "temporal_layernorm",
        "time.qkv": "temporal_attention.attention.qkv",
        "time.proj": "temporal_attention.output.dense",
        "time.fc": "temporal_dense",
        "mlp.norm": "layernorm_after",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
    },
)


def _matches(raw: Raw) -> bool:
    return raw.config is not None and raw.config.get("model_type") == "timesformer"


def _read(raw: Raw) -> Source:
    """With or without the prefix `timesformer.`, with or without a classifier."""
    assert raw.config is not None
    known = (PREFIX, "classifier.")
    tensors = {key if key.startswith(known) else PREFIX + key: value for key, value in raw.tensors.items()}
    if len(tensors) < len(raw.tensors):
        raise InputError(f"{raw.path}: tensors both with and without the prefix {PREFIX!r}")
    config = _config(raw, tensors)
    notes = []
    if raw.config.get("attention_probs_dropout_prob"):
        notes.append("attention_probs_dropout_prob: not known here, training goes without it")
    if raw.config.get("qkv_bias", True) is False:
        biases = [LAYOUT.stored(name) for name in _qkv_biases(config)]
        tensors |= {name: torch.zeros(3 * config.embed_dim) for name in biases if name not in tensors}
        notes.append("qkv_bias false: the biases of q, k and v are zero")
    return Source(
        format=FORMAT.name,
        config=config,
        tensors=LAYOUT.read(raw, tensors, config, FORMAT.name),
        labels=labels_of(raw, config.num_classes),
        provenance={"licence": LICENCE},
        notes=tuple(notes),
    )


def _qkv_biases(config: TimeSformerConfig) -> list[str]:
    steps = [step.name for step in config.scheme.encoders[0].steps]
    return [f"encoders.0.blocks.{i}.steps.{step}.qkv.bias" for i in range(config.depth) for step in steps]


def _config(raw: Raw, tensors: dict[str, Tensor]) -> TimeSformerConfig:
    """Fields that config.json leaves out have transformers' defaults."""
    given, where = raw.config or {}, raw.path / "config.json" if raw.path.is_dir() else raw.path
    attention, activation = given.get("attention_type", "divided_space_time"), given.get("hidden_act", "gelu")
    if attention not in ATTENTION_TYPES:
        raise InputError(f"{where}: attention_type: expected one of {tuple(ATTENTION_TYPES)}, got {attention!r}")
    if activation not in ACTIVATIONS:
        raise InputError(f"{where}: hidden_act: expected one of {tuple(ACTIVATIONS)}, got {activation!r}")
    patch = pair_or_int(given.get("patch_size", 16))
    if not isinstance(patch, int):
        raise InputError(f"{where}: patch_size: expected square patches, got {patch}")
    width = given.get("hidden_size", 768)
    head = tensors.get("classifier.weight")
    ours = given.get(OURS) if isinstance(given.get(OURS), dict) else {}
    assert isinstance(ours, dict)
    try:
        return TimeSformerConfig(
            attention=ATTENTION_TYPES[attention],
            num_frames=given.get("num_frames", 8),
            image_size=pair_or_int(given.get("image_size", 224)),
            patch_size=patch,
            in_channels=given.get("num_channels", 3),
            num_classes=len(given.get("id2label") or (0, 1)) if head is None else head.shape[0],
            embed_dim=width,
            depth=given.get("num_hidden_layers", 12),
            num_heads=given.get("num_attention_heads", 12),
            mlp_ratio=mlp_ratio(given.get("intermediate_size", 3072), width),
            activation=ACTIVATIONS[activation],
            norm_eps=given.get("layer_norm_eps", 1e-6),
            drop_rate=given.get("hidden_dropout_prob", 0.0),
            drop_path_rate=ours.get("drop_path_rate", given.get("drop_path_rate", 0.0)),
        )
    except (InputError, TypeError) as error:
        raise InputError(f"{where}: {error}") from error


def _require_expressible(config: TimeSformerConfig) -> str:
    """The `attention_type` there; InputError that names the first field for which that port has no equivalent."""
    names = {ours: theirs for theirs, ours in ATTENTION_TYPES.items()}
    scheme = build(config.attention)

    def require(field: str, holds: bool, expected: str) -> None:
        if not holds:
            value = getattr(config, field)
            raise InputError(f"{FORMAT.name} cannot express {field} = {value!r}; it knows {expected}")

    require("attention", scheme.name in names, f"the schemes {', '.join(names.values())}")
    require("schedule", config.schedule is None, "blocks of one kind alone")
    require("cls_policy", scheme.vary(cls_policy=config.cls_policy) == scheme, "the scheme's own policy alone")
    require("temporal_fc", scheme.vary(temporal_fc=config.temporal_fc) == scheme, "true alone")
    require("share_qkv", scheme.vary(share_qkv=config.share_qkv) == scheme, "false alone")
    wanted = "space" if scheme.name == "space" else "space_time"
    require("position", config.resolved_position == wanted, f"{wanted} with this scheme")
    require("tubelet_size", config.tubelet_size == 1, "1 alone")
    height, width = config.height_width
    require("image_size", height == width, "square images alone")
    require("num_classes", isinstance(config.num_classes, int), "one head")
    for field in config.changed_switches():
        require(field, False, "the default alone")
    return names[scheme.name]


def write(model: Model, folder: Path, labels: Labels | None, preprocessing: dict[str, Any] | None) -> Path:
    """Write config.json, preprocessor_config.json and model.safetensors, which `transformers` loads.

    Raises:
        InputError: the model has an option that the format cannot express (names the field), or the folder cannot be
            written.
    """
    config = model.config
    attention = _require_expressible(config)
    values = {
        "architectures": ["TimesformerForVideoClassification"],
        "model_type": "timesformer",
        "attention_type": attention,
        "num_frames": config.num_frames,
        "image_size": config.height_width[0],
        "patch_size": config.patch_size,
        "num_channels": config.in_channels,
        "hidden_size": config.embed_dim,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.num_heads,
        "intermediate_size": int(config.embed_dim * config.mlp_ratio),
        "hidden_act": {ours: theirs for theirs, ours in ACTIVATIONS.items()}[config.activation],
        "hidden_dropout_prob": config.drop_rate,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": config.norm_eps,
        "qkv_bias": True,
        "drop_path_rate": 0,  # an integer there; ours stands below
        **hf_labels(labels, config.num_classes),
        OURS: {"drop_path_rate": config.drop_path_rate},
    }
    return write_folder(folder, values, LAYOUT.write(model), preprocessing)


FORMAT = Format("Hugging Face TimeSformer", _matches, _read)
