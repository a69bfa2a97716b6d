"""Random access to the frames of a video file with PyAV.

As few frames are decoded as the key frames allow.  Requested frames that are not separated by a key frame form a run:
decoding starts at the key frame before the first and ends with the last.  Between runs, the decoder seeks to a key
frame if that skips frames; otherwise it continues.  H.264 pictures that no other picture refers to are skipped (with
threads = 1), and only requested frames are converted.  The pixels are the same as after decoding the whole file.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.error import FFmpegError
from av.video.frame import PictureType
from av.video.reformatter import VideoReformatter

from timesformer.data.video.colour import rgb
from timesformer.data.video.container import choose_stream, open_container
from timesformer.data.video.display import UPRIGHT, display_matrix, upright, upright_size
from timesformer.data.video.error import VideoError, guarded
from timesformer.data.video.index import NO_FRAMES, FrameTable, IndexFault, read_table
from timesformer.data.video.mp4 import TOP_BOXES, is_cut_off

# First bytes of Matroska, AVI and Flash files.  A container that begins so but cannot be opened is truncated.
_BEGINNINGS = (b"\x1a\x45\xdf\xa3", b"RIFF", b"FLV")


class Video:
    """Open video file; a context manager.

    num_frames, fps: number of frames and frame rate
    height, width: size as displayed, after the rotation that the file specifies (the first access may decode a frame)
    key_frames: indices at which decoding can start
    index: "index" if the frames were located with the container's index, "packets" if the whole file was read for it
    stamps: presentation time of each frame in units of `time_base` seconds; None if the file has none

    threads: decoding threads; 0 lets FFmpeg choose.  One is fastest for short clips.
    strict: raise an error for damage that FFmpeg would conceal

    Frames are numbered in display order, whatever the time between them.

    Raises VideoError for a file that is missing, empty, truncated, not a video or without a video stream.
    """

    def __init__(self, path: Path | str, threads: int = 1, strict: bool = False) -> None:
        self.path = Path(path)
        self._threads, self._strict = threads, strict
        self._packets: Iterator[av.Packet] | None = None  # None: seek to a key frame before decoding
        self._reformatter = VideoReformatter()
        with guarded(self.path):
            if not self.path.is_file():
                raise VideoError(path, "no such file", "missing")
            if self.path.stat().st_size == 0:
                raise VideoError(path, "the file is empty", "empty")
            self._open()
            try:
                self._read_header()
            except BaseException:
                self._container.close()
                raise

    def _open(self) -> None:
        """Open the file, at its start."""
        try:
            self._container = open_container(self.path)
        except (FFmpegError, OSError) as error:
            raise self._not_opened(error) from error
        stream = choose_stream(self._container)
        if stream is None:
            kind = "audio-only" if self._container.streams.audio else "not-video"
            self._container.close()
            raise self._faulty(IndexFault("the file has no video stream", kind))
        self._stream = stream
        if self._stream.codec_context is None:
            empty = not any(packet.size for packet in self._container.demux(self._stream))
            self._container.close()
            if empty:
                raise self._faulty(IndexFault(*NO_FRAMES))
            raise VideoError(self.path, "no decoder is available for its video stream")
        self._stream.thread_type = "NONE" if self._threads == 1 else "AUTO"
        self._codec = self._stream.codec_context
        self._codec.thread_count = self._threads
        if self._strict:
            self._codec.options = {"err_detect": "explode"}
        # Only H.264 marks in a picture's own header that no other picture refers to it.
        self._may_skip = self._threads == 1 and self._codec.name == "h264"
        self._skipping = False

    def _not_opened(self, error: FFmpegError | OSError) -> VideoError:
        if isinstance(error, PermissionError):
            return VideoError(self.path, f"cannot be read ({error.strerror})")
        with open(self.path, "rb") as file:
            head = file.read(12)
        if head[4:8] in TOP_BOXES or head.startswith(_BEGINNINGS):
            reason = f"not a video that can be opened ({error.strerror}): truncated, or damaged at its index"
            return VideoError(self.path, reason, "truncated")
        return VideoError(self.path, f"not a video that can be opened ({error.strerror})", "not-video")

    def _faulty(self, error: IndexFault) -> VideoError:
        if error.kind in ("no-frames", "not-video") and is_cut_off(self.path):
            return VideoError(self.path, f"truncated within its index: {error}", "truncated")
        return VideoError(self.path, str(error), error.kind)

    def _read_header(self) -> None:
        try:
            self._table: FrameTable = read_table(self.path, self._container, self._stream)
        except IndexFault as error:
            raise self._faulty(error) from error
        except FFmpegError as error:
            raise self._damaged(error) from error
        self.num_frames, self.key_frames = self._table.num_frames, self._table.key_frames
        self.stamps, self.index = self._table.stamps, self._table.source
        self.time_base = float(self._stream.time_base) if self._stream.time_base else 0.0
        self._numbers = dict(zip(self.stamps, range(self.num_frames), strict=True)) if self.stamps else None
        rate = self._stream.average_rate or self._stream.guessed_rate
        self.fps = float(rate) if rate else 0.0
        self._size: tuple[int, int] | None = None
        self._decoded: deque[av.VideoFrame] = deque()  # decoded but not yet examined
        self._sought = 0  # target key frame of a seek that has not been decoded yet; 0: none
        self._next = 0  # lower bound of the next frame from the decoder
        self._seekable, self._turned = True, False
        self._check_duration()

    def _check_duration(self) -> None:
        """Compare with the declared duration: Matroska and WebM files give no number of frames."""
        if self.index == "index" or len(self._container.streams) > 1:
            return  # audio may last longer than the video
        if self.stamps is None or not self.time_base or not self._container.duration or not self.fps:
            return
        declared = self._container.duration / 1e6
        start = self._container.start_time or 0
        lasting = self.stamps[-1] * self.time_base - start / 1e6 + 1 / self.fps
        if declared - lasting > max(0.5, 0.1 * declared):
            raise VideoError(self.path, f"truncated: has {lasting:.1f} of {declared:.1f} seconds", "truncated")

    def __enter__(self) -> "Video":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._packets = None
        self._decoded.clear()
        self._container.close()

    @property
    def height(self) -> int:
        """Height of a frame in pixels, as displayed."""
        return self._shown_size()[0]

    @property
    def width(self) -> int:
        """Width of a frame in pixels, as displayed."""
        return self._shown_size()[1]

    @property
    def coded_size(self) -> tuple[int, int]:
        """Size (height, width) before rotation."""
        return self._codec.height, self._codec.width

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
        wanted = [int(index) for index in indices]
        for index in wanted:
            if not 0 <= index < self.num_frames:
                raise VideoError(
                    self.path, f"frame {index} requested, but the video has frames 0 to {self.num_frames - 1}"
                )
        if not wanted:
            return np.empty((0, self.height, self.width, 3), np.uint8)
        pixels: dict[int, np.ndarray] = {}
        with self._decoding():
            for index, frame in self._read(sorted(set(wanted))):
                pixels[index] = self._pixels(frame)
        return np.stack([pixels[index] for index in wanted])

    def all_frames(self) -> np.ndarray:
        """Decode every frame: uint8 (num_frames, H, W, 3), RGB."""
        return self.frames(range(self.num_frames))

    def check(self) -> None:
        """Decode every frame without keeping any.  Raises VideoError as `frames` does."""
        with self._decoding():
            for _, frame in self._read(list(range(self.num_frames))):
                self._require_size(*upright_size(frame))

    @contextmanager
    def _decoding(self) -> Iterator[None]:
        """Turn whatever decoding raises into a VideoError; the next call then seeks before it decodes."""
        try:
            with guarded(self.path):
                try:
                    yield
                except FFmpegError as error:
                    raise self._damaged(error) from error
        except VideoError:
            self._packets = None
            raise

    def _pixels(self, frame: av.VideoFrame) -> np.ndarray:
        self._turned = self._turned or display_matrix(frame) != UPRIGHT
        pixels = upright(rgb(frame, self._reformatter), frame)
        self._require_size(pixels.shape[0], pixels.shape[1])
        return pixels

    def _damaged(self, error: FFmpegError) -> VideoError:
        return VideoError(self.path, f"truncated or damaged ({error.strerror})", "damaged")

    def _require_size(self, height: int, width: int) -> None:
        if self._size is None:
            self._size = height, width
        if (height, width) != self._size:
            reason = f"the frame size changes from {self._size[1]} x {self._size[0]} to {width} x {height} pixels"
            raise VideoError(self.path, reason)

    def _read(self, wanted: list[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield the requested frames with their indices, in ascending order."""
        runs: list[list[int]] = []
        for index in wanted:
            key = self.key_frames[self._table.start(index)]
            if not runs or key - runs[-1][-1] > 1:
                runs.append([])
            runs[-1].append(index)
        # If this call reads consecutive frames, the next call may continue decoding after the last run.
        sparse = len(wanted) > 1 and wanted[-1] - wanted[-2] > 1
        for number, run in enumerate(runs):
            yield from self._read_run(run, ending=sparse or number + 1 < len(runs))

    def _read_run(self, run: list[int], ending: bool) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield the requested frames of one run.  `ending`: no frame after the run's last one will be requested."""
        place = self._table.start(run[0])
        if self._packets is None or not self.key_frames[place] <= self._next <= run[0]:
            self._seek(place)
        missing = run
        for attempt in range(2):
            for index, frame in self._decode(missing, ending, skip=attempt == 0):
                yield index, frame
                missing = missing[1:]
            if not missing:
                return
            if attempt == 0:  # the seek ended too late or not at a true key frame: decode everything from the start
                self._seekable = self._seekable and place > 0
                self._restart()
        raise VideoError(
            self.path, f"frame {missing[0]} of {self.num_frames} cannot be decoded: truncated or damaged", "damaged"
        )

    def _seek(self, place: int) -> None:
        """Seek to the key frame at this position of the table; without time stamps, to the start."""
        if place == 0 and not self._seekable:
            self._restart()
            return
        self._container.seek(self._table.targets[place], stream=self._stream)
        self._begin(self.key_frames[place])

    def _restart(self) -> None:
        """Reopen the file, at its start."""
        self._packets = None
        self._decoded.clear()
        self._container.close()
        self._open()
        self._begin(0)

    def _begin(self, index: int) -> None:
        self._packets = iter(self._container.demux(self._stream))
        self._decoded.clear()
        self._next = self._sought = index

    def _decode(self, run: list[int], ending: bool, skip: bool) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield the frames of a run in decoder output order, until all are found or one is missing."""
        left, unfed = deque(run), set(run)
        while left:
            while self._decoded and left:
                frame = self._decoded.popleft()
                index = self._number(frame.pts) if self._numbers else self._next
                if index < self._sought:  # removed by an edit list, or from before the key frame
                    continue
                if self._sought and not self._arrived(index, frame):
                    return
                self._next = index + 1
                if index > left[0]:
                    return
                if index == left[0]:
                    left.popleft()
                    yield index, frame
            if left and not self._feed(run[-1], unfed, ending, skip):
                return

    def _number(self, stamp: int | None) -> int:
        """Return the index of the frame displayed at this time; -1 for none."""
        return -1 if stamp is None or self._numbers is None else self._numbers.get(stamp, -1)

    def _arrived(self, index: int, frame: av.VideoFrame) -> bool:
        """Return True if the first frame after a seek is the key frame and decodes without the frames before it.

        Streams with gradual intra refresh mark frames as key frames that are none.  In these, seeking is given up.
        """
        if index != self._sought or frame.pict_type in (PictureType.P, PictureType.B):
            self._table = replace(self._table, key_frames=[0], targets=self._table.targets[:1])
            self.key_frames = [0]
            return False
        self._sought = 0
        return True

    def _feed(self, last: int, unfed: set[int], ending: bool, skip: bool) -> bool:
        """Send a packet to the decoder, and flush it once it has all requested frames.  Return False at the end."""
        if self._packets is None:
            return False
        packet = next(self._packets, None)
        if packet is None:
            self._packets = None
            return False
        if self._numbers is None or not packet.size:  # the last packet is empty and flushes the decoder
            self._decoded.extend(self._codec.decode(packet))
            return True
        index = self._number(packet.pts)
        # Frames after the last requested one are kept for a later call.
        skipping = skip and self._may_skip and index < last and index not in unfed
        if skipping != self._skipping:
            self._skipping, self._codec.skip_frame = skipping, "NONREF" if skipping else "DEFAULT"
        self._decoded.extend(self._codec.decode(packet))
        unfed.discard(index)
        if ending and not unfed:
            self._decoded.extend(self._codec.decode(None))
            self._packets = None
        return True
