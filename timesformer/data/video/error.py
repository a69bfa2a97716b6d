"""The error of a video that cannot be read, and the boundary at which every other error becomes one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from av.error import FFmpegError

from timesformer.errors import InputError
from timesformer.text import path_text, printable


class VideoError(InputError):
    """Error for a video that cannot be read.

    path: file; reason: description; kind: one of `timesformer.data.video.verdict.KINDS`
    """

    def __init__(self, path: Path | str, reason: str, kind: str = "unreadable") -> None:
        super().__init__(f"{path_text(path)}: {reason}")
        self.path, self.reason, self.kind = path_text(path), reason, kind

    def __reduce__(self) -> tuple[type["VideoError"], tuple[str, str, str]]:
        return type(self), (self.path, self.reason, self.kind)  # crosses process boundaries (loader workers)


@contextmanager
def guarded(path: Path | str, what: str = "") -> Iterator[None]:
    """Turn whatever is raised inside into a VideoError of this file, so that one file's error is that file's.

    what: beginning of the reason, with a space behind it

    Decoders meet damaged, hostile and merely odd files with errors of any type.
    """
    try:
        yield
    except VideoError:
        raise
    except Exception as error:
        said = getattr(error, "strerror", None) or str(error) or "no description"
        if isinstance(error, OSError) and not isinstance(error, FFmpegError):
            raise VideoError(path, f"{what}cannot be read ({printable(said)})") from error
        raise VideoError(
            path, f"{what}cannot be decoded ({type(error).__name__}: {printable(said)})", "damaged"
        ) from error
