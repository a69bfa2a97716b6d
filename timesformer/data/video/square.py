"""Videos whose pixels are not square, stretched to how they are meant to be displayed."""

from collections.abc import Sequence
from fractions import Fraction
from types import TracebackType

import av
import numpy as np

from timesformer.data.video.video import Video


def square_size(height: int, width: int, aspect: Fraction) -> tuple[int, int]:
    """Return (height, width) with square pixels; the shorter direction is lengthened, so that no detail is lost.

    aspect: width of a pixel divided by its height
    """
    return (height, round(width * aspect)) if aspect > 1 else (round(height / aspect), width)


class SquarePixels:
    """Video whose frames are resized (bicubic) so that its pixels are square.  A context manager, closes the video."""

    def __init__(self, video: Video) -> None:
        self.video = video
        self.num_frames, self.fps, self.clock = video.num_frames, video.fps, video.clock
        self.height, self.width = square_size(video.height, video.width, video.pixel_aspect)

    def __enter__(self) -> "SquarePixels":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the video."""
        self.video.close()

    def frames(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Decode the frames at `indices`: uint8 (t, H, W, 3), RGB.  Raises VideoError."""
        found = self.video.frames(indices)
        out = np.empty((len(found), self.height, self.width, 3), np.uint8)
        for pixels, resized in zip(found, out, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            resized[:] = frame.reformat(self.width, self.height, interpolation="BICUBIC", threads=1).to_ndarray()
        return out
