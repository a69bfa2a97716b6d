"""Models as graphs that run without this library: ONNX, and programs of torch.export.

The graph takes clips (b, frames, channels, height, width) of the configuration's size, any number of them, and gives
logits (b, num_classes).  It is compared with the model before anybody relies on it.
"""

import copy
import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from timesformer.config.registry import Model
from timesformer.data import Preprocessing
from timesformer.errors import InputError
from timesformer.files import write_atomic, write_json
from timesformer.heads import Labels

AGREEMENT = 1e-4
"""Largest difference between the outputs of a graph and those of its model, relative to the largest of them."""

ONNX, PROGRAM = "model.onnx", "model.pt2"


def write_onnx(model: Model, folder: Path, labels: Labels | None, preprocessing: dict[str, Any] | None) -> None:
    """Write `model.onnx`, and its weights beside it where they are too large for one file.

    Raises:
        InputError: onnx, onnxscript or onnxruntime is missing, the model's precision is not fp32, or the graph does not
            give the model's outputs.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"format onnx: needs {', '.join(missing)}: pip install 'timesformer-ablations[onnx]'")
    plain, clip = _plain(model), _clip(model)
    if clip.dtype != torch.float32:
        raise InputError(f"format onnx: expected a model in float32, got {clip.dtype}: model.float()")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ONNX
    with quiet():
        torch.onnx.export(
            program_of(plain, clip),
            f=path,
            dynamo=True,
            input_names=["clip"],
            output_names=["logits"],
            verbose=False,
        )
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    _compare(folder, plain, clip, lambda given: torch.from_numpy(session.run(None, {"clip": given.numpy()})[0]))
    _beside(folder, model, labels, preprocessing)


def write_program(model: Model, folder: Path, labels: Labels | None, preprocessing: dict[str, Any] | None) -> None:
    """Write `model.pt2`, which `torch.export.load` reads.

    Raises:
        InputError: the program does not give the model's outputs.
    """
    plain, clip = _plain(model), _clip(model)
    program = program_of(plain, clip)
    write_atomic(folder / PROGRAM, lambda path: torch.export.save(program, path))
    _compare(folder, plain, clip, torch.export.load(folder / PROGRAM).module())
    _beside(folder, model, labels, preprocessing)


def program_of(model: nn.Module, clip: Tensor) -> torch.export.ExportedProgram:
    """Return the program of a model in evaluation mode for any number of clips of this size."""
    with quiet(), torch.no_grad():
        return torch.export.export(model, (clip,), dynamic_shapes=({0: torch.export.Dim("b", min=1)},))


def _plain(model: Model) -> Model:
    """Return a copy on the CPU whose attention is written in PyTorch's operations alone."""
    plain = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    for module in plain.modules():
        if getattr(module, "backend", None) in ("auto", "triton", "flex"):
            module.backend = "sdpa"  # type: ignore[assignment]  # of an attention step
        if hasattr(module, "fused_norm"):
            module.fused_norm = False  # type: ignore[assignment]  # of a block
    return plain


def _clip(model: Model) -> Tensor:
    """Draw two clips of the configuration's size, from the standard normal distribution."""
    config = model.config
    generator, kind = torch.Generator().manual_seed(0), next(model.parameters()).dtype
    shape = (2, config.num_frames, config.in_channels, *config.height_width)
    return torch.randn(shape, generator=generator).to(kind)


def _compare(folder: Path, model: nn.Module, clip: Tensor, graph: Callable[[Tensor], Tensor]) -> None:
    """Compare outputs for one clip and for two.  Raises InputError where they differ by more than `AGREEMENT`."""
    with torch.inference_mode():
        for given in (clip, clip[:1]):
            found, expected = graph(given), model(given)
            difference = float((found - expected).abs().max() / expected.abs().max().clamp(min=1))
            if found.shape != expected.shape or not difference <= AGREEMENT:
                raise InputError(f"{folder}: the graph's outputs differ from the model's by {difference:.1e}")


def _beside(folder: Path, model: Model, labels: Labels | None, preprocessing: dict[str, Any] | None) -> None:
    """Write what the graph does not hold: the names of its classes, how clips are made, and the configuration."""
    record = preprocessing.to_dict() if isinstance(preprocessing, Preprocessing) else preprocessing
    for name, value in (("labels", labels), ("preprocessing", record), ("config", {"model": model.config.to_dict()})):
        if value is None:
            (folder / f"{name}.json").unlink(missing_ok=True)  # of another model that was written here before
        else:
            write_json(folder / f"{name}.json", value)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the exporters' own warnings, which are not about the model."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
