"""Conversion of a frame to RGB by the matrix and the range that the file states, BT.601 in limited range by default."""

import av
import numpy as np
from av.video.reformatter import VideoReformatter

_CONVERTED = (0, 1, 2, 4, 5, 6, 7, 9)  # RGB, BT.709, unspecified, FCC, BT.601 (625, 525 lines), SMPTE 240M, BT.2020
_UNSPECIFIED = 2
_NOT_LINEAR = {8: "YCgCo", 10: "BT.2020 with constant luminance", 14: "ICtCp", 15: "IPT-C2"}


def rgb(frame: av.VideoFrame, reformatter: VideoReformatter) -> np.ndarray:
    """Return a frame's pixels as coded, uint8 (H, W, 3).

    Raises ValueError for a colour matrix that FFmpeg does not convert, instead of guessing colours.
    """
    matrix = int(frame.colorspace)
    if matrix in _NOT_LINEAR and not frame.format.is_rgb:
        raise ValueError(f"its colours ({_NOT_LINEAR[matrix]}) cannot be converted to RGB")
    if matrix not in _CONVERTED:  # a reserved value
        frame.colorspace = _UNSPECIFIED
    return reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()  # more threads cost more
