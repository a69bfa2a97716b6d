"""VideoMAE (config.json with `model_type` videomae): classifier, body, pre-training encoder; classifiers are written.

Joint attention over tubelets, fixed sinusoid positions, no class token, biases for q and v alone.  Its classifier reads
the mean of the tokens, with the last norm after it.
"""

from pathlib import Path
from typing import Any

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
from timesformer.checkpoints.rules import Rule, depth_of, mlp_ratio, patches, weight_and_bias
from timesformer.checkpoints.source import Format, Raw, Source
from timesformer.config.registry import Model
from timesformer.errors import InputError
from timesformer.heads import Labels

LICENCE = "CC-BY-NC-4.0"
PREFIX = "videomae."
FC_NORM_EPS = 1e-5  # torch's default, whatever layer_norm_eps is


def _names(prefix: str, in_memory: bool) -> BlockNames:
    at = "attention.attention."
    return BlockNames(
        start=f"{prefix}encoder.layer.",
        norms=("layernorm_before", "layernorm_after"),
        qkv=(f"{at}query", f"{at}key", f"{at}value"),
        proj="attention.output.dense",
        fc1="intermediate.dense",
        fc2="output.dense",
        biases=None if in_memory else (f"{at}q_bias", f"{at}k_bias", f"{at}v_bias"),
    )


def _rules(prefix: str, names: BlockNames, depth: int, parts: str, norm: str | None, head: bool) -> list[Rule]:
    """norm: the stored name of the last norm, `fc_norm` of a classifier; None where there is none."""
    return [
        *weight_and_bias("patch_embed.proj", f"{prefix}embeddings.patch_embeddings.projection", patches),
        *names.rules(depth, "joint", parts),
        *(weight_and_bias("fc_norm" if norm == "fc_norm" else "encoders.0.norm", norm) if norm else ()),
        *(weight_and_bias("head", "classifier") if head else ()),
    ]


def _matches(raw: Raw) -> bool:
    return raw.config is not None and raw.config.get("model_type") == "videomae"


def _read(raw: Raw) -> Source:
    given = Settings.of(raw)
    prefix, head = prefix_of(raw, PREFIX), has_head(raw)
    depth = depth_of(raw, f"{prefix}encoder.layer.")
    given.require_depth("num_hidden_layers", 12, depth)
    mean = given.flag("use_mean_pooling", True)
    if head and not mean:
        raise InputError(
            f"{given.where}: use_mean_pooling: expected true with a classifier; without, it reads the first patch alone"
        )
    parts = "qv" if given.flag("qkv_bias", given.flag("qv_bias", True)) else ""
    in_memory = f"{prefix}encoder.layer.0.attention.attention.query.bias" in raw.tensors
    norm = f"{prefix}layernorm" if not mean else "fc_norm" if head else None
    width = given.get("hidden_size", 768)
    config = given.build(
        attention="joint",
        class_token=False,
        position="sinusoid",
        num_frames=given.get("num_frames", 16),
        image_size=pair_or_int(given.get("image_size", 224)),
        patch_size=given.side("patch_size", 16),
        tubelet_size=given.get("tubelet_size", 2),
        in_channels=given.get("num_channels", 3),
        num_classes=classes_of(raw, head),
        embed_dim=width,
        depth=depth,
        num_heads=given.get("num_attention_heads", 12),
        mlp_ratio=mlp_ratio(given.get("intermediate_size", 3072), width),
        activation=given.activation(),
        norm_eps=given.get("layer_norm_eps", 1e-12),
        drop_rate=given.get("hidden_dropout_prob", 0.0),
        drop_path_rate=given.get(OURS, {}).get("drop_path_rate", 0.0),
        qkv_bias=parts,
        fc_norm=mean,
        **({"fc_norm_eps": FC_NORM_EPS} if mean else {}),
    )
    decoder = {"decoder.": PRE_TRAINING, "encoder_to_decoder.": PRE_TRAINING, "mask_token": PRE_TRAINING}
    unused = left_out(raw, {} if head else decoder)
    rules = _rules(prefix, _names(prefix, in_memory), depth, parts, norm, head)
    notes = ("the encoder's tokens go to the mean without a norm: fc_norm is new",) if mean and not head else ()
    return source_of(raw, FORMAT.name, LICENCE, Read(config, rules, unused, notes), head)


def write(model: Model, folder: Path, labels: Labels | None, preprocessing: dict[str, Any] | None) -> Path:
    """Write config.json, preprocessor_config.json and model.safetensors, which `transformers` loads.

    Raises:
        InputError: the model has an option that the format cannot express (names the field), or the folder cannot be
            written.
    """
    config = model.config
    require_expressible(
        config,
        FORMAT.name,
        {
            "attention": (config.scheme.name == "joint", "attention over the whole clip alone (joint)"),
            "class_token": (not config.class_token, "false"),
            "position": (config.resolved_position == "sinusoid", "sinusoid"),
            "num_classes": (isinstance(config.num_classes, int), "one head"),
            "pool": (config.resolved_pool == "mean", "mean"),
            "fc_norm": (config.fc_norm, "true"),
            "fc_norm_eps": (config.fc_norm_eps == FC_NORM_EPS, f"{FC_NORM_EPS:g}"),
            "qkv_bias": (config.qkv_bias in ("qv", ""), "biases of q and v ('qv') or none"),
        },
    )
    values = {
        "architectures": ["VideoMAEForVideoClassification"],
        "model_type": "videomae",
        "image_size": config.image_size if isinstance(config.image_size, int) else list(config.image_size),
        "patch_size": config.patch_size,
        "num_channels": config.in_channels,
        "num_frames": config.num_frames,
        "tubelet_size": config.tubelet_size,
        "hidden_size": config.embed_dim,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.num_heads,
        "intermediate_size": int(config.embed_dim * config.mlp_ratio),
        "hidden_act": {ours: theirs for theirs, ours in ACTIVATIONS.items()}[config.activation],
        "hidden_dropout_prob": config.drop_rate,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": config.norm_eps,
        "qv_bias": config.qkv_bias == "qv",
        "use_mean_pooling": True,
        **hf_labels(labels, config.num_classes),
        OURS: {"drop_path_rate": config.drop_path_rate},
    }
    names = _names(PREFIX, in_memory=False)
    rules = _rules(PREFIX, names, config.depth, config.qkv_bias, "fc_norm", head=True)
    tensors = inverse(rules, model.state_dict(), config)
    return write_folder(folder, values, tensors, preprocessing)


FORMAT = Format("Hugging Face VideoMAE", _matches, _read)
