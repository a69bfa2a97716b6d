"""Tiny models of transformers with random weights, one of each kind that is read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from timesformer import TimeSformer

transformers = pytest.importorskip("transformers")

SMALL: dict[str, Any] = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
MLP: dict[str, Any] = {"intermediate_size": 96}
DECODER = {
    "decoder_num_hidden_layers": 1,
    "decoder_hidden_size": 24,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 24,
}
PREDICTOR = {"pred_hidden_size": 24, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1}
THREE = {"num_labels": 3}


def randomised(model: Any, std: float = 0.15) -> Any:
    torch.manual_seed(0)
    for value in model.parameters():
        torch.nn.init.normal_(value, std=std)
    return model.eval()


def videomae(kind: str = "ForVideoClassification", **changes: Any) -> Any:
    fields = SMALL | MLP | DECODER | THREE | {"image_size": 32, "num_frames": 4} | changes
    return randomised(getattr(transformers, f"VideoMAE{kind}")(transformers.VideoMAEConfig(**fields)))


def vjepa2(kind: str = "ForVideoClassification", **changes: Any) -> Any:
    fields = SMALL | PREDICTOR | THREE | {"crop_size": 48, "frames_per_clip": 4, "num_pooler_layers": 2} | changes
    return randomised(getattr(transformers, f"VJEPA2{kind}")(transformers.VJEPA2Config(**fields)))


def dinov2(kind: str = "ForImageClassification", registers: bool = False, **changes: Any) -> Any:
    name = "Dinov2WithRegisters" if registers else "Dinov2"
    fields = SMALL | THREE | {"image_size": 28, "patch_size": 14} | changes
    config = getattr(transformers, f"{name}Config")(**fields)
    return randomised(getattr(transformers, f"{name}{kind}")(config))


def dinov3(**changes: Any) -> Any:
    fields = SMALL | MLP | {"image_size": 32, "num_register_tokens": 2} | changes
    return randomised(transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(**fields)))


def vit_mae(kind: str = "Model", **changes: Any) -> Any:
    fields = SMALL | MLP | DECODER | {"image_size": 32, "mask_ratio": 0.0} | changes
    return randomised(getattr(transformers, f"ViTMAE{kind}")(transformers.ViTMAEConfig(**fields)))


def siglip(kind: str = "VisionModel") -> Any:
    vision = SMALL | MLP | {"image_size": 32}
    if kind == "VisionModel":
        return randomised(transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**vision)))
    text = SMALL | MLP | {"vocab_size": 10, "max_position_embeddings": 4, "bos_token_id": 0, "eos_token_id": 1}
    config = transformers.SiglipConfig(vision_config=vision, text_config=text, **THREE)
    return randomised(getattr(transformers, f"Siglip{kind}")(config))


def saved(model: Any, folder: Path, in_memory: bool = False) -> Path:
    """The folder as transformers writes it, or with the names of its modules."""
    if not in_memory:
        model.save_pretrained(folder)
        return folder
    from safetensors.torch import save_file

    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "model.safetensors")
    return folder


def tokens(model: TimeSformer, clip: Tensor) -> Tensor:
    """All tokens after the last norm, in the order of these models: class token, registers, patches."""
    found = model.forward_features(clip)
    parts = [found.patches.flatten(1, 3)]
    if found.registers is not None:
        parts.insert(0, found.registers)
    if found.cls is not None:
        parts.insert(0, found.cls[:, None])
    return torch.cat(parts, 1)


def hidden(model: Any, clip: Tensor) -> Tensor:
    """The tokens of an image model of transformers for clips of one frame."""
    image = clip[:, 0]
    if isinstance(model, transformers.ViTMAEModel):  # without masking, and without the shuffling that comes with it
        count = (model.config.image_size // model.config.patch_size) ** 2
        found: Tensor = model(image, noise=torch.arange(float(count)).expand(len(clip), -1)).last_hidden_state
        return found
    last: Tensor = model(image).last_hidden_state
    return last


Make = Callable[[], Any]
KINDS: dict[str, tuple[Make, tuple[int, ...], str]] = {
    "videomae": (videomae, (4, 3, 32, 32), "logits"),
    "vjepa2": (vjepa2, (4, 3, 48, 48), "logits"),
    "dinov2": (dinov2, (1, 3, 28, 28), "logits"),
    "dinov2_registers": (lambda: dinov2(registers=True), (1, 3, 28, 28), "logits"),
    "dinov2_giant": (lambda: dinov2(use_swiglu_ffn=True), (1, 3, 28, 28), "logits"),
    "dinov3": (dinov3, (1, 3, 32, 48), "tokens"),
    "vit_mae": (vit_mae, (1, 3, 32, 32), "tokens"),
    "siglip": (lambda: siglip("ForImageClassification"), (1, 3, 32, 32), "logits"),
    "siglip_tower": (siglip, (1, 3, 32, 32), "tokens"),
}
"""For each kind of folder: how a model is made, the shape of a clip, and what is compared."""
