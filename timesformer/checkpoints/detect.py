"""The formats that are known, told apart by content.  A further format is one more module of `formats/`."""

import importlib
import pkgutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from timesformer.attention import load_file
from timesformer.checkpoints import formats, own
from timesformer.checkpoints.formats.hf_files import pair_or_int, preprocessing_of_files
from timesformer.checkpoints.raw import locate, read_raw
from timesformer.checkpoints.source import Format, Raw, Source, UnexplainedTensors
from timesformer.errors import InputError


def _formats() -> tuple[Format, ...]:
    """Our own format and every `Format` that a module in or below `formats/` defines."""
    found = [own.FORMAT]
    for info in pkgutil.walk_packages(formats.__path__, f"{formats.__name__}."):
        module = importlib.import_module(info.name)
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


def read_source(
    source: str | Path,
    *,
    strict: bool = True,
    num_heads: int | None = None,
    trust: bool = False,
    scheme_file: str | Path | None = None,
) -> Source:
    """A checkpoint of any format in our terms: a folder, a file, or a name on the hub.

    num_heads: for files that do not say it.  With `strict=False` tensors that the format cannot explain are left out,
    and listed under `unused`.

    A model of our own format may have a user's attention scheme.  scheme_file: the Python file that declares it, which
    is run; trust: run the copy in the model's folder.

    Raises:
        InputError: there is no such checkpoint, no format knows it, it holds tensors that its format cannot explain, or
            it has an attention scheme that is not known.
    """
    if scheme_file is not None:
        load_file(scheme_file)
    raw = replace(read_raw(locate(source)), num_heads=num_heads, trust=trust)
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
    processors, folder = raw.metadata.get("processors"), raw.path if raw.path.is_dir() else raw.path.parent
    if found is own.FORMAT:
        if processors:
            _require_agreement(read, processors, folder)
        return read
    if read.preprocessing is None and processors:
        record, notes = preprocessing_of_files(processors, folder, (raw.config or {}).get("model_type"))
        read = replace(read, preprocessing=record, notes=(*read.notes, *notes))
    name = Path(source).name if Path(source).exists() else str(source)
    provenance = {"source": name, "format": found.name} | raw.metadata.get("provenance", read.provenance)
    return replace(read, provenance=provenance)


def _require_agreement(read: Source, processors: dict[str, Any], folder: Path) -> None:
    """Require a Hugging Face processor in our own folder to agree with our record; InputError where it does not."""
    record, _ = preprocessing_of_files(processors, folder)
    own = read.preprocessing or {}
    for key in ("mean", "std", "value_range", "short_side", "crop", "interpolation"):
        if key in own and key in record and pair_or_int(record[key]) != pair_or_int(own[key]):
            raise InputError(
                f"{folder / 'preprocessing.json'} and {folder / next(iter(processors))} contradict each other: {key} "
                f"is {own[key]} by the one and {record[key]} by the other; remove the file that does not belong here"
            )


def _is_any(name: str, names: tuple[str, ...]) -> bool:
    """A format may name a tensor without the prefix that all of them have."""
    return any(name == other or name.endswith("." + other) or other.endswith("." + name) for other in names)
