"""Checkpoint of a training run: one safetensors file, written atomically, from which the run resumes exactly.

Tensors are `model.*`, `optimiser.<parameter>.<name>`, `curves`, and where the recipe asks for them `average.*` (moving
average of the weights) and `best.*` (weights of the best validation).  Everything else is JSON in the file's metadata.
The random state and the schedule are not stored: both are functions of seed and step.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim import Optimizer

from timesformer.data.fingerprint import Fingerprint
from timesformer.errors import InputError
from timesformer.files import write_atomic
from timesformer.training.sharding import gathered, part_of

FILE = "checkpoint.safetensors"
VIDEOS = "videos.json"
"""Beside it: the state of the videos that it was trained on."""


@dataclass
class TrainingState:
    """Progress of a training run.

    step: number of optimiser steps done; seconds: time spent on them
    curves: loss and accuracy (0 to 1) of each step, NaN for steps to come, float32 (2, total steps)
    unreadable: path -> reason; enlarged: indices of samples that were resized until the crop fitted
    validation: metrics of each validation, with their step
    average: moving average of the model's tensors by name; best: the tensors at the best validation; each may be empty
    """

    step: int
    seconds: float
    curves: Tensor
    unreadable: dict[str, str] = field(default_factory=dict)
    validation: list[dict[str, Any]] = field(default_factory=list)
    average: dict[str, Tensor] = field(default_factory=dict)
    best: dict[str, Tensor] = field(default_factory=dict)
    enlarged: set[int] = field(default_factory=set)


def save_state(
    folder: Path,
    state: TrainingState,
    model: nn.Module,
    optimiser: Optimizer,
    defining: dict[str, Any],
    write: bool = True,
) -> None:
    """Replace the checkpoint in `folder`.  A run must have the same `defining` values to resume from it.

    A sharded model is gathered: all processes must call this function, one of them with `write`.

    Raises:
        InputError: the folder cannot be written.
    """
    tensors = {f"model.{name}": value for name, value in model_tensors(model).items()}
    for part, kept in (("average", state.average), ("best", state.best)):
        tensors |= {f"{part}.{name}": value for name, value in kept.items()}
    for name, parameter in _parameters(model, optimiser).items():
        for key, value in optimiser.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"optimiser.{name}.{key}"] = value
    tensors["curves"] = state.curves
    metadata = {
        "defining": defining,
        "step": state.step,
        "seconds": state.seconds,
        "unreadable": state.unreadable,
        "validation": state.validation,
        "enlarged": sorted(state.enlarged),
    }
    copies = {}
    for name, value in tensors.items():
        whole = gathered(value.detach())
        if write:
            copies[name] = whole.to("cpu", copy=True).contiguous()
    if write:
        write_atomic(folder / FILE, save(copies, metadata={"format": "pt", "state": json.dumps(metadata)}))


def load_state(
    folder: Path, model: nn.Module, optimiser: Optimizer, defining: dict[str, Any], device: torch.device
) -> TrainingState | None:
    """Restore model and optimiser in place, and return the state, or None where there is no checkpoint.

    Raises:
        InputError: the file is damaged, or belongs to a run with a different configuration; the message names the
            field.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = json.loads(file.metadata()["state"])
            names = list(file.keys())
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: expected a readable checkpoint of a training run ({error})") from error
    _check_same_run(path, metadata["defining"], json.loads(json.dumps(defining)))
    own, found = model_tensors(model), _part(tensors, "model")
    if {name: value.shape for name, value in own.items()} != {name: value.shape for name, value in found.items()}:
        different = sorted(name for name in own.keys() | found.keys() if _shape(own, name) != _shape(found, name))
        raise InputError(f"{path}: checkpoint of a different model: {different[0]} differs")
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(part_of(found[name].to(value.device), value))
    for name, parameter in _parameters(model, optimiser).items():
        prefix = f"optimiser.{name}."
        for key in [key for key in tensors if key.startswith(prefix)]:
            # Scalars such as Adam's step count stay on the CPU, where the optimiser keeps them.
            value = tensors[key]
            whole = value if value.ndim == 0 else part_of(value.to(device), parameter)
            optimiser.state[parameter][key.removeprefix(prefix)] = whole
    return TrainingState(
        step=metadata["step"],
        seconds=metadata["seconds"],
        curves=tensors["curves"].to(device),
        unreadable=metadata["unreadable"],
        validation=metadata["validation"],
        average={name: part_of(value.to(device), own[name]) for name, value in _part(tensors, "average").items()},
        best={name: part_of(value.to(device), own[name]) for name, value in _part(tensors, "best").items()},
        enlarged=set(metadata.get("enlarged", ())),  # checkpoints from before have none
    )


def keep_videos(folder: Path, videos: Fingerprint) -> None:
    """Write beside the checkpoint which videos it was trained on."""
    videos.write(folder / VIDEOS)


def require_same_videos(folder: Path, videos: Fingerprint | None) -> None:
    """Require the checkpoint in `folder` to be trained on these videos; InputError names those that differ."""
    kept = Fingerprint.read_from(folder / VIDEOS) if (folder / FILE).exists() else None
    changes = kept.changes(videos) if kept is not None and videos is not None else ""
    if changes:
        raise InputError(
            f"{folder / FILE}: checkpoint of a run on other videos: {changes}. Put those videos back to resume, or "
            "remove the checkpoint to train on today's from the beginning"
        )


def _check_same_run(path: Path, theirs: dict[str, Any], ours: dict[str, Any], prefix: str = "") -> None:
    for key in sorted(theirs.keys() | ours.keys()):
        a, b = theirs.get(key), ours.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            _check_same_run(path, a, b, f"{prefix}{key}.")
        elif a != b:
            raise InputError(
                f"{path}: checkpoint of a different run: {prefix}{key} is {a!r} in the checkpoint and {b!r} in this "
                "run; expected an empty folder or the same configuration"
            )


def _shape(tensors: dict[str, Tensor], name: str) -> torch.Size | None:
    return tensors[name].shape if name in tensors else None


def _part(tensors: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    prefix = f"{part}."
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name, each once even where modules share it."""
    first: dict[int, str] = {}
    state = model.state_dict(keep_vars=True)
    for name, value in state.items():
        first.setdefault(id(value), name)
    return {name: value for name, value in state.items() if first[id(value)] == name}


def _parameters(model: nn.Module, optimiser: Optimizer) -> dict[str, nn.Parameter]:
    """Parameters that the optimiser updates, by name."""
    known = {id(parameter) for group in optimiser.param_groups for parameter in group["params"]}
    state = model_tensors(model).items()
    return {name: value for name, value in state if id(value) in known and isinstance(value, nn.Parameter)}
