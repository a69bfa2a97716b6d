"""Random access to the frames of a video stream by their number.

As few frames are decoded as the key frames allow.  Requested frames that are not separated by a key frame form a run:
decoding starts at the key frame before the first and ends with the last.  Between runs, the decoder seeks to a key
frame if that skips frames; otherwise it continues.  H.264 pictures that no other picture refers to are skipped (with
threads = 1).

The frames are the same as after decoding the whole file.  Every seek is verified by the time stamp of the first frame
that comes out, in AVI also by where its packet lies; after a seek that fails in any way, decoding starts again at the
beginning of the file.  A packet without a picture repeats the frame before.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import av
from av.error import FFmpegError
from av.video.frame import PictureType
from av.video.stream import VideoStream

from timesformer.data.fingerprint import file_state
from timesformer.data.video.beginning import settled
from timesformer.data.video.container import choose_stream, open_container
from timesformer.data.video.image import MOST_PIXELS, TOO_LARGE
from timesformer.data.video.index import NO_FRAMES, FrameTable, IndexFault, read_table

CHANGED = "the file was changed while it was being read"
_ATTEMPTS = 3  # seeks for one frame
_SKIP, _SEEK, _RESTART = "skip", "seek", "restart"  # ways to reach a frame, in the order in which they are tried


class FrameReader:
    """Frames of a file by their number in display order.

    table: see `timesformer.data.video.index`; stream, codec: of the open file; they change when it is opened anew
    stated_size: (height, width) as coded, by the header
    threads: decoding threads; 0 lets FFmpeg choose.  strict: raise an error for damage that FFmpeg would conceal
    repeated: numbers of frames read so far whose packets hold no picture

    Raises IndexFault or FFmpegError for a file that cannot be read.
    """

    def __init__(self, path: Path, threads: int = 1, strict: bool = False) -> None:
        self.path, self._threads, self._strict = path, threads, strict
        self.repeated: set[int] = set()
        self._packets: Iterator[av.Packet] | None = None  # None: seek to a key frame before decoding
        self._decoded: deque[av.VideoFrame] = deque()  # decoded but not yet examined
        self._sought: int | None = None  # target key frame of a seek whose first frame has not come out yet
        self._next = 0  # lower bound of the next frame from the decoder
        self._last: av.VideoFrame | None = None  # frame before it
        self._from_start = False  # decoding since the start of the file
        self._ended = False  # all packets have been decoded
        self._state = file_state(path.stat())
        self._open()
        try:
            self.table: FrameTable = read_table(path, self._container, self.stream)
            self.doubts = self.table.doubts
            if self.doubts:
                self.restart()
                self.table = settled(self.table, self._container, self.stream)
            if self.doubts and self.table.doubts:  # the stamps turned out to be those of other frames
                self.restart()
                self.table = settled(self.table, self._container, self.stream)
        except BaseException:
            self._container.close()
            raise
        self._packets = None

    def _open(self) -> None:
        """Open the file, at its start."""
        if file_state(self.path.stat()) != self._state:
            raise IndexFault(CHANGED, "unreadable")
        self._container = open_container(self.path)
        stream = choose_stream(self._container)
        if stream is None:
            kind = "audio-only" if self._container.streams.audio else "not-video"
            self._container.close()
            raise IndexFault("the file has no video stream", kind)
        self.stream: VideoStream = stream
        if self.stream.codec_context is None:
            empty = not any(packet.size for packet in self._container.demux(self.stream))
            self._container.close()
            raise IndexFault(*(NO_FRAMES if empty else ("no decoder is available for its video stream", "unreadable")))
        self.stream.thread_type = "NONE" if self._threads == 1 else "AUTO"
        self.codec = self.stream.codec_context
        self.stated_size = self.codec.height, self.codec.width
        if self.codec.height * self.codec.width > MOST_PIXELS:
            self._container.close()
            raise IndexFault(TOO_LARGE.format(self.codec.width, self.codec.height), "unreadable")
        self.codec.thread_count = self._threads
        self.codec.options = {"max_pixels": str(MOST_PIXELS)}  # of a frame whose size the header does not tell
        if self._strict and self.codec.name != "tiff":  # which finds fault with what FFmpeg itself writes
            self.codec.options |= {"err_detect": "explode"}
        # Only H.264 marks in a picture's own header that no other picture refers to it.
        self._may_skip = self._threads == 1 and self.codec.name == "h264"
        self._skipping = False

    def close(self) -> None:
        """Close the file."""
        self._forget()
        self._container.close()

    def _forget(self) -> None:
        self._packets = self._last = None
        self._decoded.clear()

    def read(self, wanted: list[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield the requested frames with their numbers, which must ascend."""
        runs: list[list[int]] = []
        for index in wanted:
            key = self.table.key_frames[self.table.start(index)]
            if not runs or key - runs[-1][-1] > 1:
                runs.append([])
            runs[-1].append(index)
        # If this call reads consecutive frames, the next call may continue decoding after the last run.
        sparse = len(wanted) > 1 and wanted[-1] - wanted[-2] > 1
        try:
            for number, run in enumerate(runs):
                yield from self._read_run(run, ending=sparse or number + 1 < len(runs))
        except BaseException:
            self._forget()
            raise

    def _read_run(self, run: list[int], ending: bool) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield the requested frames of one run.  `ending`: no frame after the run's last one will be requested."""
        missing, attempts = run, 0
        for way in (_SKIP, *[_SEEK] * _ATTEMPTS, _RESTART):
            if way == _SKIP and not (self._may_skip and not self.table.paired):
                continue
            attempts += 1
            early = ending and attempts == 1  # otherwise the decoder is fed until it shows the frames by itself
            try:
                self._place(missing[0], way)
                for index, frame in self._decode(missing, early, way):
                    yield index, frame
                    missing = missing[1:]
            except FFmpegError:  # perhaps because decoding did not start at a true key frame
                if self._from_start and way != _SKIP:
                    raise
                self._packets = None
            if not missing:
                return
        raise IndexFault(
            f"frame {missing[0]} of {self.table.num_frames} cannot be decoded: truncated or damaged", "damaged"
        )

    def _place(self, index: int, way: str) -> None:
        """Continue, or seek to the key frame before, so that the decoder arrives at this frame."""
        place = self.table.start(index)
        anew = way == _SEEK and self._may_skip and not self.table.paired  # pictures were skipped before
        if way == _RESTART:
            self.restart()
        elif anew or self._packets is None or not self.table.key_frames[place] <= self._next <= index:
            self.seek(place)

    def seek(self, place: int) -> None:
        """Seek to the key frame at this position of the table."""
        target = self.table.targets[place]
        if target is None:
            self.restart()
            return
        self._begin(self.table.key_frames[place])
        try:
            self._container.seek(target, stream=self.stream)
        except FFmpegError:
            self._give_up()
            self.restart()
            return
        self._sought, self._from_start = self.table.key_frames[place], False

    def restart(self) -> None:
        """Open the file anew, at its start."""
        self._forget()
        self._container.close()
        self._open()
        self._begin(0)
        self._sought, self._from_start = None, True

    def _begin(self, index: int) -> None:
        self._forget()
        self._packets = iter(self._container.demux(self.stream))
        self._next, self._ended = index, False

    def _decode(self, run: list[int], ending: bool, way: str) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield the frames of a run in decoder output order, until all are found or one is missing."""
        left, unfed = deque(run), set(run)
        while left:
            while self._decoded and left:
                frame = self._decoded.popleft()
                index = self._next if self.table.stamps is None else self.table.number(frame.pts)
                if index < (self._sought or 0):  # removed by an edit list, or from before the key frame
                    continue
                if self._sought is not None and not self._arrived(index, frame):
                    return
                if index < self._next:
                    if self.doubts:  # the stamps are in another order than the frames: from now on they are counted
                        self._give_up()
                        self.table = replace(self.table, stamps=None)
                        return
                    continue
                # A damaged frame may merely lack what comes before the key frame.
                if (index > left[0] and way == _SKIP) or (frame.is_corrupt and not self._from_start):
                    return
                while left and index > left[0] and self._last is not None:
                    self.repeated.add(left[0])
                    yield left.popleft(), self._last
                self._next, self._last = index + 1, frame
                if left and index > left[0]:
                    return
                if left and index == left[0]:
                    left.popleft()
                    yield index, frame
            if left and not self._feed(run[-1], unfed, ending, way == _SKIP):
                break
        while left and self._last is not None and way != _SKIP and self._ended:
            self.repeated.add(left[0])
            yield left.popleft(), self._last

    def _arrived(self, index: int, frame: av.VideoFrame) -> bool:
        """Return True if the first frame after a seek is the key frame and decodes without the frames before it.

        Otherwise the next seek is to the key frame before.  Streams with gradual intra refresh mark frames as key
        frames that are none, and so do some encoders.  In these, seeking is given up.
        """
        if index != self._sought:
            kept = [
                (key, target)
                for key, target in zip(self.table.key_frames, self.table.targets, strict=True)
                if key != self._sought
            ]
            if not self._sought:  # the start itself: by opening the file anew
                kept = [(0, None), *kept]
            self.table = replace(self.table, key_frames=[key for key, _ in kept], targets=[at for _, at in kept])
            return False
        guess = frame.pict_type == PictureType.NONE and not frame.key_frame
        if index and (guess or frame.pict_type in (PictureType.P, PictureType.B)):
            self._give_up()
            return False
        self._sought = None
        return True

    def _give_up(self) -> None:
        """Decode from the start of the file from now on."""
        self.table = replace(self.table, key_frames=[0], targets=[None])

    def _feed(self, last: int, unfed: set[int], ending: bool, skip: bool) -> bool:
        """Send a packet to the decoder, and flush it once it has all requested frames.  Return False at the end."""
        if self._packets is None:
            return False
        packet = next((packet for packet in self._packets if packet.size), None)
        if packet is None:
            self._packets, self._ended = None, True
            self._decoded.extend(self.codec.decode(None))
            return True
        index = -1 if packet.is_discard else self.table.number(packet.pts)  # an edit list may use a stamp twice
        places = self.table.positions
        if self._sought is not None and index >= 0 and places is not None and packet.pos != places[index]:
            self._give_up()
            self._packets = None
            return False
        # Frames after the last requested one are kept for a later call.
        skipping = skip and self._may_skip and self.table.stamps is not None and index < last and index not in unfed
        if skipping != self._skipping:
            self._skipping, self.codec.skip_frame = skipping, "NONREF" if skipping else "DEFAULT"
        try:
            self._decoded.extend(self.codec.decode(packet))
        except FFmpegError:
            if self._last is None and self._from_start and self.doubts:  # before the first frame (see `beginning`)
                return True
            raise
        if self.table.stamps is not None:
            unfed.discard(index)
            if ending and not unfed and not self.table.paired:  # the last one's second field may follow
                self._packets = None
                self._decoded.extend(self.codec.decode(None))
        return True
