"""ViT-MAE (config.json with `model_type` vit_mae), read: the encoder of masked autoencoders, without a classifier.

Its positions are fixed sines and cosines, which its files hold as a table; they are read as a learned one.
"""

from timesformer.checkpoints.formats.encoders.family import (
    PRE_TRAINING,
    Read,
    Settings,
    classes_of,
    left_out,
    prefix_of,
    source_of,
)
from timesformer.checkpoints.formats.hf_files import pair_or_int
from timesformer.checkpoints.formats.hf_vit import layout_of, model_rules
from timesformer.checkpoints.rules import mlp_ratio
from timesformer.checkpoints.source import Format, Raw, Source

LICENCE = "CC-BY-NC-4.0"


def _matches(raw: Raw) -> bool:
    return raw.config is not None and raw.config.get("model_type") == "vit_mae"


def _read(raw: Raw) -> Source:
    """With or without the prefix `vit.` and the decoder."""
    given = Settings.of(raw)
    prefix = prefix_of(raw, "vit.")
    layout, depth = layout_of(raw, prefix)
    given.require_depth("num_hidden_layers", 12, depth)
    width, biased = given.get("hidden_size", 768), given.flag("qkv_bias", True)
    config = given.build(
        attention="space",
        position="space",
        num_frames=1,
        image_size=pair_or_int(given.get("image_size", 224)),
        patch_size=given.side("patch_size", 16),
        in_channels=given.get("num_channels", 3),
        num_classes=classes_of(raw, head=False),
        embed_dim=width,
        depth=depth,
        num_heads=given.get("num_attention_heads", 12),
        mlp_ratio=mlp_ratio(given.get("intermediate_size", 3072), width),
        activation=given.activation(),
        norm_eps=given.get("layer_norm_eps", 1e-12),
        drop_rate=given.get("hidden_dropout_prob", 0.0),
        qkv_bias="qkv" if biased else "",
    )
    rules = model_rules(prefix, layout, depth, "space", head=False, qkv_bias=biased)
    unused = left_out(raw, {"decoder.": PRE_TRAINING})
    return source_of(raw, FORMAT.name, LICENCE, Read(config, rules, unused), head=False)


FORMAT = Format("Hugging Face ViT-MAE", _matches, _read)
