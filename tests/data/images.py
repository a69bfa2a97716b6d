"""Folders of images whose pixels tell their number."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

CODECS = {".jpg": ("mjpeg", "yuvj444p"), ".png": ("png", "rgb24")}


def image_bytes(pixels: np.ndarray, suffix: str) -> bytes:
    """A jpg or png file of pixels (H, W, 3)."""
    codec, pix_fmt = CODECS[suffix]
    context = av.CodecContext.create(codec, "w")
    context.height, context.width = pixels.shape[:2]
    context.pix_fmt, context.time_base = pix_fmt, Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=pix_fmt)
    return b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)])


def grey(index: int, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    """Frame `index` as `write_video` paints it: grey at 4 * index + 20, with a white corner."""
    pixels = np.full((*size, 3), 4 * index + 20, np.uint8)
    pixels[:16, :16] = 255
    return pixels


def level(frame: np.ndarray) -> int:
    """The number that a frame (H, W, 3) was painted with."""
    return round((float(frame[-8:, -8:].mean()) - 20) / 4)


def write_folder(
    folder: Path, frames: int = 12, suffix: str = ".png", name: str = "frame_{}", size: tuple[int, int] = (48, 64)
) -> Path:
    """A folder of images, numbered from 1 without leading zeros."""
    folder.mkdir(parents=True)
    for index in range(frames):
        (folder / f"{name.format(index + 1)}{suffix}").write_bytes(image_bytes(grey(index, size), suffix))
    return folder
