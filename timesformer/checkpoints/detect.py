"""The formats that are known, told apart by content.  A further format is one more module of `formats/`."""

import importlib
import pkgutil
from dataclasses import replace
from pathlib import Path

from timesformer.checkpoints import formats, own
from timesformer.checkpoints.formats.hf_files import preprocessing_of_processor
from timesformer.checkpoints.raw import locate, read_raw
from timesformer.checkpoints.source import Format, Raw, Source, UnexplainedTensors
from timesformer.errors import InputError


def _formats() -> tuple[Format, ...]:
    """Our own format and every `Format` that a module of `formats/` defines."""
    found = [own.FORMAT]
    for info in pkgutil.iter_modules(formats.__path__):
        module = importlib.import_module(f"{formats.__name__}.{info.name}")
        found += [value for value in vars(module).values() if isinstance(value, Format)]
    return tuple(dict.fromkeys(found))


FORMATS = _formats()


def identify(raw: Raw) -> Format:
    """The format of a checkpoint.

    Raises InputError that lists what was seen and what is known, and where several formats claim the checkpoint.
    """
    matching = [known for known in FORMATS if known.matches(raw)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        claims = " and ".join(known.name for known in matching)
        raise InputError(f"{raw.path}: {claims} both claim this checkpoint; expected one format to match")
    config = raw.config or {}
    kind = f"model_type {config['model_type']!r}" if "model_type" in config else "neither library nor model_type"
    if "library" in config:
        kind = f"library {config['library']!r}"
    settings = "no config.json" if raw.config is None else f"a config.json with {kind}"
    names = sorted(raw.tensors)
    raise InputError(
        f"{raw.path}: unknown format: {settings}; {len(names)} tensors: {', '.join(names[:6])}"
        f"{', …' if len(names) > 6 else ''}. Known: {', '.join(known.name for known in FORMATS)}"
    )


def read_source(source: str | Path, *, strict: bool = True) -> Source:
    """A checkpoint of any format in our terms: a folder, a file, or a name on the hub.

    With `strict=False` tensors that the format cannot explain are left out, and listed under `unused`.

    Raises:
        InputError: there is no such checkpoint, no format knows it, or it holds tensors that its format cannot explain.
    """
    raw = read_raw(locate(source))
    found, dropped = identify(raw), dict[str, str]()
    while True:
        try:
            read = found.read(raw)
            break
        except UnexplainedTensors as error:
            if strict:
                raise
            dropped |= dict.fromkeys(error.names, "no known use")
            kept = {name: value for name, value in raw.tensors.items() if not _is_any(name, error.names)}
            if len(kept) == len(raw.tensors):
                raise
            raw = replace(raw, tensors=kept)
    read = replace(read, where=str(source), unused=read.unused | dropped)
    if found is own.FORMAT:
        return read
    if read.preprocessing is None and "preprocessor_config" in raw.metadata:
        record, notes = preprocessing_of_processor(raw.metadata["preprocessor_config"], raw.path)
        read = replace(read, preprocessing=record, notes=(*read.notes, *notes))
    name = Path(source).name if Path(source).exists() else str(source)
    provenance = {"source": name, "format": found.name} | raw.metadata.get("provenance", read.provenance)
    return replace(read, provenance=provenance)


def _is_any(name: str, names: tuple[str, ...]) -> bool:
    """A format may name a tensor without the prefix that all of them have."""
    return any(name == other or name.endswith("." + other) or other.endswith("." + name) for other in names)
