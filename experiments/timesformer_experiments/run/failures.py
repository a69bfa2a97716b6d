"""Reasons for the failure of a run: a text of one line and its kind.

Kinds: `disk_full`, `out_of_memory`, `killed` (by a signal, from outside or from a fault in native code), `node_lost`
(a machine of a cluster), `diverged` (the loss is not finite), `decode` (a video cannot be read, or reading it crashed),
`bad_input`, `not_started` (the run that it starts from failed), `error` (anything else).
"""

from __future__ import annotations

import errno
import signal
from collections.abc import Iterator
from pathlib import Path

import torch

from timesformer.data.video.error import VideoError
from timesformer.errors import InputError
from timesformer.training.loop import TrainingDiverged

KINDS = (
    "disk_full",
    "out_of_memory",
    "killed",
    "node_lost",
    "diverged",
    "decode",
    "bad_input",
    "not_started",
    "error",
)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Errors of loader processes and of libraries in other languages arrive as text.
_NO_ROOM_TEXTS = ("No space left on device", "Disk quota exceeded", "File too large")
_NO_MEMORY_TEXTS = ("out of memory", "can't allocate memory", "Cannot allocate memory", "Unable to allocate")
_DECODING = "timesformer/data/"


class Failed(RuntimeError):
    """A failure in another process, with its reason in one line and the kind of reason."""

    def __init__(self, reason: str, kind: str) -> None:
        super().__init__(reason)
        self.reason, self.kind = reason, kind

    def __reduce__(self) -> tuple[type[Failed], tuple[str, str]]:
        return Failed, (self.reason, self.kind)


def reason_of(error: BaseException) -> str:
    """Return the reason of a failure in one line."""
    text = " ".join(str(error).split())
    return text if isinstance(error, InputError | Failed) else f"{type(error).__name__}: {text}"


def kind_of(error: BaseException) -> str:
    """Return one of `KINDS`, from the error and its causes."""
    chain = list(_chain(error))
    for each in chain:
        if isinstance(each, Failed):
            return each.kind
    texts = " ".join(str(each) for each in chain)
    if any(isinstance(each, OSError) and each.errno in _NO_ROOM for each in chain) or _holds(texts, _NO_ROOM_TEXTS):
        return "disk_full"
    if any(isinstance(each, MemoryError | torch.OutOfMemoryError) for each in chain):
        return "out_of_memory"
    if any(isinstance(each, OSError) and each.errno == errno.ENOMEM for each in chain):
        return "out_of_memory"
    if any(isinstance(each, RuntimeError) and _holds(str(each), _NO_MEMORY_TEXTS) for each in chain):
        return "out_of_memory"
    if isinstance(error, TrainingDiverged):
        return "diverged"
    if any(isinstance(each, VideoError) for each in chain) or "DataLoader worker (pid" in texts:
        return "decode"
    return "bad_input" if isinstance(error, InputError) else "error"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the error, then its causes."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def _holds(text: str, parts: tuple[str, ...]) -> bool:
    return any(part in text for part in parts)


def oom_kills() -> int:
    """Number of processes that the kernel has killed for lack of memory, in this control group or on this machine."""
    for path, key in (("/sys/fs/cgroup/memory.events", "oom_kill"), ("/proc/vmstat", "oom_kill")):
        try:
            for line in Path(path).read_text().splitlines():
                name, _, value = line.partition(" ")
                if name == key:
                    return int(value)
        except (OSError, ValueError):
            continue
    return 0


def died(exitcode: int | None, oom_before: int, crash: str = "") -> tuple[str, str]:
    """Return reason and kind for a process that ended unexpectedly.

    exitcode: exit code of `multiprocessing`, negative for a signal.  oom_before: `oom_kills()` when the process began.
    crash: stack that the process left (`RunFolder.crash`), which shows whether it crashed while decoding.
    """
    if exitcode is None or exitcode >= 0:
        return f"its process ended with exit code {exitcode}", "error"
    name = signal.Signals(-exitcode).name
    if -exitcode == signal.SIGKILL and oom_kills() > oom_before:
        return f"its process ended by signal {name}: the kernel ran out of memory", "out_of_memory"
    stack = crash.partition("Current thread")[2].partition("\n\n")[0]  # of the failed thread, innermost call first
    place = next((line.strip() for line in stack.splitlines() if line.strip().startswith("File ")), "")
    reason = f"its process ended by signal {name}"
    if place:
        reason += " in " + _short(place)
    return reason, "decode" if _DECODING in stack else "killed"


def _short(place: str) -> str:
    """`File "/a/b/timesformer/data/video/video.py", line 3 in read` -> `video/video.py, line 3 in read`."""
    name, _, rest = place.removeprefix('File "').partition('"')
    return "/".join(Path(name).parts[-2:]) + rest
