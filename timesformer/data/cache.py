"""Decoded frames on disk, so that a sweep of runs decodes each frame once.

The frames of a video or segment that were asked for lie in one file, named by the hash of its content (`frames_key`)
and of the decoder's version: a header, a checksum and a time for each frame, then uint8 (t, 3, H, W), with gaps that
take no room on disk.  A frame's checksum is written after the frame, so any number of processes may read and fill one
cache: at worst two of them decode the same frame.
"""

import hashlib
import os
import struct
import tempfile
import warnings
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from timesformer.data.annotations import Sample
from timesformer.data.video.clock import Clock
from timesformer.data.video.error import VideoError
from timesformer.data.video.open import OpenVideo, frames_key, open_video
from timesformer.data.video.reader import CHANGED

WHOLE_BYTES = 32 * 2**20
"""A video of at most this many decoded bytes is kept whole when a frame of it is asked for: other frames will be."""
WORTH_KEEPING = 0.5
"""A video that would take more than this share of the cache is not kept."""

_AT_ONCE = 16 * 2**20  # bytes that are decoded at once
_NEAR = 4  # frames that are read for one that is wanted, rather than to read often
_HEADER = struct.Struct("<8sIIIdd?27x")  # magic, frames, height, width, frames per second, length in seconds, even
_MAGIC = b"TSFRAME3"
_MAX_OPEN = 4096  # descriptions held by a process
_DECODER = " ".join((_MAGIC.decode(), av.__version__, *map(str, av.library_versions.items())))


@dataclass(frozen=True)
class DecodedVideo:
    """All frames of a video: uint8 (t, 3, H, W), RGB; frames per second."""

    pixels: np.ndarray
    fps: float


@dataclass(frozen=True)
class _Kept:
    """Description of a video in the cache; checked: frames whose checksum was compared in this process, (n,)."""

    file: Path
    height: int
    width: int
    clock: Clock
    checked: np.ndarray

    @property
    def frame_bytes(self) -> int:
        return 3 * self.height * self.width

    @property
    def whole_bytes(self) -> int:
        return len(self.clock.starts) * self.frame_bytes

    @property
    def first(self) -> int:
        """Offset of the first frame in the file."""
        return _HEADER.size + 12 * len(self.clock.starts)


