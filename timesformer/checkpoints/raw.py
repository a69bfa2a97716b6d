"""Any checkpoint from disk, or from the hub, to tensors by their stored names.  No file is ever unpickled freely."""

import json
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from timesformer.checkpoints.folder import read_tensors
from timesformer.checkpoints.formats.flax import is_flax, read_flax
from timesformer.checkpoints.formats.vit import read_npz
from timesformer.checkpoints.hub import HUB_NAME, download
from timesformer.checkpoints.source import Raw
from timesformer.errors import InputError

FOLDER_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
TORCH_SUFFIXES = (".bin", ".pt", ".pth", ".pyth", ".ckpt")
CONTAINERS = ("model_state", "state_dict", "model_state_dict", "model")
PREPROCESSORS = ("preprocessor_config.json", "video_preprocessor_config.json")
PROCESSOR = "processor_config.json"


def locate(source: str | Path) -> Path:
    """The file or folder that `source` names; a hub name becomes its local snapshot.

    Raises:
        InputError: neither an existing path nor a repository that can be had.
    """
    path = Path(source)
    if path.exists():
        return path
    if HUB_NAME.fullmatch(str(source)):
        return download(str(source))
    raise InputError(f"{source}: no such file or folder, and no name of a repository on the hub (user/model)")


def weight_files(path: Path) -> list[Path]:
    """The files that hold the weights of a local checkpoint, in a fixed order.  Raises InputError for a folder without
    weights, or an index that names files that are not there."""
    if path.is_file():
        return [path]
    for name in FOLDER_WEIGHTS:
        if (path / name).is_file():
            return _shards(path / name) if name.endswith(".json") else [path / name]
    if is_flax(path):
        return [file for file in sorted(path.iterdir()) if file.is_file() and is_flax(file)]
    lonely = [file for file in path.iterdir() if file.suffix in (*TORCH_SUFFIXES, ".safetensors", ".npz")]
    if len(lonely) == 1:
        return lonely
    raise InputError(
        f"{path}: no model here: expected config.json with one of {', '.join(FOLDER_WEIGHTS)}, "
        f"or one checkpoint file; found {sorted(file.name for file in lonely) or 'no weights'}"
    )


def stated_classes(path: Path) -> Any:
    """The class names that a local checkpoint's files state, as they stand there; None where they state none."""
    if not (path.is_dir() or path.name in FOLDER_WEIGHTS):
        return None
    folder = path if path.is_dir() else path.parent
    if (folder / "labels.json").is_file():
        return read_json(folder / "labels.json")
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else None
    return config.get("id2label") if isinstance(config, dict) else None


def read_raw(path: Path) -> Raw:
    """The checkpoint in a local file or folder, as it is stored.

    Raises:
        InputError: no weights, a damaged or unknown file, or a pickle that holds more than tensors and plain data.
    """
    if path.is_dir() and not any((path / name).is_file() for name in FOLDER_WEIGHTS) and is_flax(path):
        return read_flax(path)
    files = weight_files(path)
    if len(files) == 1 and files[0].suffix == ".npz":
        return read_npz(files[0])
    if len(files) == 1 and files[0].suffix not in (*TORCH_SUFFIXES, ".safetensors"):
        if is_flax(files[0]):
            return read_flax(files[0])
        raise InputError(
            f"{path}: unknown kind of file; expected .safetensors, .npz, a torch file ({', '.join(TORCH_SUFFIXES)}) "
            "or a flax checkpoint"
        )
    tensors: dict[str, Tensor] = {}
    metadata: dict[str, Any] = {}
    for file in files:
        if file.suffix == ".safetensors":
            found = read_tensors(file)
        else:
            found, metadata = _read_torch(file)
        double = sorted(set(found) & set(tensors))
        if double:
            raise InputError(f"{file}: {double[0]} is in another file of the checkpoint too")
        tensors |= found
    folder = path if path.is_dir() else path.parent
    beside = path.is_dir() or path.name in FOLDER_WEIGHTS
    config = read_json(folder / "config.json") if beside and (folder / "config.json").is_file() else None
    if config is not None and not isinstance(config, dict):
        raise InputError(f"{folder / 'config.json'}: expected a JSON object, got {type(config).__name__}")
    processors = _processors(folder) if beside else {}
    if processors:
        metadata["processors"] = processors
    if beside and (folder / "provenance.json").is_file():
        metadata["provenance"] = read_json(folder / "provenance.json")
    return Raw(path, config, tensors, metadata)


def _processors(folder: Path) -> dict[str, Any]:
    """The settings of Hugging Face's processors in a folder, by the name of their file."""
    found = {name: read_json(folder / name) for name in PREPROCESSORS if (folder / name).is_file()}
    whole = read_json(folder / PROCESSOR) if (folder / PROCESSOR).is_file() else None
    if isinstance(whole, dict):  # transformers 5 nests the parts of a processor that has several
        parts = [whole[key] for key in ("video_processor", "image_processor") if isinstance(whole.get(key), dict)]
        found |= {PROCESSOR: parts[0]} if parts else {}
    return found


def read_json(path: Path) -> Any:
    """The content of a JSON file; InputError where it is missing or no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not valid JSON ({error.msg})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not valid JSON ({error.reason})") from error


def _shards(index: Path) -> list[Path]:
    values = read_json(index)
    table = values.get("weight_map") if isinstance(values, dict) else None
    if not isinstance(table, dict) or not table or not all(isinstance(name, str) for name in table.values()):
        raise InputError(f"{index}: expected a table weight_map of tensors to files")
    names = sorted(set(table.values()))
    for name in names:
        if Path(name).name != name:
            raise InputError(f"{index}: weight_map names {name!r}; expected a file beside the index")
        if not (index.parent / name).is_file():
            raise InputError(f"{index.parent / name}: no such file; {index.name} lists {len(names)} files")
    return [index.parent / name for name in names]


def _read_torch(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors of a torch file and the plain values beside them; only tensors and plain data are unpickled."""
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        culprit = re.search(r"GLOBAL ([\w.]+)", str(error))
        if culprit is not None:
            raise InputError(
                f"{path}: refused: beside tensors and plain data it holds {culprit[1]}, and reading that could run "
                "code. Nothing was run. Ask for the weights as safetensors, or as a file of tensors alone"
            ) from None
        raise InputError(f"{path}: not a readable torch file ({_reason(error)})") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise InputError(f"{path}: not a readable torch file ({_reason(error)})") from error
    metadata: dict[str, Any] = {}
    while isinstance(loaded, dict) and not _is_state(loaded):
        inner = next((name for name in CONTAINERS if isinstance(loaded.get(name), dict)), None)
        if inner is None:
            break
        plain = {key: value for key, value in loaded.items() if isinstance(value, str | int | float | bool)}
        metadata |= plain | {"container": inner}
        loaded = loaded[inner]
    if not isinstance(loaded, dict) or not loaded or not _is_state(loaded):
        found = sorted(map(str, loaded))[:8] if isinstance(loaded, dict) else type(loaded).__name__
        raise InputError(f"{path}: expected tensors by name, or such a table under {CONTAINERS}; found {found}")
    return loaded, metadata


def _is_state(value: dict[Any, Any]) -> bool:
    return all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items())


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
