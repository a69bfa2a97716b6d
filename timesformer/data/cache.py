"""Decoded frames on disk, so that a sweep of runs decodes each video once.

A video's or segment's frames lie in one file named by the hash of its content (`frames_key`): a header, then uint8
(t, 3, H, W).  Files are mapped into memory, shared by all processes.  A file is written beside its place and renamed,
so any number of processes may read and fill one cache: at worst two of them decode the same video.
"""

import os
import struct
import warnings
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from timesformer.data.annotations import Sample
from timesformer.data.video.open import frames_key, open_video
from timesformer.data.video.video import VideoError
from timesformer.files import write_atomic

_HEADER = struct.Struct("<8sIIId32x")  # magic, frames, height, width, frames per second
_MAGIC = b"TSFRAME1"
_MAX_OPEN = 4096  # maps held open by a process


@dataclass(frozen=True)
class DecodedVideo:
    """All frames of a video: uint8 (t, 3, H, W), RGB, possibly a read-only map of a file; frames per second."""

    pixels: np.ndarray
    fps: float


class FrameCache:
    """Decoded videos in `folder`, at most `max_bytes` of them: when full, further videos are decoded each time.

    Nothing is ever evicted: a sweep visits its videos in turn, and evicting the oldest would evict the next one needed.
    """

    def __init__(self, folder: Path | str, max_bytes: int = 20 * 2**30) -> None:
        self.folder = Path(folder).expanduser().resolve()
        self.max_bytes = max_bytes
        self.folder.mkdir(parents=True, exist_ok=True)
        self._open: OrderedDict[str, DecodedVideo] = OrderedDict()
        self._used: int | None = None
        self._full = False

    def __getstate__(self) -> dict[str, Any]:
        # Maps are not sent to loader workers; each opens its own.
        return {**self.__dict__, "_open": OrderedDict(), "_used": None}

    def __contains__(self, source: Sample | Path | str) -> bool:
        return self._file(frames_key(_sample(source))).is_file()

    def get(self, source: Sample | Path | str) -> DecodedVideo:
        """The decoded frames of a video, a folder of images or a segment, from the cache or through it.

        Raises VideoError for an unreadable one.
        """
        sample = _sample(source)
        if not os.path.exists(sample.path):
            raise VideoError(sample.place, "no such file")
        try:
            key = frames_key(sample)
        except OSError as error:
            raise VideoError(sample.place, f"cannot be read ({error.strerror})") from error
        found = self._open.get(key)
        if found is not None:
            self._open.move_to_end(key)
            return found
        file = self._file(key)
        found = _map(file) if file.is_file() else None
        if found is None:  # not there, or damaged by something outside: made anew
            decoded = decode(sample)
            found = _map(file) if self._store(file, decoded) else None
            if found is None:
                return decoded
        self._open[key] = found
        if len(self._open) > _MAX_OPEN:
            self._open.popitem(last=False)
        return found

    def _file(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.frames"

    def _store(self, file: Path, video: DecodedVideo) -> bool:
        """Write a decoded video, if there is room."""
        size = _HEADER.size + video.pixels.nbytes
        if self._used is None:
            self._used = sum(entry.stat().st_size for entry in self.folder.glob("*/*.frames"))
        if self._used + size > self.max_bytes:
            if not self._full:
                self._full = True
                warnings.warn(
                    f"frame cache {self.folder} is full ({self.max_bytes} bytes): further videos are decoded each time",
                    stacklevel=2,
                )
            return False
        file.parent.mkdir(exist_ok=True)
        frames, _, height, width = video.pixels.shape
        header = _HEADER.pack(_MAGIC, frames, height, width, video.fps)
        write_atomic(file, header + video.pixels.tobytes(), durable=False)
        self._used += size
        return True


def _sample(source: Sample | Path | str) -> Sample:
    return source if isinstance(source, Sample) else Sample(Path(source), 0)


def decode(source: Sample | Path | str) -> DecodedVideo:
    """All frames of a video, a folder of images or a segment, in memory.  Raises VideoError."""
    with open_video(source) as video:
        frames = video.frames(range(video.num_frames))
        return DecodedVideo(np.ascontiguousarray(frames.transpose(0, 3, 1, 2)), video.fps)


def _map(file: Path) -> DecodedVideo | None:
    """The cached frames, mapped; None for a file that is not what was written."""
    size = file.stat().st_size
    if size <= _HEADER.size:
        return None
    # Unlike numpy's, this map holds no file descriptor: thousands may be open.
    content = torch.from_file(str(file), shared=False, size=size, dtype=torch.uint8).numpy()
    magic, frames, height, width, fps = _HEADER.unpack(content[: _HEADER.size].tobytes())
    if magic != _MAGIC or size != _HEADER.size + frames * 3 * height * width:
        return None
    return DecodedVideo(content[_HEADER.size :].reshape(frames, 3, height, width), fps)
