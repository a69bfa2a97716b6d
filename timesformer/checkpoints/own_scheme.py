"""A user's own attention scheme beside its model's weights: the source is kept, and run only where it is trusted."""

import hashlib
import logging
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


def keep_scheme(folder: Path, name: str) -> dict[str, Any]:
    """Write the source of a user's own scheme into a model's folder, and return what config.json says of it.

    A scheme of this library needs no source.  One that was registered in Python without a file has none to keep, which
    is logged as a warning.  Raises InputError where the folder cannot be written.
    """
    if not is_known(name) or is_known(name, shipped=True):
        return {}
    source = source_of(name)
    if source is None:
        log.warning(
            "%s: the attention scheme %r was registered without a file, so the folder cannot keep its source: whoever "
            "loads the model has to %s",
            folder,
            name,
            HOW,
        )
        return {}
    write_atomic(folder / FILE, source.content)
    return {"scheme": {"name": name, "file": FILE, "sha256": source.sha256}}


def require_scheme(folder: Path, config: dict[str, Any], trust: bool) -> tuple[str, ...]:
    """Require the attention scheme of a model's config.json to be known; return notes for the report.

    The source that the folder keeps is run only with `trust`.  A scheme that is known already, but from a file of other
    content than the model's, is used with a warning.

    Raises:
        InputError: an unknown scheme, with the file that declares it and how to go on; a source of other content than
            config.json states.
    """
    name = config.get("model", {}).get("attention")
    if not isinstance(name, str):
        return ()
    stated = config.get("scheme")
    kept = folder / FILE if isinstance(stated, dict) else None
    digest = str(stated.get("sha256")) if isinstance(stated, dict) else ""
    if not is_known(name):
        if kept is None:
            raise InputError(
                f"{folder / 'config.json'}: unknown attention scheme {name!r}: it is none of this library's, and the "
                f"folder does not keep its source; {HOW}"
            )
        if not trust:
            raise InputError(
                f"{folder}: the model has an attention scheme of its own, {name!r}, declared in {kept}.  That is code, "
                "which is not run unasked: read it, then trust it (--trust; in Python trust=True); or " + HOW
            )
        _run(kept, digest)
        if not is_known(name):
            raise InputError(f"{kept}: expected the attention scheme {name!r} among its SCHEMES")
    used = source_of(name)
    if kept is None or used is None or used.sha256 == digest:
        return ()
    note = f"attention scheme {name!r}: from {used.path}, which differs from the model's own {FILE}"
    log.warning("%s: %s", folder, note)
    return (note,)


def _run(kept: Path, digest: str) -> None:
    if not kept.is_file():
        raise InputError(f"{kept}: no such file, though config.json names it; {HOW}")
    if hashlib.sha256(kept.read_bytes()).hexdigest() != digest:
        raise InputError(f"{kept}: not the file that the model was saved with (its sha256 differs); {HOW}")
    load_file(kept)
