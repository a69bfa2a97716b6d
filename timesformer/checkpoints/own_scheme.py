"""A user's own attention scheme beside its model's weights: the source is kept, and run only where it is trusted."""

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timesformer.attention import is_known, load_file, source_of
from timesformer.errors import InputError
from timesformer.files import write_atomic

FILE = "scheme.py"
"""Name of the source in a model's folder."""

HOW = (
    "name the Python file that declares it (--scheme-file FILE; in Python scheme_file=…, in a run `scheme_file`), or "
    "register it before loading"
)

log = logging.getLogger("timesformer")


def keep_scheme(folder: Path, model: Mapping[str, Any]) -> dict[str, Any]:
    """Write the sources of a model's own schemes into its folder, and return what config.json says of them.

    `model`: the fields of the configuration, whose attention and schedule name schemes.  One of this library needs no
    source.  One that was registered in Python without a file has none to keep, which is logged as a warning.  Raises
    InputError where the folder cannot be written.
    """
    found: list[dict[str, Any]] = []
    for name in _named(model):
        if not is_known(name) or is_known(name, shipped=True):
            continue
        source = source_of(name)
        if source is None:
            log.warning(
                "%s: the attention scheme %r was registered without a file, so the folder cannot keep its source: "
                "whoever loads the model has to %s",
                folder,
                name,
                HOW,
            )
        elif source.sha256 not in [kept["sha256"] for kept in found]:
            file = FILE if not found else f"{Path(FILE).stem}_{len(found) + 1}.py"
            write_atomic(folder / file, source.content)
            found.append({"name": name, "file": file, "sha256": source.sha256})
    return {"scheme": found[0] if len(found) == 1 else found} if found else {}


def require_scheme(folder: Path, config: dict[str, Any], trust: bool) -> tuple[str, ...]:
    """Require the attention schemes of a model's config.json to be known; return notes for the report.

    The sources that the folder keeps are run only with `trust`.  A scheme that is known already, but from a file of
    other content than the model's, is used with a warning.

    Raises:
        InputError: an unknown scheme, with the file that declares it and how to go on; a source of other content than
            config.json states.
    """
    stated = config.get("scheme")
    kept = {
        str(one.get("sha256")): folder / Path(str(one.get("file", FILE))).name
        for one in (stated if isinstance(stated, list) else [stated])
        if isinstance(one, dict)
    }
    names, notes = _named(config.get("model", {})), list[str]()
    for name in (name for name in names if not is_known(name)):
        if not kept:
            raise InputError(
                f"{folder / 'config.json'}: unknown attention scheme {name!r}: it is none of this library's, and the "
                f"folder does not keep its source; {HOW}"
            )
        files = " and ".join(str(path) for path in kept.values())
        if not trust:
            raise InputError(
                f"{folder}: the model has an attention scheme of its own, {name!r}, declared in {files}.  That is "
                "code, which is not run unasked: read it, then trust it (--trust; in Python trust=True); or " + HOW
            )
        for digest, path in kept.items():
            _run(path, digest)
        if not is_known(name):
            raise InputError(f"{files}: expected the attention scheme {name!r} among the SCHEMES")
    for name in names:
        used = source_of(name)
        if kept and used is not None and used.sha256 not in kept:
            files = " and ".join(path.name for path in kept.values())
            notes.append(f"attention scheme {name!r}: from {used.path}, which differs from the model's own {files}")
            log.warning("%s: %s", folder, notes[-1])
    return tuple(notes)


def _named(model: Mapping[str, Any]) -> list[str]:
    """Names of the schemes in a configuration's attention and schedule, without options, each once.

    What is no choice of a scheme is left to the configuration, which refuses it.
    """
    schedule = model.get("schedule")
    choices = [model.get("attention"), *(schedule.values() if isinstance(schedule, Mapping) else schedule or ())]
    names = [one.get("name") if isinstance(one, Mapping) else one for one in choices]
    return list(dict.fromkeys(name.partition("(")[0] for name in names if isinstance(name, str)))


def _run(kept: Path, digest: str) -> None:
    if not kept.is_file():
        raise InputError(f"{kept}: no such file, though config.json names it; {HOW}")
    if hashlib.sha256(kept.read_bytes()).hexdigest() != digest:
        raise InputError(f"{kept}: not the file that the model was saved with (its sha256 differs); {HOW}")
    load_file(kept)
