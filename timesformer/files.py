"""Files written whole or not at all."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from timesformer.errors import InputError


def write_atomic(path: str | Path, content: bytes | str | Callable[[Path], object], *, durable: bool = True) -> Path:
    """Write a file so that it is either whole or not there: a temporary file beside it, synced, then renamed.

    `content` is the bytes or text, or a function that writes to the path that it is given.  `durable=False` does not
    wait for the disk: for what can be made again, such as a cache.  Halves of characters, as names of files may have
    them, are written as escapes.

    Raises:
        InputError: the folder cannot be made or written; the message names it.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            if isinstance(content, str | bytes):
                file.write(content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content)
        if callable(content):
            content(temporary)
        if durable:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        temporary.chmod(0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def write_json(path: Path, value: object) -> Path:
    """Write a JSON file whole or not at all."""
    return write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
