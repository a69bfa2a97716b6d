"""SigLIP's image tower (config.json with `model_type` siglip or siglip_vision_model), read; the text tower is left out.

An image model without a class token.  Its classifier in transformers reads the mean of the patches; the tower's own
pooling head, which compares images with texts, is left out.
"""

from timesformer.checkpoints.formats.encoders.family import (
    BlockNames,
    Read,
    Settings,
    classes_of,
    has_head,
    left_out,
    prefix_of,
    source_of,
)
from timesformer.checkpoints.formats.hf_files import pair_or_int
from timesformer.checkpoints.rules import Rule, depth_of, mlp_ratio, patches, plain, weight_and_bias
from timesformer.checkpoints.source import Format, Raw, Source

LICENCE = "Apache-2.0"
TEXT = "compares images with texts, no part of the image tower"
POOLING = "the tower's pooling head for comparison with texts; the classifier reads the mean of the patches"


def _matches(raw: Raw) -> bool:
    return raw.config is not None and raw.config.get("model_type") in ("siglip", "siglip_vision_model")


def _read(raw: Raw) -> Source:
    """The whole model, its classifier, or the tower alone, with or without the prefix `vision_model.`."""
    whole = (raw.config or {}).get("model_type") == "siglip"
    given = Settings.of(raw, "vision_config" if whole else None)
    prefix, head = prefix_of(raw, "vision_model."), has_head(raw)
    depth = depth_of(raw, f"{prefix}encoder.layers.")
    given.require_depth("num_hidden_layers", 12, depth)
    width = given.get("hidden_size", 768)
    config = given.build(
        attention="space",
        class_token=False,
        position="space",
        num_frames=1,
        image_size=pair_or_int(given.get("image_size", 224)),
        patch_size=given.side("patch_size", 16),
        in_channels=given.get("num_channels", 3),
        num_classes=classes_of(raw, head),
        embed_dim=width,
        depth=depth,
        num_heads=given.get("num_attention_heads", 12),
        mlp_ratio=mlp_ratio(given.get("intermediate_size", 3072), width),
        activation=given.activation("gelu_pytorch_tanh"),
        norm_eps=given.get("layer_norm_eps", 1e-6),
    )
    names = BlockNames(
        start=f"{prefix}encoder.layers.",
        norms=("layer_norm1", "layer_norm2"),
        qkv=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        proj="self_attn.out_proj",
        fc1="mlp.fc1",
        fc2="mlp.fc2",
    )
    rules = [
        *weight_and_bias("patch_embed.proj", f"{prefix}embeddings.patch_embedding", patches),
        Rule("encoders.0.positions.space", (f"{prefix}embeddings.position_embedding.weight",), plain),
        *names.rules(depth, "space", "qkv"),
        *weight_and_bias("encoders.0.norm", f"{prefix}post_layernorm"),
        *(weight_and_bias("head", "classifier") if head else ()),
    ]
    unused = left_out(
        raw,
        {
            "text_model.": TEXT,
            "logit_scale": TEXT,
            "logit_bias": TEXT,
            f"{prefix}head.": POOLING,
            f"{prefix}embeddings.position_ids": "the numbers of the patches, in order",
        },
    )
    return source_of(raw, FORMAT.name, LICENCE, Read(config, rules, unused), head)


FORMAT = Format("Hugging Face SigLIP", _matches, _read)
