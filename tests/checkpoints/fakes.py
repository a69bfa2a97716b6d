"""Checkpoints as others write them: names and shapes spelled out here, apart from the tables of the package."""

from pathlib import Path

import torch
from torch import Tensor

CFG = """
TRAIN: {{DATASET: {dataset}, BATCH_SIZE: 8}}
DATA: {{NUM_FRAMES: {frames}, SAMPLING_RATE: 32, TRAIN_CROP_SIZE: {size}, TEST_CROP_SIZE: {size},
  MEAN: [0.45, 0.45, 0.45], STD: [0.225, 0.225, 0.225]}}
TIMESFORMER: {{ATTENTION_TYPE: {attention}}}
MODEL: {{NUM_CLASSES: {classes}, MODEL_NAME: vit_base_patch16_224}}
"""

# Released name -> the name of the same weights in transformers, for a block and for the rest.
HF_BLOCK = {
    "norm1": "layernorm_before",
    "attn.qkv": "attention.attention.qkv",
    "attn.proj": "attention.output.dense",
    "temporal_norm1": "temporal_layernorm",
    "temporal_attn.qkv": "temporal_attention.attention.qkv",
    "temporal_attn.proj": "temporal_attention.output.dense",
    "temporal_fc": "temporal_dense",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
HF_TOP = {
    "cls_token": "timesformer.embeddings.cls_token",
    "pos_embed": "timesformer.embeddings.position_embeddings",
    "time_embed": "timesformer.embeddings.time_embeddings",
    "patch_embed.proj.weight": "timesformer.embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "timesformer.embeddings.patch_embeddings.projection.bias",
    "norm.weight": "timesformer.layernorm.weight",
    "norm.bias": "timesformer.layernorm.bias",
    "head.weight": "classifier.weight",
    "head.bias": "classifier.bias",
}


def fair_state(
    attention: str = "divided_space_time",
    *,
    width: int = 128,
    depth: int = 2,
    frames: int = 4,
    side: int = 4,
    patch: int = 8,
    classes: int = 5,
    hidden: int = 256,
) -> dict[str, Tensor]:
    """The released code's `model_state` without its prefix, everything random."""

    def linear(name: str, rows: int, columns: int) -> dict[str, Tensor]:
        return {f"{name}.weight": torch.randn(rows, columns) * 0.1, f"{name}.bias": torch.randn(rows) * 0.1}

    def norm(name: str) -> dict[str, Tensor]:
        return {f"{name}.weight": 1 + 0.1 * torch.randn(width), f"{name}.bias": torch.randn(width) * 0.1}

    state = {
        "cls_token": torch.randn(1, 1, width),
        "pos_embed": torch.randn(1, side * side + 1, width),
        "patch_embed.proj.weight": torch.randn(width, 3, patch, patch) * 0.1,
        "patch_embed.proj.bias": torch.randn(width) * 0.1,
    }
    if attention != "space_only":
        state["time_embed"] = torch.randn(1, frames, width)
    for i in range(depth):
        block = norm("norm1") | linear("attn.qkv", 3 * width, width) | linear("attn.proj", width, width)
        if attention == "divided_space_time":
            block |= norm("temporal_norm1") | linear("temporal_attn.qkv", 3 * width, width)
            block |= linear("temporal_attn.proj", width, width) | linear("temporal_fc", width, width)
        block |= norm("norm2") | linear("mlp.fc1", hidden, width) | linear("mlp.fc2", width, hidden)
        state |= {f"blocks.{i}.{name}": value for name, value in block.items()}
    return state | norm("norm") | linear("head", classes, width)


def write_fair(path: Path, state: dict[str, Tensor], attention: str | None, dataset: str = "kinetics") -> Path:
    """A .pyth file with the released nesting; no cfg where `attention` is None."""
    size = round((state["pos_embed"].shape[1] - 1) ** 0.5) * state["patch_embed.proj.weight"].shape[-1]
    frames = state["time_embed"].shape[1] if "time_embed" in state else 8
    checkpoint = {
        "epoch": 14,
        "model_state": {f"model.{name}": value for name, value in state.items()},
        "optimizer_state": {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.005}]},
    }
    if attention is not None:
        classes = state["head.weight"].shape[0]
        checkpoint["cfg"] = CFG.format(attention=attention, frames=frames, size=size, classes=classes, dataset=dataset)
    torch.save(checkpoint, path)
    return path


def as_hf(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights by transformers' names."""
    renamed = {}
    for name, value in state.items():
        if name.startswith("blocks."):
            _, number, rest = name.split(".", 2)
            module, kind = rest.rsplit(".", 1)
            renamed[f"timesformer.encoder.layer.{number}.{HF_BLOCK[module]}.{kind}"] = value
        else:
            renamed[HF_TOP[name]] = value
    return renamed
