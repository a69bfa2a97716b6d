"""Hugging Face ViViT (config.json with `model_type` vivit; both layouts of key names), read and written.

ViViT's model 1 is `joint` with a full table of positions and tubelets.  What is written has the key names of the
published checkpoints, which every version of transformers reads.
"""

from pathlib import Path
from typing import Any

from torch import Tensor

from timesformer.attention import ALL, Partition
from timesformer.checkpoints.formats.hf_files import OURS, hf_labels, labels_of, pair_or_int, write_folder
from timesformer.checkpoints.formats.hf_timesformer import ACTIVATIONS
from timesformer.checkpoints.formats.hf_vit import IN_FILES, layout_of, model_rules, zero_biases
from timesformer.checkpoints.formats.scenic import released_preprocessing
from timesformer.checkpoints.rules import Rule, convert, explain, flat, mlp_ratio, patches, without_batch
from timesformer.checkpoints.source import Format, Raw, Source
from timesformer.config.registry import Model
from timesformer.config.transformer import TimeSformerConfig
from timesformer.errors import InputError

PREFIX = "vivit."
JOINT = Partition(t=ALL, h=ALL, w=ALL)


def _matches(raw: Raw) -> bool:
    return raw.config is not None and raw.config.get("model_type") == "vivit"


def _read(raw: Raw) -> Source:
    """With or without the prefix `vivit.`, with or without a classifier."""
    assert raw.config is not None
    prefix = PREFIX if any(name.startswith(PREFIX) for name in raw.tensors) else ""
    layout, depth = layout_of(raw, prefix)
    head, qkv_bias = "classifier.weight" in raw.tensors, raw.config.get("qkv_bias", True) is not False
    rules = model_rules(prefix, layout, depth, "joint", head, qkv_bias)
    unused = {
        name: "the classifier reads the class token itself, not this pooling layer"
        for name in raw.tensors
        if name.startswith(f"{prefix}pooler.")
    }
    explain(raw, rules, unused, FORMAT.name)
    config = _config(raw, depth, head)
    tensors = convert(raw, rules, config)
    notes = []
    if not qkv_bias:
        tensors |= zero_biases(config)
        notes.append("qkv_bias false: the biases of q, k and v are zero")
    if raw.config.get("attention_probs_dropout_prob"):
        notes.append("attention_probs_dropout_prob: not known here, training goes without it")
    with_record = "processors" in raw.metadata
    if not with_record:
        notes.append("no preprocessor_config.json: the record of the released ViViT")
    return Source(
        format=FORMAT.name,
        config=config,
        tensors=tensors,
        preprocessing=None if with_record else released_preprocessing(config),
        labels=labels_of(raw, config.num_classes) if head else None,
        unused=unused,
        notes=tuple(notes),
        provenance={"licence": "MIT"} if str(raw.config.get("_name_or_path", "")).startswith("google/vivit") else {},
        where=str(raw.path),
    )


def _config(raw: Raw, depth: int, head: bool) -> TimeSformerConfig:
    """Fields that config.json leaves out have transformers' defaults."""
    given, where = raw.config or {}, raw.path / "config.json" if raw.path.is_dir() else raw.path
    activation, tubelet = given.get("hidden_act", "gelu_fast"), given.get("tubelet_size", [2, 16, 16])
    if activation not in ACTIVATIONS:
        raise InputError(f"{where}: hidden_act: expected one of {tuple(ACTIVATIONS)}, got {activation!r}")
    if not isinstance(tubelet, list | tuple) or len(tubelet) != 3 or tubelet[1] != tubelet[2]:
        raise InputError(f"{where}: tubelet_size: expected frames and twice the side of a patch, got {tubelet!r}")
    if given.get("num_hidden_layers", 12) != depth:
        raise InputError(f"{where}: num_hidden_layers: {given.get('num_hidden_layers', 12)}, but {depth} in the file")
    ours = given.get(OURS) if isinstance(given.get(OURS), dict) else {}
    assert isinstance(ours, dict)
    try:
        width = given.get("hidden_size", 768)
        return TimeSformerConfig(
            attention="joint",
            position="table",
            num_frames=given.get("num_frames", 32),
            image_size=pair_or_int(given.get("image_size", 224)),
            patch_size=tubelet[1],
            tubelet_size=tubelet[0],
            in_channels=given.get("num_channels", 3),
            num_classes=raw.tensors["classifier.weight"].shape[0] if head else len(given.get("id2label") or (0, 1)),
            embed_dim=width,
            depth=depth,
            num_heads=given.get("num_attention_heads", 12),
            mlp_ratio=mlp_ratio(given.get("intermediate_size", 3072), width),
            activation=ACTIVATIONS[activation],
            norm_eps=given.get("layer_norm_eps", 1e-6),
            drop_rate=given.get("hidden_dropout_prob", 0.0),
            drop_path_rate=ours.get("drop_path_rate", 0.0),
        )
    except (InputError, TypeError, ZeroDivisionError) as error:
        raise InputError(f"{where}: {error}") from error


def _require_expressible(config: TimeSformerConfig) -> None:
    """InputError that names the first field for which that port has no equivalent."""

    def require(field: str, holds: bool, expected: str) -> None:
        if not holds:
            raise InputError(f"{FORMAT.name} cannot express {field} = {getattr(config, field)!r}; it knows {expected}")

    encoders = config.scheme.encoders
    steps = encoders[0].steps
    joint = len(encoders) == len(steps) == 1 and steps[0].over == (JOINT,) and encoders[0].pool == "class"
    require("attention", joint and encoders[0].class_tokens == "clip", "attention over the whole clip alone (joint)")
    require("position", config.resolved_position == "table", "table")
    require("num_classes", isinstance(config.num_classes, int), "one head")
    for field in config.changed_switches():
        require(field, False, "the default alone")


def write(model: Model, folder: Path, labels: list[str] | None, preprocessing: dict[str, Any] | None) -> Path:
    """Write config.json, preprocessor_config.json and model.safetensors, which `transformers` loads.

    Raises:
        InputError: the model has an option that the format cannot express (names the field), or the folder cannot be
            written.
    """
    config = model.config
    _require_expressible(config)
    patch = config.patch_size
    values = {
        "architectures": ["VivitForVideoClassification"],
        "model_type": "vivit",
        "num_frames": config.num_frames,
        "image_size": config.image_size if isinstance(config.image_size, int) else list(config.image_size),
        "tubelet_size": [config.tubelet_size, patch, patch],
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
        **hf_labels(labels, config.num_classes),
        OURS: {"drop_path_rate": config.drop_path_rate},
    }
    state = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    step = config.scheme.encoders[0].steps[0].name
    tensors: dict[str, Tensor] = {}
    for rule in model_rules(PREFIX, IN_FILES, config.depth, step, head=True, qkv_bias=True):
        tensors |= _stored(rule, state[rule.ours], config)
    return write_folder(folder, values, tensors, preprocessing)


def _stored(rule: Rule, value: Tensor, config: TimeSformerConfig) -> dict[str, Tensor]:
    """The inverse of a rule."""
    if rule.convert is patches:
        value = value.view(-1, config.in_channels, config.tubelet_size, config.patch_size, config.patch_size)
    elif rule.convert is flat:
        value = value[None, None]
    elif rule.convert is without_batch:
        value = value[None]
    parts = value.chunk(len(rule.stored))
    return {name: part.contiguous() for name, part in zip(rule.stored, parts, strict=True)}


FORMAT = Format("Hugging Face ViViT", _matches, _read)
