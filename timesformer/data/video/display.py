"""Orientation of a frame: rotation by multiples of 90 degrees and mirroring, from the file's display matrix."""

import av
import numpy as np
from av.sidedata.sidedata import SideData

UPRIGHT = (1, 0, 0, 1)
"""Display matrix of a picture that is displayed as coded."""


def upright(pixels: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    """Rotate (by multiples of 90 degrees) and mirror a picture (H, W, 3) according to its display matrix.

    FFmpeg's matrix maps a point (x, y) to (a x + c y, b x + d y), with y pointing down.  Pictures with other angles are
    returned unchanged.
    """
    a, b, c, d = display_matrix(frame)
    if a and d and not b and not c:
        return np.ascontiguousarray(pixels[::d, ::a])
    if b and c and not a and not d:
        return np.ascontiguousarray(pixels.transpose(1, 0, 2)[::b, ::c])
    return pixels


def upright_size(frame: av.VideoFrame) -> tuple[int, int]:
    """Return (height, width) of the result of `upright`."""
    a, b, c, d = display_matrix(frame)
    return (frame.width, frame.height) if b and c and not a and not d else (frame.height, frame.width)


def display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    """Return the signs of a, b, c, d in the display matrix of a frame."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if not isinstance(data, SideData):
        return UPRIGHT
    a, b, _, c, d, *_ = np.sign(np.frombuffer(bytes(data), np.int32)).tolist()
    return a, b, c, d
