"""Access to the frames of a sample: a video file, a folder of images, or a segment of either."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from timesformer.data.annotations import Sample
from timesformer.data.annotations.reading import suffixes_of
from timesformer.data.fingerprint import content_hash
from timesformer.data.video.clock import DEFAULT_FPS, Clock
from timesformer.data.video.colour import rgb
from timesformer.data.video.display import upright, upright_size
from timesformer.data.video.error import VideoError, guarded
from timesformer.data.video.image import IMAGE_SUFFIXES, ImageFault, image_names, other_names, read_image
from timesformer.data.video.square import SquarePixels
from timesformer.data.video.video import Video
from timesformer.text import path_text


class OpenVideo(Protocol):
    """Protocol of an open video: a context manager with num_frames, fps, clock, height and width.

    `frames(indices)` returns uint8 (t, H, W, 3), RGB; indices come in any order and may repeat.
    """

    @property
    def num_frames(self) -> int: ...
    @property
    def fps(self) -> float: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...
    def frames(self, indices: Sequence[int] | np.ndarray) -> np.ndarray: ...
    def close(self) -> None: ...
    def __enter__(self) -> "OpenVideo": ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_video(source: Sample | Path | str) -> OpenVideo:
    """Open a sample, or a whole video by its path; a folder is read as a sequence of images.

    Raises VideoError, whose `path` is the sample's `place`, for a video that cannot be read and for a segment that
    extends beyond the video.
    """
    sample = source if isinstance(source, Sample) else Sample(Path(source), 0)
    video: OpenVideo
    try:
        folder = os.path.isdir(sample.path)  # pathlib's is_dir raises an error for some names
        video = FrameFolder(sample.path, sample.fps) if folder else _file(sample)
    except VideoError as error:
        raise VideoError(sample.place, error.reason, error.kind) from error
    if not sample.is_segment:
        return video
    try:
        return Segment(video, *segment_range(sample, video.clock), sample.place)
    except BaseException:
        video.close()
        raise


def _file(sample: Sample) -> OpenVideo:
    video = Video(sample.path)
    if not sample.square:
        return video
    try:
        return SquarePixels(video) if video.pixel_aspect != 1 else video
    except BaseException:
        video.close()
        raise


def frames_key(sample: Sample) -> str:
    """Hash the content from which a sample's frames are decoded, as their key in the cache and in fingerprints.

    For a file, the hash covers its content; for a folder of images, the names and contents of the images and the frame
    rate.  For a segment it also covers the range; in a folder, only the images of the segment.

    Raises OSError for a missing file.
    """
    if not os.path.isdir(sample.path):
        content = content_hash(sample.path)
        if sample.square:
            content = _digest(content, "square")
        if not sample.is_segment:
            return content
        return _digest(content, f"{sample.start_frame} {sample.end_frame} {sample.fps}")
    names = image_names(sample.path)
    wanted = names[slice(sample.start_frame, sample.end_frame)]
    return frames_digest(sample, names, {name: content_hash(sample.path / name) for name in wanted})


def frames_digest(sample: Sample, names: Sequence[str], digests: Mapping[str, str]) -> str:
    """A hash over the rate, the names and the digests of a folder's images, of a segment's alone."""
    wanted = names[slice(sample.start_frame, sample.end_frame)]
    return _digest(str(sample.fps), *(f"{name} {digests[name]}" for name in wanted))


def _digest(*lines: str) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def segment_range(sample: Sample, clock: Clock) -> tuple[int, int]:
    """Return the range of a segment in a video.

    Frame numbers that refer to another rate are converted; where frames are unevenly spaced, to those that are shown at
    the same time.
    """
    start, end = sample.start_frame or 0, sample.end_frame
    if sample.fps is not None and not clock.even:
        begin, stop = start / sample.fps, clock.lasting if end is None else end / sample.fps
        frames = len(clock.starts)
        beyond = round((stop - clock.lasting) * clock.fps)
        if begin >= clock.lasting or beyond > 0:
            return min(clock.between(begin, stop)[0], frames), frames + max(beyond, 1)
        return clock.between(begin, stop)
    ratio = 1.0 if sample.fps is None or clock.fps <= 0 else clock.fps / sample.fps
    if abs(ratio - 1) > 0.01:  # 59.94 frames per second are treated as 60
        start, end = int(start * ratio), None if end is None else max(round(end * ratio), int(start * ratio) + 1)
    return start, len(clock.starts) if end is None else end


class FrameFolder:
    """Folder of images as a video, in the order of the numbers in their names; a context manager.

    fps: frame rate, which the images do not specify (30 by default); clock: times of the images at this rate
    others: names of the files that are no images by their suffix; they are passed over

    Images are turned upright as their EXIF orientation says.

    Raises VideoError for a folder without images, and in `frames` for an image that cannot be decoded or that differs
    in size from the first one.
    """

    def __init__(self, path: Path | str, fps: float | None = None) -> None:
        self.path = Path(path)
        self.fps = DEFAULT_FPS if fps is None else fps
        try:
            self._names, self.others = image_names(self.path), other_names(self.path)
        except OSError as error:
            raise VideoError(path, f"the folder cannot be read ({error.strerror})") from error
        if not self._names:
            kinds = f"{', '.join(IMAGE_SUFFIXES[:-1])} or {IMAGE_SUFFIXES[-1]}"
            found = suffixes_of(list(map(Path, self.others)))
            reason = f"no such file; the folder of this name is without images (they end in {kinds}){found}"
            raise VideoError(path, reason)
        self.num_frames = len(self._names)
        self.clock = Clock.at_rate(self.num_frames, self.fps)
        self._reformatter = VideoReformatter()
        self.height, self.width = upright_size(self._decode(0))

    def __enter__(self) -> "FrameFolder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Do nothing: no file is kept open."""

    def frames(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Decode the images at `indices`: uint8 (t, H, W, 3), RGB.  Raises VideoError."""
        wanted = check_indices(indices, self.num_frames, self.path)
        pixels = {index: self._pixels(index) for index in sorted(set(wanted))}
        return (
            np.stack([pixels[index] for index in wanted]) if wanted else np.empty((0, self.height, self.width, 3), "u1")
        )

    def _pixels(self, index: int) -> np.ndarray:
        image, name = self._decode(index), path_text(self._names[index])
        height, width = upright_size(image)
        if (height, width) != (self.height, self.width):
            raise VideoError(
                self.path,
                f"image {name} has {width} x {height} pixels, expected {self.width} x {self.height} as in the first "
                "image",
            )
        with guarded(self.path, f"image {name} "):
            return upright(rgb(image, self._reformatter), image)

    def _decode(self, index: int) -> VideoFrame:
        """Decode an image, not yet turned as its EXIF orientation says."""
        name = path_text(self._names[index])
        with guarded(self.path, f"image {name} "):
            try:
                return read_image(self.path / self._names[index])
            except ImageFault as fault:
                raise VideoError(self.path, f"image {name} {fault}") from fault


class Segment:
    """Segment of an open video, as a video: frames `start` to `end` (excluded).  A context manager, closes the video.

    Raises VideoError for a range that is empty or extends beyond the video; every error names `place`.
    """

    def __init__(self, video: OpenVideo, start: int, end: int, place: str) -> None:
        if not 0 <= start < end <= video.num_frames:
            raise VideoError(
                place, f"frames {start} to {end - 1} requested, but the video has frames 0 to {video.num_frames - 1}"
            )
        self.video, self.start, self.place = video, start, place
        self.num_frames, self.fps, self.clock = end - start, video.fps, video.clock.part(start, end)

    @property
    def height(self) -> int:
        """Height of a frame in pixels."""
        return self.video.height

    @property
    def width(self) -> int:
        """Width of a frame in pixels."""
        return self.video.width

    def __enter__(self) -> "Segment":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the video."""
        self.video.close()

    def frames(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Decode frames, counted from the segment's start: uint8 (t, H, W, 3), RGB.  Raises VideoError."""
        wanted = check_indices(indices, self.num_frames, self.place)
        try:
            return self.video.frames([self.start + index for index in wanted])
        except VideoError as error:
            raise VideoError(self.place, error.reason) from error


def check_indices(indices: Sequence[int] | np.ndarray, num_frames: int, place: Path | str) -> list[int]:
    """Convert the indices to whole numbers.  Raises VideoError for an index outside the video."""
    wanted = [int(index) for index in indices]
    for index in wanted:
        if not 0 <= index < num_frames:
            raise VideoError(place, f"frame {index} requested, but the video has frames 0 to {num_frames - 1}")
    return wanted
