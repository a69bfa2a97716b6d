"""DINOv3's ViT (config.json with `model_type` dinov3_vit), read: rotary positions, registers, layer scale.

An image model without a classifier.  Its positions are the centres of the patches between -1 and 1, so that a clip of
another size spans the same angles.
"""

from timesformer.checkpoints.formats.encoders.family import (
    PRE_TRAINING,
    BlockNames,
    Read,
    Settings,
    classes_of,
    left_out,
    source_of,
)
from timesformer.checkpoints.formats.hf_files import pair_or_int
from timesformer.checkpoints.rules import Rule, depth_of, flat, mlp_ratio, patches, weight_and_bias, without_batch
from timesformer.checkpoints.source import Format, Raw, Source
from timesformer.errors import InputError

LICENCE = "DINOv3 License"


def _matches(raw: Raw) -> bool:
    return raw.config is not None and raw.config.get("model_type") == "dinov3_vit"


def _read(raw: Raw) -> Source:
    """The layout of transformers' files, and that of its modules."""
    given = Settings.of(raw)
    start = "model.layer." if "model.layer.0.norm1.weight" in raw.tensors else "layer."
    depth = depth_of(raw, start)
    given.require_depth("num_hidden_layers", 12, depth)
    gated, mlp_bias = bool(given.get("use_gated_mlp", False)), given.flag("mlp_bias", True)
    if gated and given.get("hidden_act", "gelu") != "silu":
        found = given.get("hidden_act", "gelu")
        raise InputError(f"{given.where}: hidden_act: expected 'silu' with use_gated_mlp, got {found!r}")
    biases = zip("qkv", (("query_bias", True), ("key_bias", False), ("value_bias", True)), strict=True)
    parts = "".join(part for part, (field, default) in biases if given.flag(field, default))
    width, heads = given.get("hidden_size", 384), given.get("num_attention_heads", 6)
    registers, turning = given.get("num_register_tokens", 0), width // heads // 2
    config = given.build(
        attention="space",
        num_frames=1,
        position="rope",
        rope_axes=(0, turning, turning),
        rope_base=given.get("rope_theta", 100.0),
        rope_coordinates="unit",
        image_size=pair_or_int(given.get("image_size", 224)),
        patch_size=given.side("patch_size", 16),
        in_channels=given.get("num_channels", 3),
        num_classes=classes_of(raw, head=False),
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        mlp_ratio=mlp_ratio(given.get("intermediate_size", 1536), width),
        activation="gelu" if gated else given.activation(),
        norm_eps=given.get("layer_norm_eps", 1e-5),
        drop_path_rate=given.get("drop_path_rate", 0.0),
        registers=registers,
        layer_scale=given.get("layerscale_value", 1.0),
        mlp="swiglu" if gated else "gelu",
        qkv_bias=parts,
    )
    names = BlockNames(
        start=start,
        norms=("norm1", "norm2"),
        qkv=("attention.q_proj", "attention.k_proj", "attention.v_proj"),
        proj="attention.o_proj",
        fc1=("mlp.gate_proj", "mlp.up_proj") if gated else "mlp.up_proj",
        fc2="mlp.down_proj",
        scales=("layer_scale1.lambda1", "layer_scale2.lambda1"),
    )
    proj_bias = given.flag("proj_bias", True)
    rules = [
        *weight_and_bias("patch_embed.proj", "embeddings.patch_embeddings", patches),
        Rule("encoders.0.cls_token", ("embeddings.cls_token",), flat),
        *([Rule("encoders.0.registers", ("embeddings.register_tokens",), without_batch)] if registers else []),
        *names.rules(depth, "space", parts, proj_bias, mlp_bias),
        *weight_and_bias("encoders.0.norm", "norm"),
    ]
    missing = (("steps.space.proj",) if not proj_bias else ()) + (("mlp.fc1", "mlp.fc2") if not mlp_bias else ())
    zeros = tuple(f"encoders.0.blocks.{number}.{name}.bias" for number in range(depth) for name in missing)
    notes = ("proj_bias or mlp_bias false: these biases are zero",) if zeros else ()
    empty = {"embeddings.register_tokens": "num_register_tokens is 0"} if not registers else {}
    unused = left_out(raw, {"embeddings.mask_token": PRE_TRAINING, **empty})
    return source_of(raw, FORMAT.name, LICENCE, Read(config, rules, unused, notes, zeros), head=False)


FORMAT = Format("Hugging Face DINOv3", _matches, _read)
