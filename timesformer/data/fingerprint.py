"""Digests of files, by which records and caches know the data that they belong to.

A file's digest is cheap: of its size, its head, its tail and pieces between them, or on request of all its bytes. It is
remembered by path, inode, size and time of change, between runs as well, so that nothing is read again while those
hold.
"""

import errno
import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from timesformer.errors import InputError
from timesformer.files import write_atomic

NO_FILE = "not a file, but a pipe, a socket or a device"
END_BYTES = 16 * 1024
"""Bytes of a file's head, and of its tail, that its sampled digest reads."""
PIECES, PIECE_BYTES = 8, 4 * 1024
"""Pieces between head and tail, at even distances."""
WHOLE_BYTES = 2 * END_BYTES + PIECES * PIECE_BYTES
"""A file of at most this many bytes is read whole: its sampled digest is that of its content."""
SETTLED_SECONDS = 2.0
"""A file that changed less than this before it was read is not remembered: it may change again within one tick of the
file system's clock, and nothing would show."""
THREADS = 8
_VERSION = 2
_SHA256 = re.compile(r"[0-9a-f]{64}")
FileState = tuple[int, int, int, int]


def content_hash(path: Path | str) -> str:
    """sha256 of the file's bytes, in hexadecimal; remembered in this process by inode, size and times of change.

    Raises OSError for a file that cannot be read, and for what is no file.
    """
    status = _require_file(path)
    read = _hash if _is_settled(status) else _hash.__wrapped__
    return read(os.fspath(path), file_state(status))


