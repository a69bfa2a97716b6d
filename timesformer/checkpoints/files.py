"""Our format on disk: config.json, model.safetensors, preprocessing.json, labels.json, provenance.json."""

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from timesformer.backbone import TimeSformer
from timesformer.config import TimeSformerConfig
from timesformer.errors import InputError

LIBRARY = "timesformer-ablations"
DEFAULT_PREPROCESSING = {
    "mean": [0.45, 0.45, 0.45],
    "std": [0.225, 0.225, 0.225],
    "colour_order": "RGB",
    "interpolation": "bilinear",
}


@dataclass(frozen=True)
class LoadedModel:
    """A model with what travels with it: preprocessing record, label names, where it came from."""

    model: TimeSformer
    preprocessing: dict[str, Any]
    labels: list[str]
    provenance: dict[str, Any]


def write_atomic(path: str | Path, content: bytes | str | Callable[[Path], object]) -> Path:
    """Writes a file so that it is either whole or not there: a temporary file beside it, synced, then renamed.

    `content` is the bytes or text, or a function that writes to the path that it is given.

    Raises:
        InputError: the folder cannot be made or written; the message names it.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            if isinstance(content, str | bytes):
                file.write(content.encode() if isinstance(content, str) else content)
        if callable(content):
            content(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def save_model(
    folder: str | Path,
    model: TimeSformer,
    *,
    preprocessing: dict[str, Any] | None = None,
    labels: list[str] | None = None,
    provenance: dict[str, Any] | None = None,
) -> Path:
    """Writes a model's folder.  Preprocessing defaults to the released one (mean 0.45, std 0.225, RGB, short side
    and centre crop of the image size), labels to `class 0`, `class 1`, …

    Raises:
        InputError: the folder cannot be written, or there is not one label name per class.
    """
    folder, config = Path(folder), model.config
    if model.fused:
        raise InputError(f"{folder}: this model was fused for inference: save the one that it was made from")
    if preprocessing is None:
        height, width = config.height_width
        preprocessing = DEFAULT_PREPROCESSING | {
            "short_side": min(height, width),
            "crop": [height, width],
            "num_frames": config.num_frames,
        }
    labels = labels if labels is not None else [f"class {i}" for i in range(config.num_classes)]
    if len(labels) != config.num_classes:
        raise InputError(f"labels: expected {config.num_classes} names, one per class, got {len(labels)}")
    tensors = {name: value.detach().contiguous().cpu() for name, value in model.state_dict().items()}
    write_atomic(folder / "model.safetensors", save_tensors(tensors, metadata={"format": "pt"}))
    for name, value in (("preprocessing", preprocessing), ("labels", labels), ("provenance", provenance or {})):
        write_atomic(folder / f"{name}.json", _json(value))
    write_atomic(folder / "config.json", _json({"library": LIBRARY, "model": config.to_dict()}))
    return folder


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def load_model(folder: str | Path) -> LoadedModel:
    """The model in a folder that `save_model` wrote.

    Raises:
        InputError: a file is missing, is not of this format, or does not fit the configuration.
    """
    folder = Path(folder)
    config = _read_config(folder)
    model = TimeSformer(config)
    tensors = read_tensors(folder / "model.safetensors")
    own = model.state_dict()
    if set(own) != set(tensors):
        raise InputError(
            f"{folder / 'model.safetensors'}: missing {sorted(set(own) - set(tensors))[:5]}, "
            f"unexpected {sorted(set(tensors) - set(own))[:5]}"
        )
    for name, value in tensors.items():
        if value.shape != own[name].shape:
            raise InputError(
                f"{folder / 'model.safetensors'}: {name} has shape {tuple(value.shape)}, "
                f"expected {tuple(own[name].shape)}"
            )
    model.load_state_dict(tensors)
    extra = {name: _read_json(folder / f"{name}.json") for name in ("preprocessing", "labels", "provenance")}
    return LoadedModel(model.eval(), extra["preprocessing"], extra["labels"], extra["provenance"])


def read_source(folder: str | Path) -> tuple[TimeSformerConfig, dict[str, Tensor]]:
    """Configuration and weights of a model folder, without building the model."""
    folder = Path(folder)
    return _read_config(folder), read_tensors(folder / "model.safetensors")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; InputError where it is missing or damaged."""
    try:
        return load_tensors(path.read_bytes())
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except SafetensorError as error:
        raise InputError(f"{path}: not a readable safetensors file ({error})") from error


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; expected a model folder written by save_model") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not valid JSON ({error.msg})") from error


def _read_config(folder: Path) -> TimeSformerConfig:
    values = _read_json(folder / "config.json")
    if not isinstance(values, dict) or values.get("library") != LIBRARY:
        raise InputError(f'{folder / "config.json"}: expected a configuration with "library": "{LIBRARY}"')
    return TimeSformerConfig.from_dict(values["model"])