class FrameCache:
    """Decoded frames in `folder`, at most `max_bytes` of them: when full, further frames are decoded each time.

    Nothing is ever evicted: a sweep visits its videos in turn, and evicting the oldest would evict the next one needed.
    """

    def __init__(self, folder: Path | str, max_bytes: int = 20 * 2**30) -> None:
        self.folder = Path(folder).expanduser().resolve()
        self.max_bytes = max_bytes
        self.folder.mkdir(parents=True, exist_ok=True)
        self._known: OrderedDict[str, _Kept] = OrderedDict()
        self._used: int | None = None
        self._said: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        # Each loader worker counts what it finds.
        return {**self.__dict__, "_known": OrderedDict(), "_used": None}

    def __contains__(self, source: Sample | Path | str) -> bool:
        try:
            return self._file(frames_key(_sample(source))).is_file()
        except OSError:  # a file that cannot be read
            return False

    @contextmanager
    def open(self, source: Sample | Path | str) -> Iterator["CachedVideo"]:
        """Open a video, a folder of images or a segment, whose frames are read from the cache or through it.

        Raises VideoError for an unreadable one.
        """
        sample = _sample(source)
        if not os.path.exists(sample.path):
            raise VideoError(sample.place, "no such file")
        try:
            key = frames_key(sample)
        except OSError as error:
            raise VideoError(sample.place, f"cannot be read ({error.strerror})") from error
        found = self._known.get(key)
        kept = found if found is not None and _is_whole(found) else _described(self._file(key))
        video = CachedVideo(self, sample, key, kept)
        try:
            if kept is None:  # not there, or damaged by something outside: made anew
                video.kept = self._begin(self._file(key), video.source, sample)
            if video.kept is not None:
                self._known[key] = video.kept
                self._known.move_to_end(key)
                if len(self._known) > _MAX_OPEN:
                    self._known.popitem(last=False)
            yield video
        finally:
            video.close()

    def get(self, source: Sample | Path | str) -> DecodedVideo:
        """Return all decoded frames of a video, a folder of images or a segment, from the cache or through it.

        Raises VideoError for an unreadable one.
        """
        with self.open(source) as video:
            return DecodedVideo(video.pixels(range(video.num_frames)), video.clock.fps)

    def _file(self, key: str) -> Path:
        name = hashlib.sha256(f"{key} {_DECODER}".encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.frames"

    def _begin(self, file: Path, video: OpenVideo, sample: Sample) -> _Kept | None:
        """Make the file of a video, without frames; None if it is not worth keeping or there is no room."""
        clock = video.clock
        kept = _Kept(file, video.height, video.width, clock, np.zeros(video.num_frames, bool))
        if kept.whole_bytes > WORTH_KEEPING * self.max_bytes:
            self._say(
                "long",
                f"{sample.place}: its frames would take {kept.whole_bytes / 1e9:.3g} GB of the "
                f"{self.max_bytes / 1e9:.3g} GB of the frame cache {self.folder}: it and other videos of this length "
                "are decoded each time",
            )
            return None
        if not self.has_room(kept.first + (kept.whole_bytes if kept.whole_bytes <= WHOLE_BYTES else 0)):
            return None
        file.parent.mkdir(exist_ok=True)
        head = _HEADER.pack(_MAGIC, len(clock.starts), kept.height, kept.width, clock.fps, clock.lasting, clock.even)
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.", suffix=".partial")
        try:
            with os.fdopen(handle, "wb") as out:
                out.write(head + bytes(4 * len(clock.starts)) + clock.starts.astype("<f8").tobytes())
                out.truncate(kept.first + kept.whole_bytes)
            os.chmod(name, 0o644)
            os.replace(name, file)
        finally:
            Path(name).unlink(missing_ok=True)
        self.count(kept.first)
        return kept

    def has_room(self, size: int) -> bool:
        """Return True if so many bytes may be added; otherwise warn once."""
        if self._used is None:
            self._used = sum(_allocated(entry) for entry in self.folder.glob("*/*.frames"))
        if self._used + size <= self.max_bytes:
            return True
        self._say(
            "full",
            f"frame cache {self.folder} is full ({self.max_bytes} bytes): further frames are decoded each time",
        )
        return False

    def count(self, size: int) -> None:
        """Count bytes that were added."""
        self._used = (self._used or 0) + size

    def _say(self, what: str, text: str) -> None:
        if what not in self._said:
            self._said.add(what)
            warnings.warn(text, stacklevel=4)


class CachedVideo:
    """Video that is read through the cache; the video itself is opened only for frames that the cache lacks."""

    def __init__(self, cache: FrameCache, sample: Sample, key: str, kept: _Kept | None) -> None:
        self.cache, self.sample, self.key, self.kept = cache, sample, key, kept
        self._source: OpenVideo | None = None

    @property
    def source(self) -> OpenVideo:
        """The video itself."""
        if self._source is None:
            self._source = open_video(self.sample)
            self._require_same()
        return self._source

    def _require_same(self) -> None:
        """Require the content for which the cache has a place: nothing else may be kept there."""
        try:
            same = frames_key(self.sample) == self.key
        except OSError:
            same = False
        if not same:
            raise VideoError(self.sample.place, CHANGED)

    @property
    def clock(self) -> Clock:
        """Times of the frames."""
        return self.source.clock if self.kept is None else self.kept.clock

    @property
    def num_frames(self) -> int:
        """Number of frames."""
        return len(self.clock.starts)

    def close(self) -> None:
        """Close the video."""
        if self._source is not None:
            self._source.close()

    def pixels(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the frames at `indices` (any order, repeats allowed): uint8 (t, 3, H, W).

        Raises VideoError for frames that cannot be decoded.
        """
        if self.kept is None:
            return _channels_first(self.source.frames(indices))
        wanted = np.asarray(indices, np.int64)
        with open(self.kept.file, "r+b") as file:
            out, missing = self._stored(file.fileno(), wanted)
            if missing:
                self._fetch(file.fileno(), wanted, out, missing)
        return out

    def _stored(self, handle: int, wanted: np.ndarray) -> tuple[np.ndarray, list[int]]:
        """Read what is there, and list the frames that are not."""
        kept = self.kept
        assert kept is not None
        count, size = len(kept.clock.starts), kept.frame_bytes
        first, last = int(wanted.min(initial=count)), int(wanted.max(initial=0))
        if last - first < _NEAR * len(wanted) and kept.checked[wanted].all():  # one read
            block = os.pread(handle, (last - first + 1) * size, kept.first + first * size)
            shape = (last - first + 1, 3, kept.height, kept.width)
            return np.frombuffer(block, np.uint8).reshape(shape)[wanted - first], []
        out = np.empty((len(wanted), 3, kept.height, kept.width), np.uint8)
        sums = np.frombuffer(os.pread(handle, 4 * count, _HEADER.size), "<u4")
        missing = set()
        for place, index in enumerate(wanted.tolist()):
            if not sums[index]:
                missing.add(index)
                continue
            view = memoryview(out[place].reshape(-1))
            got = os.preadv(handle, [view], kept.first + index * size)
            if not kept.checked[index]:
                # After a crash of the machine a checksum may be there without its frame.
                if got != size or _checksum(view) != sums[index]:
                    missing.add(index)
                    continue
                kept.checked[index] = True
        return out, sorted(missing)

    def _fetch(self, handle: int, wanted: np.ndarray, out: np.ndarray, missing: list[int]) -> None:
        """Decode missing frames into `out` and keep them; of a small video, keep all others as well."""
        kept = self.kept
        assert kept is not None
        if kept.whole_bytes <= WHOLE_BYTES:
            missing = list(range(len(kept.clock.starts)))
        size = kept.frame_bytes
        room = self.cache.has_room(size * len(missing))
        if not room:
            missing = sorted(set(missing) & set(wanted.tolist()))
        step = max(1, _AT_ONCE // size)
        for start in range(0, len(missing), step):
            some = missing[start : start + step]
            frames = self.source.frames(some)
            self._require_same()
            for index, frame in zip(some, frames, strict=True):
                pixels = np.ascontiguousarray(frame.transpose(2, 0, 1))
                out[wanted == index] = pixels
                if room:
                    data = memoryview(pixels.reshape(-1))  # type: ignore[arg-type]  # an array is a buffer
                    os.pwrite(handle, data, kept.first + index * size)
                    os.pwrite(handle, struct.pack("<I", _checksum(data)), _HEADER.size + 4 * index)
        if room:
            self.cache.count(size * len(missing))


def _sample(source: Sample | Path | str) -> Sample:
    return source if isinstance(source, Sample) else Sample(Path(source), 0)


def decode(source: Sample | Path | str) -> DecodedVideo:
    """All frames of a video, a folder of images or a segment, in memory.  Raises VideoError."""
    with open_video(source) as video:
        return DecodedVideo(_channels_first(video.frames(range(video.num_frames))), video.fps)


def _channels_first(frames: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(frames.transpose(0, 3, 1, 2))


def _checksum(data: memoryview) -> int:
    return zlib.crc32(data) or 1  # 0: no frame


def _allocated(file: Path) -> int:
    """Return the bytes that a file takes on disk, without its gaps."""
    status = file.stat()
    return min(status.st_size, getattr(status, "st_blocks", status.st_size) * 512)


def _is_whole(kept: _Kept) -> bool:
    try:
        return kept.file.stat().st_size == kept.first + kept.whole_bytes
    except OSError:
        return False


def _described(file: Path) -> _Kept | None:
    """Read the description of the frames in a file; None for a file that is not what was written."""
    try:
        with open(file, "rb") as content:
            head = content.read(_HEADER.size)
            if len(head) < _HEADER.size:
                return None
            magic, frames, height, width, fps, lasting, even = _HEADER.unpack(head)
            if magic != _MAGIC or os.fstat(content.fileno()).st_size < _HEADER.size + 12 * frames:
                return None
            content.seek(4 * frames, 1)
            starts = np.frombuffer(content.read(8 * frames), "<f8")
    except FileNotFoundError:
        return None
    kept = _Kept(file, height, width, Clock(starts, lasting, fps, even), np.zeros(frames, bool))
    return kept if _is_whole(kept) else None
