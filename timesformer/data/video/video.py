"""Random access to the frames of a video file with PyAV, as displayed.

Only requested frames are converted, one at a time.  See `timesformer.data.video.reader` for what is decoded.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter

from timesformer.data.fingerprint import NO_FILE
from timesformer.data.video.clock import Clock
from timesformer.data.video.colour import rgb
from timesformer.data.video.display import UPRIGHT, display_matrix, is_quarter_turn, upright, upright_size
from timesformer.data.video.error import VideoError, guarded
from timesformer.data.video.image import is_animated_webp
from timesformer.data.video.index import IndexFault
from timesformer.data.video.reader import FrameReader
from timesformer.data.video.whole import BEGINNINGS, TOP_BOXES, is_cut_off

MOST_ASPECT = 8
"""Largest ratio of a pixel's sides that is believed."""


class Video:
    """Open video file; a context manager.

    num_frames: number of frames; clock: their times; fps: mean frame rate, 0 if unknown
    stated_fps: frame rate in the file's header, 0 if there is none
    height, width: size as displayed, after the rotation that the file specifies (the first access may decode a frame)
    key_frames: indices at which decoding can start
    index: "index" if the frames were located with the container's index, "packets" if the whole file was read for it
    stamps: presentation time of each frame in units of `time_base` seconds; None if the file has none

    threads: decoding threads; 0 lets FFmpeg choose.  One is fastest for short clips.
    strict: raise an error for damage that FFmpeg would conceal

    Frames are numbered in display order, whatever the time between them.  A packet without a picture repeats the frame
    before; what a decoder leaves out at the start of a file is not numbered.

    Raises VideoError for a file that is missing, empty, truncated, not a video or without a video stream, and for
    anything else that fails while it is read.
    """

    def __init__(self, path: Path | str, threads: int = 1, strict: bool = False) -> None:
        self.path = Path(path)
        self._reformatter = VideoReformatter()
        self._size: tuple[int, int] | None = None
        self._turned = self._quarter = self._unlike_stated = False
        with self._reporting(opening=True):
            if not self.path.is_file():
                if self.path.exists() and not self.path.is_dir():
                    raise VideoError(path, NO_FILE)
                raise VideoError(path, "no such file", "missing")
            if self.path.stat().st_size == 0:
                raise VideoError(path, "the file is empty", "empty")
            self.reader = FrameReader(self.path, threads, strict)
        table, stream = self.reader.table, self.reader.stream
        self.num_frames, self.index = table.num_frames, table.source
        self.time_base = float(stream.time_base) if stream.time_base else 0.0
        # Without stamps, a format without a header has a default for the mean rate; the codec may know better.
        rate = stream.average_rate if table.times is not None else stream.guessed_rate
        self.stated_fps = float(rate or stream.guessed_rate or 0)
        if table.times is not None and self.time_base:
            self.clock = Clock.from_stamps(table.times, self.time_base, table.last, self.stated_fps)
        else:
            self.clock = Clock.at_rate(self.num_frames, self.stated_fps)
        self.fps = self.clock.fps

    @contextmanager
    def _reporting(self, opening: bool = False) -> Iterator[None]:
        """Raise VideoError for whatever is raised inside: a file that cannot be read is one entry with its reason."""
        with guarded(self.path):
            try:
                yield
            except IndexFault as error:
                if error.kind in ("no-frames", "not-video") and is_cut_off(self.path):
                    raise VideoError(self.path, f"truncated within its index: {error}", "truncated") from error
                raise VideoError(self.path, str(error), error.kind) from error
            except (FFmpegError, OSError) as error:
                raise (self._not_opened(error) if opening else self._damaged(error)) from error

    def _not_opened(self, error: FFmpegError | OSError) -> VideoError:
        if isinstance(error, PermissionError):
            return VideoError(self.path, f"cannot be read ({error.strerror})")
        with open(self.path, "rb") as file:
            head = file.read(12)
        if head[4:8] in TOP_BOXES or head.startswith(BEGINNINGS):
            reason = f"not a video that can be opened ({error.strerror}): truncated, or damaged at its index"
            return VideoError(self.path, reason, "truncated")
        return VideoError(self.path, f"not a video that can be opened ({error.strerror})", "not-video")

    def _damaged(self, error: FFmpegError | OSError) -> VideoError:
        with open(self.path, "rb") as file:
            if is_animated_webp(file.read(21)):
                return VideoError(self.path, "an animated WebP, which FFmpeg does not decode")
        return VideoError(self.path, f"truncated or damaged ({error.strerror})", "damaged")

    def __enter__(self) -> "Video":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self.reader.close()

    @property
    def stamps(self) -> np.ndarray | None:
        """Presentation time stamp of each frame, int64 (num_frames,)."""
        return self.reader.table.stamps

    @property
    def key_frames(self) -> list[int]:
        """Indices of the frames at which decoding can start."""
        return self.reader.table.key_frames

    @property
    def repeated(self) -> int:
        """Number of the frames read so far that repeat the one before, because their packets hold no picture."""
        return len(self.reader.repeated)

    @property
    def height(self) -> int:
        """Height of a frame in pixels, as displayed."""
        return self._shown_size()[0]

    @property
    def width(self) -> int:
        """Width of a frame in pixels, as displayed."""
        return self._shown_size()[1]

    @property
    def pixel_aspect(self) -> Fraction:
        """Width of a pixel divided by its height, as displayed; 1 if the file does not state it, or nothing likely."""
        stated = self.reader.stream.sample_aspect_ratio
        aspect = Fraction(stated) if stated and 1 / MOST_ASPECT <= stated <= MOST_ASPECT else Fraction(1)
        self._shown_size()
        return 1 / aspect if self._quarter else aspect

    @property
    def coded_size(self) -> tuple[int, int]:
        """Size (height, width) before rotation."""
        return self.reader.codec.height, self.reader.codec.width

    @property
    def turned(self) -> bool:
        """True if frames are displayed rotated or mirrored."""
        self._shown_size()
        return self._turned

    def _shown_size(self) -> tuple[int, int]:
        if self._size is None:
            self.frames([0])
        assert self._size is not None
        return self._size

    def frames(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Decode the frames at `indices` (any order, repeats allowed): uint8 (t, H, W, 3), RGB.

        Raises VideoError for an index outside the video, for frames that cannot be decoded and for a video whose frame
        size changes.
        """
        places: dict[int, list[int]] = {}
        for place, index in enumerate(indices):
            places.setdefault(int(index), []).append(place)
        for index in places:
            if not 0 <= index < self.num_frames:
                raise VideoError(
                    self.path, f"frame {index} requested, but the video has frames 0 to {self.num_frames - 1}"
                )
        if not places:
            return np.empty((0, self.height, self.width, 3), np.uint8)
        out: np.ndarray | None = None
        with self._reporting():
            for index, frame in self.reader.read(sorted(places)):
                pixels = self._pixels(frame)
                if out is None:
                    out = np.empty((len(indices), *pixels.shape), np.uint8)
                out[places[index]] = pixels
        assert out is not None
        if self._unlike_stated and 0 not in places:  # as the first frame, whatever is read first
            size, self._size = out.shape[1:3], None
            self.frames([0])
            self._require_size(*size)
        self._unlike_stated = False
        return out

    def all_frames(self) -> np.ndarray:
        """Decode every frame: uint8 (num_frames, H, W, 3), RGB."""
        return self.frames(range(self.num_frames))

    def check(self) -> None:
        """Decode every frame without keeping any.  Raises VideoError as `frames` does."""
        with self._reporting():
            for _, frame in self.reader.read(list(range(self.num_frames))):
                self._require_size(*upright_size(frame))

    def _pixels(self, frame: av.VideoFrame) -> np.ndarray:
        self._turned = self._turned or display_matrix(frame) != UPRIGHT
        self._quarter = is_quarter_turn(frame)
        pixels = upright(rgb(frame, self._reformatter), frame)
        self._require_size(pixels.shape[0], pixels.shape[1])
        return pixels

    def _require_size(self, height: int, width: int) -> None:
        if self._size is None:
            self._size = height, width
            self._unlike_stated = sorted(self._size) != sorted(self.reader.stated_size)
        if (height, width) != self._size:
            reason = f"the frame size changes from {self._size[1]} x {self._size[0]} to {width} x {height} pixels"
            raise VideoError(self.path, reason)
