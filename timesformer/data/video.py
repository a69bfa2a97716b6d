"""Random access to the frames of a video file, by PyAV."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter

from timesformer.errors import InputError


class VideoError(InputError):
    """A video that cannot be read: `path` and `reason`."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = str(path), reason

    def __reduce__(self) -> tuple[type["VideoError"], tuple[str, str]]:
        return type(self), (self.path, self.reason)  # crosses process boundaries (loader workers)


class Video:
    """An open video file; a context manager.

    num_frames, fps, height, width; key_frames: indices at which decoding can start.

    threads: decoding threads, 0 = as FFmpeg sees fit.  For short clips one is fastest.

    Raises VideoError for a file that is missing, empty, no video, without video stream or cut off.
    """

    def __init__(self, path: Path | str, threads: int = 1) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise VideoError(path, "no such file")
        if self.path.stat().st_size == 0:
            raise VideoError(path, "the file is empty")
        try:
            self._container = av.open(str(self.path))
        except FFmpegError as error:
            raise VideoError(path, f"not a video that can be opened ({error.strerror})") from error
        try:
            self._open_stream(threads)
        except BaseException:
            self._container.close()
            raise

    def _open_stream(self, threads: int) -> None:
        if not self._container.streams.video:
            raise VideoError(self.path, "the file has no video stream")
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "NONE" if threads == 1 else "AUTO"
        self._stream.codec_context.thread_count = threads
        self._reformatter = VideoReformatter()
        self._decoded: Iterator[av.VideoFrame] | None = None
        self._next = 0
        try:
            packets = [packet for packet in self._container.demux(self._stream) if packet.size]
        except FFmpegError as error:
            raise VideoError(self.path, f"cut off or damaged ({error.strerror})") from error
        if self._stream.frames > len(packets):
            raise VideoError(self.path, f"cut off: {len(packets)} of {self._stream.frames} frames are there")
        packets = [packet for packet in packets if not packet.is_discard]  # cut away by an edit list
        self.num_frames = len(packets)
        if not self.num_frames:
            raise VideoError(self.path, "the video stream holds no frames")
        # Frames are shown in the order of their time stamps; without any, seeking is impossible: read from the start.
        stamps = sorted((packet.pts, packet.is_keyframe) for packet in packets if packet.pts is not None)
        self._stamps = [stamp for stamp, _ in stamps] if len(stamps) == self.num_frames else None
        self.key_frames = [i for i, (_, key) in enumerate(stamps) if key] if self._stamps else [0]
        self._index = {stamp: i for i, stamp in enumerate(self._stamps)} if self._stamps else None
        rate = self._stream.average_rate or self._stream.guessed_rate
        self.fps = float(rate) if rate else 0.0
        self.height, self.width = self._stream.codec_context.height, self._stream.codec_context.width
        self._check_duration()

    def _check_duration(self) -> None:
        """Matroska and WebM files do not say how many frames they hold, but how long they last."""
        if len(self._container.streams) > 1:
            return  # sound may well last longer
        unit = self._stream.time_base
        if self._stamps is None or unit is None or not self._container.duration or not self.fps:
            return
        declared = self._container.duration / 1e6
        start = self._container.start_time or 0
        lasting = float(self._stamps[-1] * unit) - start / 1e6 + 1 / self.fps
        if declared - lasting > max(0.5, 0.1 * declared):
            raise VideoError(self.path, f"cut off: {lasting:.1f} of {declared:.1f} seconds are there")

    def __enter__(self) -> "Video":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the file."""
        self._decoded = None
        self._container.close()

    def frames(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """The frames at `indices` (any order, repeats allowed): uint8 (t, H, W, 3), RGB.

        Raises VideoError for an index outside the video and for frames that cannot be decoded.
        """
        wanted = [int(index) for index in indices]
        for index in wanted:
            if not 0 <= index < self.num_frames:
                raise VideoError(
                    self.path, f"frame {index} asked for, but the video has frames 0 to {self.num_frames - 1}"
                )
        pixels: dict[int, np.ndarray] = {}
        try:
            for index in sorted(set(wanted)):
                pixels[index] = self._frame(index)
        except FFmpegError as error:
            raise VideoError(self.path, f"cut off or damaged ({error.strerror})") from error
        if not wanted:
            return np.empty((0, self.height, self.width, 3), np.uint8)
        return np.stack([pixels[index] for index in wanted])

    def all_frames(self) -> np.ndarray:
        """Every frame: uint8 (num_frames, H, W, 3), RGB."""
        return self.frames(range(self.num_frames))

    def _frame(self, index: int) -> np.ndarray:
        """Decode one frame: go on from where the last one left off, or seek to the key frame before it."""
        start = self.key_frames[max(bisect_right(self.key_frames, index) - 1, 0)]
        if self._decoded is None or not start <= self._next <= index:
            self._seek(start)
        for attempt in range(2):
            for position, frame in self._positions():
                self._next = position + 1
                if position == index:
                    return self._reformatter.reformat(frame, format="rgb24").to_ndarray()
                if position > index:
                    break
            if attempt == 0:
                self._seek(0)  # some containers' seek lands late: read from the start
        raise VideoError(self.path, f"frame {index} of {self.num_frames} cannot be decoded: cut off or damaged")

    def _seek(self, index: int) -> None:
        """Go to a key frame; without time stamps, to the start."""
        self._container.seek(self._stamps[index] if self._stamps else 0, stream=self._stream)
        self._decoded = iter(self._container.decode(self._stream))
        self._next = index if self._stamps else 0

    def _positions(self) -> Iterable[tuple[int, av.VideoFrame]]:
        """The frames still to come, with their indices."""
        assert self._decoded is not None
        position = self._next
        for frame in self._decoded:
            if self._index is not None:
                if frame.pts not in self._index:
                    continue
                position = self._index[frame.pts]
            yield position, frame
            position += 1