def sampled_hash(path: Path | str) -> str:
    """sha256 of a file's size, head, tail and pieces between them; of a small file the sha256 of its bytes.

    Raises OSError for a file that cannot be read, and for what is no file.
    """
    _require_file(path)
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size <= WHOLE_BYTES:
            return hashlib.sha256(file.read()).hexdigest()
        digest = hashlib.sha256(f"sampled {size}\n".encode())
        digest.update(file.read(END_BYTES))
        between = size - 2 * END_BYTES - PIECE_BYTES
        for number in range(PIECES):
            file.seek(END_BYTES + between * number // (PIECES - 1))
            digest.update(file.read(PIECE_BYTES))
        file.seek(size - END_BYTES)
        digest.update(file.read(END_BYTES))
        return digest.hexdigest()


def _require_file(path: Path | str) -> os.stat_result:
    """Refuse pipes, which would wait for a writer, and devices, which need not end."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):  # folders fail when they are opened
        raise OSError(errno.EINVAL, NO_FILE, os.fspath(path))
    return status


def file_state(status: os.stat_result) -> FileState:
    """A file's inode, size and times, which hold while its content does.

    The time of change cannot be set, unlike that of modification, which copies often keep.  The inode tells apart what
    was written within one tick of the clock, when a link or a folder of the same name leads to another file.
    """
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _is_settled(status: os.stat_result) -> bool:
    return time.time() - status.st_ctime > SETTLED_SECONDS


@lru_cache(maxsize=1_000_000)
def _hash(path: str, _: FileState) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass
class Digests:
    """Digests of files, remembered in `store` (lines of JSON, only ever appended to) or, without one, while this lasts.

    full: of all bytes.  read: files that had to be read so far.
    """

    store: Path | None = None
    full: bool = False
    read: int = 0
    _known: dict[str, tuple[FileState, str]] = field(default_factory=dict, init=False, repr=False)
    _loaded: bool = field(default=False, init=False, repr=False)

    def of(self, paths: Iterable[Path]) -> dict[Path, str]:
        """The digest of every file; `missing` for one that is not there, or why it cannot be read."""
        self._load()
        found: dict[Path, str] = {}
        left: dict[Path, FileState] = {}
        for path in dict.fromkeys(paths):
            try:
                state = file_state(os.stat(path))
            except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: no file can have this name
                found[path] = "missing"
                continue
            except OSError as error:
                found[path] = f"cannot be read ({error.strerror})"
                continue
            known = self._known.get(os.path.abspath(path))
            if known is not None and known[0] == state:
                found[path] = known[1]
            else:
                left[path] = state
        if not left:
            return found
        parts = [list(left)[start::THREADS] for start in range(min(THREADS, len(left)))]
        with ThreadPoolExecutor(len(parts)) as pool:  # a share each: small files cost less than handing them over
            shares = pool.map(lambda part: {path: self._digest(path) for path in part}, parts)
            read = {path: entry for share in shares for path, entry in share.items()}
        self.read += len(read)
        self._remember({path: (left[path], digest) for path, (digest, known) in read.items() if known})
        return found | {path: digest for path, (digest, _) in read.items()}

    def _digest(self, path: Path) -> tuple[str, bool]:
        """The digest, and whether it may be remembered."""
        try:
            digest = content_hash(path) if self.full else sampled_hash(path)
            return digest, _is_settled(os.stat(path))
        except OSError as error:
            return f"cannot be read ({error.strerror})", False

    def _load(self) -> None:
        """Read what is remembered, once; lines that are no entries (a crash may have torn one) count for nothing."""
        if self._loaded or self.store is None:
            return
        self._loaded = True
        try:
            lines = self.store.read_bytes().split(b"\n")
        except FileNotFoundError:
            return
        except OSError as error:
            raise InputError(f"{self.store}: cannot read the remembered digests ({error.strerror})") from error
        for line in lines:
            try:
                version, full, path, inode, size, modified, changed, digest = json.loads(line)
            except (ValueError, TypeError):
                continue
            if version == _VERSION and full == self.full and isinstance(path, str) and _SHA256.fullmatch(str(digest)):
                self._known[path] = (inode, size, modified, changed), digest

    def _remember(self, found: dict[Path, tuple[FileState, str]]) -> None:
        entries = {os.path.abspath(path): entry for path, entry in found.items()}
        self._known |= entries
        if self.store is None or not entries:
            return
        lines = [json.dumps([_VERSION, self.full, path, *state, digest]) for path, (state, digest) in entries.items()]
        try:
            self.store.parent.mkdir(parents=True, exist_ok=True)
            with open(self.store, "ab") as file:  # the first line break ends what a crash may have left
                file.write(b"\n" + "\n".join(lines).encode() + b"\n")
        except OSError as error:
            raise InputError(f"{self.store}: cannot remember the digests ({error.strerror})") from error


@dataclass(frozen=True)
class Fingerprint:
    """The state of a set of videos: `sha256` over all of them, and the digest of each by its name.

    files: empty where the set is known by what it was made from.  start: sha256 of the data behind the weights that
    training begins with, None where a checkpoint says it or there are none.  full: whether digests are of all bytes.
    seconds, read: what it took, and how many files had to be read.
    """

    sha256: str
    files: dict[str, str] = field(default_factory=dict)
    start: str | None = None
    full: bool = False
    seconds: float = field(default=0.0, compare=False)
    read: int = field(default=0, compare=False)

    @property
    def chain(self) -> str:
        """A sha256 that stands for these videos and all data behind the weights that training begins with."""
        return hashlib.sha256(f"{self.sha256} {self.start}".encode()).hexdigest()

    def write(self, path: Path) -> Path:
        """Keep it beside what was made with the videos."""
        values = {"sha256": self.sha256, "start": self.start, "full": self.full, "files": self.files}
        return write_atomic(path, json.dumps(values) + "\n")

    @classmethod
    def read_from(cls, path: Path) -> "Fingerprint | None":
        """The one that was kept, None where there is none.  Raises InputError for a damaged file."""
        try:
            values: dict[str, Any] = json.loads(path.read_bytes())
            return cls(values["sha256"], values["files"], values["start"], values["full"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: not a readable fingerprint ({error})") from error

    def changes(self, now: "Fingerprint") -> str:
        """A phrase for what is different today; empty where nothing is."""
        if (self.sha256, self.start) == (now.sha256, now.start):
            return ""
        if self.full != now.full:
            kinds = [f"fingerprint: {'full' if each.full else 'sampled'}" for each in (self, now)]
            return f"they were told by {kinds[0]} then, and by {kinds[1]} now"
        if self.sha256 == now.sha256:
            return "the run that it starts from was trained on other videos"
        if not self.files and not now.files:
            return "the probe's generator makes other videos today"
        names = [name for name in {**self.files, **now.files} if self.files.get(name) != now.files.get(name)]
        if not names:
            return "the labels have changed"
        missing = sum(now.files.get(name) == "missing" for name in names)
        more = f", … ({len(names)})" if len(names) > 3 else ""
        count = len({**self.files, **now.files})
        said = f"{len(names)} of {count} files {'has' if len(names) == 1 else 'have'} changed"
        return said + (f", {missing} of them missing" if missing else "") + f": {', '.join(names[:3])}{more}"
