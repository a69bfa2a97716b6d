"""What a file contains, as a hash: identifies videos in records and in the cache of decoded frames."""

import hashlib
import os
from functools import lru_cache
from pathlib import Path


def content_hash(path: Path | str) -> str:
    """sha256 of the file's bytes, in hexadecimal; remembered as long as size and modification time stay the same."""
    status = os.stat(path)
    return _hash(os.fspath(path), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1_000_000)
def _hash(path: str, size: int, modified: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
