"""Our own format: a folder that `save_model` wrote; config.json names this library."""

from timesformer.checkpoints.folder import LIBRARY
from timesformer.checkpoints.layout import shapes
from timesformer.checkpoints.own_scheme import require_scheme
from timesformer.checkpoints.raw import read_json
from timesformer.checkpoints.source import Format, Raw, Source, UnexplainedTensors
from timesformer.config.registry import read_config
from timesformer.errors import InputError


def _matches(raw: Raw) -> bool:
    return raw.config is not None and raw.config.get("library") == LIBRARY


def _read(raw: Raw) -> Source:
    assert raw.config is not None
    folder = raw.path if raw.path.is_dir() else raw.path.parent
    model = raw.config.get("model")
    if not isinstance(model, dict):
        raise InputError(f"{folder / 'config.json'}: model: expected the fields of a configuration, got {model!r}")
    notes = require_scheme(folder, raw.config, raw.trust)
    config = read_config(model)
    unknown = set(raw.tensors) - set(shapes(config))
    if unknown:
        raise UnexplainedTensors(raw.path, FORMAT.name, unknown)
    extra = {
        name: read_json(folder / f"{name}.json")
        for name in ("preprocessing", "labels", "provenance")
        if name == "provenance" or (folder / f"{name}.json").is_file()  # a model may not know the others
    }
    return Source(FORMAT.name, config, dict(raw.tensors), notes=notes, **extra)


FORMAT = Format("timesformer-ablations", _matches, _read)
