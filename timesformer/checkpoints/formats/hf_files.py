"""Contents that Hugging Face folders of every model share: label names, image processors, the three files."""

import re
from pathlib import Path
from typing import Any

from safetensors.torch import save as save_tensors
from torch import Tensor

from timesformer.checkpoints.formats.hf_processors import PROCESSORS, class_name, is_number, is_side
from timesformer.checkpoints.source import Raw
from timesformer.errors import InputError
from timesformer.files import write_atomic, write_json
from timesformer.heads import Labels

OURS = "timesformer_ablations"  # the key of what config.json and preprocessor_config.json have no field for
IMAGE_FILE = "preprocessor_config.json"
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


def preprocessing_of_files(
    files: dict[str, Any], folder: Path, model_type: str | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Fields of our preprocessing record from the processors' files of a folder, by name, and notes.

    An export of ours that nobody has changed gives way to what was stated later: to other fields in the same file, or
    to another file.

    Raises:
        InputError: a setting that is no valid one, or two files that contradict each other.
    """
    read = {}
    for name, values in files.items():
        video = name != IMAGE_FILE
        read[name] = preprocessing_of_processor(values, folder / name, model_type, video)
    later = {name: found for name, found in read.items() if not _is_untouched(files[name])} or read
    (first, (record, notes)), *others = later.items()
    for name, (other, _) in others:
        differing = sorted(key for key in {**record, **other} if record.get(key) != other.get(key))
        if differing:
            key = differing[0]
            raise InputError(
                f"{folder / first} and {folder / name} contradict each other: {key} is {record.get(key)} by the one "
                f"and {other.get(key)} by the other; remove the file that does not belong to the weights"
            )
    if len(later) < len(read):
        notes = [
            *notes,
            f"{', '.join(later)}: stated after the export, in place of {', '.join(set(read) - set(later))}",
        ]
    return record, notes


def _is_untouched(values: Any) -> bool:
    """True for a processor's file that is as we wrote it."""
    own = values.get(OURS) if isinstance(values, dict) else None
    return isinstance(own, dict) and values == processor_of_preprocessing(own)


def preprocessing_of_processor(
    values: Any, where: Path, model_type: str | None = None, video: bool = False
) -> tuple[dict[str, Any], list[str]]:
    """Fields of our preprocessing record from an image or video processor's settings, and notes on what they leave
    open.  Fields that the file leaves out are those of its class, by `model_type` where it names none.

    A record that we wrote beside the settings is completed by what has been changed in them since.

    Raises:
        InputError: a setting that is no valid one, or that we have no equivalent for; names the field.
    """
    if not isinstance(values, dict):
        raise InputError(f"{where}: preprocessor_config: expected a JSON object, got {type(values).__name__}")
    record, notes = _settings(values, where, model_type, video)
    if not isinstance(values.get(OURS), dict):
        return record, notes
    own = values[OURS]
    written, _ = _settings(processor_of_preprocessing(own), where, model_type, video)
    changed = {key: value for key, value in record.items() if value != written.get(key)}
    if not changed:
        return own, []
    return own | changed, [f"{where.name}: {', '.join(changed)} changed since this library wrote the file", *notes]


def _settings(
    values: dict[str, Any], where: Path, model_type: str | None, video: bool
) -> tuple[dict[str, Any], list[str]]:
    name = class_name(values, model_type, video)
    known = PROCESSORS.get(name or "")
    if known is not None:
        values = known.completed(values)

    def bad(field: str, expected: str) -> InputError:
        return InputError(f"{where}: preprocessor_config: {field}: expected {expected}, got {values.get(field)!r}")

    def require(field: str) -> None:
        if values.get(field) is None:
            of = f"the class {name}" if name else "its class, which the file does not name"
            raise bad(field, f"a value, as the default of {of}, is not known here")

    def triple(field: str, positive: bool) -> list[float]:
        require(field)
        found = [values[field]] * 3 if is_number(values[field]) else values[field]
        if (
            not isinstance(found, list)
            or len(found) != 3
            or not all(is_number(v) and (v > 0 or not positive) for v in found)
        ):
            raise bad(field, "three numbers above 0" if positive else "three numbers")
        return found

    def flag(field: str, default: bool) -> bool:
        found = values.get(field, default)
        if not isinstance(found, bool | None):
            raise bad(field, "true or false")
        return bool(found)

    record: dict[str, Any] = {"antialias": True, "quantised": True, "centre": "floor"}  # as PIL and their centre crop
    if known is not None and not known.quantised:
        record["quantised"] = False
    notes = []
    normalised, rescaled = flag("do_normalize", True), flag("do_rescale", True)
    record["mean"] = triple("image_mean", positive=False) if normalised else [0.0] * 3
    record["std"] = triple("image_std", positive=True) if normalised else [1.0] * 3
    factor = values.get("rescale_factor", 1 / 255) if rescaled else 1
    if not is_number(factor) or not factor > 0:
        raise bad("rescale_factor", "a positive number")
    low = -1.0 if flag("offset", False) and rescaled else 0.0
    high = 255 * factor + low
    record["value_range"] = [low, round(high) if abs(high - round(high)) < 1e-3 else high]
    if flag("do_flip_channel_order", False):
        record["colour_order"] = "BGR"
    if flag("do_resize", True):
        require("size")
        if known is None:  # bilinear in some classes and bicubic in others
            require("resample")
        size, resample = values["size"], values.get("resample", 2)
        if isinstance(resample, bool) or resample not in RESAMPLE:
            raise bad("resample", f"one of {RESAMPLE}")
        record["interpolation"] = RESAMPLE[resample]
        sides = size if isinstance(size, dict) else {"shortest_edge": size}
        if is_side(sides.get("shortest_edge")):
            record["short_side"] = sides["shortest_edge"]
        elif is_side(sides.get("height")) and is_side(sides.get("width")):
            record["short_side"] = min(sides["height"], sides["width"])
            notes.append("the processor squashes videos to a fixed size; here the short side is resized and cropped")
        else:
            raise bad("size", "shortest_edge, or height and width, in whole pixels")
    else:
        notes.append("the processor does not resize; here the short side is resized")
    if flag("do_center_crop", "crop_size" in values):
        require("crop_size")
        crop = values["crop_size"]
        sides = crop if isinstance(crop, dict) else {"height": crop, "width": crop}
        if not (is_side(sides.get("height")) and is_side(sides.get("width"))):
            raise bad("crop_size", "height and width, in whole pixels")
        record["crop"] = [sides["height"], sides["width"]]
    return record, notes


def processor_of_preprocessing(record: dict[str, Any]) -> dict[str, Any]:
    """The settings of an image processor that does what our record says, as far as it can; all of the record stands
    beside them, under a key that transformers does not look at (colour order, sampling)."""
    crop = record.get("crop", 224)
    height, width = (crop, crop) if isinstance(crop, int) else crop
    low, high = record.get("value_range", (0.0, 1.0))
    values: dict[str, Any] = {
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
    """Write model.safetensors, preprocessor_config.json (where there is a record) and config.json, in that order."""
    values = processor_of_preprocessing(preprocessing) if preprocessing is not None else None
    write_atomic(folder / "model.safetensors", save_tensors(tensors, metadata={"format": "pt"}))
    if values is not None:
        write_json(folder / IMAGE_FILE, values)
    write_json(folder / "config.json", config)
    return folder
