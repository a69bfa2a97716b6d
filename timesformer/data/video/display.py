"""How a frame is to be shown: turned by quarters and mirrored, as the file's display matrix says."""

import av
import numpy as np
from av.sidedata.sidedata import SideData

UPRIGHT = (1, 0, 0, 1)
"""Display matrix of a picture that is shown as it is coded."""


def upright(pixels: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    """The picture (H, W, 3) as its display matrix says it is to be shown: turned by quarters, mirrored.

    FFmpeg's matrix takes a point (x, y) to (a x + c y, b x + d y), y downwards.  Any other angle is left as it is.
    """
    a, b, c, d = display_matrix(frame)
    if a and d and not b and not c:
        return np.ascontiguousarray(pixels[::d, ::a])
    if b and c and not a and not d:
        return np.ascontiguousarray(pixels.transpose(1, 0, 2)[::b, ::c])
    return pixels


def upright_size(frame: av.VideoFrame) -> tuple[int, int]:
    """(height, width) of `upright`."""
    a, b, c, d = display_matrix(frame)
    return (frame.width, frame.height) if b and c and not a and not d else (frame.height, frame.width)


def display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    """Signs of a, b, c, d."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if not isinstance(data, SideData):
        return UPRIGHT
    a, b, _, c, d, *_ = np.sign(np.frombuffer(bytes(data), np.int32)).tolist()
    return a, b, c, d
