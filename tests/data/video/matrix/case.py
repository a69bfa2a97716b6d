"""One file of the matrix, and what is right for it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from tests.data.video.made import encode

JPEG = {"pix_fmt": "yuvj420p"}
RGB = {"pix_fmt": "rgb24"}
B_FRAMES = {"options": {"bf": "2", "g": "8"}}
DNX = {"pix_fmt": "yuv422p", "options": {"profile": "dnxhr_lb"}, "size": (128, 256)}
MS = Fraction(1, 1000)


@dataclass(frozen=True)
class Case:
    """One file of the matrix.

    kind: its row in the documentation's table; make: writes it in a folder
    numbers: those of its frames; None: as many as FFmpeg decodes, in whatever order it gives them
    turn: (quarter turns counterclockwise, mirrored) of the frames as displayed
    stream: which video stream is right; None: FFmpeg's choice
    rate: mean frames per second, to 1 %; None: not told
    reported: part of the reason with which the file is refused; empty: it is read
    """

    name: str
    kind: str
    make: Callable[[Path], Path]
    numbers: range | None = field(default=range(20))
    turn: tuple[int, bool] = (0, False)
    stream: int | None = None
    rate: float | None = None
    reported: str = ""

    def __str__(self) -> str:
        return self.name


def odd(kind: str, name: str, make: Callable[[Path], Path], **expected: Any) -> Case:
    return Case(name, kind, make, **expected)


def made(kind: str, name: str, codec: str = "libx264", expected: dict[str, Any] | None = None, **how: Any) -> Case:
    return odd(kind, name, lambda folder: encode(folder / name.split()[-1], codec, **how), **(expected or {}))


def x264(**params: object) -> dict[str, str]:
    return {"x264-params": ":".join(f"{key.replace('_', '-')}={value}" for key, value in params.items())}
