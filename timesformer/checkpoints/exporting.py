"""Our models in the formats of other libraries."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from timesformer.checkpoints import graphs
from timesformer.checkpoints.folder import save_model
from timesformer.checkpoints.formats import hf_timesformer, vivit
from timesformer.checkpoints.formats.encoders import dinov2, videomae, vjepa2
from timesformer.checkpoints.load import LoadedModel
from timesformer.config.registry import Model
from timesformer.errors import InputError
from timesformer.files import write_json

WRITERS: dict[str, Callable[..., object]] = {
    "hf-timesformer": hf_timesformer.write,
    "hf-vivit": vivit.write,
    "hf-videomae": videomae.write,
    "hf-vjepa2": vjepa2.write,
    "hf-dinov2": dinov2.write,
    "onnx": graphs.write_onnx,
    "torch-export": graphs.write_program,
}
OWN = "timesformer-ablations"


def export(model: Model | LoadedModel, folder: str | Path, format: str = "hf-timesformer") -> Path:
    """Write a model in the format of another library, or in our own (`timesformer-ablations`).

    The others are those of `WRITERS`: `hf-timesformer`, `hf-vivit`, `hf-videomae`, `hf-vjepa2` and `hf-dinov2`, and as
    graphs that run without this library `onnx` and `torch-export`.  Label names, preprocessing and provenance go along.

    Raises:
        InputError: an unknown format, a model that the format cannot express (the message names the field), or a folder
            that cannot be written.
    """
    folder = Path(folder)
    names = ("labels", "preprocessing", "provenance")
    extras: dict[str, Any]
    network: Any
    if isinstance(model, LoadedModel):
        extras, network = {name: getattr(model, name) for name in names}, model.model
    else:
        extras, network = {name: model.extras.get(name) for name in names}, model
    if network.fused:
        raise InputError(f"{folder}: this model was fused for inference: export the one that it was made from")
    if format == OWN:
        stated = network.extras
        extras |= {name: None for name in ("labels", "preprocessing") if stated and name not in stated}
        return save_model(folder, network, **extras)
    if format not in WRITERS:
        raise InputError(f"format: expected one of {', '.join((*WRITERS, OWN))}, got {format!r}")
    WRITERS[format](network, folder, extras["labels"], extras["preprocessing"])
    if extras["provenance"] is not None:
        write_json(folder / "provenance.json", extras["provenance"])
    return folder
