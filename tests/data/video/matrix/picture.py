"""Files whose pictures are odd: orientation, side data, size, colour."""

from collections.abc import Callable
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import numpy as np
from PIL import Image

from tests.data.video.made import encode, numbered, remux
from tests.data.video.matrix.case import JPEG, Case, made, odd


def _turned(suffix: str, degrees: int, mirrored: bool) -> Case:
    def make(folder: Path) -> Path:
        return remux(
            encode(folder / f"a.{suffix}"),
            folder / f"b.{suffix}",
            prepare=lambda stream: stream.set_display_rotation(degrees, mirrored),
        )

    name = f"turned{degrees}{'m' * mirrored}.{suffix}"
    return odd("rotated or mirrored", name, make, numbers=None, turn=(degrees // 90, mirrored))


def _photographs(suffix: str, orientation: int) -> Callable[[Path], Path]:
    """Join photographs with EXIF to a film without encoding anew."""

    def photograph(pixels: np.ndarray) -> bytes:
        data, exif = BytesIO(), Image.Exif()
        exif[0x0112], exif[0x010F] = orientation, "Maker"
        Image.fromarray(pixels).save(data, "JPEG", quality=95, exif=exif)
        return data.getvalue()

    def make(folder: Path) -> Path:
        path, still = folder / f"photographs.{suffix}", folder / "one.jpg"
        still.write_bytes(photograph(numbered(1)[0]))
        with av.open(str(path), "w") as out, av.open(str(still)) as template:
            stream = out.add_stream_from_template(template.streams.video[0])
            stream.time_base = Fraction(1, 25)
            for index, pixels in enumerate(numbered(20)):
                packet = av.Packet(photograph(pixels))
                packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, 25), True
                packet.pts = packet.dts = index
                packet.duration = 1
                out.mux(packet)
        return path

    return make


def _stated(matrix: int, full: int) -> Callable[[av.VideoStream], None]:
    def prepare(stream: av.VideoStream) -> None:
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, full

    return prepare


def _square(stream: av.VideoStream) -> None:
    stream.codec_context.sample_aspect_ratio = Fraction(4, 3)


PICTURED = [
    *(_turned("mp4", degrees, mirrored) for degrees in (90, 180, -90) for mirrored in (False, True)),
    _turned("mp4", 0, True),
    _turned("mov", 90, False),
    _turned("mkv", 90, False),
    *(odd("EXIF in every frame", f"exif.{suffix}", _photographs(suffix, 1)) for suffix in ("mkv", "avi", "mov")),
    odd("EXIF orientation in every frame", "exif6.mkv", _photographs("mkv", 6), numbers=None, turn=(-1, False)),
    *(
        made("one frame", f"single.{suffix}", codec, {"numbers": range(1)}, count=1, **how)
        for suffix, codec, how in (
            ("mp4", "libx264", {}),
            ("webm", "libvpx", {}),
            ("gif", "gif", {"pix_fmt": "rgb8"}),
            ("avi", "mjpeg", JPEG),
        )
    ),
    made("two frames", "two.mp4", expected={"numbers": range(2)}, count=2),
    made("odd size", "odd.mkv", size=(49, 65), pix_fmt="yuv444p"),
    made("odd size", "odd420.avi", "ffv1", size=(33, 51)),
    made("tiny", "tiny.mp4", expected={"numbers": None}, size=(16, 16)),
    made("10 bits", "deep.mkv", "libx265", pix_fmt="yuv420p10le"),
    made("4:4:4", "full_chroma.mp4", pix_fmt="yuv444p"),
    made("grey", "grey.mkv", "ffv1", pix_fmt="gray"),
    made("RGB", "rgb.mkv", "libx264rgb", pix_fmt="rgb24", options={"qp": "10"}),
    made("transparent", "alpha.mov", "qtrle", pix_fmt="argb"),
    *(
        made("colour matrix and range", f"matrix{matrix}_{full}.mp4", prepare=_stated(matrix, full))
        for matrix in (1, 5, 9)
        for full in (1, 2)
    ),
    made("pixels that are not square", "aspect.mp4", prepare=_square),
    made("pixels that are not square", "aspect.mpg", "mpeg2video", prepare=_square),
]
