"""Our format on disk: config.json, model.safetensors, preprocessing.json, labels.json, provenance.json, and for a
user's own attention scheme scheme.py."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from timesformer.checkpoints.own_scheme import keep_scheme
from timesformer.config.registry import Model, ModelConfig
from timesformer.errors import InputError
from timesformer.files import write_atomic, write_json
from timesformer.heads import Labels, check_labels, default_labels

LIBRARY = "timesformer-ablations"
DEFAULT_PREPROCESSING = {
    "mean": [0.45, 0.45, 0.45],
    "std": [0.225, 0.225, 0.225],
    "colour_order": "RGB",
    "interpolation": "bilinear",
}


def default_preprocessing(config: ModelConfig) -> dict[str, Any]:
    """The released record at a model's size: mean 0.45, std 0.225, RGB, its image size as short side and crop."""
    height, width = config.height_width
    sizes = {"short_side": min(height, width), "crop": [height, width], "num_frames": config.num_frames}
    return DEFAULT_PREPROCESSING | sizes


def weights_sha256(model: Model) -> str:
    """sha256 over name, dtype, shape and bytes of every weight, in order of the names: equal weights, equal digest."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def save_model(
    folder: str | Path,
    model: Model,
    *,
    preprocessing: dict[str, Any] | None = None,
    labels: Labels | None = None,
    provenance: dict[str, Any] | None = None,
) -> Path:
    """Write a model's folder.  Preprocessing defaults to the released one (mean 0.45, std 0.225, RGB, short side
    and centre crop of the image size), labels to `class 0`, `class 1`, …; a model with
    several heads has {head: names}.

    Raises:
        InputError: the folder cannot be written, or there is not one label name per class.
    """
    folder, config = Path(folder), model.config
    if getattr(model, "fused", False):
        raise InputError(f"{folder}: this model was fused for inference: save the one that it was made from")
    preprocessing = preprocessing if preprocessing is not None else default_preprocessing(config)
    labels = default_labels(config.heads) if labels is None else check_labels(labels, config.heads)
    tensors = {name: value.detach().contiguous().cpu() for name, value in model.state_dict().items()}
    write_atomic(folder / "model.safetensors", save_tensors(tensors, metadata={"format": "pt"}))
    for name, value in (("preprocessing", preprocessing), ("labels", labels), ("provenance", provenance or {})):
        write_json(folder / f"{name}.json", value)
    stated = config.to_dict()
    scheme = keep_scheme(folder, stated["attention"]) if "attention" in stated else {}
    write_json(folder / "config.json", {"library": LIBRARY, "model": stated, **scheme})
    return folder


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; InputError where it is missing or damaged."""
    try:
        return load_tensors(path.read_bytes())
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except SafetensorError as error:
        raise InputError(f"{path}: not a readable safetensors file ({error})") from error
