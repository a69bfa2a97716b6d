"""Image files as the frames of a video: which are taken, and their decoding by FFmpeg.

A decoder fills in the missing part of a truncated image, so the ends of images are found from their own structure: the
markers of JPEG (ITU-T T.81, annex B), the chunks of PNG and WebP, the stated size of BMP.  What lies behind the image,
such as the film of a motion photograph, is not decoded.
"""

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import av
from av.error import ArgumentError
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from timesformer.data.natural import natural_key

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pnm")
"""Suffixes of images that FFmpeg decodes, in lower or upper case."""

MOST_PIXELS = 2**27
"""Largest number of pixels of a picture that is decoded: 16K video has fewer, and a hostile file may state any."""
TOO_LARGE = f"pictures of {{}} x {{}} pixels, more than the {MOST_PIXELS:,} that are decoded"


class ImageFault(Exception):
    """Error for a file that is no image, or not a whole one; the message is its description."""


def image_names(folder: Path) -> list[str]:
    """List the names of the images in a folder, numbers in ascending order."""
    return sorted(_names(folder)[0], key=natural_key)


def other_names(folder: Path) -> list[str]:
    """List the names of the files in a folder that are no images by their suffix; hidden ones are left out."""
    return sorted(_names(folder)[1], key=natural_key)


def _names(folder: Path) -> tuple[list[str], list[str]]:
    images, others = list[str](), list[str]()
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.name.lower().endswith(IMAGE_SUFFIXES):
                images.append(entry.name)
            elif not os.path.isdir(entry.path):  # unlike the entry's own, never an error
                others.append(entry.name)
    return images, others


def read_image(path: Path) -> VideoFrame:
    """Decode an image file, told by its content; not yet turned as its EXIF orientation says.

    Raises OSError for a file that cannot be read, ImageFault for one that is no whole image, and whatever the decoder
    raises.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ImageFault("is not a file")
    data = path.read_bytes()
    found = next((kind for kind in _KINDS if kind.start.match(data)), None)
    if found is None:
        raise ImageFault("is no image of a kind that is read (JPEG, PNG, WebP, BMP, TIFF, PPM, PGM)")
    end = found.end(data)
    if end > len(data):
        raise ImageFault("is truncated")
    if is_animated_webp(data):
        raise ImageFault("is an animated WebP, which FFmpeg does not decode")
    if found.decoder == "tiff" and (used := _tiff_compression(data)) not in _TIFF_COMPRESSIONS:
        raise ImageFault(f"is a TIFF with compression {used}, which is not read")
    context = av.CodecContext.create(found.decoder, "r")
    assert isinstance(context, VideoCodecContext)
    context.options = {"max_pixels": str(MOST_PIXELS)}
    try:
        frames = [*context.decode(av.Packet(data[:end] if end < len(data) else data)), *context.decode(None)]
    except ArgumentError:  # FFmpeg's answer to a size that is not allowed
        raise ImageFault(f"cannot be decoded (damaged, or more than {MOST_PIXELS:,} pixels)") from None
    if len(frames) != 1 or not isinstance(frames[0], VideoFrame):
        raise ImageFault("cannot be decoded")
    return frames[0]


def is_animated_webp(head: bytes) -> bool:
    """Return True for the first bytes (21 or more) of a WebP with several pictures."""
    return head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and bool(head[20:21] and head[20] & 2)


_TIFF_COMPRESSIONS = (1, 5, 8, 32773, 32946)  # none, LZW, Deflate, PackBits; FFmpeg shows JPEG in wrong colours


def _tiff_compression(data: bytes) -> int:
    """Return the compression of the first picture, field 259 of TIFF 6.0; 1 if it is not stated."""
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
    place = int.from_bytes(data[4:8], order)
    for entry in range(int.from_bytes(data[place : place + 2], order)):
        field = data[place + 2 + 12 * entry : place + 14 + 12 * entry]
        if int.from_bytes(field[:2], order) == 259:
            return int.from_bytes(field[8:10], order)
    return 1


_MARKER = re.compile(rb"\xff+([^\xff\x00])", re.DOTALL)
_AFTER_SCAN = re.compile(rb"\xff+[^\xff\x00\xd0-\xd7]", re.DOTALL)  # neither a stuffed byte nor a restart


def _jpeg_end(data: bytes) -> int:
    """Return the place behind the end marker; beyond the data if there is none."""
    place = 2
    while (found := _MARKER.match(data, place)) is not None:
        marker, place = found[1][0], found.end()
        if marker == 0xD9:
            return place
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:
            continue
        place += int.from_bytes(data[place : place + 2], "big")
        if marker == 0xDA:
            following = _AFTER_SCAN.search(data, place)
            if following is None:
                return len(data) + 1
            place = following.start()
    last = data.find(b"\xff\xd9", place)  # between the segments is something that the decoder may skip
    return last + 2 if last >= 0 else len(data) + 1


def _png_end(data: bytes) -> int:
    place = 8
    while place + 8 <= len(data):
        size, kind = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        place += 12 + size
        if kind == b"IEND":
            return place
    return len(data) + (b"IEND" not in data)  # a damaged length is left to the decoder


def _webp_end(data: bytes) -> int:
    return 8 + int.from_bytes(data[4:8], "little")


def _bmp_end(data: bytes) -> int:
    size = int.from_bytes(data[2:6], "little")
    return size if size > 54 else len(data)  # some writers leave it 0


def _whole(data: bytes) -> int:
    return len(data)  # their decoders refuse a truncated one


class _Kind(NamedTuple):
    """start: of the content; decoder: FFmpeg's name; end: the place behind the image."""

    start: re.Pattern[bytes]
    decoder: str
    end: Callable[[bytes], int]


_KINDS = (
    _Kind(re.compile(rb"\xff\xd8"), "mjpeg", _jpeg_end),
    _Kind(re.compile(rb"\x89PNG"), "png", _png_end),
    _Kind(re.compile(rb"RIFF.{4}WEBP", re.DOTALL), "webp", _webp_end),
    _Kind(re.compile(rb"BM"), "bmp", _bmp_end),
    _Kind(re.compile(rb"II\*\0|MM\0\*"), "tiff", _whole),
    _Kind(re.compile(rb"P[14]\s"), "pbm", _whole),
    _Kind(re.compile(rb"P[25]\s"), "pgm", _whole),
    _Kind(re.compile(rb"P[36]\s"), "ppm", _whole),
)
