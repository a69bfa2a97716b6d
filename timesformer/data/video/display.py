"""Orientation of a frame: rotation by multiples of 90 degrees and mirroring, from the display matrix or from EXIF."""

from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import SideData, SideDataContainer, Type

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


def is_quarter_turn(frame: av.VideoFrame) -> bool:
    """Return True if height and width of a frame change places when it is displayed."""
    a, b, c, d = display_matrix(frame)
    return bool(b and c and not a and not d)


def upright_size(frame: av.VideoFrame) -> tuple[int, int]:
    """Return (height, width) of the result of `upright`."""
    return (frame.width, frame.height) if is_quarter_turn(frame) else (frame.height, frame.width)


def display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    """Return the signs of a, b, c, d in the display matrix of a frame; FFmpeg makes one of an EXIF orientation."""
    # The frame's own `side_data` refers back to it, which keeps every frame until the next collection of garbage.
    data = SideDataContainer(frame).get("DISPLAYMATRIX")  # type: ignore[call-arg]
    if not isinstance(data, SideData):
        return UPRIGHT
    a, b, _, c, d, *_ = np.sign(np.frombuffer(bytes(data), np.int32)).tolist()
    return a, b, c, d


def _unnamed(cls: type[Type], value: Any) -> Type:
    """Return a member for a type of side data that PyAV has no name for, such as EXIF, instead of an error."""
    member = object.__new__(cls)
    member._name_, member._value_ = f"UNNAMED_{value}", value
    return cls._value2member_map_.setdefault(value, member)  # type: ignore[return-value]


# PyAV cannot list a frame's side data, the display matrix included, if one of them is of a type that it does not name.
Type._missing_ = classmethod(_unnamed)  # type: ignore[method-assign, assignment]
