"""What Hugging Face folders of every model share: label names, image processors, the three files."""

import re
from pathlib import Path
from typing import Any

from safetensors.torch import save as save_tensors
from torch import Tensor

from timesformer.checkpoints.source import Raw
from timesformer.errors import InputError
from timesformer.files import write_atomic, write_json
from timesformer.heads import Labels

OURS = "timesformer_ablations"  # the key of what config.json and preprocessor_config.json have no field for
RESAMPLE = {2: "bilinear", 3: "bicubic"}  # PIL's numbers


def pair_or_int(value: Any) -> Any:
    """[a, a] as a, [a, b] as (a, b), anything else as it is."""
    if isinstance(value, list | tuple) and len(value) == 2:
        return value[0] if value[0] == value[1] else tuple(value)
    return value


def labels_of(raw: Raw, num_classes: int | tuple[int, ...]) -> list[str] | None:
    """The names under `id2label`; None where there are none but transformers' own LABEL_0, LABEL_1, …, and for a model
    with several heads.

    Raises:
        InputError: not one name for each class.
    """
    table = (raw.config or {}).get("id2label")
    if not isinstance(num_classes, int) or not isinstance(table, dict):
        return None
    if all(re.fullmatch(r"LABEL_\d+", str(name)) for name in table.values()):
        return None
    names = {str(key): str(name) for key, name in table.items()}
    missing = [str(i) for i in range(num_classes) if str(i) not in names]
    if missing or len(names) != num_classes:
        raise InputError(
            f"{raw.path}: id2label: expected the names of classes 0 to {num_classes - 1}, got {len(names)} names"
            + (f", none for {missing[0]}" if missing else "")
        )
    return [names[str(i)] for i in range(num_classes)]


def hf_labels(labels: Labels | None, num_classes: int | tuple[int, ...]) -> dict[str, Any]:
    """`id2label` and `label2id`; LABEL_i where there are no names.  Raises InputError for more than one head."""
    if not isinstance(num_classes, int) or isinstance(labels, dict):
        raise InputError(f"num_classes = {num_classes!r}: models of Hugging Face have one head")
    names = labels if labels is not None else [f"LABEL_{i}" for i in range(num_classes)]
    if len(names) != num_classes:
        raise InputError(f"labels: expected {num_classes} names, one per class, got {len(names)}")
    return {"id2label": {str(i): name for i, name in enumerate(names)}, "label2id": {n: i for i, n in enumerate(names)}}


def preprocessing_of_processor(values: Any, where: Path) -> tuple[dict[str, Any], list[str]]:
    """Fields of our preprocessing record from an image processor's settings, and notes on what they leave open.

    Raises:
        InputError: a setting that is no valid one, or that we have no equivalent for; names the field.
    """
    if not isinstance(values, dict):
        raise InputError(f"{where}: preprocessor_config: expected a JSON object, got {type(values).__name__}")
    if isinstance(values.get(OURS), dict):  # written by us
        return values[OURS], []

    def bad(field: str, expected: str) -> InputError:
        return InputError(f"{where}: preprocessor_config: {field}: expected {expected}, got {values.get(field)!r}")

    def triple(field: str, default: float) -> list[float]:
        found = values.get(field, [default] * 3)
        if not isinstance(found, list) or len(found) != 3 or not all(isinstance(v, int | float) for v in found):
            raise bad(field, "three numbers")
        return found

    record: dict[str, Any] = {"antialias": True, "quantised": True, "centre": "floor"}  # as PIL and their centre crop
    notes = []
    normalised = values.get("do_normalize", True)
    record["mean"] = triple("image_mean", 0.5) if normalised else [0.0] * 3
    record["std"] = triple("image_std", 0.5) if normalised else [1.0] * 3
    factor = values.get("rescale_factor", 1 / 255) if values.get("do_rescale", True) else 1
    if not isinstance(factor, int | float) or not factor > 0:
        raise bad("rescale_factor", "a positive number")
    low = -1.0 if values.get("offset") else 0.0
    high = 255 * factor + low
    record["value_range"] = [low, round(high) if abs(high - round(high)) < 1e-3 else high]
    if values.get("do_resize", True):
        size = values.get("size", {"shortest_edge": 224})
        resample = values.get("resample", 2)
        if resample not in RESAMPLE:
            raise bad("resample", f"one of {RESAMPLE}")
        record["interpolation"] = RESAMPLE[resample]
        sides = size if isinstance(size, dict) else {"shortest_edge": size}
        if isinstance(sides.get("shortest_edge"), int):
            record["short_side"] = sides["shortest_edge"]
        elif isinstance(sides.get("height"), int) and isinstance(sides.get("width"), int):
            record["short_side"] = min(sides["height"], sides["width"])
            notes.append("the processor squashes videos to a fixed size; here the short side is resized and cropped")
        else:
            raise bad("size", "shortest_edge, or height and width")
    if values.get("do_center_crop", True) and "crop_size" in values:
        crop = values["crop_size"]
        sides = crop if isinstance(crop, dict) else {"height": crop, "width": crop}
        if not isinstance(sides.get("height"), int) or not isinstance(sides.get("width"), int):
            raise bad("crop_size", "height and width")
        record["crop"] = [sides["height"], sides["width"]]
    return record, notes


def processor_of_preprocessing(record: dict[str, Any]) -> dict[str, Any]:
    """The settings of an image processor that does what our record says, as far as it can; all of the record stands
    beside them, under a key that transformers does not look at (colour order, sampling)."""
    crop = record.get("crop", 224)
    height, width = (crop, crop) if isinstance(crop, int) else crop
    low, high = record.get("value_range", (0.0, 1.0))
    values = {
        "image_processor_type": "VivitImageProcessor" if low else "VideoMAEImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": record.get("short_side", min(height, width))},
        "resample": {name: number for number, name in RESAMPLE.items()}[record.get("interpolation", "bilinear")],
        "do_center_crop": True,
        "crop_size": {"height": height, "width": width},
        "do_rescale": True,
        "rescale_factor": (high - low) / 255,
        "do_normalize": True,
        "image_mean": list(record["mean"]),
        "image_std": list(record["std"]),
        OURS: record,
    }
    if low not in (0.0, -1.0):
        raise InputError(f"preprocessing: value_range: Hugging Face processors start at 0 or -1, got {low}")
    return values | {"offset": True} if low else values


def write_folder(
    folder: Path, config: dict[str, Any], tensors: dict[str, Tensor], preprocessing: dict[str, Any] | None
) -> Path:
    """Writes model.safetensors, preprocessor_config.json (where there is a record) and config.json, in that order."""
    values = processor_of_preprocessing(preprocessing) if preprocessing is not None else None
    write_atomic(folder / "model.safetensors", save_tensors(tensors, metadata={"format": "pt"}))
    if values is not None:
        write_json(folder / "preprocessor_config.json", values)
    write_json(folder / "config.json", config)
    return folder
