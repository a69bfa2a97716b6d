"""A model with what travels with it, from a checkpoint of any format."""

import logging
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from timesformer.checkpoints import own
from timesformer.checkpoints.detect import read_source
from timesformer.checkpoints.folder import default_preprocessing
from timesformer.checkpoints.licences import is_limited, notice_of
from timesformer.checkpoints.published import preprocessing_of
from timesformer.checkpoints.report import TransferReport
from timesformer.checkpoints.source import Source
from timesformer.checkpoints.transfer import transfer
from timesformer.config.cnn import CnnConfig
from timesformer.config.registry import ModelConfig, build_model
from timesformer.config.transformer import TimeSformerConfig
from timesformer.errors import InputError
from timesformer.heads import Labels, are_named, default_labels
from timesformer.positions import Resize

log = logging.getLogger("timesformer")


@dataclass(frozen=True)
class LoadedModel:
    """A model with what travels with it: preprocessing record, label names, where it came from, and the report of what
    became of every weight.  `model` is a `TimeSformer` or a `Cnn`."""

    model: Any
    preprocessing: dict[str, Any]
    labels: Labels
    provenance: dict[str, Any]
    report: TransferReport


def load_model(source: str | Path, **options: Any) -> LoadedModel:
    """The video transformer in a checkpoint; see `load_any_model`, whose options it takes.

    Raises InputError as that does, and for a convolutional baseline.
    """
    loaded = load_any_model(source, **options)
    config = loaded.model.config
    if isinstance(config, CnnConfig):
        raise InputError(
            f"{source}: a convolutional baseline ({config.baseline}), which can be trained and evaluated; "
            "expected a video transformer"
        )
    return loaded


def load_any_model(
    source: str | Path,
    *,
    strict: bool = True,
    position_resize: Resize = "bicubic",
    trust: bool = False,
    scheme_file: str | Path | None = None,
    **overrides: Any,
) -> LoadedModel:
    """The model in a checkpoint: a folder, a file (.safetensors, .bin, FAIR's .pyth, .npz, flax) or a hub name.

    Formats are told apart by content.  `overrides` are fields of the configuration: with them the model is built
    otherwise than the checkpoint says and started from it as `transfer` does (positions resized by `position_resize`,
    the head dropped where the number of classes differs).  The model is in evaluation mode.

    Preprocessing is the checkpoint's own, else the built-in record of the published checkpoint of this name, else the
    released default; the report says which.  `strict=False` goes on where a weight is missing or has no known use, and
    the report lists it.

    The folder of a model with a user's attention scheme keeps the scheme's source, which is code: it is run only with
    `trust=True`; or give `scheme_file`, the Python file that declares the scheme.

    Raises:
        InputError: nothing there, a damaged or refused file, an unknown format, a weight that nothing explains, an
            attention scheme that is not known, or an override that does not fit.
    """
    read = read_source(
        source, strict=strict, num_heads=overrides.get("num_heads"), trust=trust, scheme_file=scheme_file
    )
    config = _target(read, overrides)
    model = build_model(config)
    report = transfer(model, read, position_resize=position_resize, strict=strict)
    record, origin = _preprocessing(read, source)
    record = _fitted(record, config, read.config)
    report.notes.append(f"preprocessing: {origin}")
    if report.licence is not None:
        notice = notice_of(report.licence, read.provenance)
        report.notes.append(notice)
        log.log(logging.WARNING if is_limited(report.licence) else logging.INFO, "%s: %s", source, notice)
    log.log(logging.WARNING if report.initialised else logging.INFO, "%s: %s", source, report)
    labels = read.labels if config.num_classes == read.config.num_classes else None
    if labels is None:
        labels = class_names(config)
    provenance = read.provenance
    if read.format != own.FORMAT.name or overrides:
        provenance = provenance | {"weights": report.counts(), "overrides": _plain(overrides)}
    guessed = read.format == own.FORMAT.name and read.preprocessing is None
    if guessed:
        log.warning("%s: no preprocessing.json: the record of the released TimeSformer is assumed", source)
    # What was not stated is not written when the model is saved again.
    model.extras = {"provenance": provenance} | ({} if guessed else {"preprocessing": record})
    if are_named(labels) or read.labels is not None:
        model.extras["labels"] = labels
    return LoadedModel(model.eval(), record, labels, provenance, report)


def settings_of(source: str | Path, **overrides: Any) -> tuple[ModelConfig, dict[str, Any]]:
    """Configuration and preprocessing record that `load_model` would give, without building the model.

    Raises InputError as `load_model` does for what cannot be read.
    """
    read = read_source(source, num_heads=overrides.get("num_heads"))
    config = _target(read, overrides)
    record, _ = _preprocessing(read, source)
    return config, _fitted(record, config, read.config)


def class_names(config: ModelConfig) -> Labels:
    """`class 0`, `class 1`, …, for models whose classes have no names."""
    return default_labels(config.heads)


def _target(read: Source, overrides: dict[str, Any]) -> ModelConfig:
    """The configuration to build."""
    known = sorted(field.name for field in fields(read.config))
    unknown = sorted(set(overrides) - set(known))
    if unknown:
        raise InputError(f"load_model: unknown option {unknown[0]!r}; expected fields of a configuration: {known}")
    if isinstance(read.config, TimeSformerConfig):
        return read.config.changed(**overrides)
    return replace(read.config, **overrides)


def _preprocessing(read: Source, source: str | Path) -> tuple[dict[str, Any], str]:
    """The preprocessing record, and where it comes from."""
    if read.format == own.FORMAT.name and read.preprocessing is not None:
        return read.preprocessing, "the checkpoint's"
    names = (str(source), str(Path(source).resolve()))
    built_in = next(((name, record) for name in names if (record := preprocessing_of(name)) is not None), None)
    record, origin = default_preprocessing(read.config), "the released default (the checkpoint carries none)"
    if built_in is not None:
        record, origin = record | built_in[1], f"the built-in record of {source}"
    if read.preprocessing is not None:
        completed = f"completed by {origin}" if built_in is not None else "completed by the released default"
        record, origin = record | read.preprocessing, f"the checkpoint's, {completed}"
    return record | {"num_frames": read.config.num_frames}, origin


def _fitted(record: dict[str, Any], config: ModelConfig, before: ModelConfig) -> dict[str, Any]:
    """The record at another number of frames or size: the crop is the model's image, the short side in proportion."""
    record = dict(record)
    if config.num_frames != before.num_frames:
        record["num_frames"] = config.num_frames
    if config.height_width != before.height_width:
        scale = min(config.height_width) / min(before.height_width)
        short = record.get("short_side", min(before.height_width))
        record |= {"crop": list(config.height_width), "short_side": round(short * scale)}
    return record


def _plain(overrides: dict[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in overrides.items()}
