"""Our format on disk: config.json, model.safetensors, preprocessing.json, labels.json, provenance.json, and for a
user's own attention scheme scheme.py."""

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from timesformer.checkpoints.card import write_card
from timesformer.checkpoints.own_scheme import keep_scheme
from timesformer.config.registry import Model, ModelConfig
from timesformer.data.preprocessing import Preprocessing
from timesformer.errors import InputError
from timesformer.files import write_atomic, write_json
from timesformer.heads import Labels, check_labels

log = logging.getLogger("timesformer")
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
    preprocessing: Preprocessing | dict[str, Any] | None = None,
    labels: Labels | None = None,
    provenance: dict[str, Any] | None = None,
) -> Path:
    """Write a model's folder and return it.

    preprocessing: the record, or its fields; sizes that are left out are the model's.  labels: class names, of a model
    with several heads as {head: names}.  What is not given is left out of the folder, with a warning, and never
    invented.  README.md is a card of the model.

    Raises:
        InputError: the folder cannot be written, a field of the preprocessing is unknown or impossible, or there is not
            one label name per class.
    """
    folder, config = Path(folder), model.config
    if getattr(model, "fused", False):
        raise InputError(f"{folder}: this model was fused for inference: save the one that it was made from")
    record = None if preprocessing is None else _record(preprocessing, config)
    names = None if labels is None else check_labels(labels, config.heads)
    left_out = [name for name, value in (("preprocessing", record), ("labels", names)) if value is None]
    if left_out:
        log.warning(
            "%s: saved without %s, which the model does not know: state %s, or whoever loads it has to guess",
            folder,
            " and ".join(left_out),
            " and ".join(f"{name}=…" for name in left_out),
        )
    tensors = {name: value.detach().contiguous().cpu() for name, value in model.state_dict().items()}
    write_atomic(folder / "model.safetensors", save_tensors(tensors, metadata={"format": "pt"}))
    for name, value in (("preprocessing", record), ("labels", names), ("provenance", provenance or {})):
        if value is None:
            (folder / f"{name}.json").unlink(missing_ok=True)  # of another model that was saved here before
        else:
            write_json(folder / f"{name}.json", value)
    stated = config.to_dict()
    scheme = keep_scheme(folder, stated)
    write_json(folder / "config.json", {"library": LIBRARY, "model": stated, **scheme})
    write_card(folder, model, record, names, provenance or {}, bool(scheme))
    return folder


def _record(preprocessing: Preprocessing | dict[str, Any], config: ModelConfig) -> dict[str, Any]:
    """The fields of a preprocessing record, checked.  Raises InputError that names the field."""
    if isinstance(preprocessing, Preprocessing):
        return preprocessing.to_dict()
    if not isinstance(preprocessing, Mapping):
        raise InputError(
            f"preprocessing: expected a Preprocessing record or its fields, got {type(preprocessing).__name__}"
        )
    own, usual = default_preprocessing(config), Preprocessing()
    sizes = {
        name: own[name]
        for name, plain in (("num_frames", usual.num_frames), ("short_side", usual.short_side), ("crop", usual.crop))
        if own[name] not in (plain, [plain, plain])
    }
    record = sizes | dict(preprocessing)
    Preprocessing.from_dict(record)
    return record


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; InputError where it is missing or damaged."""
    try:
        return load_tensors(path.read_bytes())
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except SafetensorError as error:
        raise InputError(f"{path}: not a readable safetensors file ({error})") from error
