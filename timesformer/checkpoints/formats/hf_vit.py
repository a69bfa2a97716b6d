"""Hugging Face's image and video ViT: the blocks that both share, in both layouts of their key names.

transformers 5 names modules `layers.i.attention.q_proj` in memory; files, also those that it writes, have
`encoder.layer.i.attention.attention.query`.
"""

import torch
from torch import Tensor

from timesformer.checkpoints.rules import Rule, depth_of, flat, joined, patches, weight_and_bias, without_batch
from timesformer.checkpoints.source import Raw
from timesformer.config.transformer import TimeSformerConfig
from timesformer.errors import InputError

IN_MEMORY = {
    "blocks": "layers.",
    "q": "attention.q_proj",
    "k": "attention.k_proj",
    "v": "attention.v_proj",
    "proj": "attention.o_proj",
    "fc1": "mlp.fc1",
    "fc2": "mlp.fc2",
}
IN_FILES = {
    "blocks": "encoder.layer.",
    "q": "attention.attention.query",
    "k": "attention.attention.key",
    "v": "attention.attention.value",
    "proj": "attention.output.dense",
    "fc1": "intermediate.dense",
    "fc2": "output.dense",
}


def layout_of(raw: Raw, prefix: str) -> tuple[dict[str, str], int]:
    """The layout of a file's key names and its number of blocks.

    Raises:
        InputError: no block of either layout.
    """
    for layout in (IN_MEMORY, IN_FILES):
        depth = depth_of(raw, prefix + layout["blocks"])
        if depth:
            return layout, depth
    raise InputError(f"{raw.path}: no {prefix}layers.0 or {prefix}encoder.layer.0 in it")


def model_rules(prefix: str, layout: dict[str, str], depth: int, step: str, head: bool, qkv_bias: bool) -> list[Rule]:
    """Rules for everything but what the configuration leaves out: biases of q, k and v, and the head."""
    embeddings, kind = f"{prefix}embeddings.", "space" if step == "space" else "table"
    rules = [
        *weight_and_bias("patch_embed.proj", f"{embeddings}patch_embeddings.projection", patches),
        Rule("encoders.0.cls_token", (f"{embeddings}cls_token",), flat),
        Rule(f"encoders.0.positions.{kind}", (f"{embeddings}position_embeddings",), without_batch),
    ]
    for number in range(depth):
        block, ours = f"{prefix}{layout['blocks']}{number}.", f"encoders.0.blocks.{number}"
        qkv = tuple(block + layout[part] for part in "qkv")
        weight, bias = weight_and_bias(f"{ours}.steps.{step}.qkv", qkv, joined)
        rules += [
            *weight_and_bias(f"{ours}.steps.{step}.norm", f"{block}layernorm_before"),
            weight,
            *([bias] if qkv_bias else []),
            *weight_and_bias(f"{ours}.steps.{step}.proj", block + layout["proj"]),
            *weight_and_bias(f"{ours}.mlp.norm", f"{block}layernorm_after"),
            *weight_and_bias(f"{ours}.mlp.fc1", block + layout["fc1"]),
            *weight_and_bias(f"{ours}.mlp.fc2", block + layout["fc2"]),
        ]
    rules += weight_and_bias("encoders.0.norm", f"{prefix}layernorm")
    return [*rules, *(weight_and_bias("head", "classifier") if head else ())]


def zero_biases(config: TimeSformerConfig) -> dict[str, Tensor]:
    """The biases of q, k and v of a model that has none there."""
    (step,) = config.scheme.encoders[0].steps
    name = f"steps.{step.name}.qkv.bias"
    return {f"encoders.0.blocks.{number}.{name}": torch.zeros(3 * config.embed_dim) for number in range(config.depth)}
